"""Templates x models: the accuracy that a gain by RL has to be read against is that of the best template."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from zerolab.analysis.cells import SETTING, Cell, Rate, Setting, cells, rate, solved
from zerolab.analysis.table import Table
from zerolab.evaluation.responses import Response
from zerolab.evaluation.statistics import weighted_interval


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
