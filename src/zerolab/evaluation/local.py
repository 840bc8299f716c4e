"""A model in a folder, under a hub id, or the newest checkpoint of a run, as a sampler on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerolab.errors import UserError

if TYPE_CHECKING:
    from zerolab.evaluation.sampler import EngineSampler

FORCED = "chosen by a test benchmark"  # stands in every table made from such a run


@dataclass(frozen=True)
class Machine:
    device: str = "auto"
    precision: str = "fp32"
    kv_gb: float = 2.0


def find_model(target: str) -> tuple[str, str | None]:
    """(folder or hub id, what tables have to say of it). A run's folder stands for its newest checkpoint."""
    from zerolab.learner.checkpoint import latest_checkpoint

    folder = Path(target).expanduser()
    if not folder.is_dir():
        return target, None
    if (folder / "checkpoints").is_dir():
        newest = latest_checkpoint(folder / "checkpoints")
        if newest is None:
            raise UserError(f"{folder} holds no checkpoint yet: let the run save one, or give a model's folder")
        folder = newest
    return str(folder), note_of(folder)


def note_of(folder: Path) -> str | None:
    """The remark that a checkpoint of a run carries; None for any other model."""
    config = folder.resolve().parent.parent / "config.json"
    if folder.parent.name != "checkpoints" or not config.is_file():
        return None
    try:
        evaluation = json.loads(config.read_text(encoding="utf-8")).get("evaluation") or {}
    except (ValueError, AttributeError):
        return None
    sources = (evaluation.get("questions") or {}).get("sources") or []
    if not evaluation.get("allow_test_questions") or not sources:
        return None
    names = ", ".join(str(source.get("path")) for source in sources)
    return f"{FORCED}: its training was evaluated on {names} (evaluation.allow_test_questions)"


def load_sampler(path: str, machine: Machine, parts: LocalParts) -> tuple[EngineSampler, Any]:
    """(sampler, tokenizer). Raises UserError for a model that cannot be loaded."""
    import torch

    from zerolab.evaluation.sampler import EngineSampler
    from zerolab.models.hf import load_model, load_tokenizer
    from zerolab.rollout.torch_engine import TorchEngine

    device = parts.pick_device(machine.device)
    tokenizer = load_tokenizer(path)
    model = load_model(path, dtype=torch.float32, device=device)
    dtype = torch.bfloat16 if machine.precision == "bf16" else torch.float32
    engine = TorchEngine(model, tokenizer, device=device, dtype=dtype, kv_bytes=int(machine.kv_gb * 2**30))
    context = int(model.config.get_text_config().max_position_embeddings)
    return EngineSampler(engine, tokenizer, parts.make_encode(tokenizer), context), tokenizer


@dataclass(frozen=True)
class LocalParts:
    """What the composition root (build.py) knows and this floor does not."""

    pick_device: Callable[[str], Any]
    make_encode: Callable[[Any], Callable[[str], list[int]]]
    resolve: Callable[[str], str]  # the name of a pretraining recipe to the folder of its model; else unchanged


Parts = Callable[[], LocalParts]  # asked for only where a model runs on this machine: it imports torch
