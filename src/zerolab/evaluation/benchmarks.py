"""The benchmarks by name, from a local folder or the hub; any other question file is one under its own name."""

from collections.abc import Mapping, Sequence

from zerolab.config import QuestionSource
from zerolab.data.sources import open_source
from zerolab.errors import UserError
from zerolab.types import Question

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
