"""Weights that come one by one, written as the files of a Hugging Face folder."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch

FILE_BYTES = 4 * 2**30


def write_weights(
    weights: Iterable[tuple[str, torch.Tensor]], folder: Path | None, file_bytes: int = FILE_BYTES
) -> None:
    """Writes `model.safetensors`, or several with an index where they exceed `file_bytes`; no more than one file's
    tensors are in memory at once. Without a folder it only goes through the weights, as other ranks wait for."""
    files: list[dict[str, int]] = []  # bytes by name, of every file
    held: dict[str, torch.Tensor] = {}

    def flush() -> None:
        from safetensors.torch import save_file

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
        _name(folder, files)


def _partial(folder: Path, number: int) -> Path:
    return folder / f"model-{number + 1:05d}.safetensors.partial"


def _name(folder: Path, files: list[dict[str, int]]) -> None:
    """Final names, which say how many files there are, and the index."""
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
