"""Prepare a rollout for its update: a batch with advantages, and with reference and old log-probabilities if needed.

This happens once per rollout, before its first optimizer step. An objective that needs no extra log-probabilities
costs no forward pass. With a critic, every token has its own advantage (GAE, 1506.02438 eq. 16). V_t is the value of
the state before token t; rewards are not discounted. With d_t = reward_t + V_t+1 - V_t and V = 0 after the last
token,

    A_t = sum_k lambda^k d_t+k          target_t = A_t + V_t

At lambda = 1 the sum is (rewards from t on) - V_t. The critic is then a baseline that depends only on the past, so the
policy gradient is unbiased even if the critic is wrong. At lambda < 1 a wrong critic biases the gradient.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from zerolab.config import LearnerConfig
from zerolab.datatypes import Group
from zerolab.rl.batch import Batch, make_batch
from zerolab.rl.loss import correction_weights, mismatch_metrics, penalised, removed_mass
from zerolab.rl.objective import Objective


def with_values(batch: Batch, values_T: np.ndarray, objective: Objective, penalty_T: np.ndarray | None = None) -> Batch:
    """The batch with A_it, value targets and V_old of every token.

    The reward is given at the last token, and `penalty_T` is subtracted token by token. advantage_N becomes the mean of
    A_it over the response, for metrics.
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
        std = advantage_T.std(ddof=objective.std_ddof) + objective.std_epsilon
        advantage_T = (advantage_T - advantage_T.mean()) / std
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
    """advantage_T in float64 (GAE, 1506.02438 eq. 16), without discount."""
    size, longest = len(response_len_N), int(response_len_N.max(initial=0))
    inside_NL = np.arange(longest) < response_len_N[:, None]
    reward_NL, values_NL = np.zeros((size, longest)), np.zeros((size, longest + 1))
    reward_NL[inside_NL] = reward_T
    values_NL[:, :-1][inside_NL] = values_T
    delta_NL = reward_NL + values_NL[:, 1:] - values_NL[:, :-1]
    running_N = np.zeros(size)
    for t in range(longest - 1, -1, -1):
        running_N = delta_NL[:, t] + gae_lambda * running_N  # stays 0 after the end of a response
        delta_NL[:, t] = running_N
    return delta_NL[inside_NL]


def critic_metrics(batch: Batch) -> dict[str, float]:
    """Means of V_old and of its targets, and the share of the targets' variance that V_old explains."""
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


class Scoring(Protocol):
    """The part of a learner that `prepare` needs."""

    @property
    def config(self) -> LearnerConfig: ...

    @property
    def budget(self) -> int: ...

    def logprobs_of(self, batch: Batch) -> np.ndarray: ...

    def reference_logprobs_of(self, batch: Batch) -> np.ndarray: ...

    def values_of(self, batch: Batch) -> np.ndarray: ...


class Prepared(NamedTuple):
    groups: list[Group]  # with a KL penalty in their rewards, if the objective has one
    batch: Batch
    metrics: dict[str, float]


def prepare(groups: Sequence[Group], learner: Scoring, objective: Objective) -> Prepared:
    """Make the batch of a rollout, with advantages and every column that the objective needs.

    A KL penalty in the reward is subtracted before the advantages are computed.
    """
    rollout, metrics = list(groups), dict[str, float]()
    batch = make_batch(rollout, objective)
    if learner.config.old_logprobs == "learner":  # first, because the KL below is computed from this log pi_old
        batch, measured = _with_own_old_logprobs(batch, learner, objective)
        metrics |= measured
    penalty_T: np.ndarray | None = None
    if objective.kl:
        ref_logprobs_T = learner.reference_logprobs_of(batch)
        kl_N = _sums(batch.old_logprobs_T - ref_logprobs_T, batch.response_len_N)
        metrics["kl/response"] = float(kl_N.mean()) if len(kl_N) else float("nan")
        if objective.kl_place == "reward" and objective.needs_critic:
            penalty_T = objective.kl * (batch.old_logprobs_T - ref_logprobs_T)
            rollout = penalised(rollout, kl_N, objective.kl)  # for metrics; the critic gets penalty_T
        elif objective.kl_place == "reward":
            rollout = penalised(rollout, kl_N, objective.kl)
            paid = make_batch(rollout, objective)
            batch = dataclasses.replace(batch, reward_N=paid.reward_N, advantage_N=paid.advantage_N)
        else:
            batch = dataclasses.replace(batch, ref_logprobs_T=ref_logprobs_T)
    if objective.needs_critic:
        batch = with_values(batch, learner.values_of(batch), objective, penalty_T)
        metrics |= critic_metrics(batch)
    return Prepared(rollout, batch, metrics)


def _with_own_old_logprobs(batch: Batch, learner: Scoring, objective: Objective) -> tuple[Batch, dict[str, float]]:
    """Replace the engine's log pi_old by the learner's, and add the correction weights. Also returns metrics."""
    sampled_T, old_T = batch.old_logprobs_T, learner.logprobs_of(batch)
    metrics = mismatch_metrics(old_T, sampled_T)
    batch = dataclasses.replace(batch, old_logprobs_T=old_T)
    if objective.correction_cap is not None:
        kind, cap = objective.correction, objective.correction_cap
        weight_T = correction_weights(old_T, sampled_T, batch.response_len_N, kind, cap)
        batch = dataclasses.replace(batch, correction_T=weight_T)
        metrics |= removed_mass(weight_T, batch.response_len_N, learner.budget)
    return batch, metrics


def _sums(values_T: np.ndarray, lengths_N: np.ndarray) -> np.ndarray:
    """Sum over the tokens of each response, in float64."""
    row_T = np.repeat(np.arange(len(lengths_N)), lengths_N)
    return np.bincount(row_T, values_T, len(lengths_N))
