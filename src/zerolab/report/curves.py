"""Two figures of any runs side by side, each a PNG with its CSV: the paper's five curves, and the bias meter.

The bias meter shows where length pressure comes from, what a question counts for, and what clipping, budget and
importance bounds take from long responses. docs/bias_meter.md says how to read it.
"""

import csv
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from zerolab.rl.bias_meter import PASS_RATES, QUARTERS
from zerolab.rundir import step_windows, window_mean

PANELS = (
    ("reward/mean", "reward"),
    ("length/mean", "response length"),
    ("length/correct", "length of correct"),
    ("length/incorrect", "length of incorrect"),
    ("eval/accuracy", "held-out accuracy"),
)
# What the question of the paper is about, for a figure that is shown small.
HEADLINE = (
    ("length/incorrect", "length of incorrect, tokens"),
    ("length/correct", "length of correct, tokens"),
    ("eval/accuracy", "held-out accuracy"),
)
NAMES = tuple(name for name, _ in PANELS)
COLOURS = ("#c44e52", "#4c72b0", "#55a868", "#8172b3", "#ccb974", "#64b5cd", "#da8bc3", "#8c8c8c")
SMOOTH = 10  # steps of the running mean drawn on top of the raw curve

Runs = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]  # arm -> seeds -> rows of metrics.jsonl


def column(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of the rows in which a metric was measured."""
    pairs = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return np.array([s for s, _ in pairs], dtype=float), np.array([v for _, v in pairs], dtype=float)


def write_csv(path: Path, runs: Runs, names: Sequence[str] = NAMES) -> None:
    """One line per arm, seed index and step with these metrics; empty where not measured."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", "run", "step", *names])
        for arm, seeds in runs.items():
            for number, rows in enumerate(seeds):
                for row in rows:
                    writer.writerow([arm, number, row["step"], *("" if row.get(n) is None else row[n] for n in names)])


def draw(path: Path, runs: Runs, title: str, panels: Sequence[tuple[str, str]] = PANELS, size: int = 10) -> None:
    """Thin lines: single runs. Thick line: mean of the runs, smoothed over a few steps. Text has `size` points."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": size, "axes.titlesize": size + 2})
    width = 0.34 * size * len(panels)
    figure, axes = plt.subplots(1, len(panels), figsize=(width, 0.32 * size), constrained_layout=True)
    for axis, (name, label) in zip(axes, panels, strict=True):
        for colour, (arm, seeds) in zip(cycle(COLOURS), runs.items(), strict=False):
            draw_arm(axis, arm, colour, [column(rows, name) for rows in seeds])
        axis.set_ylim(0, max(1.0, axis.get_ylim()[1]))
        axis.set_title(label)
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
    axes[0].legend(frameon=False)
    figure.suptitle(title, fontsize=size + 1)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    plt.rcdefaults()


def draw_arm(axis: Any, arm: str, colour: str, curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Every run of an arm as a thin line, their mean as a thick one."""
    curves = [(steps, values) for steps, values in curves if len(steps)]
    for steps, values in curves:
        axis.plot(steps, values, color=colour, linewidth=0.6, alpha=0.35)
    if curves:
        steps, mean = _mean_curve(curves)
        axis.plot(steps, mean, color=colour, linewidth=2, label=arm)


