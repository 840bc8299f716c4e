"""The place of one engine: room in the cluster, the actor in it, and what happens when it is lost."""

from collections.abc import Callable
from typing import Any, Literal

import ray

from zerolab.cluster.calls import Gone, end_process, fetch
from zerolab.cluster.engine_actor import EngineActor
from zerolab.cluster.placement import Needs, Room
from zerolab.rollout.engine import Engine

State = Literal["waiting for room", "starting", "ready", "given up"]
FAILURES = 3  # engines lost in a row that finished nothing, before the place is given up


class Seat:
    """Advances by `tend`, which never waits."""

    def __init__(self, number: int, new_engine: Callable[[], Engine], needs: Needs, threads: int, shared: bool) -> None:
        self.number, self.needs = number, needs
        self.arguments = new_engine, threads, shared
        self.state: State = "waiting for room"
        self.actor: Any = None
        self.process: Any = None
        self.parcel: Any = None  # the weights that its engine has; None: those that the model came with
        self.failures = 0
        self.reason = ""
        self._room = Room(needs)
        self._where: Any = None
        self._started: Any = None

    def tend(self) -> None:
        """The next state, where it has come about. Raises what the engine's own start raised."""
        if self.state == "waiting for room" and self._room.ready():
            self.actor = self._room.make(EngineActor)
            self._where = self.actor.process.remote()
            self._started = self.actor.start.remote(*self.arguments)
            self.state = "starting"
        if self.state == "starting":
            if self.process is None and ray.wait([self._where], timeout=0)[0]:
                self.process = self._try(self._where)
            if self.state == "starting" and ray.wait([self._started], timeout=0)[0]:
                self._try(self._started)
                if self.state == "starting":
                    self.state, self.parcel = "ready", None

    def _try(self, ref: Any) -> Any:
        try:
            return fetch(ref)
        except Gone as gone:
            self.failures += 1
            self.lose(str(gone))
            return None

    def lose(self, reason: str) -> None:
        """Ends the engine and asks for room for another one."""
        self.reason = reason
        end_process(self.actor, self.process)
        self._room.leave()
        self.actor = self.process = self._where = self._started = None
        if self.failures >= FAILURES:
            self.state = "given up"
            return
        self._room = Room(self.needs)
        self.state = "waiting for room"

    def calls(self, verb: str, *arguments: Any) -> Any:
        return self.actor.call.remote(verb, *arguments)

    def close(self) -> None:
        end_process(self.actor, self.process)
        self._room.leave()
        self.state = "given up"
