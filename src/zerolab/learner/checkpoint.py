"""Checkpoints that are either whole or absent.

A checkpoint is a Hugging Face folder (weights, config, tokenizer) with the optimizer and the state of the loop beside
it. It is written under a temporary name and renamed, so a kill at any moment leaves the last good one.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zerolab.errors import LearnerLost, UserError

STATE_FILE = "loop.json"
PARTIAL = ".partial"


def save_checkpoint(root: Path, step: int, write: Callable[[Path], None], state: dict[str, Any], keep: int) -> Path:
    """`write` fills the folder with weights and optimizer; `state` is what the loop needs. Keeps the `keep` newest.

    Raises UserError where the disk is full or the folder cannot be written; older checkpoints are then untouched.
    """
    final = root / f"step_{step:06d}"
    partial = root / (final.name + PARTIAL)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        (partial / STATE_FILE).write_text(json.dumps({"step": step, **state}))
        _sync(partial)
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        _sync_folder(root)
    except LearnerLost:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    except Exception as error:  # safetensors and transformers raise their own kinds for a full disk
        shutil.rmtree(partial, ignore_errors=True)
        good = latest_checkpoint(root)
        left = f"the last good checkpoint is {good}" if good else "no checkpoint was written before"
        raise UserError(f"cannot write checkpoint {final}: {_short(error)}; {left}") from error
    for old in checkpoints(root)[:-keep]:
        shutil.rmtree(old)
    return final


def checkpoints(root: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(p for p in root.glob("step_*") if p.suffix != PARTIAL and (p / STATE_FILE).is_file())


def latest_checkpoint(root: Path) -> Path | None:
    found = checkpoints(root)
    return found[-1] if found else None


def load_state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / STATE_FILE).read_text())


@torch.no_grad()
def load_weights(model: nn.Module, folder: Path) -> None:
    """Copies the weights of a folder that `export_model` wrote into a model of the same shape, in place."""
    from safetensors.torch import load_file

    shards = sorted(folder.glob("model*.safetensors"))
    if not shards:
        raise UserError(f"{folder} holds no model*.safetensors; it is no complete checkpoint")
    tensors = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    try:
        missing, unknown = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise UserError(f"{folder} holds weights of another shape than the model: {error}".split("\n")[0]) from error
    tied = {
        name for name, tensor in model.state_dict(keep_vars=True).items() if name in missing and _is_tied(model, tensor)
    }
    if unknown or set(missing) - tied:
        raise UserError(f"{folder} is a checkpoint of another model ({[*unknown, *missing][0]})")


def _is_tied(model: nn.Module, tensor: torch.Tensor) -> bool:
    """Whether a weight is stored under an earlier name as well."""
    return sum(other is tensor for other in model.state_dict(keep_vars=True).values()) > 1


def _sync(folder: Path) -> None:
    """Forces the files of a folder to disk before the rename makes them count."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _short(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())[:300]
