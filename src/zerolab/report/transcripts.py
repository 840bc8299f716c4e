"""The responses of any runs as columns: compact to embed, quick to filter.

A long run is thinned by whole groups, evenly over its steps, until it fits; `thinned` says by how much.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from zerolab.report.arms import ReportRun, is_number
from zerolab.rundir import TRANSCRIPTS, step_windows

MOST_BYTES = 250_000_000  # of all transcript files together; more and a browser takes long to read them
LONGEST_TEXT = 60_000  # characters of one response
CORRECT, TRUNCATED, FORMATTED, ENTERS = 1, 2, 4, 8  # bits of `flags`
BINS = 24
CLASSES = ("correct", "incorrect", "truncated")


def columns(runs: Sequence[ReportRun], most: int) -> dict[str, Any]:
    """Columns over at most `most` responses; `questions` and `words` are tables that other columns point into."""
    keep = _keep_every(runs, most)
    questions, words = _Table(), _Table()
    names = ("run", "step", "group", "question", "sample", "tokens", "reward", "flags", "reason", "extracted", "parts")
    found: dict[str, list[Any]] = {name: [] for name in (*names, "response")}
    for number, run in enumerate(runs):
        for _, group in _kept(run, keep):
            for row in group:
                for name, value in _cells(row, number, questions, words).items():
                    found[name].append(value)
    return {**found, "questions": questions.rows, "words": words.rows, "thinned": keep}


def histograms(found: dict[str, Any], last_steps: Mapping[int, int], budget: int) -> dict[str, Any]:
    """Counts of response lengths at the start and at the end of runs, by what became of the response.

    Args:
        found: what `columns` returns.
        last_steps: the last step of each run, by the run's number in `found`.
        budget: in tokens.

    Returns:
        `counts`, {window: {class: counts_of_BINS}}, and `edges` of the bins in tokens.
    """
    run_N, step_N, tokens_N, flags_N = (np.array(found[k], dtype=np.int64) for k in ("run", "step", "tokens", "flags"))
    top = max(budget, int(tokens_N.max(initial=1)))
    edges = np.unique(np.round(np.linspace(0, top, BINS + 1)).astype(int))
    truncated_N = (flags_N & TRUNCATED) > 0
    correct_N = ((flags_N & CORRECT) > 0) & ~truncated_N
    kinds = dict(zip(CLASSES, (correct_N, ~correct_N & ~truncated_N, truncated_N), strict=True))
    windows = {name: np.zeros(len(run_N), bool) for name in step_windows(1)}
    for run, last in last_steps.items():
        for name, (first, to) in step_windows(last).items():
            windows[name] |= (run_N == run) & (step_N >= first) & (step_N <= to)
    counts = {
        window: {
            kind: np.histogram(np.maximum(tokens_N[inside_N & chosen_N], 1) - 0.5, edges)[0].tolist()
            for kind, chosen_N in kinds.items()
        }
        for window, inside_N in windows.items()
    }
    return {"edges": edges.tolist(), "counts": counts}


class _Table:
    """Values by number of first appearance."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, key: Any, row: Any) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self.rows)
            self.rows.append(row)
        return self._numbers[key]


def _keep_every(runs: Sequence[ReportRun], most: int) -> int:
    """1 for all groups, k for every k-th."""
    files = [run.folder / TRANSCRIPTS for run in runs]
    files = [file for file in files if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    lines = sum(_lines(file) for file in files)
    return max(1, -(-lines // most), -(-size // MOST_BYTES))


def _lines(path: Any) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def _kept(run: ReportRun, keep: int) -> Iterator[tuple[Any, Iterator[dict[str, Any]]]]:
    groups = groupby(run.transcripts(), key=lambda row: (_int(row.get("step")), _int(row.get("group")), _id(row)))
    yield from (group for number, group in enumerate(groups) if number % keep == 0)


def _cells(row: dict[str, Any], run: int, questions: _Table, words: _Table) -> dict[str, Any]:
    prompt, text = _text(row.get("prompt")), _text(row.get("question"))
    answers = row.get("answers")
    gold = [_text(a) for a in answers] if isinstance(answers, list) else []
    question = {"id": _id(row), "text": text, "answers": gold, "prompt": prompt}
    reason = _text(row.get("reason")) or "?"
    extracted = row.get("extracted")
    flags = (
        CORRECT * (row.get("correct") is True)
        + TRUNCATED * (row.get("finish_reason") == "length")
        + FORMATTED * (row.get("formatted") is True)
        + ENTERS * (row.get("enters") is not False)
    )
    response = _text(row.get("response"))
    if len(response) > LONGEST_TEXT:
        response = f"{response[:LONGEST_TEXT]} [… {len(response) - LONGEST_TEXT} more characters]"
    return {
        "run": run,
        "step": _int(row.get("step")),
        "group": _int(row.get("group")),
        "question": questions.number((question["id"], prompt, text, tuple(gold)), question),
        "sample": _int(row.get("sample")),
        "tokens": _int(row.get("tokens")),
        "reward": round(float(row["reward"]), 4) if is_number(row.get("reward")) else None,
        "flags": flags,
        "reason": words.number(reason, reason),
        "extracted": None if extracted is None else _text(extracted)[:1000],
        "parts": _parts(row.get("parts")),
        "response": response,
    }


def _parts(value: Any) -> dict[str, Any] | None:
    """The terms of a reward; one alone says nothing beyond the reward itself."""
    if not isinstance(value, dict) or len(value) < 2:
        return None
    return {_text(name): term for name, term in value.items() if is_number(term)}


def _id(row: dict[str, Any]) -> str:
    return _text(row.get("question_id"))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _int(value: Any) -> int:
    return int(value) if is_number(value) else 0
