"""What ranks do in the tests of the sharded learner, and the same on one process."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from small_learner import random_batch
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.audit.enumerate import BUDGET, EnumerablePolicy, tiny_qwen2
from zerolab.audit.split_invariance import sampled
from zerolab.config import LearnerConfig, LoraConfig
from zerolab.learner.learner import Learner
from zerolab.learner.lora import Adapters
from zerolab.learner.prepare import prepare
from zerolab.learner.sharded import ShardedLearner
from zerolab.models.hf import export_model
from zerolab.rl.batch import Batch
from zerolab.rl.objective import PRESETS

# eps: without it Adam would blow up the rounding of gradients that are nearly 0. The norm is clipped in some steps.
CONFIG = {"lr": 1e-2, "eps": 1e-4, "weight_decay": 0.1, "max_grad_norm": 0.5, "micro_batch_tokens": 64}
Arrays = dict[str, np.ndarray]


def make(sharded: bool, model: Any, reference: bool = False, **config: Any) -> Any:
    kind: Any = ShardedLearner if sharded else Learner
    own = {name: config.pop(name) for name in ("precision", "weights") if name in config}
    return kind(model, LearnerConfig(**CONFIG | config), budget=32, total_steps=10, reference=reference, **own)


def model_of(learner: Any) -> Any:
    return learner.learner.model if isinstance(learner, ShardedLearner) else learner.model


def gradients(learner: Any) -> Arrays:
    return {name: _full(p.grad) for name, p in model_of(learner).named_parameters()}


def _full(tensor: Any) -> np.ndarray:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone().numpy()


def weights(learner: Any) -> Arrays:
    return {name: tensor.float().clone().numpy() for name, tensor in learner.weights()}


def step_of(seed: int, rows: int = 12) -> Batch:
    return random_batch(rows, seed)


def silent(step: Batch) -> Batch:
    return dataclasses.replace(step, advantage_N=np.zeros(len(step)))


def steps(sharded: bool, preset: str, tied: bool = True, family: str = "qwen2", **config: Any) -> tuple:
    """(gradients of every step, metrics of every step, weights after three steps)."""
    objective = PRESETS[preset]
    learner = make(sharded, tiny_model(family, tied=tied), objective.kl > 0, **config)
    found, measured = [], []
    for seed in range(3):
        step = step_of(seed)
        if objective.kl:
            step = dataclasses.replace(step, ref_logprobs_T=learner.reference_logprobs_of(step))
        done = learner.forward_backward(step, objective)
        found.append(gradients(learner))
        measured.append(done | learner.optim_step())
    return found, measured, weights(learner)


def steps_averaged(preset: str) -> tuple:
    """As `steps`, with gradients divided by the number of ranks, as FSDP does unless it is told otherwise."""
    from torch.distributed.fsdp import FSDPModule

    learner = make(True, tiny_model("qwen2"))
    for module in learner.wrapped.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(None)  # type: ignore[arg-type]
    learner.forward_backward(step_of(0), PRESETS[preset])
    return [gradients(learner)], [], {}


def uneven(sharded: bool) -> list[Arrays]:
    """Gradients of steps that do not divide: two rows; everything on rank 0; nothing contributes; after each a step."""
    objective = PRESETS["dr_grpo"]
    learner = make(sharded, tiny_model("qwen2"))
    found = []
    for number, step in enumerate((step_of(0, 2), step_of(1), silent(step_of(2)), step_of(3, 1), step_of(4))):
        rows = None
        if sharded and number == 1:
            rows = np.arange(len(step)) if learner.ranks.rank == 0 else np.empty(0, int)
        learner.forward_backward(step, objective, rows)
        found.append(gradients(learner))
        learner.optim_step()
    return [*found, weights(learner)]


def save(sharded: bool, folder: Path, **config: Any) -> Arrays:
    """A checkpoint after two steps; the weights there."""
    learner = make(sharded, tiny_model("qwen2"), **config)
    for seed in range(2):
        learner.forward_backward(step_of(seed), PRESETS["dr_grpo"])
        learner.optim_step()
    learner.export(tiny_tokenizer(), folder)
    learner.save(folder)
    return weights(learner)


def go_on(sharded: bool, folder: Path, **config: Any) -> tuple[int, Arrays]:
    """One more step after loading a checkpoint into a learner that began elsewhere."""
    learner = make(sharded, tiny_model("qwen2", seed=7), **config)
    learner.load(folder)
    learner.forward_backward(step_of(9), PRESETS["dr_grpo"])
    learner.optim_step()
    return learner.version, weights(learner)


def from_folder(sharded: bool, folder: Path) -> Arrays:
    learner = make(sharded, folder)
    parts = sum(p.to_local().numel() for p in learner.learner.model.parameters())
    return weights(learner) | {"numel": np.array(parts)}


def logprobs(sharded: bool, batch: Batch) -> tuple[np.ndarray, Arrays]:
    """Before and after an update that goes wrong where a forward pass alone leaves old weights gathered."""
    learner = make(sharded, tiny_model("qwen2"), reference=True)
    before = learner.logprobs_of(batch)
    learner.forward_backward(step_of(0), PRESETS["dr_grpo"])
    learner.optim_step()
    return np.stack([before, learner.logprobs_of(batch), learner.reference_logprobs_of(batch)]), weights(learner)


LORA = LoraConfig(rank=4, alpha=8)


def adapted(sharded: bool, folder: Path) -> list[Arrays]:
    """With adapters under a KL: references and gradients of two steps, weights, those that changed; then one more step,
    and the same from the checkpoint before it."""
    objective, config = PRESETS["grpo_kl"], LearnerConfig(**CONFIG)
    own = {"budget": 32, "total_steps": 10, "reference": True}
    model = tiny_model("qwen2")
    torch.manual_seed(dist.get_rank() if sharded else 0)
    if sharded:
        learner: Any = ShardedLearner(model, config, lora=LORA, **own)
    else:
        learner = Learner(model, config, adapters=Adapters(model, LORA, torch.device("cpu")), **own)
    found = []
    for seed in range(2):
        step = step_of(seed)
        step = dataclasses.replace(step, ref_logprobs_T=learner.reference_logprobs_of(step))
        found.append({"reference": step.ref_logprobs_T})
        learner.forward_backward(step, objective)
        found.append({name: _full(p.grad) for name, p in model_of(learner).named_parameters() if p.requires_grad})
        learner.optim_step()
    found += [weights(learner), {name: tensor.clone().numpy() for name, tensor in learner.weights(changed_only=True)}]
    learner.export(tiny_tokenizer(), folder)
    learner.save(folder)
    for _ in range(2):
        learner.forward_backward(step_of(3), PRESETS["grpo"])
        learner.optim_step()
        found.append(weights(learner))
        learner.load(folder)
    return found


def refusals(folder: Path, other: Path) -> Sequence[str]:
    from zerolab.errors import UserError

    lines = []
    learner = make(True, tiny_model("qwen2"))
    for attempt in (
        lambda: make(True, tiny_model("qwen2"), precision="fp16"),
        lambda: learner.load(folder),
        lambda: learner.load(other),
        lambda: make(True, folder),
    ):
        try:
            attempt()
            lines.append("")
        except UserError as error:
            lines.append(str(error))
    return lines


def export_plain(family: str, folder: Path) -> None:
    export_model(tiny_model(family), tiny_tokenizer(), folder)


def certified(presets: Sequence[str]) -> Arrays:
    """Gradients of sampled steps of the enumerable policy, upward, in the order of its parameters."""
    policy = EnumerablePolicy(1)
    learner = ShardedLearner(tiny_qwen2(1), LearnerConfig(micro_batch_tokens=16), budget=BUDGET, total_steps=1)
    found = {}
    for name in presets:
        learner.forward_backward(sampled(policy, PRESETS[name])[0], PRESETS[name])
        found[name] = -np.concatenate([_full(p.grad).ravel() for p in learner.learner.model.parameters()])
        learner.learner.optimizer.zero_grad(set_to_none=False)
    return found


def prepared(sharded: bool) -> Arrays:
    """What `prepare` makes of groups under a KL, with log pi_old by a learner that left its reference."""
    kind: Any = ShardedLearner if sharded else Learner
    policy, objective = EnumerablePolicy(1), PRESETS["grpo_kl"]
    config = LearnerConfig(lr=0.03, eps=1e-3, old_logprobs="learner", micro_batch_tokens=16)
    learner = kind(tiny_qwen2(1), config, budget=BUDGET, total_steps=3, reference=True)
    groups = policy.groups(policy.sample(4, 0))
    learner.forward_backward(prepare(groups, learner, objective).batch, objective)
    learner.optim_step()
    _, batch, measured = prepare(groups, learner, objective)
    assert batch.ref_logprobs_T is not None
    return {"old": batch.old_logprobs_T, "ref": batch.ref_logprobs_T, "metrics": np.array(list(measured.values()))}


def bytes_held(sharded: bool) -> tuple[int, int, int]:
    """(parameters, gradients, moments) in bytes that this process holds after a step."""
    learner = make(sharded, tiny_model("qwen2"))
    learner.forward_backward(step_of(0), PRESETS["dr_grpo"])
    learner.optim_step()
    inner = learner.learner if sharded else learner
    parameters = list(inner.model.parameters())
    moments = [t for s in inner.optimizer.state.values() for t in s.values() if t.dim()]
    return tuple(sum(_local(t).nbytes for t in part) for part in (parameters, [p.grad for p in parameters], moments))  # type: ignore[return-value]


def _local(tensor: Any) -> torch.Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
