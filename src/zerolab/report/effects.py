"""Numbers of arms with an interval over seeds, for the report and for `zerolab sweep`.

Every number is the mean of a metric at the end of a run, as `rundir.WINDOWS` has it. One table has each arm, one each
arm minus the first, and one each arm minus its control, the latter two seed by seed. A control is a run of
`zerolab train RECIPE --control NAME`; its config names the run that it is matched to.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zerolab.evaluation.intervals import Interval, t_interval
from zerolab.report.arms import Arm, ReportRun, is_number
from zerolab.rundir import step_windows, window_mean

METRICS = {
    "accuracy": "accuracy",
    "eval/accuracy": "held-out accuracy",
    "length/mean": "length",
    "length/correct": "of correct",
    "length/incorrect": "of incorrect",
    "truncated": "truncated",
}


@dataclass(frozen=True)
class Effect:
    """One number of an arm, or its difference from another arm, by seed."""

    metric: str
    values: tuple[float, ...]  # by seed

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def interval(self) -> Interval | None:
        """Student's 95 % interval over seeds; None if they are too few."""
        found = t_interval(self.values)
        return None if math.isnan(found.low) else found


@dataclass(frozen=True)
class Effects:
    """The metrics of an arm. `over` is what was subtracted: the label of an arm, or --control NAME."""

    arm: str
    over: str
    seeds: int
    effects: tuple[Effect, ...]


def arm_means(arms: Sequence[Arm]) -> list[Effects]:
    """Every arm by itself."""
    return [_effects(arm.label, "", [[end(run, metric) for run in arm.runs] for metric in METRICS]) for arm in arms]


def over_first(arms: Sequence[Arm]) -> list[Effects]:
    """Every later arm minus the first one, over the seeds that both have; arms without such a seed are left out."""
    found = []
    for arm in arms[1:]:
        first = {str(run.seed): run for run in arms[0].runs}
        pairs = [(run, first[str(run.seed)]) for run in arm.runs if str(run.seed) in first]
        if pairs:
            found.append(_paired(arm.label, arms[0].label, pairs))
    return found


def over_controls(arms: Sequence[Arm]) -> list[Effects]:
    """Every arm with every control that was run for it, where both sides have logged the metric."""
    found = []
    for arm in arms:
        matched = {own_folder(run): run for run in arm.runs}
        for name, controls in _by_name(arms).items():
            pairs = [(matched[of], control) for of, control in controls if of in matched]
            if pairs:
                found.append(_paired(arm.label, name, pairs))
    return found


def unmatched(arms: Sequence[Arm]) -> list[str]:
    """Folders of controls whose matched run is not among these."""
    known = {own_folder(run) for arm in arms for run in arm.runs}
    pairs = [pair for controls in _by_name(arms).values() for pair in controls]
    return [control.folder.name for of, control in pairs if of not in known]


def own_folder(run: ReportRun) -> str:
    """The folder that the run was started with, wherever it lies now."""
    config = run.config
    return str(config.get("out") or f"runs/{config.get('name')}-seed{config.get('seed')}")


def _by_name(arms: Sequence[Arm]) -> Mapping[str, list[tuple[str, ReportRun]]]:
    """Control -> (folder of the matched run, control run)."""
    found: dict[str, list[tuple[str, ReportRun]]] = {}
    for arm in arms:
        for run in arm.runs:
            table: Any = run.config.get("control")
            if isinstance(table, dict) and isinstance(table.get("name"), str) and isinstance(table.get("run"), str):
                found.setdefault(table["name"], []).append((table["run"], run))
    return found


def _paired(arm: str, over: str, pairs: Sequence[tuple[ReportRun, ReportRun]]) -> Effects:
    """Differences of pairs of runs from the same seed."""
    return _effects(arm, over, [[end(a, metric) - end(b, metric) for a, b in pairs] for metric in METRICS])


def _effects(arm: str, over: str, table: Sequence[Sequence[float]]) -> Effects:
    """`table` has a row for each metric and a column for each seed, NaN where nothing was measured."""
    finite = [tuple(value for value in row if math.isfinite(value)) for row in table]
    found = tuple(Effect(metric, row) for metric, row in zip(METRICS, finite, strict=True) if row)
    return Effects(arm, over, len(table[0]), found)


def start(run: ReportRun, metric: str) -> float:
    """Mean of a metric at the start of the run, NaN if it was not measured."""
    return _mean(run, metric, "start")


def end(run: ReportRun, metric: str) -> float:
    """Mean of a metric at the end of what was logged, NaN if it was not measured."""
    return _mean(run, metric, "end")


def _mean(run: ReportRun, metric: str, window: str) -> float:
    rows = [(row["step"], row[metric]) for row in run.rows if is_number(row.get(metric))]
    return window_mean([step for step, _ in rows], [value for _, value in rows], step_windows(run.done)[window])


def as_table(rows: Sequence[Effects]) -> tuple[list[str], list[list[str]]]:
    """Heads of the metrics that any row has, and their cells: a mean with its interval, signed for differences."""
    known = [metric for metric in METRICS if any(effect.metric == metric for row in rows for effect in row.effects)]
    cells = []
    for row in rows:
        found = {effect.metric: effect for effect in row.effects}
        cells.append([_cell(found.get(metric), "+" if row.over else "") for metric in known])
    return [METRICS[metric] for metric in known], cells


def _cell(effect: Effect | None, sign: str) -> str:
    if effect is None:
        return ""
    form = f"{sign}.{3 if max(map(abs, effect.values)) < 10 else 1}f"
    interval = f" [{effect.interval.low:{form}}, {effect.interval.high:{form}}]" if effect.interval else ""
    return f"{effect.mean:{form}}{interval}"


def as_json(arms: Sequence[Arm]) -> dict[str, Any]:
    """What overview.js reads: the three tables, each with heads and rows of text, and controls without their run."""
    tables = {"arms": arm_means(arms), "first": over_first(arms), "controls": over_controls(arms)}
    found: dict[str, Any] = {"unmatched": unmatched(arms)}
    for name, rows in tables.items():
        heads, cells = as_table(rows)
        labels = [[row.arm, *([row.over] if row.over else []), row.seeds] for row in rows]
        found[name] = {"heads": heads, "rows": [[*a, *b] for a, b in zip(labels, cells, strict=True)]}
    return found
