"""Calls to Ray actors with time limits, and the placement group that reserves their resources.

The exceptions of an actor reach the caller as they are. An actor that does not answer is ended.
"""

import os
import re
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from zerolab.config import ClusterConfig
from zerolab.errors import UserError

KILL_S = 10.0


class ActorDied(Exception):
    """The process died or gave no answer in time. The message says which."""


@dataclass(frozen=True)
class Process:
    """Where an actor lives."""

    pid: int
    node: str


def this_process() -> Process:
    return Process(os.getpid(), ray.get_runtime_context().get_node_id())


def fetch(ref: Any) -> Any:
    """The value of a finished call. Raises what the call raised, or ActorDied."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, RayError) or not isinstance(cause, BaseException):
            raise ActorDied(_line(error, -1)) from error
        raise cause from None
    except RayActorError as error:
        raise ActorDied("its process died") from error
    except (ObjectLostError, GetTimeoutError, RayError) as error:
        raise ActorDied(_line(error, 0)) from error


def gather(refs: Sequence[Any], seconds: float) -> list[Any]:
    """The values of all, in order. Raises as soon as one failed; ActorDied after `seconds`."""
    end, pending = time.monotonic() + seconds, list(refs)
    while pending:
        ready, pending = ray.wait(pending, num_returns=1, timeout=max(0.0, end - time.monotonic()))
        if not ready:
            raise ActorDied(f"it gave no answer for {seconds:g} s")
        fetch(ready[0])
    return [fetch(ref) for ref in refs]


def end_process(actor: Any, process: Process | None) -> None:
    """Ends an actor, also one whose process is stopped and hears nothing."""
    with suppress(Exception):
        ray.kill(actor, no_restart=True)
    if process is None:
        return
    if process.node == ray.get_runtime_context().get_node_id():
        _kill(process.pid)
        return
    there = NodeAffinitySchedulingStrategy(process.node, soft=False)
    with suppress(Exception):  # the node may be gone too
        ray.get(ray.remote(_kill).options(num_cpus=0, scheduling_strategy=there).remote(process.pid), timeout=KILL_S)


def _kill(pid: int) -> None:
    """SIGKILL, where the process is still one of Ray's."""
    with suppress(OSError):
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
            os.kill(pid, signal.SIGKILL)


def _line(error: BaseException, number: int) -> str:
    """A line of a message of Ray, without its colours; the last is what a traceback says."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip() or type(error).__name__
    return text.splitlines()[number].strip()


POLL_S = 0.05
# Actors compute in threads that are not the main one, to which glibc gives heaps that cannot hold a large tensor: every
# one is mapped, and its pages cleared, anew. Learning seemed slower so; the lab log says how sure that is.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}


@dataclass(frozen=True)
class Resources:
    """Of one process."""

    cpus: int
    gpus: float

    @property
    def bundle(self) -> dict[str, float]:
        found = {name: float(value) for name, value in (("CPU", self.cpus), ("GPU", self.gpus)) if value}
        return found or {"CPU": 0.001}  # Ray refuses an empty one

    @property
    def options(self) -> dict[str, float]:
        return {"num_cpus": self.bundle.get("CPU", 0), "num_gpus": self.gpus}


def needs(config: ClusterConfig, device: str) -> tuple[Resources, Resources]:
    """Of an engine and of a learner rank. UserError where the whole cluster is too small for all of them."""
    total = ray.cluster_resources()
    gpu = 1.0 if device != "cpu" and total.get("GPU", 0) else 0.0
    engine = Resources(config.cpus_per_engine, gpu if config.gpus_per_engine is None else config.gpus_per_engine)
    rank = Resources(config.cpus_per_rank, gpu if config.gpus_per_rank is None else config.gpus_per_rank)
    for kind, short in (("CPU", "cpus"), ("GPU", "gpus")):
        each = getattr(engine, short), getattr(rank, short)
        wanted = config.engines * each[0] + config.learner_ranks * each[1]
        if wanted > total.get(kind, 0):
            raise UserError(
                f"the cluster has {total.get(kind, 0):g} {kind}s, and {config.engines} engines x {each[0]:g} + "
                f"{config.learner_ranks} learner ranks x {each[1]:g} need {wanted:g}: lower cluster.engines, "
                f"cluster.learner_ranks or cluster.{short}_per_*"
            )
    return engine, rank


class PlacementGroup:
    """A placement group of `count` equal bundles, close together where that is possible."""

    def __init__(self, each: Resources, count: int = 1) -> None:
        self.each = each
        self.group = placement_group([each.bundle] * count, strategy="PACK")

    def ready(self) -> bool:
        return bool(self.group.wait(0))

    def wait(self, seconds: float) -> None:
        """Raises ActorDied where there is no room in time."""
        end = time.monotonic() + seconds
        while not self.ready():
            if time.monotonic() > end:
                raise ActorDied(f"the cluster had no room for it within {seconds:g} s")
            time.sleep(POLL_S)

    def make(self, kind: Any, index: int = 0) -> Any:
        """An actor in bundle `index`."""
        there = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=index)
        own = {"env_vars": ENVIRONMENT}
        return kind.options(scheduling_strategy=there, runtime_env=own, **self.each.options).remote()

    def leave(self) -> None:
        remove_placement_group(self.group)
