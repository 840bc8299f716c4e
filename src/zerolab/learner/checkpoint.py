"""Write and read checkpoints, and check before the first step that one can be written.

A checkpoint is a Hugging Face folder (weights, config, tokenizer) that also has the optimizer, the state of the loop
and the hashes of all its files. It is written under a temporary name and then renamed, so a killed run still has its
last complete checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zerolab.config import RunConfig, TextRunConfig
from zerolab.errors import LearnerLost, UserError
from zerolab.learner.checkpoint_files import (
    PARTIAL,
    STATE_FILE,
    checkpoints,
    folder_of,
    latest_checkpoint,
    list_files,
    step_of,
)
from zerolab.learner.ranks import Shards, weight_files
from zerolab.models.hf import count_parameters, write_description

__all__ = ["latest_checkpoint", "load_state", "load_weights", "read_state", "save_checkpoint"]


def save_checkpoint(root: Path, step: int, write: Callable[[Path], None], state: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint and delete older ones, so that the `keep` newest remain. Returns its folder.

    Checkpoints of later steps are neither counted nor deleted. A run has them if it resumed before a damaged one.
    Raises UserError if the disk is full or the folder cannot be written; older checkpoints are then untouched.

    Args:
        root: folder of all checkpoints of the run.
        write: fills a folder with weights and optimizer.
        state: state of the loop.
    """
    final = folder_of(root, step)
    partial = root / (final.name + PARTIAL)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        (partial / STATE_FILE).write_text(json.dumps({"step": step, **state}))
        list_files(partial)
        _sync(partial)
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        _sync_folder(root)
    except LearnerLost:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    except Exception as error:  # safetensors and transformers have their own exceptions for a full disk
        shutil.rmtree(partial, ignore_errors=True)
        good = latest_checkpoint(root)
        left = f"the last good checkpoint is {good}" if good else "no checkpoint was written before"
        raise UserError(f"cannot write checkpoint {final}: {_short(error)}; {left}") from error
    for old in [folder for folder in checkpoints(root) if step_of(folder) <= step][:-keep]:
        shutil.rmtree(old)
    return final


def load_state(folder: Path) -> dict[str, Any]:
    """The state of the loop that `save_checkpoint` stored, with its step."""
    return read_state(folder / STATE_FILE)


def read_state(file: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint. Raises UserError if the file cannot be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no JSON"
        raise UserError(
            f"{file} cannot be read ({reason}): delete this checkpoint to go on from an older one"
        ) from None
    if not isinstance(found, dict):
        raise UserError(f"{file} holds no object: delete this checkpoint to go on from an older one")
    return found


@torch.no_grad()
def load_weights(model: nn.Module, folder: Path) -> None:
    """Copy the weights of a folder that `export_model` wrote into `model`, in place.

    Raises UserError if the weights are of another model.
    """
    stored = Shards(weight_files(folder))
    tensors = {name: stored.tensor(name) for name in stored.names()}
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
    """Whether the model has this weight under more than one name."""
    return sum(other is tensor for other in model.state_dict(keep_vars=True).values()) > 1


def _sync(folder: Path) -> None:
    """Force the files of a folder to disk, so that the rename cannot come before their content."""
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


GIB = 2**30


def check_checkpoint(config: RunConfig | TextRunConfig, model_config: Any, tokenizer: Any) -> None:
    """Raise UserError if config or tokenizer cannot be saved, or if the disk has no room for a checkpoint.

    Config and tokenizer are written to a scratch folder; weights are not written. Warns if the disk has room for one
    checkpoint, but not for all that the run will keep at once.
    """
    check_description(model_config, tokenizer)
    one = checkpoint_bytes(config, count_parameters(model_config))
    saves = -(-config.steps // config.checkpoint.every) if config.checkpoint.every else 1
    together = max(1, min(saves, config.checkpoint.keep + 1))  # an old one is deleted after the new one is written
    free = free_bytes(config.folder)
    if one > free:
        raise UserError(
            f"a checkpoint takes at least {one / GIB:.2f} GiB, and the disk of {config.folder} has {free / GIB:.2f} "
            "GiB free: free some, or set `out` to another disk"
        )
    if together * one > free:
        warnings.warn(
            f"the run will keep {together} checkpoints at once, at least {together * one / GIB:.2f} GiB, and the disk "
            f"of {config.folder} has {free / GIB:.2f} GiB free: lower checkpoint.keep, or free some",
            stacklevel=2,
        )


def check_description(model_config: Any, tokenizer: Any) -> None:
    """Raise UserError if transformers cannot write this config and tokenizer."""
    with tempfile.TemporaryDirectory(prefix="zerolab-check-") as scratch:
        try:
            write_description(model_config, None, tokenizer, scratch)
        except Exception as error:  # transformers raises many kinds of exceptions here
            raise UserError(
                f"no checkpoint of this model could be written ({' '.join(str(error).split())[:300]}): mend its "
                "config.json and tokenizer files"
            ) from error


def checkpoint_bytes(config: RunConfig | TextRunConfig, parameters: int) -> float:
    """Least bytes of a checkpoint: weights, moments, fp32 copies, and critic with its moments.

    Adapters are small and not counted.
    """
    half = config.model.weights == "bf16" or (isinstance(config, RunConfig) and config.cluster is not None)
    weights = 2.0 if half else 4.0
    if isinstance(config, RunConfig) and config.lora:
        return weights * parameters
    masters = 4.0 if config.model.weights == "bf16" else 0.0
    critic = 0.0
    if isinstance(config, RunConfig) and config.objective.needs_critic:
        critic = 0.0 if config.critic and config.critic.kind == "head" else 12.0
    return (weights + 8.0 + masters + critic) * parameters


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a run's folder, plus the bytes of files in it. The folder may not exist yet."""
    path = folder.absolute()
    known = next(parent for parent in (path, *path.parents) if parent.exists())
    left = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else 0
    return shutil.disk_usage(known).free + left
