"""`zerolab grade`: verdicts on recorded responses, a summary with reasons, a comparison with Math-Verify."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Generic, NamedTuple, TypeVar

from zerolab.datatypes import Grade
from zerolab.errors import UserError
from zerolab.grading import counts, grade_batch
from zerolab.grading.extract import MODES
from zerolab.grading.golds import GoldNotes, read_answers
from zerolab.grading.grader import check_golds, golds_of
from zerolab.grading.rules import RULES, Rules

T = TypeVar("T")
NAMES = {"question": "problem", "answers": "answer"}
BATCH, BATCH_CHARS = 4000, 2**24  # responses, or characters of them, that are in memory at once
LONGEST_NAME = 240  # bytes of a file's name; file systems take 255, and ".partial" is added
KINDS = 10_000  # different lines of disagreement that are told apart
SHOWN_LINES, SHOWN_ROWS = 20, 5  # of a list of disagreements: lines, and row numbers in each
MODE_SAMPLE = 200  # responses on which other modes are tried
MODE_GAIN = 0.1  # a mode is suggested if it would call so large a share of all responses right as well


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of each line, one at a time; a row has the keys problem, answer and responses, and its own.

    `question` may stand for problem, `answers` for answer, `response` for responses. Raises UserError, naming the line,
    on anything else.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a JSON Lines file")
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        empty = True
        for number, line in enumerate(lines, 1):
            if line.strip():
                empty = False
                yield f"{path}:{number}", _read_row(line, f"{path}:{number}")
    if empty:
        raise UserError(f"{path} is empty; nothing to grade")


def _read_row(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # not JSON, a number of thousands of digits, endless nesting
        why = getattr(error, "msg", type(error).__name__)
        raise UserError(f"{place}: not JSON ({why}); every line must be one object") from error
    if isinstance(row, dict):
        row = {**{ours: row[theirs] for theirs, ours in NAMES.items() if theirs in row}, **row}
    if not isinstance(row, dict) or "answer" not in row or not ({"response", "responses"} & row.keys()):
        raise UserError(f"{place}: needs the keys answer and response (or responses)")
    responses = row["responses"] if "responses" in row else [row["response"]]
    if not isinstance(responses, list) or not all(isinstance(r, str) for r in responses):
        raise UserError(f"{place}: responses must be a list of texts")
    return {**row, "responses": responses}


class Recorded(NamedTuple):
    """One response of the file to be graded."""

    number: int  # of its row
    response: str
    gold: tuple[str, ...]
    shown_gold: Any  # as the file has it
    score: bool | None  # the verdict that the file records


def run(
    path: Path,
    mode: str = "boxed",
    rules: str = "standard",
    verifier: str = "math",
    out: Path | None = None,
    compare: str | None = None,
) -> str:
    """Grade a file, write FILE.graded.jsonl (or `out`), return the summary. Raises UserError on bad input.

    Rows are read, graded and written a batch at a time: memory does not grow with the file.
    """
    if rules not in RULES:
        raise UserError(f"unknown rules {rules!r}; choose one of {', '.join(RULES)}")
    if compare not in (None, "math-verify"):
        raise UserError(f"cannot compare with {compare!r}; choose math-verify")
    out = out or path.with_name(path.stem + ".graded.jsonl")
    if not os.access(out.parent, os.W_OK) or os.path.isdir(out) or len(os.fsencode(out.name)) > LONGEST_NAME:
        raise UserError(f"cannot write {out}: choose another file with --out")
    summary = Summary(MathVerify() if compare else None)
    notes = GoldNotes()
    partial = out.with_name(out.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as verdicts:
            for batch in _batches(read_rows(path)):
                _grade_rows(batch, mode, verifier, RULES[rules], notes, summary, verdicts)
        partial.replace(out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another file with --out") from error
    finally:
        partial.unlink(missing_ok=True)
    notes.tell()
    return summary.text(mode, verifier, RULES[rules]) + f"\nverdicts: {out}"


def _batches(rows: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[list[tuple[int, str, dict[str, Any]]]]:
    """(number, place, row) of each row, in lists of about BATCH responses or BATCH_CHARS characters."""
    batch, responses, characters = [], 0, 0
    for number, (place, row) in enumerate(rows, 1):
        batch.append((number, place, row))
        responses += len(row["responses"])
        characters += sum(map(len, row["responses"]))
        if responses >= BATCH or characters >= BATCH_CHARS:
            yield batch
            batch, responses, characters = [], 0, 0
    if batch:
        yield batch


def _grade_rows(
    rows: list[tuple[int, str, dict[str, Any]]],
    mode: str,
    verifier: str,
    rules: Rules,
    notes: GoldNotes,
    summary: "Summary",
    verdicts: IO[str],
) -> None:
    """Grade a batch of rows, write its verdicts and add them to the summary."""
    recorded: list[Recorded] = []
    for number, place, row in rows:
        gold = read_row_gold(row, place, verifier, notes)
        scores = row.get("scores")
        if not isinstance(scores, list) or len(scores) != len(row["responses"]):
            scores = [None] * len(row["responses"])
        for response, score in zip(row["responses"], scores, strict=True):
            recorded.append(Recorded(number, response, gold, row["answer"], None if score is None else bool(score)))
    grades = grade_batch(
        [r.response for r in recorded], [r.gold for r in recorded], mode, verifier=verifier, rules=rules
    )
    summary.add(recorded, grades)
    left = iter(grades)
    for _, _, row in rows:
        found = [next(left) for _ in row["responses"]]
        graded = {
            "problem": row.get("problem"),
            "answer": row["answer"],
            "correct": [g.correct for g in found],
            "reason": [g.reason for g in found],
            "extracted": [g.extracted for g in found],
        }
        verdicts.write(json.dumps(graded) + "\n")


def read_row_gold(row: dict[str, Any], place: str, verifier: str, notes: GoldNotes) -> tuple[str, ...]:
    """The alternatives of a row's answer. Raises UserError, with the place, for one that no response could equal."""
    if verifier == "math":
        gold = read_answers(row["answer"], place, notes)
    else:
        try:
            gold = golds_of(row["answer"])
            check_golds(gold, verifier)
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
    if isinstance(problem := row.get("problem"), str) and problem:
        notes.see(problem, gold, place)
    return gold


