"""The figure of an experiment: every statement with its interval, its replicates and the region in which it holds."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from zerolab.claims.protocol import Protocol, Row, Statement
from zerolab.claims.verdict import Finding, control_state, findings, overall, values_of

T = TypeVar("T")
# GRPO is red and Dr. GRPO blue in every figure of the ledger.
ARMS = ("grpo", "grpo_length_fix", "grpo_std_fix", "dr_grpo")
THEMES: Mapping[str, Mapping[str, str]] = {
    "": {
        **dict(zip(ARMS, ("#c0453a", "#c77414", "#7b4fc0", "#2f66c4"), strict=True)),
        "ink": "#1f2328",
        "soft": "#59636e",
        "paper": "#ffffff",
        "region": "#cfe8d5",
    },
    "-dark": {
        **dict(zip(ARMS, ("#f2796c", "#e8a657", "#b998f5", "#75a8ff"), strict=True)),
        "ink": "#f0f3f6",
        "soft": "#a7b0ba",
        "paper": "#15191e",
        "region": "#234a33",
    },
}
ROW, HEAD, FOOT = 0.4, 0.6, 0.2  # inches of a row, of the title, of the caption
WRAP, SHOWN = 44, 8  # characters of a label, most rows that are only shown
MARKS = {"claim": "o", "check": "D", "control": "s", "shown": "|"}


def draw_figures(protocol: Protocol, table: Sequence[Row], folder: Path) -> None:
    """figure.png and, if the protocol draws curves, curves.png; each also for a dark page (NAME-dark.png). A table in
    which no statement is measured has no figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    for old in (*folder.glob("figure*.png"), *folder.glob("curves*.png")):
        old.unlink()
    if not any(f.replicates for f in findings(protocol, table)):
        return
    for suffix, theme in THEMES.items():
        with plt.rc_context(_style(theme)):  # type: ignore[arg-type]  # names as plain strings
            draw_findings(protocol, table, folder / f"figure{suffix}.png", theme)
            if protocol.draw:
                protocol.draw(table, folder / f"curves{suffix}.png")


def _style(theme: Mapping[str, str]) -> dict[str, Any]:
    inked = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(inked, theme["ink"]),
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), theme["paper"]),
        "axes.edgecolor": theme["soft"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 10,
        "legend.frameon": False,
    }


def draw_findings(protocol: Protocol, table: Sequence[Row], path: Path, theme: Mapping[str, str]) -> None:
    """A panel for every unit, a row for every statement."""
    import matplotlib.pyplot as plt

    found = findings(protocol, table)
    panels = split_by_unit(_rows(protocol.statements, found), lambda pair: pair[1].unit)
    heights = [len(rows) + 0.9 for rows in panels.values()]
    height = ROW * sum(heights) + HEAD + FOOT
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(9.2, height), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axis, (unit, rows) in zip(axes[:, 0], panels.items(), strict=True):
        draw_panel(axis, rows, [values_of(statement, table) for statement, _ in rows], theme)
        axis.set_xlabel(unit or "no unit: share, difference or ratio", fontsize=9, color=theme["soft"], labelpad=1)
    figure.text(0.012, 1 - 0.1 / height, title(protocol, found), fontsize=11, va="top", weight="bold")
    caption = f"shaded: where the statement holds; bar: interval of the mean; dots: {protocol.replicate}s, their number"
    figure.text(0.012, 0.07 / height, f"{caption} in brackets", fontsize=8.5, color=theme["soft"])
    figure.tight_layout(rect=(0, FOOT / height, 1, 1 - HEAD / height), h_pad=0.6)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def title(protocol: Protocol, found: Sequence[Finding]) -> str:
    """What was found, in words and numbers: the primary statement with its interval, and the verdict."""
    [primary] = [f for f in found if f.text == protocol.primary.text]
    unit = f" {primary.unit}" if primary.unit else ""
    number = "not measured" if math.isnan(primary.estimate) else f"{primary.estimate:.3g}{unit}"
    interval = "" if math.isnan(primary.low) else f" [{primary.low:.3g}, {primary.high:.3g}]"
    state = control_state(found)
    controls = f"; controls {state}" if state and overall(found) in ("reproduced", "not reproduced") else ""
    text = primary.text[:1].upper() + primary.text[1:]
    finding = textwrap.fill(f"{text}: {number}{interval}", 92)
    return f"{finding}\n{protocol.id} ({protocol.label}): {overall(found)}{controls}"


