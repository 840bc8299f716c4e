"""The paper's five curves of any runs side by side, as one PNG with its CSV."""

import csv
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

PANELS = (
    ("reward/mean", "reward"),
    ("length/mean", "response length"),
    ("length/correct", "length of correct"),
    ("length/incorrect", "length of incorrect"),
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


def draw(path: Path, runs: Runs, title: str) -> None:
    """Thin lines: single runs. Thick line: mean of the runs, smoothed over a few steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(PANELS), figsize=(3.4 * len(PANELS), 3.2), constrained_layout=True)
    for axis, (name, label) in zip(axes, PANELS, strict=True):
        for colour, (arm, seeds) in zip(cycle(COLOURS), runs.items(), strict=False):
            draw_arm(axis, arm, colour, [column(rows, name) for rows in seeds])
        axis.set_ylim(0, max(1.0, axis.get_ylim()[1]))
        axis.set_title(label)
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
    axes[0].legend(frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)
    plt.close(figure)


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
