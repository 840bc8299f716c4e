"""How many tokens a model can hold, and what a config may ask of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zerolab.errors import UserError

if TYPE_CHECKING:
    from zerolab.config import RunConfig, TextRunConfig

NO_LIMIT = 2**20  # tokens; for a family whose config names no limit (Bloom)
LONGEST_PIECE = 4096  # tokens of a document in pretraining, unless the config says more


def context_length(model_config: Any) -> int:
    """Tokens of a prompt and its response together, at most.

    Some rotary embeddings change when a sequence gets longer than a limit (longrope, dynamic NTK). Keys of earlier
    tokens would be stale after the change, and a response would depend on the longest one of its batch; so the context
    ends at that limit.
    """
    text = model_config.get_text_config()
    named = getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None)
    return min(int(named or NO_LIMIT), rotary_limit(model_config) or NO_LIMIT)


def rotary_limit(model_config: Any) -> int | None:
    """Tokens up to which the rotary embeddings of a model stay as they are; None if they never change."""
    text = model_config.get_text_config()
    parameters = getattr(text, "rope_parameters", None) or {}
    limits: list[int] = []
    for entry in (parameters, *(value for value in parameters.values() if isinstance(value, dict))):
        kind = str(entry.get("rope_type"))
        if kind == "longrope":
            original = entry.get("original_max_position_embeddings")
            limits.append(int(original or text.original_max_position_embeddings))
        elif "dynamic" in kind:
            limits.append(int(text.max_position_embeddings))
    return min(limits, default=None)


def largest_budget(config: RunConfig) -> int:
    """The most new tokens that any response may have."""
    return max(config.rollout.max_new_tokens, config.evaluation.max_new_tokens or 0)


def prompt_limit(config: RunConfig, context: int) -> int:
    """Longest prompt in tokens that leaves room for every budget. Raises UserError if no prompt would."""
    budget = largest_budget(config)
    if budget >= context:
        raise UserError(
            f"a budget of {budget} new tokens leaves no room for a prompt in the model's context of {context} tokens: "
            "lower rollout.max_new_tokens or evaluation.max_new_tokens"
        )
    return min(config.rollout.max_prompt_tokens, context - budget)


def piece_limit(config: TextRunConfig, context: int) -> int:
    """Tokens of the longest piece of a document. Raises UserError if the model cannot hold it."""
    if config.context is None:
        return min(context, LONGEST_PIECE)
    if config.context > context:
        raise UserError(f"context = {config.context} is longer than the model's of {context} tokens: lower it")
    return config.context


def evaluation_room(config: TextRunConfig, context: int) -> int:
    """Longest prompt of an evaluation during pretraining, in tokens. Raises UserError if no prompt would fit."""
    room = context - (config.evaluation.max_new_tokens or 0)
    if room < 1:
        raise UserError(
            f"evaluation.max_new_tokens = {config.evaluation.max_new_tokens} leaves no room for a prompt in the "
            f"model's context of {context} tokens: lower it"
        )
    return room


def head_dim(config: Any) -> int:
    """Width of one attention head: named by the config of a model, or an equal share of its hidden size."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