def _rows(statements: Sequence[Statement], found: Sequence[Finding]) -> list[tuple[Statement, Finding]]:
    """All that decides, then what is shown, as far as it fits; nothing that was not measured."""
    pairs = [(s, f) for s, f in zip(statements, found, strict=True) if f.replicates]
    return [p for p in pairs if p[1].role != "shown"] + [p for p in pairs if p[1].role == "shown"][:SHOWN]


def split_by_unit(rows: Sequence[T], unit_of: Callable[[T], str]) -> dict[str, list[T]]:
    """What shares an axis, in order."""
    panels: dict[str, list[T]] = {}
    for row in rows:
        panels.setdefault(unit_of(row), []).append(row)
    return panels


def draw_panel(
    axis: Any, rows: Sequence[tuple[Statement, Finding]], values: Sequence[Sequence[float]], theme: Mapping[str, str]
) -> None:
    spreads = [
        ([f.estimate, f.low, f.high, *dots], [] if f.role == "shown" else list(f.region))
        for (_, f), dots in zip(rows, values, strict=True)
    ]
    low, high = axis_limits(spreads)
    for place, ((statement, f), dots) in enumerate(zip(rows, values, strict=True)):
        colour = theme.get(statement.arm, theme["ink"])
        if f.role != "shown":
            start, end = max(f.region[0], low), min(f.region[1], high)
            least = 0.004 * (high - low)  # a region without width is still seen
            axis.barh(place, max(end - start, least), 0.8, left=start, color=theme["region"], zorder=0)
        axis.plot(dots, [place + 0.27] * len(dots), ".", color=colour, alpha=0.6, markersize=4, zorder=1)
        if math.isfinite(f.low):
            axis.plot([f.low, f.high], [place, place], color=colour, linewidth=2, solid_capstyle="butt", zorder=2)
        axis.plot(f.estimate, place, MARKS[f.role], color=colour, markersize=7 if f.role != "shown" else 10, zorder=3)
        axis.text(1.015, place, f.verdict, transform=axis.get_yaxis_transform(), va="center", fontsize=9)
    axis.set(xlim=(low, high), ylim=(len(rows) - 0.5, -0.5))
    axis.set_yticks(range(len(rows)), [_label(f) for _, f in rows], fontsize=9, linespacing=0.95)
    axis.tick_params(axis="y", length=0)
    axis.locator_params(axis="x", nbins=6)
    if low < 0 < high:
        axis.axvline(0, color=theme["soft"], linewidth=0.8, zorder=0.5)


def _label(f: Finding) -> str:
    role = "" if f.role in ("claim", "shown") else f"{f.role}: "
    return "\n".join(textwrap.wrap(f"{role}{f.text} ({f.replicates})", WRAP)[:3])


def axis_limits(spreads: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[float, float]:
    """Ends of an axis for statements of (numbers, borders of the region): all numbers, 0, and every border that is not
    far from them."""
    points = [0.0, *(x for numbers, _ in spreads for x in numbers if math.isfinite(x))]
    low, high = min(points), max(points)
    reach = (high - low) or 1.0
    borders = [x for _, region in spreads for x in region if low - reach <= x <= high + reach]
    low, high = min([low, *borders]), max([high, *borders])
    margin = 0.05 * (high - low or 1.0)
    return low - margin, high + margin
