"""The most important numbers while a run goes on: a live line in a terminal, plain lines elsewhere."""

import itertools
import math
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from zerolab.terminal import echo, make_console

COLUMNS = (  # (metric, heading, format)
    ("loss", "loss", ".3f"),
    ("reward/mean", "reward", ".3f"),
    ("accuracy", "acc", ".3f"),
    ("eval/loss", "held-out", ".3f"),
    ("eval/accuracy", "eval", ".3f"),
    ("length/mean", "length", ".1f"),
    ("length/correct", "right", ".1f"),
    ("length/incorrect", "wrong", ".1f"),
    ("formatted", "fmt", ".2f"),
    ("truncated", "cut", ".2f"),
    ("entropy", "entropy", ".2f"),
    ("clip_fraction", "clip", ".3f"),
    ("grad_norm", "grad", ".2f"),
    ("time/sample_tokens_per_s", "tok/s", ".0f"),
    ("time/tokens_per_s", "tok/s", ".0f"),
)
PLAIN_SECONDS = 10.0


class Progress:
    """Context manager over a run of `steps` steps. `quiet` shows messages only."""

    def __init__(self, name: str, steps: int, quiet: bool = False):
        self.name, self.steps, self.quiet = name, steps, quiet
        self.live = sys.stderr.isatty() and not quiet
        self.last: dict[str, Any] = {}
        self._printed = -PLAIN_SECONDS

    def __enter__(self) -> "Progress":
        if self.live:
            self._start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self._display.stop()

    def _start(self) -> None:

        label = TextColumn("{task.description}", markup=False)
        self._bar = Bar(label, BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
        self._task = self._bar.add_task(self.name, total=self.steps)
        self._display = Live(self._bar, console=make_console(error=True), refresh_per_second=4)
        self._display.start()

    def row(self, step: int, metrics: Mapping[str, Any]) -> Mapping[str, Any]:
        """Shows the metrics of a step and hands them back."""
        measured = {k: metrics[k] for k, _, _ in COLUMNS if k in metrics}
        self.last |= {k: v for k, v in measured.items() if math.isfinite(v)}
        shown = [(heading, f"{self.last[k]:{form}}") for k, heading, form in COLUMNS if k in self.last]
        if self.live:
            self._bar.update(self._task, completed=step)
            self._display.update(self._frame(shown))
        elif not self.quiet and (time.monotonic() - self._printed > PLAIN_SECONDS or step in (0, 1, self.steps)):
            self._printed = time.monotonic()
            text = "  ".join(f"{heading} {value}" for heading, value in shown)
            echo(f"{self.name} {step}/{self.steps}  {text}", error=True)
        return metrics

    def _frame(self, shown: list[tuple[str, str]]) -> Any:
        """The bar, and under it a table of two lines that fits 80 columns."""
        table = Table(box=None, padding=(0, 1, 0, 0))
        for heading, _ in shown:
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_row(*(value for _, value in shown))
        return Group(self._bar, table)

    def message(self, text: str) -> None:
        echo(f"{self.name}: {text}", error=True)


BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float | None], width: int, low: float, high: float) -> str:
    """`values` averaged into at most `width` blocks, on a scale from low to high; a gap where nothing is known."""
    known = [math.nan if v is None else float(v) for v in values]
    bins = min(width, len(known))
    edges = [round(i * len(known) / bins) for i in range(bins + 1)] if bins else [0]
    return "".join(_block(known[a:b], low, high) for a, b in itertools.pairwise(edges))


def _block(values: Sequence[float], low: float, high: float) -> str:
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return " "
    share = (sum(finite) / len(finite) - low) / (high - low) if high > low else 0.0
    return BLOCKS[min(len(BLOCKS) - 1, max(0, int(share * len(BLOCKS))))]
