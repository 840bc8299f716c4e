"""Connect to a Ray cluster, or start a local one, and start the engines and the learner of a config in it."""

import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from zerolab.config import ClusterConfig, RunConfig
from zerolab.errors import UserError
from zerolab.learner.precision import COMPUTE
from zerolab.rollout.engine import Engine

if TYPE_CHECKING:
    from zerolab.cluster.engine_pool import RemoteEngines
    from zerolab.cluster.learner_pool import RemoteLearner

OLDEST = (2, 60)  # what was tested with
CONNECT_S = 3.0
EMPTY_SETTINGS = b"\0\0\0\4\0\0\0\0\0"  # a frame of HTTP/2: length, kind 4, flags, stream


def connect(config: ClusterConfig, cpus: int) -> Callable[[], None]:
    """Connects this process; returns what ends it. Raises UserError where that fails.

    A local Ray gets as many CPUs as the run asks for, even where the machine has fewer: they take turns then. A process
    that is connected already, stays so.
    """
    ray = _import_ray()
    if ray.is_initialized():
        return lambda: None
    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    if config.address is None:
        # "local": one of its own, also where another Ray runs on this machine.
        options |= {"address": "local", "num_cpus": max(cpus, os.cpu_count() or 1)}
    else:
        options = {"address": config.address, "log_to_driver": False, "logging_level": logging.ERROR}
        _check_address(config.address)
    try:
        ray.init(**options)
    except Exception as error:  # Ray raises OSError, RuntimeError, ValueError, ConnectionError and its own
        with suppress(Exception):
            ray.shutdown()
        raise UserError(_explain(config.address, error)) from error
    _keep_quiet()
    return ray.shutdown


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError(f"cluster needs Ray ({error}): pip install 'zerolab[ray]', or leave cluster out") from error
    check_version(metadata.version("ray"))
    return ray


def check_version(version: str) -> None:
    """Raises UserError for a Ray that is too old."""
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise UserError(
            f"cluster needs Ray {needed} or newer, and {version} is installed: pip install -U 'zerolab[ray]'"
        )


def _check_address(address: str) -> None:
    """Refuses what is no address, and one where nobody listens."""
    if address == "auto":
        return
    if address.startswith("ray://"):
        raise UserError(
            f"cluster.address = {address}: a run does not go through Ray Client, which ends it with the first lost "
            "connection; start it on a node of the cluster with address auto, or with `ray job submit`"
        )
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdigit() and int(port) < 2**16):
        raise UserError(f"cluster.address = {address} is no address: give auto or HOST:PORT (Ray's port is 6379)")
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_S) as connection:
            connection.settimeout(CONNECT_S)
            if not os.environ.get("RAY_USE_TLS") and not _speaks_http2(connection):
                raise UserError(f"what answers at {address} is no Ray cluster: is it the port of `ray start` (6379)?")
    except OSError as error:
        raise UserError(
            f"no Ray cluster answers at {address} ({error.strerror or error}): start one with `ray start --head`, or "
            "leave cluster.address out for a local one"
        ) from error


def _speaks_http2(connection: socket.socket) -> bool:
    """Whether the other side greets as gRPC does (RFC 9113, 3.4). Ray itself would ask again for many minutes."""
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + EMPTY_SETTINGS)
    try:
        return connection.recv(9)[3:4] == EMPTY_SETTINGS[3:4]
    except OSError:
        return False


def _explain(address: str | None, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, ConnectionError) and address == "auto":
        return "no Ray runs on this machine: start one with `ray start --head`, or leave cluster.address out"
    if "mismatch" in lines[0].lower():
        return f"the Ray cluster at {address} has other versions than this process ({' '.join(lines)})"
    where = f"the Ray cluster at {address}" if address else "a local Ray"
    return f"{where} cannot be used: {lines[0]}"


def _keep_quiet() -> None:
    """Ray prints on stdout that a worker died; who called it hears so by an exception, and says it once."""
    with suppress(ImportError):
        from ray._private import worker

        if hasattr(worker, "print_worker_logs"):
            worker.print_worker_logs = lambda *arguments, **options: None


@dataclass(frozen=True)
class Launched:
    engine: "RemoteEngines"
    learner: "RemoteLearner"
    release: Callable[[], None]


def launch(config: RunConfig, new_engine: Callable[[], Engine], new_rank: Callable[[], Any]) -> Launched:
    """Connects, finds room, and starts all processes; each makes its part by `new_engine` or `new_rank`.

    Raises UserError for a cluster that cannot be reached or is too small, and what the processes raise at their start.
    """
    cluster = config.cluster
    assert cluster is not None
    cpus = cluster.engines * cluster.cpus_per_engine + cluster.learner_ranks * cluster.cpus_per_rank
    disconnect = connect(cluster, cpus)
    started: list[Callable[[], None]] = [disconnect]
    try:
        from zerolab.cluster.actors import needs
        from zerolab.cluster.engine_pool import EngineSlot, RemoteEngines
        from zerolab.cluster.learner_pool import RemoteLearner

        for_engine, for_rank = needs(cluster, config.model.device)
        threads = config.threads or cluster.cpus_per_engine or 1, config.threads or cluster.cpus_per_rank or 1
        shared = cluster.transport == "auto"
        learner = RemoteLearner(
            new_rank,
            cluster,
            config.learner,
            for_rank,
            budget=config.rollout.max_new_tokens,
            threads=threads[1],
            dtype=COMPUTE[config.model.precision],
        )
        started.append(learner.close)
        slots = [EngineSlot(i, new_engine, for_engine, threads[0], shared) for i in range(cluster.engines)]
        started += [slot.close for slot in slots]
        learner.start()
        engine = RemoteEngines(slots, cluster, learner.lose)
    except BaseException:
        _release(started)
        raise
    return Launched(engine, learner, lambda: _release([disconnect, learner.close]))


def _release(started: list[Callable[[], None]]) -> None:
    """Ends all, the last first, whatever happens on the way."""
    error: BaseException | None = None
    for end in reversed(started):
        try:
            end()
        except Exception as raised:
            error = error or raised
    if error:
        raise error
