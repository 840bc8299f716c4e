"""A result as rows: to the screen, to CSV, to JSON. The same numbers in all three."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from zerolab.evaluation.intervals import Interval
from zerolab.terminal import make_console, visible

WIDTH = 120  # of tables that go to a file or a pipe
ON_SCREEN = {"temperature": "T"}

Cell = str | int | float | bool | Interval | None


@dataclass(frozen=True)
class Table:
    """`name` is that of its files. An Interval becomes two columns, COLUMN_low and COLUMN_high, in a CSV.

    `screen`: another layout of the same numbers for the screen. `quiet`: columns that only the files have.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    screen: "Table | None" = None
    quiet: frozenset[str] = frozenset()

    def records(self) -> list[dict[str, Any]]:
        """One flat dictionary a row; what is not known is None."""
        found, intervals = [], self.intervals
        for row in self.rows:
            record: dict[str, Any] = {}
            for column, cell in zip(self.columns, row, strict=True):
                if column in intervals:
                    low, high = cell if isinstance(cell, Interval) else (None, None)
                    record |= {f"{column}_low": _finite(low), f"{column}_high": _finite(high)}
                else:
                    record[column] = _finite(cell)
            found.append(record)
        return found

    @property
    def intervals(self) -> set[str]:
        """Columns that hold intervals."""
        return {c for i, c in enumerate(self.columns) if any(isinstance(row[i], Interval) for row in self.rows)}

    def write_csv(self, folder: Path) -> Path:
        path = folder / f"{self.name}.csv"
        records = self.records()
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.DictWriter(file, list(records[0]) if records else list(self.columns))
            writer.writeheader()
            writer.writerows(records)
        return path

    def rich(self) -> Any:
        """For a rich console, without columns that hold nothing. Text of models is never markup or control codes."""
        if self.screen is not None:
            return self.screen.rich()

        table = RichTable(
            title=Text(self.title, style="bold"),
            caption=Text(self.note) if self.note else None,
            title_justify="left",
            caption_justify="left",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        shown_ = [i for i, column in enumerate(self.columns) if column not in self.quiet]
        said = [i for i in shown_ if any(row[i] not in (None, "") for row in self.rows)]
        for i in said:
            text = any(isinstance(row[i], str) for row in self.rows)
            # Numbers and intervals are never folded, headings and names may be.
            least = None if text else max(len(shown(row[i])) for row in self.rows)
            heading = ON_SCREEN.get(self.columns[i], self.columns[i])
            table.add_column(heading, justify="left" if text else "right", overflow="fold", min_width=least)
        for row in self.rows:
            table.add_row(*(Text(shown(row[i])) for i in said))
        return table


def shown(cell: Cell) -> str:
    """A cell in a few characters."""
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return "-"
    if isinstance(cell, Interval):
        return f"[{_number(cell.low)}, {_number(cell.high)}]" if math.isfinite(cell.low) else "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return _number(cell)
    return visible(str(cell))


def _number(value: float) -> str:
    if abs(value) >= 10:
        return f"{value:.1f}"
    text = f"{value:.3f}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"
    return text.replace("-0.000", "0.000")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(tables: Sequence[Table]) -> None:
    console = make_console(WIDTH)
    for table in tables:
        console.print(table.rich())
        console.print()
