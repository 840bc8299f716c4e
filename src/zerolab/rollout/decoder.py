"""What the engine asks of a model: logits for the next token of every row, with keys and values remembered.

Two implementations: the fused one (fused.py) for families whose forward pass zerolab spells out itself, and
transformers' own forward pass with its cache for every other family.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from zerolab.errors import UserError
from zerolab.rollout.engine import Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Prompt = tuple[int, ...]


class Decoder(Protocol):
    """Rows 0..n-1 are alive; each samples from a prompt. Logits are float32 or the model's dtype, [rows, V]."""

    vocab_size: int

    def reserve(self, requests: Sequence[Request], budget_bytes: int, max_rows: int) -> int:
        """Plans memory for a call and forgets all rows; the number of rows that fit at once. UserError if none does."""
        ...

    def room(self, prompts: Sequence[Prompt]) -> int:
        """How many rows with the first of these prompts can be admitted now."""
        ...

    def admit(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Appends a row per prompt and returns the logits of their first tokens. Equal prompts share one prefill."""
        ...

    def step(self, tokens_N: np.ndarray, index_N: np.ndarray) -> torch.Tensor:
        """Logits after the newest tokens; index_N is the place of each in its row's response, from 0."""
        ...

    def keep(self, order: np.ndarray) -> None:
        """New row i is old row order[i]; the others are forgotten."""
        ...

    def rebuild(self, responses: Sequence[np.ndarray]) -> None:
        """Recomputes keys and values under new weights: of the prompts and of all but the newest token of each row."""
        ...

    def load(self, tensors: Iterable[tuple[str, torch.Tensor]], partial: bool = False) -> None:
        """Copies weights in place by Hugging Face name. ValueError for an unknown or misshapen tensor, and for a
        missing one unless they are `partial`."""
        ...

    def release(self) -> None:
        """Gives the memory of keys and values back; `reserve` takes it again."""
        ...

    def drop_weights(self) -> None:
        """Gives the memory of the weights back; `load` takes it again."""
        ...


def drop(tensors: Iterable[torch.Tensor]) -> None:
    """Gives the memory of tensors back, which stay what and where views of them expect."""
    for tensor in tensors:
        tensor.untyped_storage().resize_(0)


def take_back(tensors: Iterable[torch.Tensor]) -> None:
    """Memory for tensors that were dropped; what it holds has to be written anew."""
    for tensor in tensors:
        storage, wanted = tensor.untyped_storage(), tensor.numel() * tensor.element_size()
        if not storage.nbytes():
            storage.resize_(wanted)


def refuse_other_states(model: PreTrainedModel) -> None:
    """UserError if some layers remember something other than keys and values (LFM2's convolutions, Mamba's states)."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ()
    others = sorted({kind for kind in kinds if "attention" not in kind or "linear" in kind})
    if getattr(model, "_is_stateful", False) or others:
        of = f" in its {' and '.join(others)} layers" if others else ""
        raise UserError(
            f"{type(model).__name__} keeps a recurrent state{of}, which the torch engine does not support: choose "
            'a model with attention alone, or rollout.engine = "vllm"'
        )


def check_names(given: set[str], known: set[str], optional: set[str]) -> None:
    """ValueError when an update left a tensor out."""
    if missing := sorted(known - given - optional):
        raise ValueError(f"the update lacks {len(missing)} tensors, among them {missing[0]}")
