"""Processes (ranks) that share every optimizer step, and the files of their sharded tensors.

Every rank has all rows of the step, so denominators are those of the step, and gradients are summed, not averaged. All
ranks gather sharded weights together, so all make the same number of passes.

A rank writes its own rows, and reads the rows that it needs from any number of safetensors files. So a checkpoint can
be loaded by another number of ranks, and no rank holds more than its part.
"""

import heapq
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.distributed.tensor import DTensor

from zerolab.errors import UserError
from zerolab.rl.batch import PASS_TOKENS, Batch, MicroBatch, no_work


class Ranks(Protocol):
    """The communication of a scorer with the other ranks of an optimizer step."""

    @property
    def pass_tokens(self) -> int:
        """Fixed cost of a forward and backward pass, in tokens."""
        ...

    def share(self, length_N: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The part of `rows` that this rank works on; length_N is in tokens, of all rows of the step."""
        ...

    def in_step(self, pieces: Iterable[MicroBatch], batch: Batch) -> Iterable[MicroBatch]:
        """`pieces`, then empty micro-batches until all ranks have the same number."""
        ...

    def total(self, sums: Counter[str]) -> Counter[str]:
        """Sums over all ranks, on every rank."""
        ...

    def joined(self, values_T: np.ndarray) -> np.ndarray:
        """The full column, from columns in which every rank has filled in its part and left 0 elsewhere."""
        ...


class OneRank:
    """A single process, which needs no communication."""

    pass_tokens = PASS_TOKENS

    def share(self, length_N: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return rows

    def in_step(self, pieces: Iterable[MicroBatch], batch: Batch) -> Iterable[MicroBatch]:
        return pieces

    def total(self, sums: Counter[str]) -> Counter[str]:
        return sums

    def joined(self, values_T: np.ndarray) -> np.ndarray:
        return values_T


class GroupRanks:
    """The processes of torch.distributed's default group, which exchanges tensors on `device`."""

    # A pass also gathers all weights twice and sums all gradients. The factor was measured with 15M parameters on gloo.
    pass_tokens = 3 * PASS_TOKENS

    def __init__(self, device: torch.device):
        self.rank, self.count, self.device = dist.get_rank(), dist.get_world_size(), device

    def share(self, length_N: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return balanced(length_N, rows, self.count)[self.rank]

    def in_step(self, pieces: Iterable[MicroBatch], batch: Batch) -> Iterable[MicroBatch]:
        own = list(pieces)
        most = torch.tensor(len(own), device=self.device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        yield from own
        for _ in range(int(most) - len(own)):
            yield no_work(batch, self.device)

    def total(self, sums: Counter[str]) -> Counter[str]:
        names = sorted(sums)  # equal on all ranks, because all have made the same number of passes
        summed = self._summed(torch.tensor([float(sums[name]) for name in names], dtype=torch.float64))
        return Counter(dict(zip(names, summed.tolist(), strict=True)))

    def joined(self, values_T: np.ndarray) -> np.ndarray:
        return self._summed(torch.from_numpy(values_T)).numpy()

    def first(self, tensor: torch.Tensor) -> torch.Tensor:
        """Rank 0's tensor, on every rank."""
        tensor = tensor.to(self.device)
        dist.broadcast(tensor, 0)
        return tensor

    def _summed(self, values: torch.Tensor) -> torch.Tensor:
        values = values.to(self.device)
        dist.all_reduce(values, dist.ReduceOp.SUM)
        return values.cpu()


def balanced(length_N: np.ndarray, rows: np.ndarray, ranks: int) -> list[np.ndarray]:
    """Divide `rows` over ranks by tokens: the longest row first, each to the rank with the fewest tokens so far.

    No rank gets more than the smallest load plus the longest row. All ranks compute the same result.
    """
    loads = [(0, rank) for rank in range(ranks)]
    owned: list[list[int]] = [[] for _ in range(ranks)]
    for row in rows[np.argsort(-length_N[rows], kind="stable")]:
        tokens, rank = heapq.heappop(loads)
        owned[rank].append(int(row))
        heapq.heappush(loads, (tokens + int(length_N[row]), rank))
    return [np.array(sorted(mine), dtype=np.int64) for mine in owned]


class Shards:
    """Tensors that are stored in one or several safetensors files, split along their rows in the order of the files.

    Raises UserError for a damaged file.
    """

    def __init__(self, files: Sequence[Path]):
        self._parts: dict[str, list[tuple[Any, tuple[int, ...]]]] = {}
        for path in files:
            try:
                file = safe_open(path, "pt")
            except (SafetensorError, OSError) as error:
                raise UserError(f"{path} is damaged ({error}); copy or download it again") from error
            for name in sorted(file.keys()):
                self._parts.setdefault(name, []).append((file, tuple(file.get_slice(name).get_shape())))

    def names(self) -> Iterator[str]:
        return iter(self._parts)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the full tensor. Raises KeyError if there is none of this name."""
        shapes = [shape for _, shape in self._parts[name]]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:]) if shapes[0] else ()

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows start to stop - 1; no others are read."""
        found, first = [], 0
        for file, shape in self._parts[name]:
            begin, end = max(start, first), min(stop, first + shape[0])
            if begin < end:
                found.append(file.get_slice(name)[begin - first : end - first])
            first += shape[0]
        return torch.cat(found) if found else file.get_tensor(name)[:0]

    def tensor(self, name: str) -> torch.Tensor:
        """The full tensor. A scalar is taken from the first file, since every rank has written it."""
        shape = self.shape(name)
        return self.rows(name, 0, shape[0]) if shape else self._parts[name][0][0].get_tensor(name)

    def like(self, name: str, parameter: torch.Tensor) -> torch.Tensor:
        """The tensor on the device of `parameter`, sharded like it. Raises UserError if the shapes differ."""
        if not self.shape(name):
            return self.tensor(name)
        if self.shape(name) != tuple(parameter.shape):
            shapes = f"{list(self.shape(name))} in the files and {list(parameter.shape)} in the model"
            raise UserError(f"tensor {name} has shape {shapes}: they do not belong together")
        if not is_sharded(parameter):
            return self.tensor(name).to(parameter.device)

        local = self.rows(name, *owned(parameter)).to(parameter.device)
        return DTensor.from_local(
            local,
            parameter.device_mesh,  # type: ignore[attr-defined]
            parameter.placements,  # type: ignore[attr-defined]
            run_check=False,
            shape=parameter.shape,
            stride=parameter.stride(),
        )


def open_shards(file: Path) -> Shards:
    """Open `file`, or the parts that ranks wrote in its place. Raises UserError if a part is missing."""
    if file.is_file():
        return Shards([file])
    parts = _parts(file)
    if not parts:
        raise UserError(f"{file.parent} holds no {file.name}; it is no complete checkpoint")
    count = int(parts[0].stem.rsplit("-", 1)[1])
    if parts != [part_of(file, rank, count) for rank in range(count)]:
        raise UserError(
            f"{file.parent} holds {len(parts)} of {count} parts of {file.name}; it is no complete checkpoint"
        )
    return Shards(parts)


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's weights, without copies under other names. Raises UserError if there are none."""
    single = folder / "model.safetensors"
    files = [single] if single.is_file() else _parts(single)
    if not files:
        raise UserError(f"{folder} holds no model*.safetensors; it is no complete checkpoint")
    return files


def _parts(file: Path) -> list[Path]:
    """The files that are named as parts of `file`, in order."""
    name = re.compile(rf"{re.escape(file.stem)}-\d+-of-\d+{re.escape(file.suffix)}")
    return sorted(path for path in file.parent.iterdir() if name.fullmatch(path.name))


def part_of(file: Path, rank: int, count: int) -> Path:
    """The name of a rank's part of a file."""
    return file.with_name(f"{file.stem}-{rank + 1:05d}-of-{count:05d}{file.suffix}")


def is_sharded(tensor: torch.Tensor) -> bool:
    return hasattr(tensor, "placements")  # a DTensor, whose class takes half a second to import


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor of a sharded one, which all ranks gather together; any other tensor itself."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def rows_of_this_rank(tensor: torch.Tensor) -> torch.Tensor:
    """The rows of a tensor that this process has, contiguous in host memory."""
    local = tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return local.detach().cpu().contiguous()


def owned(parameter: torch.Tensor) -> tuple[int, int]:
    """(first row, one past the last) of this rank in a parameter that FSDP2 sharded, which cuts as `torch.chunk`."""
    mesh: Any = parameter.device_mesh  # type: ignore[attr-defined]
    rows, size = parameter.shape[0], -(-parameter.shape[0] // mesh.size())
    start = min(rows, mesh.get_local_rank() * size)
    return start, min(rows, start + size)


@torch.no_grad()
def read_into(parameters: Iterable[tuple[str, nn.Parameter]], stored: Shards) -> None:
    """Fill named parameters, or this process's rows of them, in their own dtype.

    Raises UserError for a parameter that is missing or has another shape.
    """
    for name, parameter in parameters:
        try:
            parameter.copy_(stored.like(name, parameter))
        except KeyError:
            raise UserError(f"the weights have no {name}: they are of another model") from None


FILE_BYTES = 4 * 2**30  # of a file of exported weights


def write_weights(
    weights: Iterable[tuple[str, torch.Tensor]], folder: Path | None, file_bytes: int = FILE_BYTES
) -> None:
    """Write `model.safetensors`, or several files with an index if they exceed `file_bytes`.

    At most the tensors of one file are in memory. Without a folder nothing is written, but the weights are iterated
    over, because all ranks must gather them together.
    """
    files: list[dict[str, int]] = []  # bytes by tensor name, of every file
    held: dict[str, torch.Tensor] = {}

    def flush() -> None:
        assert folder is not None
        save_file(held, _partial(folder, len(files)), metadata={"format": "pt"})
        files.append({name: tensor.nbytes for name, tensor in held.items()})
        held.clear()

    for name, tensor in weights:
        if folder is None:
            continue
        if held and sum(t.nbytes for t in held.values()) + tensor.nbytes > file_bytes:
            flush()
        held[name] = tensor.detach().cpu().contiguous()
    if folder is not None:
        flush()
        _rename(folder, files)


def _partial(folder: Path, number: int) -> Path:
    return folder / f"model-{number + 1:05d}.safetensors.partial"


def _rename(folder: Path, files: list[dict[str, int]]) -> None:
    """Give the files their final names, which contain the number of files, and write the index."""
    if len(files) == 1:
        _partial(folder, 0).rename(folder / "model.safetensors")
        return
    names = [f"model-{number + 1:05d}-of-{len(files):05d}.safetensors" for number in range(len(files))]
    for number, name in enumerate(names):
        _partial(folder, number).rename(folder / name)
    index = {
        "metadata": {"total_size": sum(sum(file.values()) for file in files)},
        "weight_map": {tensor: name for name, file in zip(names, files, strict=True) for tensor in file},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
