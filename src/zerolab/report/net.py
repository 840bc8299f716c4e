"""Effects net of controls: an arm minus the control that `zerolab train RECIPE --control NAME` ran from the same seed.

A control's config names the run that it is matched to. Compared is the mean of a metric over the last third of the
steps, seed by seed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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
FEWEST = 3  # seeds below which there is no interval
LEVEL = 0.95


@dataclass(frozen=True)
class Net:
    """One number of an arm minus that of its control. The interval is Student's over seeds, None where they are few."""

    metric: str
    values: tuple[float, ...]  # by seed

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        if len(self.values) < FEWEST:
            return None
        from scipy import stats

        error = float(np.std(self.values, ddof=1)) / math.sqrt(len(self.values))
        half = float(stats.t.isf((1 - LEVEL) / 2, len(self.values) - 1)) * error
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class NetOfControl:
    arm: str
    control: str  # as in --control NAME
    seeds: int
    effects: tuple[Net, ...]


def nets(arms: Sequence[Arm]) -> list[NetOfControl]:
    """Every arm with every control that was run for it, where both sides have logged the metric."""
    found = []
    for arm in arms:
        matched = {own_folder(run): run for run in arm.runs}
        for name, controls in _by_name(arms).items():
            pairs = [(matched[of], control) for of, control in controls if of in matched]
            if pairs:
                effects = tuple(net for metric in METRICS if (net := _net(metric, pairs)) is not None)
                found.append(NetOfControl(arm.label, name, len(pairs), effects))
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


def _net(metric: str, pairs: Sequence[tuple[ReportRun, ReportRun]]) -> Net | None:
    differences = [end(arm, metric) - end(control, metric) for arm, control in pairs]
    finite = tuple(d for d in differences if math.isfinite(d))
    return Net(metric, finite) if finite else None


def end(run: ReportRun, metric: str) -> float:
    """Mean of a metric at the end of what was logged, NaN where it was not measured."""
    rows = [(row["step"], row[metric]) for row in run.rows if is_number(row.get(metric))]
    return window_mean([step for step, _ in rows], [value for _, value in rows], step_windows(run.done)["end"])


def as_json(arms: Sequence[Arm]) -> dict[str, Any]:
    """What overview.js reads: one row per arm and control, cells as text."""
    rows = nets(arms)
    known = [metric for metric in METRICS if any(net.metric == metric for row in rows for net in row.effects)]
    return {
        "heads": [METRICS[metric] for metric in known],
        "rows": [
            [row.arm, row.control, row.seeds, *(_cell({n.metric: n for n in row.effects}.get(m)) for m in known)]
            for row in rows
        ],
        "unmatched": unmatched(arms),
    }


def _cell(net: Net | None) -> str:
    if net is None:
        return ""
    digits = 3 if max(map(abs, net.values)) < 10 else 1
    shown = f"{net.mean:+.{digits}f}"
    return shown + (f" [{net.interval[0]:+.{digits}f}, {net.interval[1]:+.{digits}f}]" if net.interval else "")
