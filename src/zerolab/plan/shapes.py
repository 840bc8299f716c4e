"""The shape of a model: from its config where that is at hand, from a table of published ones, or from its name."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from zerolab.config import ArchitectureConfig, ModelConfig, PretrainConfig
from zerolab.models.context import context_length, head_dim
from zerolab.models.fetch import catalogue, local_model, model_folder
from zerolab.models.model_safety import check_folder
from zerolab.recipes import base_recipe
from zerolab.worlds.corpora import make_corpus


@dataclass(frozen=True)
class Layers:
    """What a forward pass costs. Counts of weights are those that stand in matrix products."""

    count: int
    hidden: int
    attention: int  # width of all queries of a token
    kv: int  # key and value elements per token and layer
    inner: int  # width of the MLP
    body: int  # weights of all layers' matrices
    head: int  # weights of the product with the vocabulary


@dataclass(frozen=True)
class ModelShape:
    parameters: int
    linear_width: int  # inputs + outputs of every linear layer but the head, summed: what adapters of rank 1 take
    source: str
    layers: Layers | None = None  # None where only the size is known
    context: int | None = None  # tokens; None if the config is not at hand


class Dimensions(NamedTuple):
    """The sizes that decide every weight of a Qwen2, Llama or Mistral model."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    width: int  # of one head
    inner: int  # of the MLP
    vocabulary: int
    tied: bool  # the head is the embedding
    biases: bool  # of queries, keys and values


# From config.json of the base models on the hub (Qwen/Qwen2.5-0.5B ..., meta-llama/Llama-3.2-1B ...).
PUBLISHED = {
    "qwen2.5-0.5b": (24, 896, 14, 2, 64, 4864, 151_936, True, True),
    "qwen2.5-1.5b": (28, 1536, 12, 2, 128, 8960, 151_936, True, True),
    "qwen2.5-3b": (36, 2048, 16, 2, 128, 11_008, 151_936, True, True),
    "qwen2.5-7b": (28, 3584, 28, 4, 128, 18_944, 152_064, False, True),
    "qwen2.5-14b": (48, 5120, 40, 8, 128, 13_824, 152_064, False, True),
    "qwen2.5-32b": (64, 5120, 40, 8, 128, 27_648, 152_064, False, True),
    "deepseek-r1-distill-qwen-1.5b": (28, 1536, 12, 2, 128, 8960, 151_936, False, True),
    "llama-3.2-1b": (16, 2048, 32, 8, 64, 8192, 128_256, True, False),
    "llama-3.2-3b": (28, 3072, 24, 8, 128, 8192, 128_256, True, False),
    "llama-3.1-8b": (32, 4096, 32, 8, 128, 14_336, 128_256, False, False),
}
# The same shapes under other names: Qwen2.5-Math-7B, Llama-3.2-3B-NuminaQA, FineMath-Llama-3B.
FAMILIES = (
    (r"qwen2\.5-(?:math-|coder-)?(\d+(?:\.\d+)?b)\b", "qwen2.5-{}"),
    (r"(deepseek-r1-distill-qwen-1\.5b)\b", "{}"),
    (r"llama-3\.([12])-(\d+b)\b", "llama-3.{}-{}"),
    (r"finemath-llama-(3b)\b", "llama-3.2-{}"),
)


def model_shape(model: ModelConfig) -> ModelShape | None:
    """Shape by the model's config where it is on this machine, else that of its family, else the size in its name, else
    None.

    Raises UserError for a folder that holds no model and for a base that is no pretraining recipe.
    """
    if model.path is not None:
        return _at_hand(model.path) or published(model.path) or _by_name(model.path)

    return recipe_shape(base_recipe(str(model.base)))


def recipe_shape(recipe: PretrainConfig) -> ModelShape:
    """Shape of the model that a pretraining recipe makes."""
    return tiny_shape(recipe.architecture, len(make_corpus(recipe.corpus, recipe.seed).tokenizer))


def tiny_shape(architecture: ArchitectureConfig, vocabulary: int) -> ModelShape:
    """Shape of models.tiny.tiny_qwen2 with this architecture."""
    size, heads = architecture.hidden_size, architecture.heads
    sizes = Dimensions(
        architecture.layers, size, heads, heads, size // heads, architecture.intermediate_size, vocabulary, True, True
    )
    return decoder_shape(sizes, "its recipe", architecture.context)


