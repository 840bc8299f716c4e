"""What the engine asks of a model: logits for the next token of every row, with keys and values remembered.

Two implementations: the fused one (fused.py) for families whose forward pass zerolab spells out itself, and
transformers' own forward pass with its cache for every other family.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

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


def make_decoder(
    model: PreTrainedModel, *, device: torch.device, dtype: torch.dtype, cuda_graphs: bool = True
) -> Decoder:
    """The fused decoder if it knows the family, else transformers' forward pass. Both copy the weights."""
    from zerolab.rollout.fused import FusedDecoder
    from zerolab.rollout.weights import why_unsupported

    reason = why_unsupported(model)
    if reason is None:
        return FusedDecoder(model, device=device, dtype=dtype, cuda_graphs=cuda_graphs)
    decoder = CachedDecoder(model, device=device, dtype=dtype)
    warnings.warn(
        f"sampling uses transformers' forward pass, which is slower than the fused one, because {reason}", stacklevel=3
    )
    return decoder


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


def refuse_ignored_soft_caps(model: PreTrainedModel) -> None:
    """UserError where attention scores are to be soft-capped (Gemma 2) and the attention in use does not do it."""
    config: Any = model.config.get_text_config()
    if getattr(config, "attn_logit_softcapping", None) and config._attn_implementation != "eager":
        raise UserError(
            f"{type(model).__name__} caps its attention scores, which {config._attn_implementation} attention leaves "
            'out: load the model with attn_implementation = "eager"'
        )


def check_names(given: set[str], known: set[str], optional: set[str]) -> None:
    """ValueError when an update left a tensor out."""
    if missing := sorted(known - given - optional):
        raise ValueError(f"the update lacks {len(missing)} tensors, among them {missing[0]}")


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
        self._takes_positions = "position_ids" in inspect.signature(self._model.forward).parameters
        config = model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._bytes_per_token = 2 * config.num_hidden_layers * heads * head_dim * dtype.itemsize
        self._rows = 0
        self._forget()

    def _forget(self) -> None:
        self._prompts: list[Prompt] = []
        self._cache: Any = None
        self._mask_NS = torch.zeros(0, 0, dtype=torch.int64, device=self._device)

    def reserve(self, requests: Sequence[Request], budget_bytes: int, max_rows: int) -> int:
        from zerolab.rollout.memory import plan_memory

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
        from transformers import DynamicCache

        longest = max(map(len, sequences))
        tokens = torch.tensor([[s[0]] * (longest - len(s)) + list(s) for s in sequences], device=self._device)
        lengths = torch.tensor([len(s) for s in sequences], device=self._device)
        self._mask_NS = (torch.arange(longest, device=self._device) >= longest - lengths[:, None]).long()
        self._cache = DynamicCache(config=self._model.config)
        return self._forward(tokens, (self._mask_NS.cumsum(-1) - 1).clamp_(min=0))

    @torch.inference_mode()
    def _forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        extra = {"position_ids": positions} if self._takes_positions else {}
        out = self._model(
            input_ids=tokens, attention_mask=self._mask_NS, past_key_values=self._cache, use_cache=True, **extra
        )
        return out.logits[:, -1]

    def _select(self, rows: torch.Tensor) -> None:
        self._cache.batch_select_indices(rows)
        self._mask_NS = self._mask_NS[rows]
