"""The decoder for any causal LM of transformers, and the choice between it and the fused one."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache

from zerolab.errors import UserError
from zerolab.models.context import head_dim
from zerolab.models.hf import lm_head
from zerolab.rl.logprobs import head_logits
from zerolab.rollout.decoder import Decoder, Prompt, check_names, drop, refuse_other_states, take_back
from zerolab.rollout.engine import Request
from zerolab.rollout.fused_decoder import FusedDecoder
from zerolab.rollout.fused_weights import why_unsupported
from zerolab.rollout.kv_cache import plan_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def make_decoder(
    model: PreTrainedModel, *, device: torch.device, dtype: torch.dtype, cuda_graphs: bool = True
) -> Decoder:
    """The fused decoder if it knows the family, else transformers' forward pass. Both copy the weights."""
    reason = why_unsupported(model)
    if reason is None:
        return FusedDecoder(model, device=device, dtype=dtype, cuda_graphs=cuda_graphs)
    decoder = CachedDecoder(model, device=device, dtype=dtype)
    warnings.warn(
        f"sampling uses transformers' forward pass, which is slower than the fused one, because {reason}", stacklevel=3
    )
    return decoder


def refuse_ignored_soft_caps(model: PreTrainedModel) -> None:
    """UserError where attention scores are to be soft-capped (Gemma 2) and the attention in use does not do it."""
    config: Any = model.config.get_text_config()
    if getattr(config, "attn_logit_softcapping", None) and config._attn_implementation != "eager":
        raise UserError(
            f"{type(model).__name__} caps its attention scores, which {config._attn_implementation} attention leaves "
            'out: load the model with attn_implementation = "eager"'
        )


class WideHead(nn.Module):
    """A linear head with logits in fp32 whatever its weight is in; what a family does to logits acts on these."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = head.weight, head.bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = head_logits(hidden.flatten(0, -2), self.weight, self.bias)
        return logits.unflatten(0, hidden.shape[:-1])


class CachedDecoder:
    """transformers' forward pass and cache. Rows are padded on the left, and all of a batch begin together.

    Its memory is counted as one row for each response over prompt and budget; new rows wait until the batch is done.
    """

    def __init__(self, model: PreTrainedModel, *, device: torch.device, dtype: torch.dtype) -> None:

        refuse_other_states(model)
        refuse_ignored_soft_caps(model)
        # Tied weights stay tied in a deep copy, so an update under either name reaches both.
        source: Any = model
        self._model = copy.deepcopy(source)
        self._model.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self._device, self._dtype = device, dtype
        self.vocab_size = int(model.config.vocab_size)
        accepted = inspect.signature(self._model.forward).parameters
        self._takes_positions = "position_ids" in accepted
        # Logits of a whole prompt would be its length times what a step takes.
        self._last_alone = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        if isinstance(head := lm_head(self._model), nn.Linear):
            self._model.set_output_embeddings(WideHead(head))
        config = model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self._bytes_per_token = 2 * config.num_hidden_layers * heads * head_dim(config) * dtype.itemsize
        self._rows = 0
        self._forget()

    def _forget(self) -> None:
        self._prompts: list[Prompt] = []
        self._cache: Any = None
        self._mask_NS = torch.zeros(0, 0, dtype=torch.int64, device=self._device)

    def reserve(self, requests: Sequence[Request], budget_bytes: int, max_rows: int) -> int:

        # A cache of transformers holds the prompt once per row.
        alone = [Request(r.id, (0,), 0, len(r.prompt_ids) + r.max_new_tokens - 1) for r in requests]
        self._rows = plan_memory(
            alone, bytes_per_token=self._bytes_per_token, budget_bytes=budget_bytes, max_rows=max_rows, block=None
        ).rows
        self._forget()
        return self._rows

    def room(self, prompts: Sequence[Prompt]) -> int:
        return 0 if self._prompts else min(self._rows, len(prompts))

    def admit(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        distinct = list(dict.fromkeys(prompts))
        logits_QV = self._forward_all(distinct)
        place = {p: i for i, p in enumerate(distinct)}
        of_row = torch.tensor([place[p] for p in prompts], device=self._device)
        self._prompts = list(prompts)
        self._select(of_row)
        return logits_QV[of_row]

    def step(self, tokens_N: np.ndarray, index_N: np.ndarray) -> torch.Tensor:
        tokens = torch.from_numpy(tokens_N).to(self._device)[:, None]
        self._mask_NS = torch.nn.functional.pad(self._mask_NS, (0, 1), value=1)
        return self._forward(tokens, self._mask_NS.sum(-1, keepdim=True) - 1)

    def keep(self, order: np.ndarray) -> None:
        self._prompts = [self._prompts[i] for i in order]
        if len(order):
            self._select(torch.from_numpy(order).to(self._device))
        else:
            self._forget()

    def rebuild(self, responses: Sequence[np.ndarray]) -> None:
        self._forward_all([p + tuple(r[:-1].tolist()) for p, r in zip(self._prompts, responses, strict=True)])

    def load(self, tensors: Iterable[tuple[str, torch.Tensor]], partial: bool = False) -> None:
        take_back(self._model.parameters())
        own = self._model.state_dict()
        given: set[str] = set()
        for name, tensor in tensors:
            if name not in own:
                raise ValueError(f"unknown tensor {name}")
            if own[name].shape != tensor.shape:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(own[name].shape)}")
            own[name].copy_(tensor)
            given.add(name)
        if partial:
            return
        # The second name of a tied tensor may be left out: its storage is reached through the first.
        reached = {own[name].data_ptr() for name in given}
        check_names(given, set(own), {name for name in own if own[name].data_ptr() in reached})

    def release(self) -> None:
        self._forget()

    def drop_weights(self) -> None:
        drop(self._model.parameters())

    def _forward_all(self, sequences: Sequence[Prompt]) -> torch.Tensor:
        """Starts a cache with these sequences and returns the logits after the last token of each."""
        longest = max(map(len, sequences))
        tokens = torch.tensor([[s[0]] * (longest - len(s)) + list(s) for s in sequences], device=self._device)
        lengths = torch.tensor([len(s) for s in sequences], device=self._device)
        self._mask_NS = (torch.arange(longest, device=self._device) >= longest - lengths[:, None]).long()
        self._cache = DynamicCache(config=self._model.config)
        return self._forward(tokens, (self._mask_NS.cumsum(-1) - 1).clamp_(min=0))

    @torch.inference_mode()
    def _forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        extra = self._last_alone | ({"position_ids": positions} if self._takes_positions else {})
        out = self._model(
            input_ids=tokens, attention_mask=self._mask_NS, past_key_values=self._cache, use_cache=True, **extra
        )
        return out.logits[:, -1]

    def _select(self, rows: torch.Tensor) -> None:
        self._cache.batch_select_indices(rows)
        self._mask_NS = self._mask_NS[rows]
