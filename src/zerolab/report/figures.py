"""Figures and tables as values, for pages that need no script of their own: `figures_page` puts them in their sections,
with values under the pointer, light and dark, and the data of each as CSV."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from zerolab.report.page import Page, Section, render

SCRIPTS = ("figures.js",)
COLOURS = 8  # that the style sheet knows


@dataclass(frozen=True)
class Series:
    """One value per x, None where there is none; `low` and `high` are a band or a whisker around it."""

    label: str
    values: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    colour: int | None = None  # of 8; by order in the figure where None


@dataclass(frozen=True)
class Figure:
    """Lines over numbers or bars over names, in the section of this id."""

    section: str
    title: str
    kind: Literal["lines", "bars"]
    x: Sequence[float] | Sequence[str]
    series: Sequence[Series]
    x_label: str = ""
    note: str = ""
    zero: bool = True  # the axis reaches to 0
    reference: float | None = None  # bars: a dashed line at this value


@dataclass(frozen=True)
class Table:
    """Rows of text or numbers; the first column heads its row."""

    section: str
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]


def figures_page(title: str, subtitle: str, sections: Sequence[Section], items: Sequence[Figure | Table]) -> str:
    """The text of an HTML file; items of a section follow its own markup in this order."""
    known = {section.id for section in sections}
    assert all(item.section in known for item in items), "an item names a section that the page has"
    data = {"figures": [as_json(item) for item in items]}
    return render(Page(title, subtitle, sections, data, scripts=SCRIPTS))


def as_json(item: Figure | Table) -> dict[str, Any]:
    """What figures.js reads."""
    if isinstance(item, Table):
        rows = [[_cell(value) for value in row] for row in item.rows]
        return {"kind": "table", "section": item.section, "title": item.title, "head": list(item.head), "rows": rows}
    assert all(len(series.values) == len(item.x) for series in item.series), "one value per x"
    return {
        "kind": item.kind,
        "section": item.section,
        "title": item.title,
        "note": item.note,
        "x": list(item.x),
        "xLabel": item.x_label,
        "zero": item.zero,
        "reference": item.reference,
        "series": [
            {
                "label": series.label,
                "colour": f"c{(number if series.colour is None else series.colour) % COLOURS}",
                "values": [_cell(v) for v in series.values],
                "low": None if series.low is None else [_cell(v) for v in series.low],
                "high": None if series.high is None else [_cell(v) for v in series.high],
            }
            for number, series in enumerate(item.series)
        ],
    }


def _cell(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
