"""Advantages: how much better a response is than the other responses to its question.

They are computed over the whole rollout, before it is split into optimizer steps.
"""

from collections.abc import Sequence

import numpy as np

from zerolab.rl.objective import Objective


def advantages(rewards_G: np.ndarray, objective: Objective) -> np.ndarray:
    """A_G in float64 for the rewards of one question, which counts as the whole rollout."""
    return rollout_advantages([rewards_G], objective)[0]


def rollout_advantages(
    rewards_PG: Sequence[np.ndarray], objective: Objective, greedy_P: Sequence[float | None] | None = None
) -> list[np.ndarray]:
    """A_G in float64 for the rewards of every question; greedy_P has the rewards of the greedy responses.

    In a group of one response, group baselines give 0. With a critic the result is the rewards themselves:
    `learner/prepare.py` subtracts the critic's values, token by token. Raises ValueError if the objective needs a
    greedy reward that is missing.
    """
    rewards = [np.asarray(rewards_G, dtype=np.float64) for rewards_G in rewards_PG]
    if objective.needs_greedy:
        return [r - _required(greedy) for r, greedy in zip(rewards, greedy_P or [None] * len(rewards), strict=True)]
    centred = [_centre(rewards_G, objective.baseline) for rewards_G in rewards]
    if objective.scale == "none" or objective.needs_critic:
        return centred
    if objective.scale == "group_mean":  # 2602.02710: without a right answer there is no signal
        return [c / r.mean() if c.any() else c for c, r in zip(centred, rewards, strict=True)]
    if objective.scale == "group_std":
        return [c / _std(r, objective) if c.any() else c for c, r in zip(centred, rewards, strict=True)]
    # Group-centred rewards have mean 0 over the rollout, so whitening them only divides.
    sample = np.concatenate([*(rewards if objective.scale == "batch_std" else centred), np.empty(0)])
    if not any(c.any() for c in centred):
        return centred
    return [c / _std(sample, objective) for c in centred]


def _required(greedy_reward: float | None) -> float:
    if greedy_reward is None:
        raise ValueError('the group has no greedy response, which objective.baseline = "greedy" needs')
    return greedy_reward


def _std(values: np.ndarray, objective: Objective) -> float:
    assert objective.std_ddof is not None
    assert objective.std_epsilon is not None
    return float(values.std(ddof=objective.std_ddof)) + objective.std_epsilon


def _centre(rewards_G: np.ndarray, baseline: str) -> np.ndarray:
    size = len(rewards_G)
    if baseline in ("none", "critic"):
        return rewards_G
    if size < 2 or np.ptp(rewards_G) == 0:  # exactly 0: a rounding error of the mean would be a false signal
        return np.zeros(size)
    centred_G = rewards_G - rewards_G.mean()
    # R_i - mean of the others = G/(G-1) (R_i - mean of all).
    return centred_G * size / (size - 1) if baseline == "leave_one_out" else centred_G
