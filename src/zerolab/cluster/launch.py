"""From a config to engines and a learner in a Ray cluster."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zerolab.cluster.session import connect
from zerolab.config import RunConfig
from zerolab.learner.precision import COMPUTE
from zerolab.rollout.engine import Engine

if TYPE_CHECKING:
    from zerolab.cluster.engines import RemoteEngines
    from zerolab.cluster.learner import RemoteLearner


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
        from zerolab.cluster.engines import RemoteEngines
        from zerolab.cluster.learner import RemoteLearner
        from zerolab.cluster.placement import needs
        from zerolab.cluster.seat import Seat

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
        seats = [Seat(i, new_engine, for_engine, threads[0], shared) for i in range(cluster.engines)]
        started += [seat.close for seat in seats]
        learner.start()
        engine = RemoteEngines(seats, cluster, learner.lose)
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
