"""Small random models and a small tokenizer, made on the spot."""

from functools import cache
from typing import Any

import torch

VOCABULARY = 160
EOS = 0
FAMILIES = ("qwen2", "qwen3", "llama", "mistral", "gemma3", "gpt2")


@cache
def tiny_tokenizer() -> Any:
    """Byte-level BPE of VOCABULARY tokens: printable characters, a few merges, the specials <eos>=0 and <pad>=1.

    It splits text as Qwen2's tokenizer does, because AutoTokenizer does that for every folder of this model type.
    """
    from transformers import Qwen2Tokenizer

    letters = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]
    merges = [("a", "b"), ("c", "d"), ("ab", "cd"), ("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("<", "/")]
    words = ["<eos>", "<pad>", *letters, *("".join(pair) for pair in merges)]
    words += [f"Ġw{i}" for i in range(VOCABULARY - len(words))]
    vocabulary = {word: i for i, word in enumerate(words)}
    pairs: Any = merges
    return Qwen2Tokenizer(vocabulary, pairs, eos_token="<eos>", pad_token="<pad>", unk_token="<eos>")


def tiny_model(family: str = "qwen2", *, seed: int = 0, tied: bool | None = None, **changes: Any) -> Any:
    """A random two-layer causal LM, spread widely enough that its distributions are far from uniform.

    qwen2: biases, tied head; qwen3: norms of q and k, heads wider than hidden_size / heads; mistral: narrower ones;
    llama: grouped queries, Llama-3 rope scaling, untied head; gemma3: one layer with a sliding window of 8 and one
    without, norms on both sides of a block, scaled embeddings; gemma2: soft-caps too; gpt2: a family of its own.
    """
    import transformers as hf

    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "eos_token_id": EOS,
        "pad_token_id": 1,
    }
    torch.manual_seed(seed)
    if family == "qwen2":
        shape |= {"num_key_value_heads": 2, "tie_word_embeddings": tied is not False}
        model: Any = hf.Qwen2ForCausalLM(hf.Qwen2Config(**shape | changes))
    elif family == "qwen3":
        shape |= {"num_key_value_heads": 2, "tie_word_embeddings": tied is not False, "head_dim": 16}
        model = hf.Qwen3ForCausalLM(hf.Qwen3Config(**shape | changes))
    elif family == "mistral":
        shape |= {"num_key_value_heads": 2, "tie_word_embeddings": tied is True, "head_dim": 8, "sliding_window": None}
        model = hf.MistralForCausalLM(hf.MistralConfig(**shape | changes))
    elif family in ("gemma2", "gemma3"):
        shape |= {"num_key_value_heads": 2, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}
        shape |= {"layer_types": ["sliding_attention", "full_attention"]}
        if family == "gemma3":
            model = hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**shape | changes))
        else:
            model = hf.Gemma2ForCausalLM(hf.Gemma2Config(**shape | changes))
    elif family == "llama":
        scaling = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0}
        scaling |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
        shape |= {"num_key_value_heads": 1, "tie_word_embeddings": tied is True, "rope_parameters": scaling}
        model = hf.LlamaForCausalLM(hf.LlamaConfig(**shape | changes))
    elif family == "gpt2":
        gpt2 = {"vocab_size": VOCABULARY, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 256}
        gpt2 |= {"eos_token_id": EOS, "bos_token_id": EOS, "pad_token_id": 1}
        model = hf.GPT2LMHeadModel(hf.GPT2Config(**gpt2 | changes))
    else:
        raise ValueError(f"unknown family {family}")
    of_norms = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or "ln_" in name:
                weight += 0.2 * torch.randn(weight.shape, generator=of_norms)
            else:
                weight.normal_(0, 0.3 if weight.dim() == 1 else 1.2 / weight.shape[-1] ** 0.5)
    return model.eval()


def unusual_model(family: str) -> Any:
    """A random two-layer model of a family that is unusual in how it sees positions; spread as `tiny_model` is.

    bloom, mpt: ALiBi, without max_position_embeddings; lfm2: a convolution layer; phi3: longrope that changes at 32
    tokens; dynamic: a Llama whose rotary embeddings change at 32 tokens.
    """
    import transformers as hf

    ends = {"vocab_size": VOCABULARY, "eos_token_id": EOS, "pad_token_id": 1, "bos_token_id": EOS}
    shape = ends | {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape["num_key_value_heads"] = 2
    torch.manual_seed(0)
    if family == "bloom":
        model: Any = hf.BloomForCausalLM(hf.BloomConfig(**ends, hidden_size=48, n_layer=2, n_head=4))
    elif family == "mpt":
        model = hf.MptForCausalLM(hf.MptConfig(**ends, d_model=48, n_layers=2, n_heads=4, max_seq_len=128))
    elif family == "lfm2":
        model = hf.Lfm2ForCausalLM(hf.Lfm2Config(**shape, layer_types=["conv", "full_attention"]))
    elif family == "phi3":
        rope = {"rope_type": "longrope", "short_factor": [1.0] * 6, "long_factor": [4.0] * 6, "rope_theta": 1e4}
        rope["original_max_position_embeddings"] = 32
        limits = {"max_position_embeddings": 256, "original_max_position_embeddings": 32}
        model = hf.Phi3ForCausalLM(hf.Phi3Config(**shape | limits, rope_parameters=rope))
    elif family == "dynamic":
        rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
        model = hf.LlamaForCausalLM(hf.LlamaConfig(**shape, max_position_embeddings=32, rope_parameters=rope))
    else:
        raise ValueError(f"unknown family {family}")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "norm" not in name:
                weight.normal_(0, 1.2 / weight.shape[-1] ** 0.5)
    return model.eval()
