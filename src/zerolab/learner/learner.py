"""The learner of any causal LM. `LearnerProtocol` is its interface, for one process and for many.

    forward_backward(batch, objective)  adds the gradient of one optimizer step
    optim_step()                        clips the gradient, takes an AdamW step, increments the version
    weights()                           (Hugging Face name, full tensor) of the current policy
    save(folder) / load(folder)         write and read the state that the next step depends on

The learner gets all rows of an optimizer step and splits them into micro-batches itself. The weight of every token is
computed before the split, so micro-batches change memory and speed, never the gradient.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from safetensors.torch import save_file

from zerolab.config import CriticConfig, LearnerConfig
from zerolab.learner.checkpoint import load_weights, read_state
from zerolab.learner.critic import Critic
from zerolab.learner.lora import Adapters, BaseReference
from zerolab.learner.optim import (
    clip_and_step,
    gradients,
    learning_rate,
    load_optimizer,
    make_optimizer,
    save_optimizer,
)
from zerolab.learner.precision import LossScale, MasterWeights, is_half, trained_weights
from zerolab.learner.prepare import Scoring
from zerolab.learner.ranks import open_shards
from zerolab.learner.scorer import Scorer, checkpoint_activations
from zerolab.models.hf import export_model, named_weights
from zerolab.rl.aggregate import token_weights
from zerolab.rl.batch import Batch, MicroBatch
from zerolab.rl.bias_meter import clipped_sums
from zerolab.rl.loss import token_values, value_errors
from zerolab.rl.objective import Objective

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OPTIMIZER_FILE, MASTERS_FILE, STATE_FILE = "optimizer.safetensors", "masters.safetensors", "learner.json"


class Learner:
    """The learner of one process on one device.

    Args:
        budget: L_max, the generation budget in tokens.
        temperature: sampling temperature of the rollout.
        reference: True keeps a frozen copy of the model as it is now; a Scorer is used as the reference.
        critic: makes a critic with these settings, for an objective that needs one.
        scorer: computes the log-probabilities of the policy (default: a scorer of this process).
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        config: LearnerConfig,
        *,
        budget: int,
        total_steps: int,
        temperature: float = 1.0,
        precision: str = "fp32",
        reference: bool | Scorer = False,
        critic: CriticConfig | None = None,
        adapters: Adapters | None = None,
        scorer: Scorer | None = None,
    ):
        if config.checkpointing:
            checkpoint_activations(model)
        self.model = model
        self.config = config
        self.budget = budget
        self.total_steps = total_steps
        self.adapters = adapters
        self.policy = scorer or Scorer(
            model,
            temperature=temperature,
            precision=precision,
            logits_mb=config.logits_mb,
            share_prompts="off" if config.checkpointing else config.share_prompts,  # checkpointing keeps no keys
            fp32_head=config.fp32_head,
        )
        self.reference: Scorer | BaseReference | None = None
        if reference:
            self.reference = reference if isinstance(reference, Scorer) else self._make_reference()
        self.critic = Critic(self.policy, critic, config) if critic else None
        trained = trained_weights(model)
        self.masters = MasterWeights(trained) if any(map(is_half, trained)) else None
        self.optimizer = make_optimizer(self.masters.copies if self.masters else trained, config)
        self.scale = LossScale() if precision == "fp16" else None
        self.version = 0  # optimizer steps taken; a skipped step does not count

    def _make_reference(self) -> Scorer | BaseReference:
        return BaseReference(self.policy, self.adapters) if self.adapters else self.policy.frozen_copy()

    def forward_backward(self, batch: Batch, objective: Objective, rows: np.ndarray | None = None) -> dict[str, float]:
        """Add the gradient of the objective over an optimizer step, and return its metrics.

        The denominators are those of the whole step, so the gradients of processes that share a step must be summed.
        A response with advantage 0 counts in the denominators, but is not forwarded unless the objective has another
        term (entropy, KL, critic). Metrics are means over the forwarded responses; `coverage` is their share of all
        tokens.

        Args:
            rows: responses that this process works on (default: all; with several ranks, its share).
        """
        weight_N = token_weights(batch.response_len_N, objective.aggregation, self.budget)
        contributes = np.arange(len(batch)) if rows is None else rows
        if not objective.every_response_learns:
            contributes = contributes[batch.advantage_N[contributes] != 0]
        if rows is None:
            contributes = self.policy.ranks.share(batch.total_len_N, contributes)
        sums: Counter[str] = Counter()
        # A critic that is a separate model has no forwarded prompts, so it needs complete rows.
        whole_rows = self.critic is not None and not self.critic.shares_trunk
        for micro in self.policy.micro_batches(batch, contributes, self.config.micro_batch_tokens, whole_rows):
            sums.update(self._backward(micro, weight_N[micro.rows_B], batch.advantage_N[micro.rows_B], objective))
        return _means(self.policy.ranks.total(sums), int(batch.response_len_N.sum()))

    def _backward(
        self, micro: MicroBatch, weight_B: np.ndarray, advantage_B: np.ndarray, objective: Objective
    ) -> dict[str, float]:
        hidden_TD = self.policy.hidden(micro)
        logprobs_T, entropy_T = self.policy.logprobs_at(hidden_TD, micro, entropy_gradient=objective.entropy > 0)
        detached_T = logprobs_T.detach()
        old_T = detached_T if self.config.old_logprobs == "detach" else micro.old_logprobs_T.to(logprobs_T.dtype)
        weight_T, advantage_T = (
            torch.from_numpy(x).to(logprobs_T).repeat_interleave(micro.response_len_B, output_size=len(logprobs_T))
            for x in (weight_B, advantage_B)
        )
        if micro.advantage_T is not None:
            advantage_T = micro.advantage_T
        value_T, clipped_T = token_values(logprobs_T, old_T, entropy_T, advantage_T, micro, objective)
        loss = -(weight_T * value_T).sum()
        value_loss = torch.zeros_like(loss)
        if objective.needs_critic:
            if self.critic is None:
                raise ValueError("this learner has no critic: make it with critic=CriticConfig()")
            error_T = value_errors(self.critic.values(micro, hidden_TD), micro, objective)
            value_loss = objective.value * (weight_T * error_T).sum()
        ((loss + value_loss) * (self.scale.value if self.scale else 1.0)).backward()
        gap_T = (detached_T - micro.old_logprobs_T).double()
        sums = {
            "loss": loss.detach(),
            **({"critic/loss": value_loss.detach()} if self.critic else {}),
            "nll": -detached_T.double().sum(),
            "entropy": entropy_T.detach().double().sum(),
            "clipped": clipped_T.sum(),
            "gap": gap_T.abs().sum(),
            "k3": (torch.expm1(gap_T) - gap_T).sum(),
        }
        # One copy to the host, so that the metrics of a micro-batch wait for the device once.
        parts = torch.stack([x.double() for x in sums.values()]), clipped_T.double(), micro.response_len_B.double()
        found = torch.cat(parts).cpu().numpy()
        end = len(sums) + len(logprobs_T)
        return {
            **dict(zip(sums, found[: len(sums)].tolist(), strict=True)),
            "tokens": len(logprobs_T),
            "padded": micro.padded_tokens,
            "real": micro.real_tokens,
            **clipped_sums(found[len(sums) : end], found[end:].astype(np.int64), self.budget),
        }

    def logprobs(self, micro: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """(logprobs_T, entropy_T) of the response tokens, in nats, at the sampling temperature."""
        return self.policy.logprobs(micro)

    def logprobs_of(self, batch: Batch) -> np.ndarray:
        """logprobs_T of a batch under the current weights."""
        return self.policy.logprobs_of(batch, self.config.micro_batch_tokens)

    def reference_logprobs_of(self, batch: Batch) -> np.ndarray:
        """logprobs_T of a batch under the reference policy. Raises ValueError if the learner has none."""
        if self.reference is None:
            raise ValueError("this learner keeps no reference: make it with reference=True")
        return self.reference.logprobs_of(batch, self.config.micro_batch_tokens)

    def values_of(self, batch: Batch) -> np.ndarray:
        """values_T of a batch: the critic's value before every response token. Raises ValueError without a critic."""
        if self.critic is None:
            raise ValueError("this learner has no critic: make it with critic=CriticConfig()")
        return self.critic.values_of(batch, self.config.micro_batch_tokens)

    def optim_step(self) -> dict[str, float]:
        """Clip the gradient norm, take one AdamW step and increment the version. UserError if the norm is not finite.

        Under fp16 a step with a non-finite gradient is skipped instead: weights, moments, version and learning rate do
        not change.
        """
        if self.scale and not self._unscale(self.scale):
            return self._skipped_step(self.scale)
        done = clip_and_step(self.optimizer, self.version, self.total_steps, self.config)
        if self.masters:
            self.masters.publish()
        if self.critic:
            done |= self.critic.optim_step(self.version, self.total_steps)
        self.version += 1
        return done | self._scale_metrics(skipped=False)

    def _unscale(self, scale: LossScale) -> bool:
        found = gradients(self.optimizer) + (gradients(self.critic.optimizer) if self.critic else [])
        finite = scale.unscale(found)
        scale.update(finite)
        return finite

    def _skipped_step(self, scale: LossScale) -> dict[str, float]:
        """Drop the gradient of a step that overflowed in fp16, and return the metrics of the skipped step."""
        self.optimizer.zero_grad(set_to_none=False)
        done = {"grad_norm": math.nan, "grad_clipped": 0.0}
        done["lr"] = learning_rate(self.version, self.total_steps, self.config)
        if self.critic:
            self.critic.optimizer.zero_grad(set_to_none=False)
            done |= {f"critic/{name}": value for name, value in done.items()}
        return done | self._scale_metrics(skipped=True)

    def _scale_metrics(self, skipped: bool) -> dict[str, float]:
        return {"scale/value": self.scale.value, "scale/skipped": float(skipped)} if self.scale else {}

    def weights(self, changed_only: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
        """(Hugging Face name, full tensor) of every weight of the policy, with adapters merged in.

        Args:
            changed_only: only the tensors that training changes (with LoRA: the adapted matrices). An engine that has
                the initial weights needs no others after an update.
        """
        return self.adapters.merged(changed_only) if self.adapters else named_weights(self.model)

    def export(self, tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
        """Write the policy as a Hugging Face folder, with adapters merged in."""
        merged = {name: tensor.cpu() for name, tensor in self.weights()} if self.adapters else None
        export_model(self.model, tokenizer, folder, merged)

    def loaded(self) -> AbstractContextManager[None]:
        """A context in which offloaded weights (LoraConfig.offload) are on the device, as learning needs."""
        return self.adapters.loaded() if self.adapters else nullcontext()

    def save(self, folder: Path) -> None:
        """Write optimizer moments, critic and version; `export` writes the weights (see `checkpoint.py`)."""
        save_optimizer(self.optimizer, folder / OPTIMIZER_FILE)
        if self.adapters:
            self.adapters.save(folder)
        if self.masters:
            save_file(self.masters.tensors(), folder / MASTERS_FILE)
        if self.critic:
            self.critic.save(folder)
        scale = {"scale": self.scale.state_dict()} if self.scale else {}
        (folder / STATE_FILE).write_text(json.dumps({"version": self.version, **scale}))

    def load(self, folder: Path) -> None:
        """Load weights, moments, critic and version of a checkpoint of the same recipe, from any number of ranks."""
        if self.adapters:
            self.adapters.load(folder)
        else:
            load_weights(self.model, folder)
        load_optimizer(self.optimizer, folder / OPTIMIZER_FILE)
        if self.masters:
            self.masters.load(open_shards(folder / MASTERS_FILE))
        if self.critic:
            self.critic.load(folder)
        state = read_state(folder / STATE_FILE)
        self.version = state["version"]
        if self.scale:
            self.scale.load_state_dict(state["scale"])


def _means(sums: Counter[str], step_tokens: int) -> dict[str, float]:
    tokens = sums["tokens"]
    per_token = {
        name: sums[key] / tokens if tokens else float("nan")
        for name, key in (("nll", "nll"), ("entropy", "entropy"), ("clip_fraction", "clipped"))
    }
    return {
        "loss": sums["loss"],
        **per_token,
        "coverage": tokens / step_tokens if step_tokens else 0.0,
        "mismatch_abs": sums["gap"] / tokens if tokens else float("nan"),
        "mismatch_k3": sums["k3"] / tokens if tokens else float("nan"),
        "tokens": float(tokens),
        "padding": 1 - sums["real"] / sums["padded"] if sums["padded"] else 0.0,
        **{name: value for name, value in sums.items() if "/" in name},
    }


class LearnerProtocol(Scoring, Protocol):
    """The interface of a learner, of one process or of many. See `Learner` for the methods."""

    @property
    def version(self) -> int: ...

    def forward_backward(self, batch: Batch, objective: Objective) -> dict[str, float]: ...

    def optim_step(self) -> dict[str, float]: ...

    def weights(self, changed_only: bool = False) -> Iterable[tuple[str, torch.Tensor]]: ...

    def export(self, tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None: ...

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...

    def loaded(self) -> AbstractContextManager[None]: ...
