"""Several engines behind the interface of one. Questions are split over them.

If an engine is lost, another one samples what it had not delivered yet, and a new engine takes its place.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

import numpy as np
import ray
import torch

from zerolab.cluster.actors import ActorDied, PlacementGroup, Resources, end_process, fetch, gather
from zerolab.cluster.engine_worker import EngineActor
from zerolab.cluster.weight_transfer import TransferLost, WeightTransfer, store
from zerolab.config import ClusterConfig
from zerolab.datatypes import Completion
from zerolab.errors import UserError
from zerolab.rollout.engine import Engine, Request
from zerolab.rollout.in_flight import unbegun
from zerolab.terminal import echo

State = Literal["waiting for room", "starting", "ready", "given up"]
FAILURES = 3  # engines lost in a row that finished nothing, before the place is given up


class EngineSlot:
    """Advances by `poll`, which never waits."""

    def __init__(
        self, number: int, new_engine: Callable[[], Engine], needs: Resources, threads: int, shared: bool
    ) -> None:
        self.number, self.needs = number, needs
        self.arguments = new_engine, threads, shared
        self.state: State = "waiting for room"
        self.actor: Any = None
        self.process: Any = None
        self.transfer: Any = None  # the weights that its engine has; None: those that the model came with
        self.failures = 0
        self.reason = ""
        self._room = PlacementGroup(needs)
        self._where: Any = None
        self._started: Any = None

    def poll(self) -> None:
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
                    self.state, self.transfer = "ready", None

    def _try(self, ref: Any) -> Any:
        try:
            return fetch(ref)
        except ActorDied as gone:
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
        self._room = PlacementGroup(self.needs)
        self.state = "waiting for room"

    def calls(self, verb: str, *arguments: Any) -> Any:
        return self.actor.call.remote(verb, *arguments)

    def close(self) -> None:
        end_process(self.actor, self.process)
        self._room.leave()
        self.state = "given up"


CHECKS = 10  # per deadline


@dataclass
class Job:
    slot: EngineSlot
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
            except ActorDied:
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


POLL_S = 0.25
IDLE_S = 0.02


class RemoteEngines:
    """See engine.Engine for the contract. `lost` is called with a transfer that nobody has any more.

    An engine is replaced when its process dies, when it makes no progress within engine_deadline_s while it generates,
    and when it does not answer a call within that time. Where there is no room for another one, the rest goes on.
    Generating, and updating while paused, may happen in two threads.
    """

    def __init__(
        self, slots: Sequence[EngineSlot], config: ClusterConfig, lost: Callable[[WeightTransfer], None]
    ) -> None:
        self.slots, self.config, self.lost = list(slots), config, lost
        self.version = 0
        self.replaced = 0
        self._transfer: WeightTransfer | None = None
        self._partial = False
        self._lock = threading.RLock()  # over slots and weights
        self._busy = self._paused = self._aborted = False
        self._alone_since: float | None = None  # no engine was ready since
        self._cut: set[int] = set()
        self._wait_for_all()

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        if self._busy:
            raise RuntimeError("the engines are generating already")
        queue, jobs = list(requests), dict[Any, Job]()
        self._busy, self._aborted = True, False
        self._cut.clear()
        try:
            while queue or jobs:
                self._assign(queue, jobs)
                if self._aborted or self._cut:
                    yield from self._never_begun(queue)
                    if not queue and not jobs:
                        return
                for stream in ray.wait(list(jobs), timeout=POLL_S)[0] if jobs else self._nothing_to_do():
                    yield from self._received(stream, queue, jobs)
                for stream in [s for s, job in jobs.items() if self._hangs(job)]:
                    self._lose(jobs.pop(stream), f"it made no progress for {self.config.engine_deadline_s:g} s", queue)
        finally:
            self._abandon(jobs)
            self._busy = False

    def _nothing_to_do(self) -> Sequence[Any]:
        time.sleep(IDLE_S)
        return ()

    def _assign(self, queue: list[Request], jobs: dict[Any, Job]) -> None:
        """Splits what waits over the engines that are idle."""
        if not queue:
            return
        with self._lock:
            self._tend()
            if self._aborted or self._paused:
                return
            busy = {job.slot for job in jobs.values()}
            idle = [slot for slot in self.slots if slot.state == "ready" and slot not in busy]
            if not idle and not busy:
                self._check_hope()
            for slot, part in zip(idle, chunks(queue, len(idle)), strict=False):
                stream = slot.actor.generate.options(num_returns="streaming").remote(part)
                jobs[stream] = Job(slot, slot.actor, {r.id: r for r in part})
            if idle:
                self._alone_since = None
                queue.clear()

    def _received(self, stream: Any, queue: list[Request], jobs: dict[Any, Job]) -> Iterator[Completion]:
        job = jobs[stream]
        try:
            completions = fetch(next(stream))
        except StopIteration:
            queue += jobs.pop(stream).left.values()
            return
        except ActorDied as gone:
            self._lose(jobs.pop(stream), str(gone), queue)
            return
        except BaseException:
            del jobs[stream]  # the engine refused, and is idle
            raise
        job.alive()
        job.slot.failures = 0
        for completion in completions:
            del job.left[completion.request_id]
            job.delivered = True
            yield completion

    def _hangs(self, job: Job) -> bool:
        if self._paused:
            job.alive()
        return job.hangs(self.config.engine_deadline_s)

    def _lose(self, job: Job, reason: str, queue: list[Request]) -> None:
        queue += job.left.values()
        with self._lock:
            if job.slot.actor is job.actor:
                job.slot.failures += not job.delivered
                self._replace(job.slot, reason)

    def _replace(self, slot: EngineSlot, reason: str) -> None:
        echo(f"zerolab: engine {slot.number} was lost ({reason}); another one takes its place", error=True)
        self.replaced += 1
        slot.lose(reason)

    def _abandon(self, jobs: dict[Any, Job]) -> None:
        """The caller has left: what still runs is ended, so that the engines are idle."""
        for stream, job in jobs.items():
            try:
                gather([job.actor.call.remote("abort")], self.config.engine_deadline_s)
                for ref in stream:
                    gather([ref], self.config.engine_deadline_s)
            except Exception as error:
                self._lose(job, str(error), [])

    def _never_begun(self, queue: list[Request]) -> Iterator[Completion]:
        """What is aborted while no engine has it."""
        ended = [r for r in queue if self._aborted or r.id in self._cut]
        queue[:] = [r for r in queue if r not in ended]
        self._cut.clear()
        for request in ended:
            yield unbegun(request, self.version)

    def _tend(self) -> None:
        """Brings slots forward; an engine that has just started gets the weights of the others."""
        for slot in self.slots:
            slot.poll()
            if slot.state == "ready" and slot.transfer is not self._transfer:
                self._send([slot])

    def _send(self, slots: Sequence[EngineSlot]) -> None:
        transfer = self._transfer
        refs = [(slot, slot.actor.update.remote(self.version, transfer, self._partial)) for slot in slots]
        for slot in slots:
            slot.transfer = transfer
        for slot, ref in refs:
            try:
                gather([ref], self.config.engine_deadline_s)
                if self._paused:
                    gather([slot.calls("pause")], self.config.engine_deadline_s)
            except ActorDied as gone:
                self._replace(slot, str(gone))
            except TransferLost:
                assert transfer is not None
                self.lost(transfer)

    def _wait_for_all(self) -> None:
        """At the beginning every engine has to come up. Raises UserError where one does not."""
        end = time.monotonic() + self.config.placement_s
        while any(slot.state != "ready" for slot in self.slots):
            self._tend()
            for slot in self.slots:
                if slot.failures:
                    raise UserError(f"engine {slot.number} did not start: {slot.reason}")
            if time.monotonic() > end:
                late = next(slot for slot in self.slots if slot.state != "ready")
                raise UserError(
                    f"engine {late.number} was {late.state} after {self.config.placement_s:g} s: raise "
                    "cluster.placement_s, lower cluster.engines, or see `ray status`"
                )
            time.sleep(IDLE_S)

    def _check_hope(self) -> None:
        """Raises UserError where no engine is left and none comes up."""
        why = f"no engine is left, the last was lost because {self.slots[-1].reason}"
        if all(slot.state == "given up" for slot in self.slots):
            raise UserError(f"{why}; see `ray status` and the logs of Ray")
        self._alone_since = self._alone_since or time.monotonic()
        if time.monotonic() - self._alone_since > self.config.placement_s:
            raise UserError(f"{why}, and there was no other for {self.config.placement_s:g} s; see `ray status`")

    def abort(self, ids: Collection[int] | None = None) -> None:
        if ids is None:
            self._aborted = True
        else:
            self._cut |= set(ids)
        self._everywhere("abort", None if ids is None else tuple(ids))

    def pause(self) -> None:
        self._paused = True
        self._everywhere("pause")

    def resume(self) -> None:
        self._everywhere("resume")
        self._paused = False

    def update_weights(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]], partial: bool = False) -> None:
        with self._lock:
            self._partial = partial
            self._transfer = tensors if isinstance(tensors, WeightTransfer) else store(tensors)
            self.version = version
            self._send(self._ready())

    def sleep(self, weights: bool = False) -> None:
        self._everywhere("sleep", weights)

    def wake(self) -> None:
        self._everywhere("wake")

    def _ready(self) -> list[EngineSlot]:
        return [slot for slot in self.slots if slot.state == "ready"]

    def _everywhere(self, verb: str, *arguments: Any) -> None:
        with self._lock:
            refs = [(slot, slot.calls(verb, *arguments)) for slot in self._ready()]
            for slot, ref in refs:
                try:
                    gather([ref], self.config.engine_deadline_s)
                except ActorDied as gone:
                    self._replace(slot, str(gone))

    def close(self) -> None:
        with self._lock:
            for slot in self.slots:
                slot.close()