class Summary:
    """Counts over all responses of a file, whose memory does not grow with it."""

    def __init__(self, peer: "MathVerify | None" = None) -> None:
        self.total = self.formatted = self.scored = self.failed = 0
        self.reasons: Counter[str] = Counter()
        self.disagreements = LineGroups()  # with the recorded verdicts
        self.not_right: EvenSample[Recorded] = EvenSample(MODE_SAMPLE)
        self.peer = peer

    def add(self, recorded: Sequence[Recorded], grades: Sequence[Grade]) -> None:
        for item, g in zip(recorded, grades, strict=True):
            self.total += 1
            self.formatted += g.formatted
            self.reasons[g.reason] += 1
            if not g.correct:
                self.not_right.add(item)
            if item.score is not None:
                self.scored += 1
                if item.score != g.correct:
                    here = f"here {g.correct} ({g.reason}): {_short(g.extracted)}, gold {_short(item.shown_gold)}"
                    self.disagreements.add(f"recorded {item.score}, {here}", item.number)
            if self.peer:
                self.peer.add(item, g)

    def text(self, mode: str, verifier: str, rules: Rules) -> str:
        reasons, total = self.reasons, self.total
        lines = [f"{total} responses, {self.formatted} in the format, {reasons['correct']} correct"]
        lines.append(f"accuracy {reasons['correct'] / total:.4f}" if total else "accuracy -")
        lines += [f"  {name:<12} {reasons[name]}" for name in ("correct", "wrong", "unformatted", "timeout", "error")]
        lines.append("decided by: " + ", ".join(f"{why} {n}" for why, n in counts().most_common()))
        if reasons["timeout"]:
            lines.append(f"not reproducible: {reasons['timeout']} verdicts hit a deadline")
        if total and self.scored == total:
            lines.append(f"recorded verdicts: {total - self.disagreements.count} of {total} agree")
            lines += self.disagreements.lines()
        if hint := suggest_mode(self.not_right, total, mode, verifier, rules):
            lines.append(hint)
        if self.peer:
            lines += ["", *self.peer.lines(total)]
        return "\n".join(lines)


