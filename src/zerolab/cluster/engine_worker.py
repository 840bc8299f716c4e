"""A sampling engine in a process of its own."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import ray
import torch

from zerolab.cluster.actors import Process, this_process
from zerolab.cluster.weight_transfer import Receiver, WeightTransfer
from zerolab.datatypes import Completion
from zerolab.rollout.engine import Engine, Request

FLUSH_S = 0.05


@ray.remote(concurrency_groups={"control": 2})
class EngineActor:
    """One thread generates, two others answer meanwhile."""

    engine: Engine

    @ray.method(concurrency_group="control")
    def process(self) -> Process:
        return this_process()

    def start(self, new_engine: Callable[[], Engine], threads: int, shared: bool) -> None:
        torch.set_num_threads(threads)
        self.engine, self.receiver, self.finished = new_engine(), Receiver(shared), 0

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Completion]]:
        for completions in together(self.engine.generate(requests), FLUSH_S):
            self.finished += len(completions)
            yield completions

    @ray.method(concurrency_group="control")
    def progress(self) -> tuple[int, int]:
        """Changes while the engine works: steps, where it counts them, and responses finished."""
        return getattr(self.engine, "steps", 0), self.finished

    @ray.method(concurrency_group="control")
    def call(self, verb: str, *arguments: Any) -> Any:
        return getattr(self.engine, verb)(*arguments)

    @ray.method(concurrency_group="control")
    def update(self, version: int, transfer: WeightTransfer, partial: bool) -> None:
        """An engine of one's own need not know of `partial`: it is asked for nothing but all weights."""
        how = {"partial": True} if partial else {}
        self.engine.update_weights(version, self.receiver.unpack(transfer), **how)


def together(completions: Iterable[Completion], seconds: float) -> Iterator[list[Completion]]:
    """What finishes within so many seconds, as one list: a message is not free. A thread works on meanwhile."""
    found: list[Completion] = []
    errors: list[BaseException] = []
    changed, ended = threading.Condition(), threading.Event()

    def work() -> None:
        try:
            for completion in completions:
                with changed:
                    found.append(completion)
                    changed.notify()
        except BaseException as error:
            errors.append(error)
        with changed:
            ended.set()
            changed.notify()

    threading.Thread(target=work, name="engine", daemon=True).start()
    while found or not ended.is_set():
        with changed:
            changed.wait_for(lambda: found or ended.is_set())
        ended.wait(seconds)  # for others to finish as well
        with changed:
            ready = found[:]
            found.clear()
        if ready:
            yield ready
    if errors:
        raise errors[0]