def _mean_curve(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean over runs at the steps that all of them measured, then a running mean over dense curves."""
    common = sorted(set.intersection(*(set(steps) for steps, _ in curves)))
    tables = [dict(zip(steps, values, strict=True)) for steps, values in curves]
    mean = np.array([np.mean([table[s] for table in tables]) for s in common])
    if len(mean) >= 4 * SMOOTH:
        half = SMOOTH // 2
        mean = np.array([mean[max(0, i - half) : i + half + 1].mean() for i in range(len(mean))])
    return np.array(common), mean


PARTS = (("reward", "what pays"), ("normaliser", "what the loss adds"))
KINDS = ("all", "correct", "incorrect")
BY_PASS_RATE = (("bias/question_weight", "weight of a question"), ("bias/question_share", "share of all advantage"))
BY_LENGTH = (
    ("bias/clipped", "clipped tokens"),
    ("bias/truncated", "truncated responses"),
    ("mismatch/removed", "importance weight removed"),
)
BIAS_NAMES = (
    *(f"bias/length_{part}/{kind}" for part, _ in PARTS for kind in KINDS),
    *(f"{prefix}/{name}" for prefix, _ in BY_PASS_RATE for name in PASS_RATES),
    *(f"{prefix}/{name}" for prefix, _ in BY_LENGTH for name in QUARTERS),
)


def has_bias(runs: Runs) -> bool:
    """Whether any run logged the decomposition."""
    return any(
        row.get(name) is not None for seeds in runs.values() for rows in seeds for row in rows for name in BIAS_NAMES
    )


def write_bias(path: Path, runs: Runs, title: str) -> None:
    """The figure at `path`, and the numbers behind it beside it, as .csv."""
    write_csv(path.with_suffix(".csv"), runs, BIAS_NAMES)
    draw_bias(path, runs, title)


def draw_bias(path: Path, runs: Runs, title: str) -> None:
    """Left: pressure by part (rows) and kind of response (columns) on one scale, thin lines are single runs. Right:
    means over the runs and the end of each; a whisker reaches from the lowest to the highest run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    bars = [
        *((p, t, PASS_RATES) for p, t in BY_PASS_RATE),
        *((p, t, QUARTERS) for p, t in BY_LENGTH if measured(p, runs)),
    ]
    wide = len(KINDS) + (len(bars) + 1) // 2
    figure, axes = plt.subplots(2, wide, figsize=(3.2 * wide, 5.6), constrained_layout=True, squeeze=False)
    for row, (part, meaning) in enumerate(PARTS):
        for kind, axis in zip(KINDS, axes[row], strict=False):
            _pressure(axis, f"bias/length_{part}/{kind}", runs)
            axis.set_title(f"{kind}: {meaning}", fontsize=10)
    _one_scale(axes[:, : len(KINDS)].flatten())
    places = axes[:, len(KINDS) :].T.flatten()
    for axis, (prefix, heading, names) in zip(places, bars, strict=False):
        _bars(axis, prefix, names, runs)
        axis.set_title(heading, fontsize=10)
        axis.set_xlabel("pass rate, %" if names is PASS_RATES else "length, % of the budget")
    for axis in places[len(bars) :]:
        axis.axis("off")
    axes[0][0].set_ylabel("length pressure: reward part")
    axes[1][0].set_ylabel("normaliser part")
    keys = [plt.Line2D([], [], color=colour, label=arm) for colour, arm in zip(cycle(COLOURS), runs, strict=False)]
    axes[0][0].legend(handles=keys, frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def measured(prefix: str, runs: Runs) -> bool:
    names = PASS_RATES if prefix.startswith("bias/question") else QUARTERS
    return any(len(column(rows, f"{prefix}/{n}")[0]) for seeds in runs.values() for rows in seeds for n in names)


def last_means(prefix: str, names: Sequence[str], seeds: Sequence[Any]) -> np.ndarray:
    """Means at the end of the runs, (runs, names); NaN where nothing was measured."""
    means = np.full((len(seeds), len(names)), np.nan)
    for i, rows in enumerate(seeds):
        end = step_windows(max((row["step"] for row in rows), default=0))["end"]
        for j, name in enumerate(names):
            means[i, j] = window_mean(*column(rows, f"{prefix}/{name}"), end)
    return means


def _pressure(axis: Any, name: str, runs: Runs) -> None:
    for colour, (arm, seeds) in zip(cycle(COLOURS), runs.items(), strict=False):
        draw_arm(axis, arm, colour, [column(rows, name) for rows in seeds])
    axis.axhline(0, color="black", linewidth=0.8)
    axis.grid(alpha=0.25)
    axis.set_xlabel("step")


def _one_scale(axes: Any) -> None:
    low, high = (f(axis.get_ylim()[i] for axis in axes) for i, f in ((0, min), (1, max)))
    for axis in axes:
        axis.set_ylim(low, high)


def _bars(axis: Any, prefix: str, names: Sequence[str], runs: Runs) -> None:
    width = 0.8 / len(runs)
    for number, (colour, seeds) in enumerate(zip(cycle(COLOURS), runs.values(), strict=False)):
        means = last_means(prefix, names, seeds)
        for place, values in enumerate(means.T):
            values = values[np.isfinite(values)]
            if len(values):
                x = place + (number - (len(runs) - 1) / 2) * width
                axis.bar(x, values.mean(), width, color=colour)
                axis.vlines(x, values.min(), values.max(), color="black", linewidth=0.8)
    axis.set_xticks(range(len(names)), [name.removeprefix("0").replace("-", "–") for name in names], fontsize=8)
    axis.set_ylim(0, max(axis.get_ylim()[1], 0.01))
    axis.grid(alpha=0.25, axis="y")
