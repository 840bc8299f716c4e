"""Laptop base models: Qwen2 architecture, random weights from a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM


def tiny_qwen2(
    vocab_size: int,
    *,
    hidden_size: int,
    layers: int,
    heads: int,
    intermediate_size: int,
    context: int,
    eos_token_id: int,
    pad_token_id: int,
    seed: int,
) -> Qwen2ForCausalLM:
    """An untrained model in float32; the same seed gives the same weights. Leaves the global random state alone.

    The head is tied to the embedding. Raises UserError for a width that the heads do not divide.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from zerolab.errors import UserError

    if hidden_size % heads or hidden_size // heads % 2:
        raise UserError(
            f"architecture.hidden_size = {hidden_size} does not split into {heads} heads of an even width: "
            "change hidden_size or heads"
        )
    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        initializer_range=hidden_size**-0.5,  # the default, .02, is for wide models and starts narrow ones too flat
        bos_token_id=None,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
    )
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config).float()
