"""GPUs by name, clusters of them as text (1xH100, 8xA100-80, 2x8xH100), and which GPU does what.

Figures are those of the vendors' data sheets: the peak of dense bf16 matrix products with fp32 accumulation (a rate
with sparsity is halved), the fp32 peak outside of the tensor cores (which PyTorch uses for fp32 products by default),
memory bandwidth, and the fastest link to a neighbour in the same machine in one direction (data sheets name the sum of
both). One GB of a data sheet is taken as 10^9 bytes; CUDA keeps the few per cent that a card has beyond that. Engines
and learner ranks share the GPUs or have their own.
"""

import difflib
import re
from dataclasses import dataclass

from zerolab.config import ClusterConfig, RunConfig
from zerolab.errors import UserError

NODE = 8  # GPUs of one machine, where the text names none


@dataclass(frozen=True)
class Gpu:
    name: str
    memory: float  # bytes
    flops: float  # per second, bf16
    flops_fp32: float
    bandwidth: float  # bytes per second, of its memory
    link: float  # bytes per second in one direction, to a GPU of the same machine
    source: str


def _gpu(name: str, gb: float, tflops: float, fp32: float, gb_per_s: float, link: float, source: str) -> Gpu:
    return Gpu(name, gb * 1e9, tflops * 1e12, fp32 * 1e12, gb_per_s * 1e9, link * 1e9, source)


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("A100-40", 40, 312, 19.5, 1555, 300, "NVIDIA A100 data sheet, SXM, 40 GB"),
        _gpu("A100-80", 80, 312, 19.5, 2039, 300, "NVIDIA A100 data sheet, SXM, 80 GB"),
        _gpu("H100", 80, 989, 67, 3350, 450, "NVIDIA H100 data sheet, SXM"),
        _gpu("H200", 141, 989, 67, 4800, 450, "NVIDIA H200 data sheet, SXM"),
        _gpu("B200", 180, 2250, 75, 7700, 900, "NVIDIA HGX B200 data sheet"),
        _gpu("L40S", 48, 362, 91.6, 864, 32, "NVIDIA L40S data sheet; PCIe 4.0 x16"),
        _gpu("RTX4090", 24, 165.2, 82.6, 1008, 32, "NVIDIA Ada architecture white paper; PCIe 4.0 x16"),
    )
}


@dataclass(frozen=True)
class Cluster:
    nodes: int
    per_node: int
    gpu: Gpu

    @property
    def count(self) -> int:
        return self.nodes * self.per_node

    @property
    def name(self) -> str:
        machines = f"{self.nodes}x" if self.nodes > 1 else ""
        return f"{machines}{self.per_node}x{self.gpu.name}"


def parse_cluster(text: str) -> Cluster:
    """[NODESx][GPUSx]NAME as a cluster; more than eight GPUs without a number of nodes are machines of eight.

    Raises UserError for a name that is unknown, a number that is no number of GPUs, and GPUs that fill no machines.
    """
    match = re.fullmatch(r"(?:(\d{1,6})x)?(?:(\d{1,6})x)?([a-z][\w.-]*)", text.strip(), re.IGNORECASE)
    if match is None:
        raise UserError(f"--gpus {text} is no cluster: write GPUSxNAME or NODESxGPUSxNAME, such as 8xA100-80, 2x8xH100")
    first, second, name = match.groups()
    gpu = find_gpu(name)
    nodes, per_node = (int(first), int(second)) if second else (1, int(first or 1))
    if nodes * per_node == 0:
        raise UserError(f"--gpus {text} is no GPU at all: give 1 or more")
    if not second and per_node > NODE:
        nodes, rest = divmod(per_node, NODE)
        if rest:
            raise UserError(
                f"--gpus {text}: {per_node} GPUs are no whole machines of {NODE}: write NODESxGPUSx{gpu.name}"
            )
        per_node = NODE
    return Cluster(nodes, per_node, gpu)


def find_gpu(name: str) -> Gpu:
    """The GPU of this name in any spelling of case, blanks and dashes. Raises UserError with the nearest name."""
    plain = {_plain(known): gpu for known, gpu in GPUS.items()}
    if _plain(name) in plain:
        return plain[_plain(name)]
    starts = [gpu.name for key, gpu in plain.items() if key.startswith(_plain(name))]
    near = starts or [plain[k].name for k in difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.5)]
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    raise UserError(f"--gpus: no GPU {name!r} is known here{hint}: choose one of {', '.join(GPUS)}")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


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