class LineGroups:
    """Equal lines become one, with the numbers of their rows; the most frequent come first."""

    def __init__(self) -> None:
        self.count = 0
        self.rows: dict[str, list[int]] = {}  # the first SHOWN_ROWS numbers
        self.counts: Counter[str] = Counter()

    def add(self, line: str, number: int) -> None:
        self.count += 1
        if line not in self.counts and len(self.counts) >= KINDS:
            return
        self.counts[line] += 1
        numbers = self.rows.setdefault(line, [])
        if len(numbers) < SHOWN_ROWS:
            numbers.append(number)

    def lines(self) -> list[str]:
        ordered = self.counts.most_common()
        shown = [f"  {line} ({_rows(self.rows[line], count)})" for line, count in ordered[:SHOWN_LINES]]
        left = self.count - sum(count for _, count in ordered[:SHOWN_LINES])
        kinds = f"{len(ordered) - SHOWN_LINES}{' or' * (len(ordered) >= KINDS)}"
        return shown + ([f"  and {left} more responses in {kinds} more lines"] if left else [])


def _rows(numbers: list[int], count: int) -> str:
    named = ", ".join(map(str, numbers))
    more = f" and {count - len(numbers)} more" if count > len(numbers) else ""
    return f"row{'s' * (count > 1)} {named}{more}"


class EvenSample(Generic[T]):
    """Every k-th of the items so far, k a power of 2; between `size` and twice as many are kept."""

    def __init__(self, size: int) -> None:
        self.size, self.stride, self.seen = size, 1, 0
        self.kept: list[T] = []

    def add(self, item: T) -> None:
        if self.seen % self.stride == 0:
            self.kept.append(item)
        self.seen += 1
        if len(self.kept) > 2 * self.size:
            self.kept, self.stride = self.kept[::2], 2 * self.stride

    def evenly(self) -> list[T]:
        """At most `size` of them."""
        size = min(self.size, len(self.kept))
        return [self.kept[i * len(self.kept) // size] for i in range(size)]


def _short(value: Any) -> str:
    return "no answer" if value is None else f"{value!r:.40}"


def suggest_mode(not_right: EvenSample[Recorded], total: int, mode: str, verifier: str, rules: Rules) -> str:
    """Return a line that names the mode under which many more responses would be right; empty if there is none.

    Other modes are tried on an evenly spaced sample of the responses that are not right.
    """
    failed = not_right.seen
    if not failed or failed < MODE_GAIN * total:
        return ""
    sample = not_right.evenly()
    texts, golds = [r.response for r in sample], [r.gold for r in sample]
    shares = {}
    for other in MODES:
        if other != mode:
            found = grade_batch(texts, golds, other, verifier=verifier, rules=rules)
            shares[other] = sum(g.correct for g in found) / len(sample)
    best = max(shares, key=lambda name: shares[name])  # of equal ones the first, which is the strictest
    if shares[best] * failed < MODE_GAIN * total:
        return ""
    return (
        f"warning: {failed} of {total} responses are not right under --mode {mode}; about "
        f"{shares[best]:.0%} of these are right under --mode {best}: choose the mode that the prompts asked for"
    )


class MathVerify:
    """The responses on which Math-Verify (an optional extra) decides otherwise."""

    def __init__(self) -> None:
        try:
            import math_verify
        except ImportError as error:
            raise UserError('math-verify is not installed; run pip install "zerolab[math-verify]"') from error
        self.library = math_verify
        self.found = LineGroups()

    def add(self, item: Recorded, mine: Grade) -> None:
        answer = self.library.parse(item.response)
        boxes = [self.library.parse(rf"\boxed{{{gold.strip()}}}") for gold in item.gold]
        theirs = any(self.library.verify(box, answer) for box in boxes)
        if theirs != mine.correct:
            shown = f"{str(mine.extracted)[:34]!r:<36} {str(item.shown_gold)[:40]!r}"
            self.found.add(f"{mine.correct!s:<8} {theirs!s:<8} {shown}", item.number)

    def lines(self, total: int) -> list[str]:
        head = ["disagreements with math-verify:", f"  {'here':<8} {'there':<8} {'extracted':<36} gold"]
        return [*head, *self.found.lines(), f"  {self.found.count} of {total}"]
