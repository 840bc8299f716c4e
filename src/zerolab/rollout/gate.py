"""What may happen between two steps of an engine that generates, from any thread: pause, end requests, new weights."""

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager


class Gate:
    """The states of an engine, and the rules between them: one `generate` at a time, new weights only while idle or
    paused, nothing sampled asleep or on weights that arrived in part.

    A lock is held during a step; flags are read between steps.
    """

    def __init__(self) -> None:
        self.busy = self.asleep = False
        self.complete = True  # False after an update that failed half way, and where weights were given back
        self._paused = self._aborted = False
        self._cut: deque[int] = deque()
        self._between_steps = threading.Condition()

    def abort(self, ids: Collection[int] | None) -> None:
        # Set before the lock is asked for: locks are not fair, and the generating thread would go on taking it.
        if ids is not None:
            self._cut.extend(ids)
        else:
            self._aborted = self.busy
        with self._between_steps:
            self._between_steps.notify_all()

    def pause(self) -> None:
        self._paused = True  # the generating thread sees it before its next step, and lets the lock go
        with self._between_steps:
            pass

    def resume(self) -> None:
        with self._between_steps:
            self._paused = False
            self._between_steps.notify_all()

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Around a change of weights. What raises inside leaves them incomplete."""
        if self.busy and not self._paused:
            raise RuntimeError("weights may change only while the engine is idle or paused")
        with self._between_steps:
            self.complete = False
            yield
            self.complete = True

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Around what needs an engine that does not generate."""
        if self.busy:
            raise RuntimeError("the engine is generating; abort or finish first")
        with self._between_steps:
            yield

    @contextmanager
    def generating(self, begin: Callable[[], None]) -> Iterator[None]:
        """Around one `generate`, which `begin` prepares."""
        with self._between_steps:
            if self.busy:
                raise RuntimeError("the engine is generating already")
            if self.asleep:
                raise RuntimeError("the engine sleeps; call wake() first")
            self._check_weights()
            self._aborted = False
            self._cut.clear()
            begin()
            self.busy = True
        try:
            yield
        finally:
            with self._between_steps:
                self.busy = self._aborted = False

    @contextmanager
    def step(self) -> Iterator[bool]:
        """Around one step, once no pause holds it. False: everything is to end."""
        with self._between_steps:
            self._between_steps.wait_for(lambda: not self._paused or self._aborted)
            if not self._aborted:
                self._check_weights()
            yield not self._aborted

    def take_cut(self) -> set[int]:
        """Ids of the requests to end, each told once."""
        return {self._cut.popleft() for _ in range(len(self._cut))}

    def _check_weights(self) -> None:
        if not self.complete:
            raise RuntimeError("the last weight update failed half way; update the weights again")
