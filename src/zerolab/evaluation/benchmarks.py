"""The benchmarks by name, from a local folder or the hub, and the published rows of the paper's tables.

Any other question file is a benchmark under its own name. A published number gets the interval that its sample size
allows, or none.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from zerolab.config import QuestionSource
from zerolab.data.sources import open_source
from zerolab.datatypes import Question
from zerolab.errors import UserError
from zerolab.evaluation.intervals import Interval, clopper_pearson, weighted_interval

PAPER_BENCHMARKS = ("aime24", "amc", "math500", "minerva", "olympiadbench")
OTHER_NAMES = {"gsm8k": "gsm8k_test", "aime": "aime24", "math": "math500", "olympiad": "olympiadbench"}

Benchmarks = Mapping[str, Sequence[Question]]


def benchmark_names(text: str) -> list[str]:
    """Names of a comma-separated list; `paper` is the paper's five."""
    names = [name for part in text.split(",") if (name := part.strip())]
    names = [n for name in names for n in (PAPER_BENCHMARKS if name == "paper" else (OTHER_NAMES.get(name, name),))]
    if not names:
        raise UserError("--benchmarks names none: write aime24,math500, paper, or a question file")
    return list(dict.fromkeys(names))


def load_benchmarks(names: Sequence[str], data_dir: str | None = None, limit: int | None = None) -> Benchmarks:
    """The questions of each, the first `limit` of them. UserError where one is not there or malformed."""
    found: dict[str, list[Question]] = {}
    for path in names:
        name, questions = open_source(QuestionSource(path=path, limit=limit), data_dir)
        if not isinstance(questions, list):
            raise UserError(f"{path} is endless: set --limit")
        if name in found:
            raise UserError(f"--benchmarks has two sets called {name}: rename one of the files")
        found[name] = questions
    return found


FILE = Path(__file__).with_name("published.toml")
ROUNDING = 0.0501  # points: a printed number is rounded to a tenth


@dataclass(frozen=True)
class Row:
    """Scores in percent, by benchmark and "average". template None: the model's own, not named here."""

    name: str
    scores: Mapping[str, float]
    sizes: Mapping[str, int]
    template: str | None
    budget: int
    greedy: bool
    hub: tuple[str, ...] = ()
    note: str | None = None

    @property
    def title(self) -> str:
        parts = [self.template or "", "" if self.budget == 3000 else f"budget {self.budget}"]
        inside = ", ".join(part for part in parts if part)
        return f"{self.name} ({inside})" if inside else self.name

    def solved(self, benchmark: str) -> int | None:
        """Questions solved in one greedy pass; None where the number is no share of them."""
        if benchmark not in self.sizes or not self.greedy:
            return None
        size, score = self.sizes[benchmark], self.scores[benchmark]
        count = round(score * size / 100)
        return count if abs(100 * count / size - score) <= ROUNDING else None

    def interval(self, benchmark: str) -> Interval | None:
        """95 % for a population of such questions, as shares: Clopper-Pearson of one greedy pass, else None.

        The average has one where every benchmark has.
        """
        if benchmark == "average":
            parts = [self.interval(name) for name in self.sizes]
            known = [part for part in parts if part is not None]
            centres = [self.scores[name] / 100 for name in self.sizes]
            return weighted_interval(centres, known) if len(known) == len(parts) else None
        count = self.solved(benchmark)
        return None if count is None else clopper_pearson(count, self.sizes[benchmark])


@cache
def published() -> tuple[Row, ...]:
    raw = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return tuple(
        Row(
            row["name"],
            row["scores"],
            {**raw["sizes"], **({"amc": row["amc_questions"]} if "amc_questions" in row else {})},
            row.get("template"),
            row.get("budget", 3000),
            row.get("passes", "greedy") == "greedy",
            tuple(row.get("hub", ())),
            row.get("note"),
        )
        for row in raw["row"]
    )


def rows_of(model: str, template: str | None) -> list[Row]:
    """Published rows of a model by hub id or the last part of a path, under the same template where they name one."""

    def last(name: str) -> str:
        return name.rstrip("/").rsplit("/", 1)[-1].lower()

    found = [row for row in published() if last(model) in {last(name) for name in (*row.hub, row.name)}]
    return [row for row in found if row.template in (None, template)]


def rows_named(name: str) -> list[Row]:
    """Published rows whose title is or begins with this. Raises UserError where none does."""
    exact = [row for row in published() if row.title.lower() == name.lower()]
    found = exact or [row for row in published() if row.title.lower().startswith(name.lower())]
    if not found:
        titles = "; ".join(row.title for row in published())
        raise UserError(f"--published {name!r}: the paper has no such row; it has {titles}")
    return found
