"""Advantages: how much better a response was than its siblings. Statistics of the rollout, fixed before any split."""

import numpy as np

from zerolab.rl.objective import Objective


def advantages(rewards_G: np.ndarray, objective: Objective) -> np.ndarray:
    """A_G in float64 for the rewards of one question.

    A group of one has no sibling to compare with: group baselines then give 0.
    """
    rewards_G = np.asarray(rewards_G, dtype=np.float64)
    centred_G = _centre(rewards_G, objective.baseline)
    if objective.scale == "none":
        return centred_G
    if not centred_G.any():
        return centred_G
    assert objective.std_ddof is not None
    assert objective.std_epsilon is not None
    return centred_G / (rewards_G.std(ddof=objective.std_ddof) + objective.std_epsilon)


def _centre(rewards_G: np.ndarray, baseline: str) -> np.ndarray:
    size = len(rewards_G)
    if baseline == "none":
        return rewards_G
    if size < 2 or np.ptp(rewards_G) == 0:  # exactly 0: rounding in the mean must not pass for a signal
        return np.zeros(size)
    centred_G = rewards_G - rewards_G.mean()
    # R_i - mean of the others = G/(G-1) (R_i - mean of all).
    return centred_G * size / (size - 1) if baseline == "leave_one_out" else centred_G
