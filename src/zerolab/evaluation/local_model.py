"""A model in a folder, under a hub id, or the newest checkpoint of a run, as a sampler on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerolab.errors import UserError
from zerolab.evaluation.test_set_log import look, note_of
from zerolab.models.fetch import local_model

if TYPE_CHECKING:
    from zerolab.evaluation.samplers import Sampler


@dataclass(frozen=True)
class Machine:
    device: str = "auto"
    precision: str = "fp32"
    kv_gb: float = 2.0
    engine: str = "torch"


def find_model(target: str, benchmarks: Sequence[str] = (), forced: bool = False) -> tuple[str, str | None]:
    """(folder or hub id, what tables have to say of it). A run's folder stands for its newest checkpoint.

    Raises UserError for a run without one, and for `look`'s reason.
    """
    from zerolab.learner.checkpoint_files import newest_whole

    skipped: list[str] = []
    target = local_model(target)
    folder = Path(target).expanduser()
    if not folder.is_dir():
        return target, None
    if (folder / "checkpoints").is_dir():
        newest, skipped = newest_whole(folder / "checkpoints")
        if newest is None:
            what = f"no whole checkpoint: {'; '.join(skipped)}" if skipped else "no checkpoint yet"
            raise UserError(f"{folder} holds {what}: let the run save one, or give a model's folder")
        folder = newest
    notes = [*skipped, *(note for note in (note_of(folder), look(folder, benchmarks, forced)) if note)]
    return str(folder), "; ".join(notes) or None


def load_sampler(path: str, machine: Machine, parts: LocalParts) -> tuple[Sampler, Any]:
    """(sampler, tokenizer). Raises UserError for a model that cannot be loaded."""
    import torch

    from zerolab.evaluation.samplers import EngineSampler
    from zerolab.models.context import context_length
    from zerolab.models.hf import load_model, load_tokenizer
    from zerolab.rollout.torch_engine import TorchEngine

    if machine.engine not in ("torch", "vllm"):
        raise UserError(f"--engine {machine.engine!r} is unknown: choose torch or vllm")
    tokenizer = load_tokenizer(path)
    device, kv_bytes = parts.pick_device(machine.device), int(machine.kv_gb * 2**30)
    if machine.engine == "vllm":
        from zerolab.rollout.vllm_engine import VllmEngine, VllmOptions

        options = VllmOptions(precision=machine.precision, device=str(device), kv_bytes=kv_bytes)
        sampling = VllmEngine(path, options)
        return EngineSampler(sampling, tokenizer, parts.make_encode(tokenizer), sampling.context), tokenizer
    model = load_model(path, dtype=torch.float32, device=device)
    dtype = torch.bfloat16 if machine.precision == "bf16" else torch.float32
    engine = TorchEngine(model, tokenizer, device=device, dtype=dtype, kv_bytes=kv_bytes)
    context = context_length(model.config)
    return EngineSampler(engine, tokenizer, parts.make_encode(tokenizer), context), tokenizer


@dataclass(frozen=True)
class LocalParts:
    """What the composition root (build.py) knows and this floor does not."""

    pick_device: Callable[[str], Any]
    make_encode: Callable[[Any], Callable[[str], list[int]]]
    resolve: Callable[[str], str]  # the name of a pretraining recipe to the folder of its model; else unchanged


Parts = Callable[[], LocalParts]  # asked for only where a model runs on this machine: it imports torch
