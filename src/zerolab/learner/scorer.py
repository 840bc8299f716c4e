"""Log-probabilities of given tokens under a causal LM, at the sampling temperature."""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from zerolab.errors import UserError
from zerolab.models.hf import hidden_states, lm_head
from zerolab.rl.batch import Batch, MicroBatch, micro_batches, spans
from zerolab.rl.logprobs import token_logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Scorer:
    """`logits_mb` bounds the logits that are in memory at once, in MiB."""

    def __init__(self, model: "PreTrainedModel", *, temperature: float, precision: str, logits_mb: int):
        self.model, self.temperature, self.precision = model, temperature, precision
        self.device = next(model.parameters()).device
        self.head = _linear_head(model)
        self.chunk_rows = max(1, logits_mb * 2**20 // (4 * self.head.out_features))

    def copy(self) -> "Scorer":
        """The same with weights of its own."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model)
        other.head = _linear_head(other.model)
        return other

    def frozen_copy(self) -> "Scorer":
        """The same with weights of its own that nothing trains."""
        frozen = self.copy()
        frozen.model.requires_grad_(False)
        return frozen

    def hidden(self, micro: MicroBatch) -> torch.Tensor:
        """hidden_TD, the last hidden state at which every response token is predicted."""
        with self._autocast():
            return hidden_states(self.model, micro.ids_BL)[micro.predicts_BL]

    def logprobs(self, micro: MicroBatch, entropy_gradient: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """(log pi of the response tokens, entropy), both T."""
        return self.logprobs_at(self.hidden(micro), micro, entropy_gradient)

    def logprobs_at(
        self, hidden_TD: torch.Tensor, micro: MicroBatch, entropy_gradient: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same from hidden states that are already there."""
        with self._autocast():
            return token_logprobs(
                hidden_TD, self.head, micro.targets_T, self.temperature, self.chunk_rows, entropy_gradient
            )

    @torch.no_grad()
    def logprobs_of(self, batch: Batch, token_budget: int) -> np.ndarray:
        """logprobs_T of every response token of a batch; a forward pass over all of it."""
        found_T = np.empty_like(batch.old_logprobs_T)
        for micro in micro_batches(batch, np.arange(len(batch)), token_budget, self.device):
            found_T[spans(batch.response_len_N, micro.rows_B)] = self.logprobs(micro)[0].cpu().numpy()
        return found_T

    def _autocast(self) -> AbstractContextManager:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


def _linear_head(model: "PreTrainedModel") -> nn.Linear:
    head = lm_head(model)
    if not isinstance(head, nn.Linear):
        raise UserError(f"{type(model).__name__}: its output head is no linear layer, which the learner needs")
    return head
