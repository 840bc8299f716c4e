"""Random Qwen2-shaped models, prompts and a tokenizer that the benchmarks share.

One token in 64 ends a response, so lengths are spread as geometric ones with mean 64, cut at the budget.
"""

from typing import Any, ClassVar

import numpy as np
import torch

SIZES: dict[str, dict[str, Any]] = {
    "1M": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2},
    "15M": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 2},
    "100M": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4},
}
WIDTHS = {"1M": (512, 1024), "15M": (1536, 4096), "100M": (2304, 16384)}  # feed-forward, vocabulary
QUESTIONS, SAMPLES, NEW_TOKENS, EOS_SHARE = 32, 8, 128, 64


class PlainTokenizer:
    """Enough of a tokenizer for an engine: texts do not matter here."""

    eos_token_id = 0
    all_special_ids = all_special_tokens = ()
    added_tokens_decoder: ClassVar[dict[int, Any]] = {}

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def make_model(size: str) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    width, vocabulary = WIDTHS[size]
    torch.manual_seed(0)
    config = Qwen2Config(
        **SIZES[size],
        vocab_size=vocabulary,
        intermediate_size=width,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=list(range(vocabulary // EOS_SHARE)),
        pad_token_id=0,
        attn_implementation="sdpa",
    )
    model: Any = Qwen2ForCausalLM(config)
    return model.eval()


def make_prompts(vocabulary: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(32, 65, QUESTIONS)
    return [tuple(rng.integers(vocabulary // EOS_SHARE, vocabulary, n).tolist()) for n in lengths]


def make_tokenizer(vocabulary: int) -> Any:
    """Words t0, t1, ... between spaces; t0 ends a text and fills it up."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({f"t{i}": i for i in range(vocabulary)}, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="t0", pad_token="t0")
