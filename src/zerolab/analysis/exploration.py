"""Accuracy, pass@k and length of a base model's responses by template and temperature.

The best template's accuracy is the one that a gain by RL has to be compared with.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from zerolab.analysis.rates import SETTING, Cell, Rate, Setting, cells, rate, solved
from zerolab.analysis.result_table import Table
from zerolab.evaluation.intervals import Interval, population_interval, weighted_interval
from zerolab.evaluation.responses import Response
from zerolab.evaluation.score import pass_at_k


@dataclass(frozen=True)
class PassAtK:
    """pass@k of one setting; the interval (95 %) is for a population of such questions."""

    setting: Setting
    k: int
    value: float
    interval: Interval
    questions: int
    samples: int  # fewest of a question: k goes up to it


def exploration(responses: Sequence[Response], ks: Sequence[int] | None = None) -> list[PassAtK]:
    """pass@k of every setting, for `ks` or for 1, 2, 4, ... and n itself, n the fewest samples of any question."""
    found = []
    for cell in cells(responses):
        samples_Q = cell.samples_Q
        correct_Q = np.bincount(cell.question_N, cell.flags(solved).astype(float))
        most = int(samples_Q.min())
        for k in ks or powers(most):
            if k > most:
                continue
            pass_Q = pass_at_k(correct_Q, samples_Q, k)
            subsets_Q = np.maximum(1, samples_Q // k)  # a question has no more independent draws of k than that
            interval = population_interval(pass_Q * subsets_Q, subsets_Q)
            found.append(PassAtK(cell.setting, k, float(pass_Q.mean()), interval, len(pass_Q), most))
    return found


def powers(most: int) -> list[int]:
    """1, 2, 4, ... below `most`, and `most`."""
    ks = [1]
    while ks[-1] * 2 < most:
        ks.append(ks[-1] * 2)
    return [*ks, most] if most > 1 else ks


def exploration_table(found: Sequence[PassAtK]) -> Table:
    columns = (*SETTING, "k", "pass@k", "95 %", "questions", "samples")
    rows = tuple((*p.setting, p.k, p.value, p.interval, p.questions, p.samples) for p in found)
    note = "unbiased estimate, 1 - C(n-c, k) / C(n, k); intervals are for a population of such questions"
    title = "Exploration: pass@k"
    return Table("exploration", title, columns, rows, note, screen=_by_setting(title, found, note))


def _by_setting(title: str, found: Sequence[PassAtK], note: str) -> Table:
    """A row a setting, a column a k, the interval of the largest one."""
    ks = sorted({p.k for p in found})
    rows = []
    for setting in dict.fromkeys(p.setting for p in found):
        mine = {p.k: p for p in found if p.setting == setting}
        last = mine[max(mine)]
        values = (mine[k].value if k in mine else None for k in ks)
        rows.append((*setting, *values, last.interval, last.questions, last.samples))
    columns = (*SETTING, *(f"pass@{k}" for k in ks), "95 % of the last", "questions", "samples")
    return Table("exploration", title, columns, tuple(rows), note)


@dataclass(frozen=True)
class GridRow:
    """Accuracies of one setting: the unweighted mean over its benchmarks, and each of them."""

    setting: Setting
    strict: Rate  # right in the template's own format
    lenient: Rate  # right wherever the answer stands
    formatted: Rate
    truncated: Rate
    benchmarks: dict[str, Rate]  # strict
    best: bool  # the model's best row by strict accuracy, where it has several

    @property
    def gap(self) -> float | None:
        """Accuracy that the format alone costs."""
        if self.strict.value is None or self.lenient.value is None:
            return None
        return self.lenient.value - self.strict.value


def grid(responses: Sequence[Response]) -> list[GridRow]:
    """One row a setting. `best` is chosen on the very responses it is read from: see the note of the table."""
    found = [_row(cell) for cell in cells(responses)]
    best: dict[str, GridRow] = {}
    for row in found:
        value = row.strict.value or 0.0
        here = best.get(row.setting.model)
        if value > 0 and (here is None or value > (here.strict.value or 0.0)):
            best[row.setting.model] = row
    choice = Counter(row.setting.model for row in found)
    return [replace(row, best=best.get(row.setting.model) is row and choice[row.setting.model] > 1) for row in found]


def _row(cell: Cell) -> GridRow:
    names = list(dict.fromkeys(r.benchmark for r in cell.responses))
    parts = [Cell(cell.setting, tuple(r for r in cell.responses if r.benchmark == name)) for name in names]
    strict = [rate(part.flags(solved), part.question_N) for part in parts]

    def mean(of: Callable[[Response], bool]) -> Rate:
        return average([rate(part.flags(of), part.question_N) for part in parts])

    known = all(r.lenient is not None for r in cell.responses)
    lenient = mean(lambda r: bool(r.lenient and r.lenient.correct))
    formatted = mean(lambda r: bool(r.grade and r.grade.formatted))
    truncated = mean(lambda r: bool(r.truncated))
    if all(r.truncated is None for r in cell.responses):
        truncated = Rate(None, None, len(cell.responses))
    lenient = lenient if known else Rate(None, None, 0)
    benchmarks = dict(zip(names, strict, strict=True))
    return GridRow(cell.setting, average(strict), lenient, formatted, truncated, benchmarks, False)


def average(rates: Sequence[Rate]) -> Rate:
    """Unweighted mean over benchmarks, as in the paper's tables."""
    values = [r.value for r in rates if r.value is not None]
    intervals = [r.interval for r in rates if r.interval is not None]
    if not values:
        return Rate(None, None, 0)
    interval = intervals[0] if len(intervals) == 1 else weighted_interval(values, intervals)
    return Rate(sum(values) / len(values), interval, sum(r.responses for r in rates))


