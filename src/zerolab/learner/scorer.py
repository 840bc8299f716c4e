"""Log-probabilities of given tokens under a causal LM, at the sampling temperature. Also activation checkpointing.

With activation checkpointing a layer stores only its input, and its forward pass runs again in the backward pass.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from zerolab.errors import UserError
from zerolab.learner.precision import COMPUTE, is_half, trained_weights, widened
from zerolab.learner.prompt_sharing import Prompts, can_share, continued_hidden_states
from zerolab.learner.ranks import OneRank, Ranks
from zerolab.models.hf import hidden_states, lm_head, probe_packing
from zerolab.rl.batch import (
    Batch,
    MicroBatch,
    continuations,
    micro_batches,
    packed_micro_batches,
    prompt_parts,
    saved_share,
    token_indices,
)
from zerolab.rl.logprobs import token_logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.modeling_layers import GradientCheckpointingLayer

# Least share of the tokens that prompt sharing must save on a CPU. Below, its second pass and mask cost more.
WORTH_SHARING = 0.35


class Scorer:
    """Computes log-probabilities with a model.

    Args:
        logits_mb: most MiB of logits that are in memory at once.
        share_prompts: as in LearnerConfig.

    Raises UserError if the model cannot share prompts, although `share_prompts` is "on".
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        *,
        temperature: float,
        precision: str,
        logits_mb: int,
        share_prompts: str = "off",
        fp32_head: bool = False,
    ):
        self.model, self.temperature, self.precision = model, temperature, precision
        # Weights that are not trained may be in host memory (LoraConfig.offload).
        self.device = (trained_weights(model) or list(model.parameters()))[0].device
        self.head = _linear_head(model)
        self.chunk_rows = max(1, logits_mb * 2**20 // (4 * self.head.out_features))
        self.fp32_head, self.share_prompts = fp32_head, share_prompts
        self.packing, self.entropy = 0, True
        if share_prompts == "auto" and self.device.type != "cpu":
            self.share_prompts = "off"
        elif share_prompts != "off" and not can_share(model):
            if share_prompts == "on":
                raise UserError(
                    f"{type(model).__name__} cannot continue a prompt from its keys and values: set "
                    'learner.share_prompts to "off"'
                )
            self.share_prompts = "off"
        self.ranks: Ranks = OneRank()
        self._trunk: Callable[[torch.Tensor], torch.Tensor] | None = None

    def set_parallel(self, trunk: Callable[[torch.Tensor], torch.Tensor], ranks: Ranks) -> "Scorer":
        """Make this the scorer of one of several ranks, and return it.

        Args:
            trunk: maps token ids [B, S] to hidden states of a sharded model, and leaves the head's weight gathered.
        """
        self._trunk, self.ranks = trunk, ranks
        return self

    def enable_packing(self, packing: int) -> None:
        """Pack rows into lines of `packing` tokens from now on (0: one row per line). The entropy becomes NaN.

        Raises UserError for a model that attends across the border of two rows in a line.
        """
        if packing:
            probe_packing(self.model)
        self.packing, self.entropy = packing, False

    def copy(self) -> "Scorer":
        """A copy of the scorer, with a copy of the weights."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model)
        other.head = _linear_head(other.model)
        return other

    def frozen_copy(self) -> "Scorer":
        """A copy of the scorer, with a copy of the weights that is not trained."""
        frozen = self.copy()
        frozen.model.requires_grad_(False)
        return frozen

    def micro_batches(
        self, batch: Batch, rows: np.ndarray, token_budget: int, whole_rows: bool = False
    ) -> Iterator[MicroBatch]:
        """Split `rows` of a step into micro-batches. The caller runs the backward pass of one before it takes the next.

        If rows share prompts, the prompts are forwarded before the first micro-batch that continues them. The gradients
        that the micro-batches leave there are passed back through the prompts after the last one.
        """
        if self.packing and not whole_rows:
            yield from packed_micro_batches(batch, rows, token_budget, self.packing, self.device)
            return
        if whole_rows or not self._shares(batch, rows):
            pieces = micro_batches(batch, rows, token_budget, self.device, self.ranks.pass_tokens)
            yield from self.ranks.in_step(pieces, batch)
            return
        for part in prompt_parts(batch, rows, token_budget, self.device):
            with self._autocast():
                prompts = Prompts(self.model, part)
            yield from continuations(batch, part, prompts.states, token_budget, self.device)
            prompts.backward()

    def _shares(self, batch: Batch, rows: np.ndarray) -> bool:
        if self.share_prompts != "auto":
            return self.share_prompts == "on" and len(rows) > 0
        return saved_share(batch, rows) > WORTH_SHARING

    def hidden(self, micro: MicroBatch) -> torch.Tensor:
        """hidden_TD, the last hidden state from which every response token is predicted."""
        with self._autocast():
            if self._trunk is not None:
                return self._trunk(micro.ids_BL)[micro.predicts_BL]
            if micro.states is None:
                return hidden_states(self.model, micro.ids_BL, micro.positions_BL)[micro.predicts_BL]
            return continued_hidden_states(self.model, micro)[micro.predicts_BL]

    def logprobs(self, micro: MicroBatch, entropy_gradient: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """(logprobs_T, entropy_T) of the response tokens, in nats."""
        return self.logprobs_at(self.hidden(micro), micro, entropy_gradient)

    def logprobs_at(
        self, hidden_TD: torch.Tensor, micro: MicroBatch, entropy_gradient: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(logprobs_T, entropy_T) of the response tokens, in nats, from hidden states that were already computed."""
        weight_VD: torch.Tensor = self.head.weight
        bias_V: torch.Tensor | None = self.head.bias
        if self.fp32_head:
            hidden_TD, weight_VD = widened(hidden_TD), widened(weight_VD)
            bias_V = None if bias_V is None else widened(bias_V)
        with nullcontext() if self.fp32_head else self._autocast():
            return token_logprobs(
                *(hidden_TD, weight_VD, bias_V, micro.targets_T, self.temperature, self.chunk_rows),
                entropy_gradient,
                self.entropy,
            )

    @torch.no_grad()
    def logprobs_of(self, batch: Batch, token_budget: int) -> np.ndarray:
        """logprobs_T of every response token of a batch, by a forward pass over all rows."""
        found_T = np.zeros_like(batch.old_logprobs_T)
        rows = self.ranks.share(batch.total_len_N, np.arange(len(batch)))
        for micro in self.micro_batches(batch, rows, token_budget):
            found_T[token_indices(batch.response_len_N, micro.rows_B)] = self.logprobs(micro)[0].cpu().numpy()
        return self.ranks.joined(found_T)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32" or is_half(self.head.weight):
            return nullcontext()
        return torch.autocast(self.device.type, dtype=COMPUTE[self.precision])


def _linear_head(model: "PreTrainedModel") -> nn.Linear:
    head = lm_head(model)
    if not isinstance(head, nn.Linear):
        raise UserError(f"{type(model).__name__}: its output head is no linear layer, which the learner needs")
    return head


def checkpoint_activations(model: "PreTrainedModel") -> None:
    """Switch activation checkpointing on. Raises UserError for a model family that has none.

    transformers checkpoints only in training mode. Only the layers themselves are set to it; their submodules stay in
    eval mode, so that dropout stays off.
    """
    layers = decoder_layers(model)
    if not layers or not model.supports_gradient_checkpointing:
        raise UserError(f"{type(model).__name__} has no activation checkpointing: set learner.checkpointing to false")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for layer in layers:
        layer.training = True


def decoder_layers(model: "PreTrainedModel") -> "list[GradientCheckpointingLayer]":
    """The decoder layers in order; empty if the model family does not mark them."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
