"""Training arms as one-thread processes, as many at a time as there are cores."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zerolab.errors import UserError
from zerolab.rundir import METRICS, clear_errors, read_metrics

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
