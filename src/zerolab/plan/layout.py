"""Which GPU does what: engines and learner ranks on the same GPUs, or apart."""

from dataclasses import dataclass

from zerolab.config import ClusterConfig, RunConfig
from zerolab.errors import UserError
from zerolab.plan.gpus import Cluster


@dataclass(frozen=True)
class Layout:
    """An engine holds the whole model on one GPU; learner ranks share weights, gradients and moments (FSDP)."""

    engines: int
    ranks: int
    colocated: bool  # engines and ranks take turns on the same GPUs
    staleness: int = 0  # updates that samples may be behind; above 0 sampling and learning go on at once

    @property
    def gpus(self) -> int:
        return max(self.engines, self.ranks) if self.colocated else self.engines + self.ranks

    @property
    def name(self) -> str:
        if self.colocated:
            return "one GPU, in turn" if self.ranks == 1 else f"{self.ranks} GPUs, in turn"
        return f"{self.engines} engines + {self.ranks} ranks, staleness {self.staleness}"


def colocated(cluster: Cluster) -> Layout:
    return Layout(cluster.count, cluster.count, colocated=True)


def apart(engines: int, cluster: Cluster, staleness: int) -> Layout:
    return Layout(engines, cluster.count - engines, colocated=False, staleness=staleness)


def choose(
    config: RunConfig, cluster: Cluster, engines: int | None, ranks: int | None, staleness: int | None
) -> Layout:
    """The split that the options name, else the recipe's table [cluster], else all GPUs for both in turn.

    Raises UserError for a split that needs other GPUs than there are.
    """
    table = config.cluster
    if engines is None and ranks is None and table is not None:
        engines, ranks = table.engines, table.learner_ranks
        if share_gpus(table):
            if max(engines, ranks) > cluster.count:
                raise UserError(
                    f"the recipe's cluster puts {engines} engines and {ranks} learner ranks on shared GPUs, and "
                    f"{cluster.name} has {cluster.count}: set cluster.engines and cluster.learner_ranks"
                )
            return Layout(engines, ranks, colocated=True)
    if engines is None and ranks is None:
        if staleness:
            raise UserError("--staleness needs engines of their own: give --engines, or leave it out")
        return colocated(cluster)
    engines = cluster.count - (ranks or 0) if engines is None else engines
    ranks = cluster.count - engines if ranks is None else ranks
    if engines < 1 or ranks < 1 or engines + ranks > cluster.count:
        raise UserError(
            f"{engines} engines and {ranks} learner ranks are not a split of {cluster.count} GPUs: "
            "give --engines and --learner-ranks that add up to them"
        )
    behind = config.rollout.max_staleness if staleness is None else staleness
    return Layout(engines, ranks, colocated=False, staleness=behind)


def share_gpus(table: ClusterConfig) -> bool:
    """Whether an engine and a learner rank fit on one GPU together, by the shares that the recipe gives them."""
    shares = (table.gpus_per_engine, table.gpus_per_rank)
    return all(share is not None and 0 < share < 1 for share in shares) and sum(s or 0 for s in shares) <= 1


def candidates(cluster: Cluster) -> list[Layout]:
    """Colocated, and splits by halves, quarters and so on, in step and one update behind."""
    found = [colocated(cluster)]
    shares = {max(1, min(cluster.count - 1, round(cluster.count * k / 16))) for k in range(1, 16)}
    if cluster.count > 1:
        found += [apart(engines, cluster, k) for engines in sorted(shares) for k in (0, 1)]
    return found
