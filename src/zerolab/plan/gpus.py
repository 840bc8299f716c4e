"""GPUs by name, and clusters of them as text: 1xH100, 8xA100-80, 2x8xH100.

Figures are those of the vendor's data sheets: peak of dense bf16 matrix products with fp32 accumulation (a sheet that
names the rate with sparsity is halved), peak outside of the tensor cores in fp32 (what PyTorch computes fp32 products
with by default), memory bandwidth, and the fastest link to a neighbour in the same machine in one direction (sheets
name the sum of both). A sheet's GB are taken as 10^9 bytes: the few per cent that a card has beyond that are what CUDA
keeps for itself.
"""

import difflib
import re
from dataclasses import dataclass

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
