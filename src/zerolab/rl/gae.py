"""Advantages of single tokens from a critic: how much better things went than V expected, state by state.

V_t is the value of the state before token t; rewards are not discounted. With d_t = reward_t + V_t+1 - V_t and V = 0
after the last token (1506.02438 eq. 16),

    A_t = sum_k lambda^k d_t+k          target_t = A_t + V_t

At lambda = 1 the sum telescopes to (rewards from t on) - V_t: whatever the critic says, it is a baseline that knows
only the past, so the policy gradient stays unbiased. Below 1 a wrong critic biases it.
"""

import dataclasses

import numpy as np

from zerolab.rl.batch import Batch
from zerolab.rl.objective import Objective


def with_values(batch: Batch, values_T: np.ndarray, objective: Objective, penalty_T: np.ndarray | None = None) -> Batch:
    """The batch with A_it, value targets and V_old of every token.

    The reward falls on the last token; `penalty_T` is taken off every token on its own. advantage_N becomes the mean
    over the response, for metrics.
    """
    reward_T = np.zeros(len(values_T))
    reward_T[np.cumsum(batch.response_len_N) - 1] = batch.reward_N
    if penalty_T is not None:
        reward_T -= penalty_T
    assert objective.gae_lambda is not None
    advantage_T = generalised_advantages(reward_T, values_T.astype(float), batch.response_len_N, objective.gae_lambda)
    target_T = advantage_T + values_T
    if objective.scale == "token_whitening" and len(advantage_T) > 1:
        assert objective.std_ddof is not None
        assert objective.std_epsilon is not None
        spread = advantage_T.std(ddof=objective.std_ddof) + objective.std_epsilon
        advantage_T = (advantage_T - advantage_T.mean()) / spread
    row_T = np.repeat(np.arange(len(batch)), batch.response_len_N)
    kind = batch.old_logprobs_T.dtype
    return dataclasses.replace(
        batch,
        advantage_N=np.bincount(row_T, advantage_T, len(batch)) / batch.response_len_N,
        advantage_T=advantage_T.astype(kind),
        value_target_T=target_T.astype(kind),
        old_values_T=values_T.astype(kind),
    )


def generalised_advantages(
    reward_T: np.ndarray, values_T: np.ndarray, response_len_N: np.ndarray, gae_lambda: float
) -> np.ndarray:
    """advantage_T in float64; all responses go backwards side by side."""
    size, longest = len(response_len_N), int(response_len_N.max(initial=0))
    inside_NL = np.arange(longest) < response_len_N[:, None]
    reward_NL, values_NL = np.zeros((size, longest)), np.zeros((size, longest + 1))
    reward_NL[inside_NL] = reward_T
    values_NL[:, :-1][inside_NL] = values_T
    delta_NL = reward_NL + values_NL[:, 1:] - values_NL[:, :-1]
    running_N = np.zeros(size)
    for t in range(longest - 1, -1, -1):
        running_N = delta_NL[:, t] + gae_lambda * running_N  # 0 beyond the end, where reward and values are 0
        delta_NL[:, t] = running_N
    return delta_NL[inside_NL]


def critic_metrics(batch: Batch) -> dict[str, float]:
    """How well V_old foresaw its targets: the mean of both, and the share of the targets' variance that V explains."""
    if batch.value_target_T is None or batch.old_values_T is None or not len(batch):
        return {}
    target_T, values_T = batch.value_target_T.astype(float), batch.old_values_T.astype(float)
    variance = target_T.var()
    explained = float(1 - (target_T - values_T).var() / variance) if variance else float("nan")
    return {
        "critic/value": float(values_T.mean()),
        "critic/target": float(target_T.mean()),
        "critic/explained_variance": explained,
    }
