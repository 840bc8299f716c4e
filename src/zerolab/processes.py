"""Stop signals, the number of usable cores, and child processes that run `zerolab` with one thread each."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from zerolab.config import RunConfig
from zerolab.errors import UserError
from zerolab.rundir import METRICS, can_resume, clear_errors, read_metrics


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
    process: subprocess.Popen[Any] | None = field(default=None, repr=False)

    def start(self) -> None:
        with clear_errors(self.log):
            self.log.parent.mkdir(parents=True, exist_ok=True)
            file = self.log.open("w")
        with file:
            command = [sys.executable, "-m", "zerolab", *self.arguments]
            environment = {**os.environ, **ONE_THREAD}
            # A session of its own: Ctrl-C in the terminal reaches the parent alone, which then stops its jobs once.
            self.process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    @property
    def failure(self) -> str | None:
        """How it ended with an error, in one line with the end of its log; None if it did not."""
        if self.process is None or self.process.poll() in (None, 0):
            return None
        last = (self.log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
        return f"{self.name} ended with code {self.process.returncode}: {last} (log: {self.log})"

    def wait(self) -> None:
        """Wait for its end after a signal; kill it if that takes too long."""
        if self.process:
            try:
                self.process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def run_all(jobs: Sequence[Job], parallel: int, keep_going: bool = False) -> Iterator[None]:
    """Start the jobs in order, at most `parallel` at a time. Yield between looks; end when all have ended.

    However the caller leaves, by Ctrl-C or SIGTERM too, the jobs that still run are told to stop, all at once. A run
    then saves a checkpoint at its next step. Raises UserError at the first failure unless `keep_going`.
    """
    waiting = list(jobs)
    with _interrupt_on_sigterm():
        try:
            going_on = True
            while going_on:
                while waiting and sum(job.running for job in jobs) < parallel:
                    waiting.pop(0).start()
                yield
                going_on = not all(job.ended for job in jobs)
                failure = next(filter(None, (job.failure for job in jobs)), None)
                if failure and not keep_going:
                    raise UserError(failure)
        finally:
            running = [job for job in jobs if job.running]
            for job in running:
                if job.process:
                    job.process.terminate()
            for job in running:
                job.wait()


@contextmanager
def _interrupt_on_sigterm() -> Iterator[None]:
    """SIGTERM, with which a batch system ends a job, acts as Ctrl-C does. Outside the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def training_job(recipe: str | Path, config: RunConfig, overrides: Sequence[str], resume: bool, log: Path) -> Job:
    """A job that trains `config`, which is `recipe` with `overrides`; with `resume` from its last checkpoint if any."""
    flag = "--resume" if resume and can_resume(config.folder) else "--overwrite"
    settings = [word for item in overrides for word in ("--set", item)]
    return Job(f"{config.name} seed {config.seed}", ["train", str(recipe), flag, *settings], log)


def metrics_so_far(folder: Path) -> list[dict[str, Any]]:
    """What a run has logged by now, [] before it has."""
    return read_metrics(folder) if (folder / METRICS).is_file() else []
