"""Small tokenizers of zerolab's own, written as normal Hugging Face files.

They are Qwen2 tokenizers with a vocabulary of their own: the class that AutoTokenizer, vLLM and others take for a model
of this architecture anyway, whatever the folder says, so that all of them split text alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

EOS, PAD = "<eos>", "<pad>"
ASCII = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]  # byte-level names: Ġ is a space, Ċ a line feed


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """`words` as one token each, spaces included, and every other printable ASCII character as a token.

    A word of letters or digits only is taken where it stands alone ("10", not in "105"). Characters beyond ASCII have
    no token and are left out; <eos> is id 0, <pad> id 1.
    """
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer

    vocabulary = {token: number for number, token in enumerate([EOS, PAD, *ASCII])}
    tokenizer = Qwen2Tokenizer(vocabulary, [], eos_token=EOS, pad_token=PAD, unk_token=PAD)
    tokenizer.add_tokens(
        [AddedToken(word, single_word=word.isalnum(), normalized=False) for word in words if len(word) > 1]
    )
    return tokenizer


def train_bpe(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens (at least 258) trained on `texts`. Any text fits."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    from zerolab.errors import UserError

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
