"""The figures of an analysis. Each PNG has a CSV of the same name with what it shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zerolab.analysis.exploration import Lengths, PassAtK
from zerolab.analysis.rates import Setting
from zerolab.analysis.reflection import Reflection
from zerolab.analysis.result_table import Table
from zerolab.evaluation.intervals import Interval
from zerolab.terminal import visible

COLOURS = ("#4c72b0", "#c44e52", "#55a868", "#8172b3", "#ccb974", "#64b5cd", "#937860", "#da8bc3")
KIND_COLOURS = {"correct": "#55a868", "wrong": "#c44e52", "truncated": "#8c8c8c"}
BINS = 40
STYLES = ("-", "--", ":", "-.")
SHADED = 3  # lines in a panel up to which intervals are shaded

Point = tuple[str, float | None, Interval | None]  # label, value, 95 % interval


def _canvas(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any, Any]:
    """(pyplot, figure, axes [rows, columns]); sizes in inches."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(rows, columns, figsize=(width, height), constrained_layout=True, squeeze=False)
    return plt, figure, axes


def _save(plt: Any, figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def name(text: str, longest: int = 44) -> str:
    """A label without mathematics markup and of a bearable length: names come from files."""
    text = visible(text).replace("\n", " ").replace("$", r"\$")
    return text if len(text) <= longest else text[: longest - 1] + "…"


def dots(path: Path, title: str, axis_label: str, series: Mapping[str, Sequence[Point]], zero: bool = False) -> Path:
    """A row a label; a dot for every series, with its interval, or hollow where there is none.

    The scale begins at 0 and ends above what is shown, at most at 1; with `zero` it is free and has a line at 0.
    """
    top = 0.0
    labels = list(dict.fromkeys(label for points in series.values() for label, *_ in points))
    widest = max((len(name(label)) for label in (*labels, *series)), default=0)
    plt, figure, ((axis,),) = _canvas(1, 1, 5.5 + 0.14 * widest, 1.4 + 0.42 * max(2, len(labels)))
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


@dataclass(frozen=True)
class Line:
    """One curve of a panel: (x, value, interval) in order of x."""

    label: str
    colour: str
    style: str
    points: Sequence[tuple[float, float, Interval | None]]


@dataclass(frozen=True)
class Panel:
    title: str
    x: str
    y: str
    lines: Sequence[Line]
    ticks: Sequence[float] | None = None  # then the axis is logarithmic, base 2


def _panels(path: Path, panels: Sequence[Sequence[Panel]], top: float | None = None) -> Path:
    """Small multiples with one legend at the right. Intervals are shaded where lines are few, else bars."""
    columns = max(len(row) for row in panels)
    plt, figure, axes = _canvas(len(panels), columns, 4.2 * columns + 2.2, 3.4 * len(panels))
    handles: dict[str, Any] = {}
    for row, line_of_axes in zip(panels, axes, strict=True):
        for panel, axis in zip(row, line_of_axes, strict=True):
            for number, line in enumerate(panel.lines):
                x, y = [p[0] for p in line.points], [p[1] for p in line.points]
                (drawn,) = axis.plot(x, y, line.style, marker="o", markersize=4, color=line.colour, linewidth=1.6)
                handles.setdefault(line.label, drawn)
                spans = [p[2] or Interval(p[1], p[1]) for p in line.points]
                if len(panel.lines) <= SHADED:
                    lows, highs = [s.low for s in spans], [s.high for s in spans]
                    axis.fill_between(x, lows, highs, color=line.colour, alpha=0.13, linewidth=0)
                elif line.style == "-":
                    nudge = 1 + 0.03 * (2 * number / len(panel.lines) - 1)  # so that bars stand side by side
                    errors = [[max(0.0, v - s.low) for v, s in zip(y, spans, strict=True)]]
                    errors += [[max(0.0, s.high - v) for v, s in zip(y, spans, strict=True)]]
                    axis.errorbar([v * nudge for v in x], y, yerr=errors, fmt="none", ecolor=line.colour, alpha=0.5)
            axis.set(xlabel=panel.x, ylabel=panel.y)
            axis.set_title(name(panel.title), fontsize=10)
            axis.set_ylim(-0.02, 1.03) if top is None else axis.set_ylim(0, top)
            if panel.ticks:
                axis.set_xscale("log", base=2)
                axis.set_xticks(panel.ticks, [f"{tick:g}" for tick in panel.ticks])
            axis.grid(alpha=0.25)
    if len(handles) > 1:
        figure.legend(handles.values(), map(name, handles), loc="outside right upper", frameon=False, fontsize=8)
    return _save(plt, figure, path)


def short(model: str) -> str:
    """A model without the folder or account it stands in."""
    return model.rstrip("/").rsplit("/", 1)[-1] or model


def with_short_names(settings: Sequence[Setting]) -> dict[Setting, Setting]:
    """Settings under the short names of their models, where these stay different."""
    models = list(dict.fromkeys(s.model for s in settings))
    apart = len({short(m) for m in models}) == len(models)
    return {s: s._replace(model=short(s.model)) if apart else s for s in settings}


def _colours(keys: Sequence[str]) -> dict[str, str]:
    return {key: COLOURS[i % len(COLOURS)] for i, key in enumerate(dict.fromkeys(keys))}


def draw_exploration(path: Path, found: Sequence[PassAtK]) -> Path:
    """A column a model: above, pass@k against k; below, where there are several temperatures, against them."""
    names_ = with_short_names([p.setting for p in found])
    models = list(dict.fromkeys(p.setting.model for p in found))
    temperatures = sorted({p.setting.temperature for p in found if p.setting.temperature is not None})
    styles = {t: STYLES[i % len(STYLES)] for i, t in enumerate(reversed(temperatures))}
    colours = _colours([p.setting.template for p in found])
    above, below = [], []
    for model in models:
        mine = [p for p in found if p.setting.model == model]
        title = names_[mine[0].setting].model
        lines = []
        for setting in dict.fromkeys(p.setting for p in mine):
            points = [(float(p.k), p.value, p.interval) for p in mine if p.setting == setting]
            label = setting._replace(model="").label
            style = styles.get(setting.temperature or 0.0, "-")
            lines.append(Line(label, colours[setting.template], style, points))
        above.append(Panel(title, "k", "pass@k", lines, sorted({float(p.k) for p in mine})))
        known = [p for p in mine if p.setting.temperature is not None]  # a file need not say its temperature
        sampled = {p.setting for p in known if p.setting.temperature} or {p.setting for p in known}
        k = min((max(p.k for p in known if p.setting == s) for s in sampled), default=1)
        lines = []
        for template in dict.fromkeys(p.setting.template for p in mine):
            chosen = [p for p in known if p.setting.template == template and p.k == k]
            chosen.sort(key=lambda p: p.setting.temperature or 0.0)
            points = [(p.setting.temperature or 0.0, p.value, p.interval) for p in chosen]
            lines.append(Line(template or "responses", colours[template], "-", points))
        below.append(Panel(title, "temperature", f"pass@{k}", lines))
    return _panels(path, [above, below] if len(temperatures) > 1 else [above])


def draw_reflection(path: Path, found: Sequence[Reflection]) -> Path:
    """A column a model: share of reflecting responses, and of questions with one, against temperature. Dots where
    there is one temperature only."""
    names_ = with_short_names([r.setting for r in found])
    if len({r.setting.temperature for r in found}) < 2:
        series: dict[str, list[Point]] = {}
        for r in found:
            for what, rate in (("of responses", r.per_response), ("of questions", r.per_question)):
                point = (names_[r.setting].label, rate.value, rate.interval)
                series.setdefault(f"{r.detector}, {what}", []).append(point)
        return dots(path, "Self-reflection", "share with 95 % interval", series)
    colours = _colours([r.setting.template for r in found])
    styles = {"both": "-", "keywords": "-" if len({r.detector for r in found}) == 1 else "--", "judge": ":"}
    rows: list[list[Panel]] = [[], []]
    for model in dict.fromkeys(r.setting.model for r in found):
        mine = sorted((r for r in found if r.setting.model == model), key=lambda r: r.setting.temperature or 0.0)
        keys = dict.fromkeys((r.setting.template, r.detector) for r in mine)
        for row, what in zip(rows, ("responses", "questions"), strict=True):
            lines = []
            for template, detector in keys:
                chosen = [r for r in mine if (r.setting.template, r.detector) == (template, detector)]
                rates = [
                    (r.setting.temperature or 0.0, r.per_response if row is rows[0] else r.per_question) for r in chosen
                ]
                points = [(t, rate.value, rate.interval) for t, rate in rates if rate.value is not None]
                label = ", ".join(filter(None, (template, detector)))
                lines.append(Line(label, colours[template], styles[detector], points))
            row.append(Panel(names_[mine[0].setting].model, "temperature", f"share of {what}", lines))
    highest = max((r.per_question.interval.high for r in found if r.per_question.interval), default=1.0)
    return _panels(path, rows, min(1.03, 1.1 * highest))


def histogram(found: Sequence[Lengths]) -> Table:
    """Counts by bin for every setting and kind; all settings share the bins."""
    parts = [part for part in found if part.kind in KIND_COLOURS]
    longest = max((float(part.lengths_N.max()) for part in parts), default=1.0)
    edges = np.linspace(0, max(longest, 1.0), BINS + 1)
    rows: list[tuple[Any, ...]] = []
    for part in parts:
        counts, _ = np.histogram(part.lengths_N, edges)
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
            rows.append((*part.setting, part.kind, float(low), float(high), int(count), part.unit))
    columns = ("model", "template", "temperature", "kind", "from", "to", "responses", "unit")
    return Table("lengths_histogram", "Length histogram", columns, tuple(rows))


def draw_lengths(path: Path, found: Sequence[Lengths], most: int = 12) -> Path:
    """A panel for each of the first `most` settings, stacked by kind."""
    table = histogram(found)
    settings = list(dict.fromkeys(Setting(*row[:3]) for row in table.rows))  # type: ignore[arg-type]
    names_, settings = with_short_names(settings), settings[:most]
    columns = min(3, max(1, len(settings)))
    rows = max(1, -(-len(settings) // columns))
    plt, figure, axes = _canvas(rows, columns, 4.4 * columns, 2.9 * rows)
    for axis in axes.flat[len(settings) :]:
        axis.axis("off")
    for axis, setting in zip(axes.flat, settings, strict=False):
        bottom = np.zeros(BINS)
        for kind, colour in KIND_COLOURS.items():
            chosen: list[Any] = [row for row in table.rows if row[:3] == setting and row[3] == kind]
            if not chosen:
                continue
            left, width = [row[4] for row in chosen], [row[5] - row[4] for row in chosen]
            counts = np.array([row[6] for row in chosen], float)
            axis.bar(left, counts, width, bottom=bottom, align="edge", color=colour, label=kind)
            bottom += counts
        axis.set(xlabel=f"length in {found[0].unit}", ylabel="responses")
        axis.set_title(name(names_[setting].label), fontsize=10)
        axis.grid(axis="y", alpha=0.25)
        axis.legend(frameon=False, fontsize=8)
    return _save(plt, figure, path)
