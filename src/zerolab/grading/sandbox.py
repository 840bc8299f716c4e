"""Persistent worker processes that can be killed: the backstop behind the work caps.

A worker is a fresh interpreter on two pipes (no fork of this process, no signals, no shared memory), so it works in
threads, in asyncio, under any multiprocessing start method and after CUDA has started. A worker that misses its
deadline is killed and replaced; the next question does not notice.
"""

import atexit
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

STARTUP = 60.0  # seconds a worker may take to start or to import sympy; counted in no deadline


class WorkerTimeout(Exception):
    """The worker did not answer in time and was killed."""


class WorkerDied(Exception):
    """The worker ended by itself, for instance out of memory or CPU time."""


class WorkerFailed(Exception):
    """What the worker was asked to do raised an exception; the worker goes on."""


class JsonWorker:
    """A Python process that reads one JSON line at a time and answers each with one. Not for two threads at once.

    Args:
        command: the arguments of the interpreter.
        env: variables of its environment that differ from those of this process.
        quiet: whether its stderr is thrown away.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], quiet: bool) -> None:
        paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
        path = os.pathsep.join(p for p in paths if p)
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            env={**os.environ, "PYTHONPATH": path, **env},
            start_new_session=True,
        )
        self.rest = b""

    def send(self, message: Any) -> None:
        """Raises WorkerDied, after which the worker is gone."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except (OSError, ValueError) as error:  # ValueError: killed and closed before
            self.kill()
            raise WorkerDied("the worker is gone") from error

    def receive(self, seconds: float) -> Any:
        """The next reply. Raises WorkerTimeout or WorkerDied, after which the worker is gone."""
        assert self.process.stdout is not None
        end = time.monotonic() + seconds
        descriptor = self.process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
        while b"\n" not in self.rest:
            left = end - time.monotonic()
            if left <= 0 or not poll.poll(max(1, int(left * 1000))):
                self.kill()
                raise WorkerTimeout(f"no answer within {seconds:g} s")
            piece = os.read(descriptor, 65536)
            if not piece:
                self._wait_for_exit()
                self.kill()
                raise WorkerDied(f"the worker ended with code {self.process.returncode}")
            self.rest += piece
        line, self.rest = self.rest.split(b"\n", 1)
        return json.loads(line)

    def _wait_for_exit(self) -> None:
        """A process that closed its pipes is about to end: its own exit code says more than that of the kill."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=1)

    def kill(self) -> None:
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue  # unsent bytes of a dead worker
        self.process.wait()


class Worker(JsonWorker):
    """One process that judges answers. Not for use by two threads at once."""

    def __init__(self) -> None:
        # With a fixed hash seed, what a worker makes is the same in every process.
        env = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        super().__init__(["-P", "-m", "zerolab.grading.sandbox_worker"], env, quiet=True)
        self.loaded = set[str]()
        self.receive(STARTUP)

    def ask(self, answer: str, gold: str, ordered: bool, confirm: bool, seconds: float) -> tuple[str, str]:
        """(verdict, why) of judge.judge. Raises WorkerTimeout or WorkerDied, after which the worker is gone."""
        if confirm:
            self.load("confirm")
        self.send([answer, gold, ordered, confirm, seconds])
        verdict, why = self.receive(seconds)
        return verdict, why

    def request(self, request: dict[str, Any], seconds: float) -> Any:
        """Reply of reasoning-gym. Raises WorkerFailed; or WorkerTimeout, WorkerDied, and then the worker is gone."""
        self.load("gym")
        self.send({"seconds": seconds, **request})
        outcome, reply = self.receive(seconds)
        if outcome == "error":
            raise WorkerFailed(reply)
        return reply

    def load(self, what: str) -> None:
        """Import what a kind of question needs ("confirm": sympy; "gym"), once, in no deadline."""
        if what not in self.loaded:
            self.send(what)
            self.receive(STARTUP)
            self.loaded.add(what)


class Pool:
    """At most `size` workers, started when first needed and shared by all threads."""

    def __init__(self, size: int | None = None) -> None:
        self.size = size or min(4, os.cpu_count() or 1)
        self.idle: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(self.size):
            self.idle.put(None)

    def ask(self, answer: str, gold: str, ordered: bool, seconds: float) -> tuple[str, str]:
        """Both rounds of a question: normal forms and numbers, then sympy if these leave it open."""
        with self._worker() as worker:
            reply = worker.ask(answer, gold, ordered, False, seconds)
            if reply[0] == "open":
                reply = worker.ask(answer, gold, ordered, True, seconds)
            return reply

    def request(self, request: dict[str, Any], seconds: float) -> Any:
        """Worker.request, by whichever worker is free."""
        with self._worker() as worker:
            return worker.request(request, seconds)

    def warm(self) -> threading.Thread:
        """Start one worker and import sympy in it, in the background. Join the thread to wait for it."""

        def start() -> None:
            with suppress(WorkerDied, WorkerTimeout), self._worker() as worker:  # the next question meets it too
                worker.load("confirm")

        thread = threading.Thread(target=start, name="zerolab-grader-warm", daemon=True)
        thread.start()
        return thread

    @contextmanager
    def _worker(self) -> Iterator[Worker]:
        worker = self.idle.get()
        try:
            worker = worker or Worker()
            yield worker
        except WorkerFailed:
            raise
        except BaseException:
            if worker is not None:
                worker.kill()  # an unfinished exchange must not be read by the next question
            worker = None
            raise
        finally:
            self.idle.put(worker)

    def close(self) -> None:
        """End all idle workers."""
        for _ in range(self.size):
            try:
                worker = self.idle.get_nowait()
            except queue.Empty:
                return
            if worker is not None:
                worker.kill()
            self.idle.put(None)


_lock = threading.Lock()
_pools: dict[int, Pool] = {}  # by process: a forked child must not speak on its parent's pipes


def _after_fork() -> None:
    """A child starts with a lock of its own: another thread of its parent may have held this one."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def pool() -> Pool:
    """The pool of this process."""
    with _lock:
        if os.getpid() not in _pools:
            _pools.clear()
            _pools[os.getpid()] = Pool()
            atexit.register(_pools[os.getpid()].close)
        return _pools[os.getpid()]
