"""Tiny models: Qwen2 architecture with random weights from a seed, and small tokenizers as Hugging Face files.

The tokenizers are Qwen2 tokenizers with a small vocabulary. AutoTokenizer, vLLM and others choose that class for this
architecture whatever the folder says, so all of them split a text alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from zerolab.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM


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


EOS, PAD = "<eos>", "<pad>"
ASCII = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]  # byte-level names: Ġ is a space, Ċ a line feed


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """`words` as one token each, spaces included, and every other printable ASCII character as a token.

    A word of letters or digits only is taken where it stands alone ("10", not in "105"). Characters beyond ASCII have
    no token and are left out; <eos> is id 0, <pad> id 1.
    """
    from transformers import Qwen2Tokenizer

    vocabulary = {token: number for number, token in enumerate([EOS, PAD, *ASCII])}
    tokenizer = Qwen2Tokenizer(vocabulary, [], eos_token=EOS, pad_token=PAD, unk_token=PAD)
    tokenizer.add_tokens(
        [AddedToken(word, single_word=word.isalnum(), normalized=False) for word in words if len(word) > 1]
    )
    return tokenizer


def train_bpe(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens (at least 258) trained on `texts`. Any text fits."""
    from transformers import Qwen2Tokenizer

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size < len(alphabet) + 2:
        raise UserError(f"a byte-level vocabulary needs at least {len(alphabet) + 2} tokens, not {vocab_size}")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[EOS, PAD], initial_alphabet=sorted(alphabet), show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    trained = json.loads(backend.to_str())["model"]
    merges: list[Any] = [tuple(pair) for pair in trained["merges"]]
    return Qwen2Tokenizer(trained["vocab"], merges, eos_token=EOS, pad_token=PAD, unk_token=PAD)
