"""Fused weights of the families that fused.py knows: the engine's own copy, updated in place by Hugging Face names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

from zerolab.models.context import head_dim
from zerolab.rollout.decoder import check_names, drop, take_back

if TYPE_CHECKING:
    from transformers import PreTrainedModel


FAMILIES = ("qwen2", "qwen3", "llama", "mistral")
ROTARY = ("default", "linear", "llama3", "yarn")


def supports(model: PreTrainedModel) -> bool:
    """Whether the fused forward pass is the model's."""
    return why_unsupported(model) is None


def why_unsupported(model: PreTrainedModel) -> str | None:
    """In words, what keeps the fused forward pass from being the model's; None if it is."""
    config: Any = model.config
    if config.model_type not in FAMILIES:
        return f"{config.model_type} is none of the families {', '.join(FAMILIES)}"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}, not silu"
    # Llama and Qwen3 with attention_bias have one on the output projection too; Qwen2 always has q, k, v biases only.
    if getattr(config, "mlp_bias", False) or getattr(config, "attention_bias", False):
        return "it has biases in its attention or its MLP"
    if slides(config):
        return "some of its layers see a sliding window only"
    rotary = model.get_decoder().rotary_emb
    if rotary.rope_type not in ROTARY:
        return f"its rotary embeddings are of type {rotary.rope_type}"
    if 2 * len(rotary.inv_freq) != head_dim(config):
        return "its rotary embeddings cover a part of each head only"
    return None


def slides(config: Any) -> bool:
    """Whether some layer sees a window of the sequence only."""
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return any(kind != "full_attention" for kind in kinds)
    if not getattr(config, "use_sliding_window", True):
        return False
    window = getattr(config, "sliding_window", None)
    return window is not None and window < config.max_position_embeddings


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one block; matrices are [out, in]."""

    norm_1: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    q_norm: torch.Tensor | None  # Qwen3: over the channels of each head
    k_norm: torch.Tensor | None
    out: torch.Tensor
    norm_2: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


class Weights:
    """The engine's copy of the weights, and where each Hugging Face tensor lies in it."""

    def __init__(self, config: Any, *, device: torch.device, dtype: torch.dtype) -> None:
        def empty(*shape: int) -> torch.Tensor:
            return torch.empty(shape, device=device, dtype=dtype)

        d, ff, dim = config.hidden_size, config.intermediate_size, head_dim(config)
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.tied = bool(config.tie_word_embeddings)
        self.embed = empty(config.vocab_size, d)
        self.head = self.embed if self.tied else empty(config.vocab_size, d)
        self.norm = empty(d)
        biased, normed = config.model_type == "qwen2", config.model_type == "qwen3"
        # Channel i and its rotary partner i + D/2 become neighbours.
        self._interleave = torch.arange(dim).view(2, dim // 2).t().flatten()
        self.layers: list[Layer] = []
        self._places: dict[str, tuple[torch.Tensor, int]] = {  # name -> (view, heads to interleave or 0)
            "model.embed_tokens.weight": (self.embed, 0),
            "model.norm.weight": (self.norm, 0),
            "lm_head.weight": (self.head, 0),
        }
        for i in range(config.num_hidden_layers):
            rows = (heads + 2 * kv_heads) * dim
            layer = Layer(
                norm_1=empty(d),
                qkv=empty(rows, d),
                qkv_bias=empty(rows) if biased else None,
                q_norm=empty(dim) if normed else None,
                k_norm=empty(dim) if normed else None,
                out=empty(d, heads * dim),
                norm_2=empty(d),
                gate_up=empty(2 * ff, d),
                down=empty(d, ff),
            )
            self.layers.append(layer)
            self._place_layer(f"model.layers.{i}.", layer, (heads, kv_heads, dim, ff))

    def _place_layer(self, prefix: str, layer: Layer, sizes: tuple[int, int, int, int]) -> None:
        heads, kv_heads, dim, ff = sizes
        self._places[prefix + "input_layernorm.weight"] = (layer.norm_1, 0)
        self._places[prefix + "post_attention_layernorm.weight"] = (layer.norm_2, 0)
        self._places[prefix + "self_attn.o_proj.weight"] = (layer.out, 0)
        self._places[prefix + "mlp.gate_proj.weight"] = (layer.gate_up[:ff], 0)
        self._places[prefix + "mlp.up_proj.weight"] = (layer.gate_up[ff:], 0)
        self._places[prefix + "mlp.down_proj.weight"] = (layer.down, 0)
        for name, norm in (("q_norm", layer.q_norm), ("k_norm", layer.k_norm)):
            if norm is not None:
                self._places[prefix + f"self_attn.{name}.weight"] = (norm, 1)
        for kind, tensor in (("weight", layer.qkv), ("bias", layer.qkv_bias)):
            if tensor is not None:
                q, k, v = tensor.split([heads * dim, kv_heads * dim, kv_heads * dim])
                self._places[prefix + f"self_attn.q_proj.{kind}"] = (q, heads)
                self._places[prefix + f"self_attn.k_proj.{kind}"] = (k, kv_heads)
                self._places[prefix + f"self_attn.v_proj.{kind}"] = (v, 0)

    def _whole(self) -> list[torch.Tensor]:
        """Every tensor that owns its memory."""
        layers = [getattr(layer, field.name) for layer in self.layers for field in fields(layer)]
        return [self.embed, *([] if self.tied else [self.head]), self.norm, *(t for t in layers if t is not None)]

    def drop(self) -> None:
        """Gives the memory back until the next `load`."""
        drop(self._whole())

    @torch.no_grad()
    def load(self, tensors: Iterable[tuple[str, torch.Tensor]], partial: bool = False) -> None:
        """Copies in place. ValueError for an unknown or misshapen tensor, and where one is missing unless `partial`."""
        take_back(self._whole())
        given: set[str] = set()
        for name, tensor in tensors:
            if name not in self._places:
                raise ValueError(f"unknown tensor {name}")
            place, heads = self._places[name]
            if place.shape != tensor.shape:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(place.shape)}")
            if heads:
                tensor = tensor.unflatten(0, (heads, -1))[:, self._interleave.to(tensor.device)].flatten(0, 1)
            place.copy_(tensor)
            given.add(name)
        if not partial:
            check_names(given, set(self._places), {"lm_head.weight"} if self.tied else set())
