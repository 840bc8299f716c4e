"""What the arms' metrics say: windows fixed in the recipe, a table, and sentences computed from the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zerolab.config import DemoConfig
from zerolab.report.curves import Runs, column

Window = tuple[float, float]  # mean over the first steps, mean over the last share


@dataclass(frozen=True)
class ArmSummary:
    """Windows of each metric for each seed of an arm."""

    name: str
    windows: Mapping[str, Sequence[Window]]
    tokens: Sequence[float]  # sampled in all, one number per seed

    def mean(self, metric: str) -> Window:
        """Mean over the seeds in which something was measured, NaN where in none."""
        starts, ends = ([v for v in values if np.isfinite(v)] for values in zip(*self.windows[metric], strict=True))
        return (float(np.mean(starts)) if starts else np.nan, float(np.mean(ends)) if ends else np.nan)

    def growth(self, metric: str) -> list[float]:
        """End minus start, for each seed."""
        return [end - start for start, end in self.windows[metric]]


PRESSURE = "bias/length_normaliser/incorrect"
IN_SENTENCES = ("accuracy", "eval/accuracy", "length/incorrect", "truncated", PRESSURE)


def window(rows: Sequence[Mapping[str, Any]], metric: str, config: DemoConfig) -> Window:
    """Means over the first `first_steps` and the last `last_share` of the steps; NaN where nothing was measured."""
    steps, values = column(rows, metric)
    last = max((row["step"] for row in rows), default=0)
    early, late = values[steps <= config.first_steps], values[steps > last * (1 - config.last_share)]
    return (float(early.mean()) if len(early) else np.nan, float(late.mean()) if len(late) else np.nan)


def summarise(config: DemoConfig, runs: Runs) -> list[ArmSummary]:
    return [
        ArmSummary(
            arm,
            {metric: [window(rows, metric, config) for rows in seeds] for metric in {*IN_SENTENCES, *config.metrics}},
            [sum(row.get("rollout/tokens") or 0 for row in rows) for rows in seeds],
        )
        for arm, seeds in runs.items()
    ]


def sentences(config: DemoConfig, arms: Sequence[ArmSummary]) -> list[str]:
    """What was and what was not seen, for the first arm against the second."""
    first, second = arms[0], arms[1]
    seeds = len(config.seeds)
    lines = [_length(first, second, seeds), *_pressure(first, second), _accuracy(first, second, seeds)]
    for arm in (first, second):
        start, end = arm.mean("truncated")
        lines.append(f"Truncated under {arm.name}: {start:.1%} of the responses at the start, {end:.1%} at the end.")
    tokens = [float(np.mean(arm.tokens)) for arm in (first, second)]
    lines.append(
        f"{first.name} sampled {tokens[0]:,.0f} tokens per run, {second.name} {tokens[1]:,.0f} "
        f"({tokens[0] / tokens[1]:.2f} times as many)."
    )
    lines.append(
        "The confidence marker is built into the base model's training text: this shows the mechanism in a "
        f"transformer, not how common it is. {seeds} seeds are too few for an interval."
    )
    return lines


def _length(first: ArmSummary, second: ArmSummary, seeds: int) -> str:
    metric = "length/incorrect"
    more = sum(a > b for a, b in zip(first.growth(metric), second.growth(metric), strict=True))
    moves = " and ".join("{} from {:.1f} to {:.1f} tokens".format(a.name, *a.mean(metric)) for a in (first, second))
    verdict = "seen" if more == seeds else "not seen" if more == 0 else "mixed"
    return (
        f"Length of incorrect answers, start to end: {moves}. It grew more under {first.name} in {more} of {seeds} "
        f"seeds: the length bias was {verdict}."
    )


def _pressure(first: ArmSummary, second: ArmSummary) -> list[str]:
    """The bias meter: what the weighting of the loss alone does to the length of incorrect answers."""
    ends = [arm.mean(PRESSURE)[1] for arm in (first, second)]
    if not np.isfinite(ends).all():
        return []
    return [
        f"Bias meter at the end (length pressure of the loss's own weights on incorrect answers, in reward x tokens): "
        f"{first.name} {ends[0]:+.2f}, {second.name} {ends[1]:+.2f}; 0 means that length earns nothing by itself."
    ]


def _accuracy(first: ArmSummary, second: ArmSummary, seeds: int) -> str:
    a, b = first.mean("accuracy")[1], second.mean("accuracy")[1]
    pairs = [x - y for (_, x), (_, y) in zip(first.windows["accuracy"], second.windows["accuracy"], strict=True)]
    side = "higher" if a > b else "lower"
    same = "in every seed" if len({np.sign(p) for p in pairs}) == 1 else "not in every seed"
    held_out = [arm.mean("eval/accuracy") for arm in (first, second)]
    points = f"{100 * abs(a - b):.1f} points {side}, {same}"
    text = f"Accuracy at the end: {first.name} {a:.3f}, {second.name} {b:.3f} ({points})."
    if not np.isnan(held_out).any():
        (a0, a1), (b0, b1) = held_out
        text += f" On held-out questions: {first.name} {a0:.3f} to {a1:.3f}, {second.name} {b0:.3f} to {b1:.3f}."
    return text
