"""A self-contained HTML page that loads nothing, and figures and tables for pages that need no script of their own.

The scripts and styles of `assets/` are joined unchanged, and the policy in the head names their hashes. Nothing else on
the page can run, and the page can reach no address, whatever the data say. Data is text in inert blocks, large ones
deflated; scripts put it on the page as text only.
"""

import base64
import hashlib
import html
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal

BASE_STYLES = ("page.css", "chart.css")
BASE_SCRIPTS = ("dom.js", "theme.js", "numbers.js", "figure.js", "lines.js", "bars.js", "table.js")

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<meta name="generator" content="zerolab">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header class="top">
<div class="brand"><h1>{title}</h1><p>{subtitle}</p></div>
<nav aria-label="Sections">{links}</nav>
<button id="theme" type="button" aria-label="Switch between light and dark"></button>
</header>
<main id="main">
<noscript><p class="empty">Figures and reader need JavaScript; nothing is loaded from elsewhere.</p></noscript>
{sections}
</main>
<div id="announce" class="sr-only" aria-live="polite"></div>
{blocks}
<script>{script}</script>
</body>
</html>
"""


@dataclass(frozen=True)
class Section:
    """A part of the page; `html` is markup of ours, in which nothing of a user stands unescaped."""

    id: str
    title: str
    intro: str = ""
    html: str = ""


@dataclass(frozen=True)
class Page:
    """`data` are blocks of JSON by id; those in `deflated` are packed. Assets come after the base ones, in order."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    data: Mapping[str, Any]
    deflated: Mapping[str, Any] = field(default_factory=dict)
    styles: Sequence[str] = ()
    scripts: Sequence[str] = ()


def render(page: Page) -> str:
    """The whole file."""
    style = "\n".join(asset(name) for name in (*BASE_STYLES, *page.styles))
    script = join([*BASE_SCRIPTS, *page.scripts])
    blocks = [json_block(name, value) for name, value in page.data.items()]
    blocks += [deflated_block(name, value) for name, value in page.deflated.items()]
    return TEMPLATE.format(
        policy=policy(script, style),
        title=escape(page.title),
        subtitle=escape(page.subtitle),
        style=style,
        links="".join(f'<a href="#{s.id}">{escape(s.title)}</a>' for s in page.sections),
        sections="\n".join(_section(s) for s in page.sections),
        blocks="\n".join(blocks),
        script=script,
    )


def _section(section: Section) -> str:
    intro = f'<p class="intro">{escape(section.intro)}</p>' if section.intro else ""
    head = f'<h2 id="{section.id}-title">{escape(section.title)}</h2>'
    start = f'<section id="{section.id}" aria-labelledby="{section.id}-title">'
    return f"{start}{head}{intro}{section.html}</section>"


def escape(text: str) -> str:
    """Text for a place in markup; half of a surrogate pair, which no UTF-8 can hold, becomes a question mark."""
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"))


def asset(name: str) -> str:
    """Text of a file in assets/."""
    return (resources.files("zerolab.report") / "assets" / name).read_text(encoding="utf-8")


def join(names: Sequence[str]) -> str:
    """The scripts in one scope, in order."""
    text = "\n".join(asset(name) for name in names)
    assert "</script" not in text.lower(), "a script may not hold its own closing tag"
    return f'"use strict";\n(() => {{\n{text}\n}})();\n'


def policy(script: str, style: str) -> str:
    """Content-Security-Policy: this script, this style, no address at all."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def json_block(name: str, value: Any) -> str:
    """JSON that no HTML parser takes for markup."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f'<script type="application/json" id="{name}">{text.replace("<", chr(92) + "u003c")}</script>'


def deflated_block(name: str, value: Any) -> str:
    """JSON as base64 of zlib's deflate."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    packed = base64.b64encode(zlib.compress(text.encode("ascii"), 6)).decode()
    return f'<script type="application/octet-stream" id="{name}">{packed}</script>'


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
