"""Read, write and grade recorded responses, which every evaluation, comparison and analysis starts from.

The format is JSON Lines, one response a line. `zerolab evaluate` writes all keys of `Response`. A file from elsewhere
needs a problem, an answer, and a response or a list of responses (docs/evaluation.md). Grades are strict and lenient,
side by side, and are computed on all cores.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

from zerolab.datatypes import Grade
from zerolab.errors import UserError
from zerolab.grading import extract, grade_batch, warm
from zerolab.grading.command import read_row_gold, read_rows
from zerolab.grading.extract import MENTION, NAMES_ARE_ANSWERS
from zerolab.grading.golds import GoldNotes
from zerolab.grading.rules import STANDARD, Rules
from zerolab.rundir import write_atomically

RESPONSES = "responses.jsonl"


class Key(NamedTuple):
    benchmark: str
    question_id: str
    sample: int


@dataclass(frozen=True, slots=True)
class Response:
    """One response to a question. None or "" where a file does not say."""

    benchmark: str
    question_id: str
    problem: str
    answers: tuple[str, ...]  # alternatives
    sample: int
    response: str
    tokens: int | None = None
    finish_reason: str | None = None  # stop, length
    grade: Grade | None = None  # in the template's own format
    lenient: Grade | None = None  # the answer wherever it stands
    model: str = ""
    template: str = ""
    temperature: float | None = None
    budget: int | None = None  # tokens it was allowed
    seed: int | None = None
    verifier: str = "math"
    cuts: tuple[int, ...] = ()  # characters of the text after every sampler.CUT_TOKENS tokens

    @property
    def key(self) -> Key:
        return Key(self.benchmark, self.question_id, self.sample)

    @property
    def truncated(self) -> bool | None:
        return None if self.finish_reason is None else self.finish_reason == "length"

    def row(self) -> dict[str, Any]:
        """As a line of the file; `zerolab grade` can read it."""
        row: dict[str, Any] = {
            "benchmark": self.benchmark,
            "question_id": self.question_id,
            "problem": self.problem,
            "answer": list(self.answers),
            "sample": self.sample,
            "response": self.response,
            "tokens": self.tokens,
            "finish_reason": self.finish_reason,
            "model": self.model,
            "template": self.template,
            "temperature": self.temperature,
            "budget": self.budget,
            "seed": self.seed,
            "verifier": self.verifier,
            "cuts": list(self.cuts),
        }
        for prefix, grade in (("", self.grade), ("lenient_", self.lenient)):
            if grade is not None:
                for name in ("correct", "formatted", "reason", "extracted"):
                    row[prefix + name] = getattr(grade, name)
        return row


def text_id(problem: str) -> str:
    """Identity of a question by its words; spaces do not count."""
    return hashlib.blake2b(" ".join(problem.split()).encode(errors="surrogatepass"), digest_size=6).hexdigest()


def read_responses(path: Path) -> list[Response]:
    """Responses of a file, or of the folder of an evaluation, ours or somebody else's.

    Without a question id, equal problems are one question and its samples are numbered in file order; without a
    benchmark, the file's name stands for it. A list of responses may have lists of tokens and finish reasons beside it.
    Raises UserError, with file and line, for what cannot be read.
    """
    file = path / RESPONSES if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise UserError(f"{path} holds no {RESPONSES}: give the folder of an evaluation, or a file of responses")
    seen: Counter[tuple[str, str]] = Counter()
    found: list[Response] = []
    notes = GoldNotes()
    for place, row in read_rows(file):
        found += _responses(row, place, file.stem, seen, notes)
    notes.tell()
    _refuse_repeats(found, file)
    return found


def _responses(
    row: dict[str, Any], place: str, stem: str, seen: Counter[tuple[str, str]], notes: GoldNotes
) -> list[Response]:
    texts: list[str] = row["responses"]
    problem = row.get("problem") or ""
    if not isinstance(problem, str):
        raise UserError(f"{place}: the problem must be text, not {type(problem).__name__}")
    question_id = row.get("question_id", row.get("id"))
    question_id = text_id(problem or json.dumps(row["answer"])) if question_id is None else str(question_id)
    benchmark = str(row.get("benchmark") or row.get("source") or stem)
    columns: dict[str, list[Any]] = {
        "tokens": _column(row, ("tokens", "lengths", "length"), len(texts), int, place),
        "finish_reason": _column(row, ("finish_reason", "finish_reasons"), len(texts), str, place),
    }
    common: dict[str, Any] = {
        "model": str(row.get("model") or ""),
        "template": str(row.get("template") or ""),
        "temperature": _number(row, "temperature", place),
        "budget": _integer(row, "budget", place),
        "seed": _integer(row, "seed", place),
        "verifier": str(row.get("verifier") or "math"),
        "cuts": tuple(row.get("cuts") or ()) if len(texts) == 1 else (),
        "grade": _grade(row, "") if len(texts) == 1 else None,
        "lenient": _grade(row, "lenient_") if len(texts) == 1 else None,
    }
    answers = read_row_gold(row, place, common["verifier"], notes)
    made = []
    for i, text in enumerate(texts):
        sample = row["sample"] if isinstance(row.get("sample"), int) and len(texts) == 1 else None
        sample = seen[benchmark, question_id] if sample is None else sample
        seen[benchmark, question_id] += 1
        own = {name: column[i] for name, column in columns.items()}
        made.append(Response(benchmark, question_id, problem, answers, sample, text, **own, **common))
    return made


def _column(row: dict[str, Any], names: Sequence[str], size: int, kind: type, place: str) -> list[Any]:
    """One value a response: a list of them, or a single one where there is a single response."""
    value = next((row[name] for name in names if row.get(name) is not None), None)
    if value is None:
        return [None] * size
    values = value if isinstance(value, list) else [value]
    if len(values) != size or not all(isinstance(v, kind | None) and not isinstance(v, bool) for v in values):
        raise UserError(f"{place}: {names[0]} must be {size} value{'s' * (size > 1)} of kind {kind.__name__}")
    return values


def _number(row: dict[str, Any], name: str, place: str) -> float | None:
    value = row.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise UserError(f"{place}: {name} must be a number")
    return None if value is None else float(value)


def _integer(row: dict[str, Any], name: str, place: str) -> int | None:
    value = row.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise UserError(f"{place}: {name} must be an integer")
    return value


def _grade(row: dict[str, Any], prefix: str) -> Grade | None:
    correct, reason = row.get(prefix + "correct"), row.get(prefix + "reason")
    if not isinstance(correct, bool) or not isinstance(reason, str):
        return None
    formatted, extracted = bool(row.get(prefix + "formatted")), row.get(prefix + "extracted")
    return Grade(correct, formatted, reason, extracted if isinstance(extracted, str) else None)  # type: ignore[arg-type]


def _refuse_repeats(found: Sequence[Response], file: Path) -> None:
    if repeated := [key for key, count in Counter(r.key for r in found).items() if count > 1]:
        key = repeated[0]
        raise UserError(f"{file}: sample {key.sample} of question {key.question_id} stands there twice: remove one")


class ResponseFile:
    """The growing file of an evaluation. What a kill cut short is cut off when it is opened again."""

    def __init__(self, path: Path):
        self.path = path
        self.found = self._whole_lines() if path.exists() else []
        self._file: IO[str] | None = None

    def __enter__(self) -> ResponseFile:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, response: Response) -> None:
        """Writes one line and hands it to the operating system. Raises UserError where the disk is full."""
        assert self._file is not None
        try:
            self._file.write(json.dumps(response.row()) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}; free space and start again") from error
        self.found.append(response)

    def _whole_lines(self) -> list[Response]:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        return read_responses(self.path) if whole.strip() else []


def write_responses(path: Path, responses: Iterable[Response]) -> None:
    """All of them at once, in place of what was there: whole or not at all."""
    write_atomically(path, "".join(json.dumps(r.row()) + "\n" for r in responses))


def with_grades(response: Response, grade: Grade, lenient: Grade) -> Response:
    return replace(response, grade=grade, lenient=lenient)


BATCH = 4000
LENIENT = "any"
WARM_FROM = 64  # responses from which the grader's worker is started ahead of need


def grade_responses(
    responses: Sequence[Response],
    extractor: str | Callable[[Response], str],
    rules: Rules = STANDARD,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Response]:
    """The same responses with both verdicts, in order. `extractor` is the strict mode: where the template wants it.

    Lenient: the answer in any known form. What the strict mode calls right is right leniently too.
    """
    mode = extractor if callable(extractor) else lambda response: extractor
    if len(responses) >= WARM_FROM:
        warm()
    graded: list[Response] = []
    for (strict, verifier), batch in _batches(responses, mode):
        texts, golds = [r.response for r in batch], [r.answers for r in batch]
        exact = [_untimed(g) for g in grade_batch(texts, golds, strict, verifier=verifier, rules=rules)]
        loose_mode = MENTION if verifier in NAMES_ARE_ANSWERS else LENIENT
        # Only another answer than the strict one can have another verdict.
        other = [
            i
            for i, g in enumerate(exact)
            if not g.correct and extract(texts[i], loose_mode, verifier) not in (g.extracted, None)
        ]
        loose = grade_batch(
            [texts[i] for i in other], [golds[i] for i in other], loose_mode, verifier=verifier, rules=rules
        )
        found = dict(zip(other, map(_untimed, loose), strict=True))
        graded += [
            replace(response, grade=grade, lenient=found.get(i, grade))
            for i, (response, grade) in enumerate(zip(batch, exact, strict=True))
        ]
        progress(len(graded))
    return graded


def _batches(
    responses: Sequence[Response], mode: Callable[[Response], str]
) -> Iterator[tuple[tuple[str, str], list[Response]]]:
    for key, run in groupby(responses, lambda response: (mode(response), response.verifier)):
        members = list(run)
        for start in range(0, len(members), BATCH):
            yield key, members[start : start + BATCH]


def _untimed(grade: Grade) -> Grade:
    """Without milliseconds, so that the same response has the same verdict, to the letter."""
    return replace(grade, milliseconds=0.0)
