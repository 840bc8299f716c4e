"""Stop signals, the number of usable cores, and child processes that run `zerolab` with one thread each."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from zerolab.errors import UserError
from zerolab.rundir import METRICS, clear_errors, read_metrics


class GracefulStop:
    """While entered, the first SIGINT or SIGTERM only sets `requested`. Outside the main thread it does nothing."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "GracefulStop":
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


def cores() -> int:
    """Cores that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


STOP_SECONDS = 60.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass
class Job:
    """One process that runs `zerolab ARGUMENTS`; its output goes to a log."""

    name: str
    arguments: list[str]
    log: Path
    process: subprocess.Popen | None = field(default=None, repr=False)

    def start(self) -> None:
        with clear_errors(self.log):
            self.log.parent.mkdir(parents=True, exist_ok=True)
            file = self.log.open("w")
        with file:
            command = [sys.executable, "-m", "zerolab", *self.arguments]
            environment = {**os.environ, **ONE_THREAD}
            # A session of its own: Ctrl-C in the terminal reaches the demo alone, which then stops its jobs once.
            self.process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def done(self) -> bool:
        """Whether it ended well. Raises UserError with the end of its log where it did not."""
        if self.process is None or self.running:
            return False
        if self.process.returncode != 0:
            last = (self.log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
            raise UserError(f"{self.name} ended with code {self.process.returncode}: {last} (log: {self.log})")
        return True

    def stop(self) -> None:
        if self.running and self.process:
            self.process.terminate()  # the run saves a checkpoint at its next step
            try:
                self.process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def run_all(jobs: Sequence[Job], parallel: int) -> Iterator[None]:
    """Starts the jobs in order, at most `parallel` at a time; yields between looks, ends when all are done."""
    waiting = list(jobs)
    try:
        while not all(job.done for job in jobs):
            while waiting and sum(job.running for job in jobs) < parallel:
                waiting.pop(0).start()
            yield
    finally:
        for job in jobs:
            job.stop()


def metrics_so_far(folder: Path) -> list[dict[str, Any]]:
    """What a run has logged by now, [] before it has."""
    return read_metrics(folder) if (folder / METRICS).is_file() else []
