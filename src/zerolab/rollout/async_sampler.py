"""Sampling ahead of the learner, at most so many updates behind it."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Made = TypeVar("Made")

END_POLL_S = 0.2


class AsyncSampler(Generic[Made]):
    """Makes rollouts in a thread of its own and hands them out in order.

    Rollout r (from 0) is consumed after r updates. It begins when r - `staleness` updates were published at least, so
    that none of its tokens is sampled under weights more than `staleness` updates older than those that it meets.
    """

    def __init__(self, make: Callable[[], Made], staleness: int) -> None:
        self.make, self.staleness = make, staleness
        self.taken = 0  # rollouts handed out
        self.published = 0  # updates published since the first of them
        self._begun = 0
        self._made: deque[Made] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def take(self) -> Made:
        """The next rollout; waits for it. What went wrong while one was made is raised here."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sampling ahead", daemon=True)
            self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._made or self._error)
            if not self._made and self._error:
                raise self._error
            self.taken += 1
            return self._made.popleft()

    def publish(self) -> None:
        """The learner has learned from everything that was taken, and the engine has its weights."""
        with self._changed:
            self.published = self.taken
            self._changed.notify_all()

    def end(self, abort: Callable[[], None]) -> None:
        """Stops for good; `abort` cuts short what is being sampled."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        while self._thread and self._thread.is_alive():
            abort()
            self._thread.join(END_POLL_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._begun <= self.published + self.staleness)
                if self._ended:
                    return
                self._begun += 1
            try:
                made = self.make()
            except BaseException as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._made.append(made)
                self._changed.notify_all()
