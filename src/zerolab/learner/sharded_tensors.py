"""Tensors whose rows lie in several safetensors files, a part per rank, in the order of the ranks.

A rank writes the rows that it owns and reads the rows that it needs, from however many files: so a checkpoint goes
from any number of ranks to any other, and nobody holds more than its part.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zerolab.errors import UserError


class Shards:
    """The rows of a tensor are those of the first file that has it, then of the next."""

    def __init__(self, files: Sequence[Path]):
        from safetensors import SafetensorError, safe_open

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
        """Of the whole tensor. Raises KeyError where there is none of this name."""
        shapes = [shape for _, shape in self._parts[name]]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:]) if shapes[0] else ()

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows start .. stop - 1; nothing else is read."""
        found, first = [], 0
        for file, shape in self._parts[name]:
            begin, end = max(start, first), min(stop, first + shape[0])
            if begin < end:
                found.append(file.get_slice(name)[begin - first : end - first])
            first += shape[0]
        return torch.cat(found) if found else file.get_tensor(name)[:0]

    def whole(self, name: str) -> torch.Tensor:
        """The tensor; of one without rows, which every rank has written, the first rank's."""
        shape = self.shape(name)
        return self.rows(name, 0, shape[0]) if shape else self._parts[name][0][0].get_tensor(name)

    def like(self, name: str, parameter: torch.Tensor) -> torch.Tensor:
        """The tensor, on the device of `parameter` and sharded as it is. Raises UserError where the shapes differ."""
        if not self.shape(name):
            return self.whole(name)
        if self.shape(name) != tuple(parameter.shape):
            shapes = f"{list(self.shape(name))} in the files and {list(parameter.shape)} in the model"
            raise UserError(f"tensor {name} has shape {shapes}: they do not belong together")
        if not is_sharded(parameter):
            return self.whole(name).to(parameter.device)
        from torch.distributed.tensor import DTensor

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
    """`file`, or the parts of it that ranks wrote. Raises UserError where neither is there, or not every part."""
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
    whole = folder / "model.safetensors"
    files = [whole] if whole.is_file() else _parts(whole)
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


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Of all ranks, which call this together where it is sharded."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def rows_of_this_rank(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor, contiguous in host memory."""
    local = tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return local.detach().cpu().contiguous()


def owned(parameter: torch.Tensor) -> tuple[int, int]:
    """(first row, one past the last) of a parameter that FSDP2 cut along its rows: as `torch.chunk` does."""
    mesh: Any = parameter.device_mesh  # type: ignore[attr-defined]
    rows, size = parameter.shape[0], -(-parameter.shape[0] // mesh.size())
    start = min(rows, mesh.get_local_rank() * size)
    return start, min(rows, start + size)


@torch.no_grad()
def read_into(parameters: Iterable[tuple[str, nn.Parameter]], stored: Shards) -> None:
    """Fills named parameters, or the rows of them that this process holds, in their own dtype.

    Raises UserError for a parameter that is missing or has another shape.
    """
    for name, parameter in parameters:
        try:
            parameter.copy_(stored.like(name, parameter))
        except KeyError:
            raise UserError(f"the weights have no {name}: they are of another model") from None
