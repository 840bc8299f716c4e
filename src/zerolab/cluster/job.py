"""What an engine was asked to sample and has not delivered yet."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import ray

from zerolab.cluster.calls import Gone, fetch
from zerolab.cluster.seat import Seat
from zerolab.rollout.engine import Request

CHECKS = 10  # per deadline


@dataclass
class Job:
    seat: Seat
    actor: Any
    left: dict[int, Request]
    delivered: bool = False
    since: float = field(default_factory=time.monotonic)  # of the last sign of life
    progress: Any = None
    asked: Any = None
    asked_at: float = 0.0

    def alive(self) -> None:
        self.since = time.monotonic()

    def hangs(self, deadline: float) -> bool:
        """Whether nothing changed in the engine for so many seconds; asks it from time to time."""
        now = time.monotonic()
        if self.asked is not None and ray.wait([self.asked], timeout=0)[0]:
            try:
                progress = fetch(self.asked)
            except Gone:
                progress = self.progress  # its stream will say so
            if progress != self.progress:
                self.progress = progress
                self.alive()
            self.asked = None
        if self.asked is None and now - self.asked_at > deadline / CHECKS:
            self.asked, self.asked_at = self.actor.progress.remote(), now
        return now - self.since > deadline


def chunks(requests: Sequence[Request], count: int) -> Iterator[list[Request]]:
    """`count` parts with whole questions, or fewer where there are fewer questions."""
    questions = [list(group) for _, group in groupby(requests, key=lambda request: request.prompt_ids)]
    for rows in np.array_split(np.arange(len(questions)), count) if count else ():
        if len(rows):
            yield [request for row in rows for request in questions[row]]
