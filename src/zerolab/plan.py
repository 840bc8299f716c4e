"""What a run will need, from its config alone: printed by --dry-run."""

import re
from dataclasses import dataclass
from typing import Any

from zerolab.config import ModelConfig, RunConfig

GIB = 2**30


@dataclass(frozen=True)
class ModelShape:
    parameters: int
    layers: int | None  # None where only the name is known
    kv_width: int | None  # key and value elements per token and layer
    source: str
    linear_width: int  # inputs + outputs of every linear layer but the head, summed: what adapters of rank 1 take


def model_shape(model: ModelConfig) -> ModelShape | None:
    """Shape by the model's config where it is on this machine, else the size in its name, else None.

    Raises UserError for a folder that holds no model and for a base that is no pretraining recipe.
    """
    if model.path is not None:
        return _published(model.path)
    from zerolab.pretrain.corpus import make_corpus
    from zerolab.pretrain.pretrain import make_learner
    from zerolab.recipes import find_recipe, load

    recipe = load(find_recipe(str(model.base)), verb="pretrain")
    return _measure(make_learner(recipe, make_corpus(recipe.corpus, recipe.seed)).model, "its recipe")


def _published(path: str) -> ModelShape | None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from zerolab.models.hf import check_folder

    check_folder(path)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError):
        match = re.search(r"(\d+(?:\.\d+)?)[bB](?![a-zA-Z])", path)
        return _by_name(int(float(match[1]) * 1e9)) if match else None
    return _measure(model, "its config.json")


def _by_name(parameters: int) -> ModelShape:
    """Linear widths grow with parameters^(2/3), as depth grows with width: 2.5 million at 7.6 billion (Qwen2.5)."""
    return ModelShape(parameters, None, None, "size in its name", int(0.65 * parameters ** (2 / 3)))


def _measure(model: Any, source: str) -> ModelShape:
    text = model.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    count = sum(p.numel() for p in model.parameters())
    matrices = [p for name, p in model.get_decoder().named_parameters() if p.dim() == 2 and "embed" not in name]
    return ModelShape(count, text.num_hidden_layers, 2 * heads * width, source, sum(sum(m.shape) for m in matrices))


def token_estimates(config: RunConfig) -> list[tuple[str, float]]:
    rollout = config.rollout
    responses = rollout.questions_per_step * rollout.samples_per_question
    rounds = 1 + rollout.refill_rounds
    return [
        ("responses per step", responses),
        ("optimizer steps per step", config.learner.updates_per_rollout),
        ("responses per optimizer step", responses / config.learner.updates_per_rollout),
        ("new tokens per step, at most", responses * rollout.max_new_tokens * rounds),
        ("new tokens in all, at most", responses * rollout.max_new_tokens * rounds * config.steps),
    ]


def memory_estimates(config: RunConfig, shape: ModelShape) -> list[tuple[str, float]]:
    """GiB on the device of what is held for the whole run, and of one chunk of logits; activations are not counted.

    Under lora.offload the engine's share and the learner's are there in turn, and each has its sum.
    """
    engine_bytes = 4 if config.model.precision == "fp32" else 2
    held = 2.0 if config.model.weights == "bf16" else 4.0
    logits = ("logits of one chunk, three copies", 3.0 * config.learner.logits_mb * 2**20)
    learner = [(f"learner weights, {config.model.weights}", held * shape.parameters), *_trained(config, shape)]
    engine = [
        ("engine weights", float(engine_bytes * shape.parameters)),
        ("engine keys and values (budget)", config.rollout.kv_gb * GIB),
    ]
    rows = [*learner, *engine, logits]
    if config.lora and config.lora.offload:
        rows += [
            ("sum while sampling", sum(size for _, size in [*engine, learner[1]])),
            ("sum while learning, no activations", sum(size for _, size in [*learner, logits])),
            ("host memory of the base", learner[0][1]),
        ]
    else:
        rows.append(("sum, without activations", sum(size for _, size in rows)))
    return [(name, size / GIB) for name, size in rows]


def _trained(config: RunConfig, shape: ModelShape) -> list[tuple[str, float]]:
    """What training needs beside the weights of the policy."""
    if config.lora:  # the base is the reference too
        return [("adapters, gradients and moments, fp32", 16.0 * config.lora.rank * shape.linear_width)]
    half = config.model.weights == "bf16"
    rows = [("master copies, fp32", 4.0 * shape.parameters)] if half else []
    rows += [("gradients, fp32", 4.0 * shape.parameters), ("AdamW moments, fp32", 8.0 * shape.parameters)]
    if config.objective.kl:
        rows.append((f"reference weights, {config.model.weights}", (2.0 if half else 4.0) * shape.parameters))
    return rows + _critic(config, shape)


def _critic(config: RunConfig, shape: ModelShape) -> list[tuple[str, float]]:
    if not config.objective.needs_critic or (config.critic and config.critic.kind == "head"):
        return []
    return [("critic weights, gradients and moments", 16.0 * shape.parameters)]


def describe(config: RunConfig) -> str:
    """Resolved config, the objective's formula, token and memory estimates, as text."""
    shape = model_shape(config.model)
    lines = [config.model_dump_json(indent=2), "", f"objective {config.objective.name}", config.objective.formula(), ""]
    lines += [f"{name:36} {value:>16,.0f}" for name, value in token_estimates(config)]
    if shape is None:
        lines += ["", f"memory: unknown until the model is at hand ({config.model.path})"]
        return "\n".join(lines)
    lines += ["", f"{'parameters, by ' + shape.source:36} {shape.parameters:>16,}"]
    lines += [f"{name:36} {value:>12.2f} GiB" for name, value in memory_estimates(config, shape)]
    if shape.layers and shape.kv_width:
        per_token = shape.layers * shape.kv_width * (4 if config.model.precision == "fp32" else 2)
        fits = (
            config.rollout.kv_gb * GIB / per_token / (config.rollout.max_prompt_tokens + config.rollout.max_new_tokens)
        )
        lines.append(f"{'full-length responses in that cache':36} {fits:>16,.0f}")
    return "\n".join(lines)
