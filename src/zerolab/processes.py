"""Stop signals, the number of usable cores, and child processes that run `zerolab`, each with one thread."""

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
    """A context in which the first SIGINT or SIGTERM only sets `requested`. A second one raises KeyboardInterrupt.

    It does nothing outside the main thread.
    """

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
    """The number of cores that this process may use, in a container often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


STOP_SECONDS = 60.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass
class Job:
    """A process that runs `zerolab ARGUMENTS`, with its output in a log."""

    name: str
    arguments: list[str]
    log: Path
    process: subprocess.Popen[Any] | None = field(default=None, repr=False)

    def start(self) -> None:
        with clear_errors(self.log, "free space, or choose another folder"):
            self.log.parent.mkdir(parents=True, exist_ok=True)
            file = self.log.open("w")
        with file:
            command = [sys.executable, "-m", "zerolab", *self.arguments]
            environment = {**os.environ, **ONE_THREAD}
            # In a new session, because Ctrl-C must reach only the parent, which then stops each job once.
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
        """The error with which the job ended, in one line with the end of its log; None if there is none."""
        if self.process is None or self.process.poll() in (None, 0):
            return None
        last = (self.log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
        return f"{self.name} ended with code {self.process.returncode}: {last} (log: {self.log})"

    def wait(self) -> None:
        """Wait until the job ends after a signal. Kill it after STOP_SECONDS."""
        if self.process:
            try:
                self.process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def run_all(jobs: Sequence[Job], parallel: int, keep_going: bool = False) -> Iterator[None]:
    """Run the jobs in order, at most `parallel` at a time, and yield repeatedly until all have ended.

    If the caller leaves the loop, also by Ctrl-C or SIGTERM, all running jobs get a stop signal. A run then saves a
    checkpoint after its current step. Raises UserError at the first failure, unless `keep_going`.
    """
    waiting = list(jobs)
    with _interrupt_on_sigterm():
        try:
            unfinished = True
            while unfinished:
                while waiting and sum(job.running for job in jobs) < parallel:
                    waiting.pop(0).start()
                yield
                unfinished = not all(job.ended for job in jobs)
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
    """A context in which SIGTERM, which batch systems send, acts like Ctrl-C. No effect outside the main thread."""
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
    """A job that trains `config`, which is `recipe` with `overrides`. `resume`: from the last checkpoint, if any."""
    flag = "--resume" if resume and can_resume(config.folder) else "--overwrite"
    settings = [word for item in overrides for word in ("--set", item)]
    return Job(f"{config.name} seed {config.seed}", ["train", str(recipe), flag, *settings], log)


def metrics_so_far(folder: Path) -> list[dict[str, Any]]:
    """The rows that a run has logged so far; empty if there are none."""
    return read_metrics(folder) if (folder / METRICS).is_file() else []