def grid_table(found: Sequence[GridRow]) -> Table:
    columns = (*SETTING, "strict", "95 %", "lenient", "format gap", "formatted", "truncated", "row")
    rows = []
    for row in found:
        numbers = (row.strict.value, row.strict.interval, row.lenient.value, row.gap, row.formatted.value)
        rows.append((*row.setting, *numbers, row.truncated.value, "best" if row.best else ""))
    note = "strict: right in the template's own format; lenient: the answer wherever it stands"
    if any(len(row.benchmarks) > 1 for row in found):
        note += "; both are unweighted means over benchmarks"
    if any(row.best for row in found):
        note += (
            ". best: the model's best row by strict accuracy. A gain by RL is a gain over this row; it was chosen on "
            "these responses, so it is a little too good"
        )
    return Table("grid", "Templates x models", columns, tuple(rows), note)


def benchmark_table(found: Sequence[GridRow]) -> Table:
    """Strict accuracy on every benchmark, in the layout of the paper's tables."""
    names = list(dict.fromkeys(name for row in found for name in row.benchmarks))
    rows = []
    for row in found:
        each = (row.benchmarks[name].value if name in row.benchmarks else None for name in names)
        rows.append((*row.setting, *each, row.strict.value))
    return Table("benchmarks", "Strict accuracy by benchmark", (*SETTING, *names, "average"), tuple(rows))


QUANTILES = (0.1, 0.5, 0.9)
KINDS = ("all", "correct", "wrong", "truncated")


@dataclass(frozen=True)
class Lengths:
    """Lengths of one kind of response. `unit` is tokens, or words where a file counts none."""

    setting: Setting
    kind: str  # one of KINDS; a truncated response is neither correct nor wrong
    unit: str
    lengths_N: np.ndarray
    share: float  # of all responses of the setting


def lengths(responses: Sequence[Response]) -> list[Lengths]:
    """By setting and kind; kinds without a response are left out."""
    return [part for cell in cells(responses) for part in _parts(cell)]


def _parts(cell: Cell) -> list[Lengths]:
    counted = all(r.tokens is not None for r in cell.responses)
    unit = "tokens" if counted else "words"
    length_N = np.array([r.tokens if counted else len(r.response.split()) for r in cell.responses], float)
    cut_N = cell.flags(lambda r: bool(r.truncated))
    right_N = cell.flags(lambda r: bool(r.grade and r.grade.correct))
    masks = (np.ones_like(cut_N), right_N & ~cut_N, ~right_N & ~cut_N, cut_N)
    return [
        Lengths(cell.setting, kind, unit, length_N[mask_N], float(mask_N.mean()))
        for kind, mask_N in zip(KINDS, masks, strict=True)
        if mask_N.any()
    ]


def lengths_table(found: Sequence[Lengths]) -> Table:
    columns = (*SETTING, "kind", "responses", "share", "mean", "10 %", "median", "90 %", "longest", "unit")
    rows = []
    for part in found:
        low, middle, high = (float(q) for q in np.quantile(part.lengths_N, QUANTILES))
        mean, most = float(part.lengths_N.mean()), float(part.lengths_N.max())
        count = len(part.lengths_N)
        rows.append((*part.setting, part.kind, count, part.share, mean, low, middle, high, most, part.unit))
    known = any(part.kind == "truncated" for part in found)
    note = "" if known else "no response is marked as truncated: either none was, or the file does not say"
    return Table("lengths", "Length by correctness and truncation", columns, tuple(rows), note)
