"""AdamW and the learning rate as a function of the optimizer step."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from zerolab.config import OptimizerConfig
from zerolab.errors import UserError
from zerolab.learner.ranks import full_tensor, open_shards, rows_of_this_rank

DECAY_SHARE = 0.2  # share of the steps in which wsd decays


def make_optimizer(trained: Sequence[nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """Make a fused AdamW over these parameters.

    Their gradients start at 0 instead of None, so that a step without contributing responses is still taken.
    """
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    return torch.optim.AdamW(
        trained, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=True
    )


def learning_rate(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """The learning rate of optimizer step `step` (from 0): linear warm-up, then the shape of the schedule.

    wsd falls as 1 - sqrt(progress of the decay). Source: 2405.18392, section 3, which found it better than linear.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    begin = config.warmup_steps
    if config.schedule == "wsd":
        begin = max(begin, total_steps - round(total_steps * (config.decay_share or DECAY_SHARE)))
    progress = min(1.0, (step - begin) / max(1, total_steps - begin))
    if config.schedule == "constant" or progress < 0:
        return config.lr
    shape = {
        "cosine": lambda: 0.5 * (1 + math.cos(math.pi * progress)),
        "linear": lambda: 1 - progress,
        "wsd": lambda: 1 - math.sqrt(progress),
    }[config.schedule]()
    return config.lr * (config.final_lr_ratio + (1 - config.final_lr_ratio) * shape)


def gradients(optimizer: torch.optim.AdamW) -> list[torch.Tensor]:
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def clip_and_step(
    optimizer: torch.optim.AdamW, step: int, total_steps: int, config: OptimizerConfig
) -> dict[str, float]:
    """Clip the gradient norm and take optimizer step `step`. Raises UserError if the norm is not finite."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = float(full_tensor(nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)))
    if not math.isfinite(norm):
        raise UserError(
            f"the gradient of optimizer step {step} is not finite: lower learner.lr or use model.precision "
            '= "fp32"; the last checkpoint is untouched'
        )
    rate = learning_rate(step, total_steps, config)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    return {"grad_norm": norm, "grad_clipped": float(norm > config.max_grad_norm), "lr": rate}


def save_optimizer(optimizer: torch.optim.AdamW, file: Path) -> None:
    """Write the moments of every parameter, by its number; for sharded parameters, this rank's rows."""
    state = optimizer.state_dict()["state"]
    save_file({f"{i}.{name}": rows_of_this_rank(t) for i, entry in state.items() for name, t in entry.items()}, file)


def load_optimizer(optimizer: torch.optim.AdamW, file: Path) -> None:
    """Load the moments that `save_optimizer` wrote, on any number of ranks. UserError if they are of another model."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    stored = open_shards(file)
    state = optimizer.state_dict()
    state["state"] = {}
    for key in stored.names():
        index, name = key.split(".", 1)
        if int(index) >= len(parameters):
            raise UserError(f"{file.parent} is a checkpoint of another model, with more than {index} tensors to train")
        state["state"].setdefault(int(index), {})[name] = stored.like(key, parameters[int(index)])
    optimizer.load_state_dict(state)
