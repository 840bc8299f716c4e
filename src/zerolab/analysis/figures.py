"""The figures of an analysis. Each PNG has a CSV of the same name with what it shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zerolab.analysis.cells import Setting
from zerolab.analysis.exploration import PassAtK
from zerolab.analysis.lengths import Lengths
from zerolab.analysis.reflection import Reflection
from zerolab.analysis.table import Table, printable
from zerolab.evaluation.statistics import Interval

COLOURS = ("#4c72b0", "#c44e52", "#55a868", "#8172b3", "#ccb974", "#64b5cd", "#937860", "#da8bc3")
KIND_COLOURS = {"correct": "#55a868", "wrong": "#c44e52", "truncated": "#8c8c8c"}
BINS = 40

Point = tuple[str, float | None, Interval | None]  # label, value, 95 % interval


def _canvas(columns: int, width: float, height: float) -> tuple[Any, Any, list[Any]]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=(width, height), constrained_layout=True, squeeze=False)
    return plt, figure, list(axes[0])


def _save(plt: Any, figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def name(text: str, longest: int = 44) -> str:
    """A label without mathematics markup and of a bearable length: names come from files."""
    text = printable(text).replace("\n", " ").replace("$", r"\$")
    return text if len(text) <= longest else text[: longest - 1] + "…"


def dots(path: Path, title: str, axis_label: str, series: Mapping[str, Sequence[Point]], zero: bool = False) -> Path:
    """A row a label; a dot for every series, with its interval, or hollow where there is none.

    The scale begins at 0 and ends above what is shown, at most at 1; with `zero` it is free and has a line at 0.
    """
    top = 0.0
    labels = list(dict.fromkeys(label for points in series.values() for label, *_ in points))
    plt, figure, (axis,) = _canvas(1, 8.0, 1.4 + 0.42 * max(2, len(labels)))
    for number, (key, points) in enumerate(series.items()):
        shift = (number - (len(series) - 1) / 2) * 0.22
        colour, shown = COLOURS[number % len(COLOURS)], False
        for label, value, interval in points:
            if value is None:
                continue
            low, high = interval or (value, value)
            top = max(top, high)
            axis.errorbar(
                [value],
                [labels.index(label) + shift],
                xerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
                fmt="o",
                color=colour,
                markerfacecolor=colour if interval else "none",
                capsize=3 if interval else 0,
                markersize=5,
                label=None if shown else name(key),
            )
            shown = True
    axis.set_yticks(range(len(labels)), [name(label) for label in labels])
    axis.set_ylim(len(labels) - 0.4, -0.6)
    if zero:
        axis.axvline(0, color="#444444", linewidth=1)
    else:
        axis.set_xlim(-0.03 * max(top, 0.05), 1.03 if top > 0.5 else max(0.05, 1.2 * top))
    axis.set_xlabel(axis_label)
    axis.set_title(title, fontsize=11)
    axis.grid(axis="x", alpha=0.25)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _save(plt, figure, path)


def draw_exploration(path: Path, found: Sequence[PassAtK]) -> Path:
    """Left: pass@k against k. Right, where there are several temperatures: pass@k of the largest k against them."""
    settings = list(dict.fromkeys(p.setting for p in found))
    temperatures = {s.temperature for s in settings}
    several = len(temperatures) > 1 and None not in temperatures
    plt, figure, axes = _canvas(1 + several, 6.4 * (1 + several), 4.2)
    for number, setting in enumerate(settings):
        points = [p for p in found if p.setting == setting]
        _curve(axes[0], [float(p.k) for p in points], points, setting.label, number)
    axes[0].set_xscale("log", base=2)
    ks = sorted({p.k for p in found})
    axes[0].set_xticks(ks, [str(k) for k in ks])
    axes[0].set(xlabel="k", ylabel="pass@k", ylim=(-0.03, 1.03), title="pass@k with 95 % intervals")
    if several:
        k = min(max(p.k for p in found if p.setting == s) for s in settings)
        lines = dict.fromkeys((s.model, s.template) for s in settings)
        for number, line in enumerate(lines):
            points = [p for p in found if p.setting[:2] == line and p.k == k]
            points.sort(key=lambda p: p.setting.temperature or 0.0)
            label = " ".join(filter(None, line)) or "responses"
            _curve(axes[1], [p.setting.temperature or 0.0 for p in points], points, label, number)
        axes[1].set(xlabel="temperature", ylabel=f"pass@{k}", ylim=(-0.03, 1.03), title=f"pass@{k} over temperature")
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, fontsize=8)
    return _save(plt, figure, path)


def _curve(axis: Any, x: Sequence[float], points: Sequence[PassAtK], label: str, number: int) -> None:
    colour = COLOURS[number % len(COLOURS)]
    axis.plot(x, [p.value for p in points], marker="o", markersize=4, color=colour, label=name(label))
    axis.fill_between(x, [p.interval.low for p in points], [p.interval.high for p in points], color=colour, alpha=0.15)


def draw_reflection(path: Path, found: Sequence[Reflection]) -> Path:
    """Share of reflecting responses and questions, against temperature where there are several."""
    temperatures = {r.setting.temperature for r in found}
    if len(temperatures) < 2 or None in temperatures:
        series: dict[str, list[Point]] = {}
        for r in found:
            for what, rate in (("of responses", r.per_response), ("of questions", r.per_question)):
                series.setdefault(f"{r.detector}, {what}", []).append((r.setting.label, rate.value, rate.interval))
        return dots(path, "Self-reflection", "share with 95 % interval", series)
    plt, figure, axes = _canvas(2, 12.0, 4.2)
    lines = dict.fromkeys((r.setting.model, r.setting.template, r.detector) for r in found)
    for number, line in enumerate(lines):
        rows = [r for r in found if (r.setting.model, r.setting.template, r.detector) == line]
        rows.sort(key=lambda r: r.setting.temperature or 0.0)
        for axis, rates in zip(axes, ([r.per_response for r in rows], [r.per_question for r in rows]), strict=True):
            known = [(r.setting.temperature or 0.0, s) for r, s in zip(rows, rates, strict=True) if s.value is not None]
            x, colour = [t for t, _ in known], COLOURS[number % len(COLOURS)]
            axis.plot(
                x, [s.value for _, s in known], marker="o", markersize=4, color=colour, label=name(" ".join(line))
            )
            spans = [s.interval or Interval(s.value or 0.0, s.value or 0.0) for _, s in known]
            axis.fill_between(x, [s.low for s in spans], [s.high for s in spans], color=colour, alpha=0.15)
    for axis, what in zip(axes, ("responses", "questions"), strict=True):
        axis.set(xlabel="temperature", ylabel=f"share of {what}", title=f"Self-reflection: {what}")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
    axes[0].legend(frameon=False, fontsize=8)
    return _save(plt, figure, path)


def histogram(found: Sequence[Lengths]) -> Table:
    """Counts by bin for every setting and kind; all settings share the bins."""
    parts = [part for part in found if part.kind in KIND_COLOURS]
    longest = max((float(part.lengths_N.max()) for part in parts), default=1.0)
    edges = np.linspace(0, max(longest, 1.0), BINS + 1)
    rows: list[tuple] = []
    for part in parts:
        counts, _ = np.histogram(part.lengths_N, edges)
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
            rows.append((*part.setting, part.kind, float(low), float(high), int(count), part.unit))
    columns = ("model", "template", "temperature", "kind", "from", "to", "responses", "unit")
    return Table("lengths_histogram", "Length histogram", columns, tuple(rows))


def draw_lengths(path: Path, found: Sequence[Lengths], most: int = 6) -> Path:
    """A panel for each of the first `most` settings, stacked by kind."""
    table = histogram(found)
    settings = list(dict.fromkeys(Setting(*row[:3]) for row in table.rows))[:most]  # type: ignore[arg-type]
    plt, figure, axes = _canvas(max(1, len(settings)), 4.4 * max(1, len(settings)), 3.4)
    for axis, setting in zip(axes, settings, strict=False):
        bottom = np.zeros(BINS)
        for kind, colour in KIND_COLOURS.items():
            rows: list[Any] = [row for row in table.rows if row[:3] == setting and row[3] == kind]
            if not rows:
                continue
            left, width = [row[4] for row in rows], [row[5] - row[4] for row in rows]
            counts = np.array([row[6] for row in rows], float)
            axis.bar(left, counts, width, bottom=bottom, align="edge", color=colour, label=kind)
            bottom += counts
        axis.set(xlabel=f"length in {found[0].unit}", ylabel="responses")
        axis.set_title(name(setting.label), fontsize=10)
        axis.grid(axis="y", alpha=0.25)
        axis.legend(frameon=False, fontsize=8)
    return _save(plt, figure, path)