def published(path: str) -> ModelShape | None:
    """The shape of a known family that this hub id or folder names."""
    for name in reversed(path.lower().split("/")):  # runs/llama-3.2-3b-mine/model is named by its folder
        for pattern, form in FAMILIES:
            match = re.search(pattern, name)
            if match and (key := form.format(*match.groups())) in PUBLISHED:
                return decoder_shape(Dimensions(*PUBLISHED[key]), f"the published shape of {key}")
    return None


def decoder_shape(sizes: Dimensions, source: str, context: int | None = None) -> ModelShape:
    """Shape of a Qwen2, Llama or Mistral model: what `measure` says of it, without making it."""
    count, hidden, heads, kv_heads, width, inner, vocabulary, tied, biases = sizes
    attention, kv = heads * width, 2 * kv_heads * width
    body = count * hidden * (2 * attention + kv + 3 * inner)
    head = vocabulary * hidden
    small = count * (2 * hidden + (attention + kv) * biases) + hidden  # norms and biases
    linear = count * (2 * (hidden + attention) + (2 * hidden + kv) + 3 * (hidden + inner))
    layers = Layers(count, hidden, attention, kv, inner, body, head)
    return ModelShape(body + head * (1 if tied else 2) + small, linear, source, layers, context)


def _at_hand(path: str) -> ModelShape | None:
    """Shape by config.json, if it is on this machine."""
    if path in catalogue() and not model_folder(path).is_dir():
        return None
    path = local_model(path)
    folder = check_folder(path, ask_hub=False)
    file = folder / "config.json" if folder is not None else _cached_config(path)
    if file is None:
        return None
    return shape_of_config(file) or _built(path)


def _cached_config(name: str) -> Path | None:
    """config.json of a hub id in the hub's local cache."""
    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


PLAIN = {"qwen2": True, "llama": False, "mistral": False}  # families that Dimensions decide: do q, k and v have biases?


def shape_of_config(file: Path) -> ModelShape | None:
    """Shape by a config.json alone, which takes no torch; None if more than `Dimensions` decides it."""
    try:
        text = file.read_text(encoding="utf-8")
        config = json.loads(text)
        biases = PLAIN[config["model_type"]]
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        sizes = Dimensions(
            config["num_hidden_layers"],
            hidden,
            heads,
            config["num_key_value_heads"],
            config.get("head_dim") or hidden // heads,
            config["intermediate_size"],
            config["vocab_size"],
            config.get("tie_word_embeddings", False),
            biases,
        )
        context = config["max_position_embeddings"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return None
    if not all(isinstance(number, int) for number in (*sizes, context)):
        return None
    if config.get("attention_bias") or config.get("mlp_bias") or "longrope" in text or "dynamic" in text:
        return None
    return decoder_shape(sizes, "its config.json", context)


def _built(path: str) -> ModelShape | None:
    """Shape of the model that transformers builds without memory; None if it cannot."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError):
        return None
    return measure(model, "its config.json")


def _by_name(path: str) -> ModelShape | None:
    """Linear widths grow with parameters^(2/3), as depth grows with width: 2.5 million at 7.6 billion (Qwen2.5)."""
    match = re.search(r"(\d+(?:\.\d+)?)[bB](?![a-zA-Z])", path)
    if match is None:
        return None
    parameters = int(float(match[1]) * 1e9)
    return ModelShape(parameters, int(0.65 * parameters ** (2 / 3)), "size in its name")


def measure(model: Any, source: str) -> ModelShape:
    """Of a model of transformers, which may lie on the meta device."""
    text = model.config.get_text_config()
    width = head_dim(text)
    kv_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    matrices = [p for name, p in model.get_decoder().named_parameters() if p.dim() == 2 and "embed" not in name]
    layers = Layers(
        count=text.num_hidden_layers,
        hidden=text.hidden_size,
        attention=text.num_attention_heads * width,
        kv=2 * kv_heads * width,
        inner=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        body=sum(m.numel() for m in matrices),
        head=text.vocab_size * text.hidden_size,
    )
    parameters, linear = sum(p.numel() for p in model.parameters()), sum(sum(m.shape) for m in matrices)
    return ModelShape(parameters, linear, source, layers, context_length(model.config))
