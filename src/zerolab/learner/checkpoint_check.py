"""What can stop a checkpoint from being written, checked before the first step."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

from zerolab.config import RunConfig, TextRunConfig
from zerolab.errors import UserError
from zerolab.models.hf import count_parameters, write_description

GIB = 2**30


def check_checkpoint(config: RunConfig | TextRunConfig, model_config: Any, tokenizer: Any) -> None:
    """Raises UserError if no checkpoint could be written: config or tokenizer that cannot be saved, or a full disk.

    Config and tokenizer are written to a scratch folder; no weights are. Warns if the disk has room for one checkpoint
    but not for all that the run will hold at once.
    """
    check_description(model_config, tokenizer)
    one = checkpoint_bytes(config, count_parameters(model_config))
    saves = -(-config.steps // config.checkpoint.every) if config.checkpoint.every else 1
    together = max(1, min(saves, config.checkpoint.keep + 1))  # an old one is deleted after the new one is whole
    free = free_bytes(config.folder)
    if one > free:
        raise UserError(
            f"a checkpoint takes at least {one / GIB:.2f} GiB, and the disk of {config.folder} has {free / GIB:.2f} "
            "GiB free: free some, or set `out` to another disk"
        )
    if together * one > free:
        warnings.warn(
            f"the run will hold {together} checkpoints at once, at least {together * one / GIB:.2f} GiB, and the disk "
            f"of {config.folder} has {free / GIB:.2f} GiB free: lower checkpoint.keep, or free some",
            stacklevel=2,
        )


def check_description(model_config: Any, tokenizer: Any) -> None:
    """Raises UserError if transformers cannot write this config and tokenizer."""
    with tempfile.TemporaryDirectory(prefix="zerolab-check-") as scratch:
        try:
            write_description(model_config, None, tokenizer, scratch)
        except Exception as error:  # transformers raises many kinds for what it cannot serialise
            raise UserError(
                f"no checkpoint of this model could be written ({' '.join(str(error).split())[:300]}): mend its "
                "config.json and tokenizer files"
            ) from error


def checkpoint_bytes(config: RunConfig | TextRunConfig, parameters: int) -> float:
    """Bytes on disk, at least: weights, moments, fp32 copies, and the critic's with its moments.

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
    """Free bytes on the disk of a run's folder, which may not exist yet; what an earlier run left there is counted."""
    path = folder.absolute()
    known = next(parent for parent in (path, *path.parents) if parent.exists())
    left = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else 0
    return shutil.disk_usage(known).free + left
