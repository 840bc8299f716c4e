"""Calls into other processes: answers in time, their own exceptions, and an end for those that do not answer."""

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
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

KILL_S = 10.0


class Gone(Exception):
    """The process died or gave no answer in time. The message says which."""


@dataclass(frozen=True)
class Process:
    """Where an actor lives."""

    pid: int
    node: str


def this_process() -> Process:
    return Process(os.getpid(), ray.get_runtime_context().get_node_id())


def fetch(ref: Any) -> Any:
    """The value of a finished call. Raises what the call raised, or Gone."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, RayError) or not isinstance(cause, BaseException):
            raise Gone(_line(error, -1)) from error
        raise cause from None
    except RayActorError as error:
        raise Gone("its process died") from error
    except (ObjectLostError, GetTimeoutError, RayError) as error:
        raise Gone(_line(error, 0)) from error


def gather(refs: Sequence[Any], seconds: float) -> list[Any]:
    """The values of all, in order. Raises as soon as one failed; Gone after `seconds`."""
    end, pending = time.monotonic() + seconds, list(refs)
    while pending:
        ready, pending = ray.wait(pending, num_returns=1, timeout=max(0.0, end - time.monotonic()))
        if not ready:
            raise Gone(f"it gave no answer for {seconds:g} s")
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
