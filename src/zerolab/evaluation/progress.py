"""How far long work is: a bar in a terminal, a line every ten seconds elsewhere; on stderr, the table is for stdout."""

import sys
import time
from types import TracebackType
from typing import Any

from zerolab.terminal import echo, make_console

PLAIN_SECONDS = 10.0


class Bar:
    def __init__(self, name: str, total: int, unit: str):
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self._bar: Any = None
        self._printed = time.monotonic()

    def __enter__(self) -> "Bar":
        if sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            label = TextColumn("{task.description}", markup=False)
            columns = (label, BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=make_console(error=True))
            self._task = self._bar.add_task(self.name, total=self.total)
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, remark: str = "", by: int = 1) -> None:
        self.done += by
        text = f"{self.name} {remark}".strip()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, description=text)
        elif time.monotonic() - self._printed > PLAIN_SECONDS:
            self._printed = time.monotonic()
            echo(f"{text}: {self.done} of {self.total} {self.unit}", error=True)
