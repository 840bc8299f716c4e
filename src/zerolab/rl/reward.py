"""Rewards: the weighted sum of the terms of a response, and the rule for truncated responses.

Under each `reward.truncation` a run optimises: zero E[R 1{finished}], mask E[R | finished] (no pressure against
overlong answers), keep E[R], soft E[R + penalty] with the overlong penalty of 2503.14476 eq. 13. Grades are never
changed.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from zerolab.datatypes import Completion, Grade, Group, Prompt
from zerolab.rl.reward_config import CosineReward, RewardConfig
from zerolab.rl.reward_function import Term

THOUGHT_ENDS = "</think>"


def make_group(
    prompt: Prompt,
    completions: Sequence[Completion],
    grades: Sequence[Grade],
    config: RewardConfig,
    budget: int,
    terms: Sequence[Term] = (),
    seed: int = 0,
) -> Group:
    """The group of one question with its rewards.

    A function that returns None for a response adds nothing to its reward. A response without any score is masked, as
    in TRL. Raises UserError if a function of the user fails.

    Args:
        budget: L_max in tokens.
        terms: config.functions, loaded.
        seed: seed of the run, for config.random.
    """
    truncated_G = np.array([c.truncated for c in completions])
    lengths_G = np.array([len(c) for c in completions])
    correct_G = np.array([g.correct for g in grades])
    parts_G = {"correctness": config.correctness * correct_G.astype(float)}
    if config.format:
        parts_G["format"] = config.format * np.array([float(g.formatted) for g in grades])
    if config.think:
        parts_G["think"] = config.think * np.array([float(c.text.count(THOUGHT_ENDS) == 1) for c in completions])
    if config.cosine:
        parts_G["cosine"] = config.cosine.weight * cosine_reward(
            lengths_G, correct_G, truncated_G, budget, config.cosine
        )
    if config.overlong_weight:
        assert config.soft_margin is not None
        parts_G["overlong"] = config.overlong_weight * overlong_penalty(lengths_G, budget, config.soft_margin)
    if config.random:
        parts_G["random"] = config.random * coins(seed, prompt, completions)
    always = config.has_term
    scored_G = np.full(len(completions), always or not terms)
    for term in terms:
        rewards_G = term.rewards_G(prompt, completions)
        scored_G |= ~np.isnan(rewards_G)
        parts_G[term.config.term] = term.config.weight * np.nan_to_num(rewards_G)
    if config.truncation == "zero":
        parts_G = {name: np.where(truncated_G, 0.0, part_G) for name, part_G in parts_G.items()}
        scored_G |= truncated_G
    loss_mask_G = scored_G & ~truncated_G if config.truncation == "mask" else scored_G
    return Group(
        prompt=prompt,
        completions=tuple(completions),
        grades=tuple(grades),
        rewards_G=np.sum(list(parts_G.values()), axis=0),
        parts_G=parts_G,
        loss_mask_G=loss_mask_G if config.truncation == "mask" or not scored_G.all() else None,
    )


def coins(seed: int, prompt: Prompt, completions: Sequence[Completion]) -> np.ndarray:
    """A random 0 or 1 per response, which depends on seed, question, sample and weight version, but not on the text."""
    names = [f"{seed} {c.version} {prompt.question.id} {c.request_id}".encode() for c in completions]
    return np.array([float(hashlib.blake2b(name, digest_size=1).digest()[0] & 1) for name in names])


def overlong_penalty(lengths: np.ndarray, budget: int, margin: int) -> np.ndarray:
    """0 up to budget - margin tokens, then linear down to -1 at the budget (2503.14476 eq. 13)."""
    return -np.clip((lengths - (budget - margin)) / margin, 0.0, 1.0)


def cosine_reward(
    lengths_G: np.ndarray, correct_G: np.ndarray, truncated_G: np.ndarray, budget: int, values: CosineReward
) -> np.ndarray:
    """r_L + (r_0 - r_L)(1 + cos(pi L / L_max)) / 2, and `exceed` for truncated responses (2502.03373, appendix C.1).

    (r_0, r_L) are `values.correct` or `values.wrong`.
    """
    at_zero_G = np.where(correct_G, values.correct[0], values.wrong[0])
    at_budget_G = np.where(correct_G, values.correct[1], values.wrong[1])
    share_G = (1 + np.cos(np.pi * np.minimum(lengths_G / budget, 1.0))) / 2
    return np.where(truncated_G, values.exceed, at_budget_G + (at_zero_G - at_budget_G) * share_G)


def has_right_and_wrong(group: Group) -> bool:
    """Whether some unmasked responses are right and some are wrong, whatever their rewards (2503.14476 eq. 11)."""
    correct_G = np.array([grade.correct for grade in group.grades])
    return bool(len(np.unique(correct_G if group.loss_mask_G is None else correct_G[group.loss_mask_G])) == 2)


def is_mixed(group: Group) -> bool:
    """Whether the responses that are not masked have different rewards, so that a centred advantage can be non-zero.

    If there is a greedy response: whether a response has another reward than the greedy one.
    """
    rewards = group.rewards_G if group.loss_mask_G is None else group.rewards_G[group.loss_mask_G]
    if group.greedy_reward is not None:
        return bool((rewards != group.greedy_reward).any())
    return bool(len(rewards) > 1 and np.ptp(rewards) > 0)
