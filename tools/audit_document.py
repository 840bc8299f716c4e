"""Writes recorded audits as a table between the markers of a page.

`python -m tools.audit_document PAGE FILE ...`, with files of `zerolab audit TARGET --json FILE`.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zerolab.errors import UserError

BEGIN, END = "<!-- audit:begin -->", "<!-- audit:end -->"
COLUMNS = {
    "length": "token weight, 32 / 4 tokens",
    "pass-rate": "question weight, p = .01 / .5",
    "split": "micro-batches",
    "order": "order",
    "ranks": "two ranks",
    "truncation": "cut-off / finished",
    "zero-variance": "equal rewards",
    "importance": "importance weight, 8192 / 512 tokens",
    "scale": "half as long / this",
}


def table(records: Sequence[dict[str, Any]]) -> str:
    """A line per audit, a column per row of the battery; what is biased stands in bold."""
    lines = [
        f"| loss | settings | {' | '.join(COLUMNS.values())} |",
        f"| --- | --- |{' --- |' * len(COLUMNS)}",
    ]
    for record in records:
        for one in record["audits"]:
            rows = {row["key"]: row for row in one["rows"]}
            cells = [_cell(rows[key]) for key in COLUMNS]
            lines.append(f"| `{one['name']}` | {one['about']} | {' | '.join(cells)} |")
    versions = sorted({(one["version"], record["date"]) for record in records for one in record["audits"]})
    heading = "Measured: " + "; ".join(f"{version} on {date}" for version, date in versions) + "."
    return "\n".join([heading, "", *lines])


def _cell(row: dict[str, Any]) -> str:
    value = row["value"]
    if value is None:
        return "not measured"
    text = "0" if abs(value) < 5e-5 else f"{value:.2f}" if row["key"] != "length" else f"{value:.3f}"
    return f"**{text}**" if row["biased"] else text


def write(page: Path, records: Sequence[dict[str, Any]]) -> None:
    """Replaces what stands between the markers. Raises UserError where there are none."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{page}: has no {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{table(records)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    page, *files = map(Path, sys.argv[1:])
    write(page, [json.loads(file.read_text(encoding="utf-8")) for file in files])
