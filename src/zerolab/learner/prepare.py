"""From graded groups to the batch of the update: advantages, and what takes a forward pass of frozen weights.

Done once per rollout, before its first optimizer step; an objective that asks for nothing costs no pass.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from zerolab.config import LearnerConfig
from zerolab.datatypes import Group
from zerolab.rl.batch import Batch, make_batch
from zerolab.rl.gae import critic_metrics, with_values
from zerolab.rl.kl import penalised
from zerolab.rl.mismatch import correction_weights, mismatch_metrics, removed_mass
from zerolab.rl.objective import Objective


class Scoring(Protocol):
    """What is asked of a learner here."""

    @property
    def config(self) -> LearnerConfig: ...

    @property
    def budget(self) -> int: ...

    def logprobs_of(self, batch: Batch) -> np.ndarray: ...

    def reference_logprobs_of(self, batch: Batch) -> np.ndarray: ...

    def values_of(self, batch: Batch) -> np.ndarray: ...


class Prepared(NamedTuple):
    groups: list[Group]  # with the rewards that the objective saw
    batch: Batch
    metrics: dict[str, float]


def prepare(groups: Sequence[Group], learner: Scoring, objective: Objective) -> Prepared:
    """The batch with A_i (statistics of the rollout) and every column that the objective needs.

    A penalty in the reward is taken off before the advantages.
    """
    rollout, metrics = list(groups), dict[str, float]()
    batch = make_batch(rollout, objective)
    if learner.config.old_logprobs == "learner":  # first: a KL is measured from the log pi_old of the update
        batch, measured = _with_own_old_logprobs(batch, learner, objective)
        metrics |= measured
    penalty_T: np.ndarray | None = None
    if objective.kl:
        ref_logprobs_T = learner.reference_logprobs_of(batch)
        kl_N = _sums(batch.old_logprobs_T - ref_logprobs_T, batch.response_len_N)
        metrics["kl/response"] = float(kl_N.mean()) if len(kl_N) else float("nan")
        if objective.kl_place == "reward" and objective.needs_critic:
            penalty_T = objective.kl * (batch.old_logprobs_T - ref_logprobs_T)
            rollout = penalised(rollout, kl_N, objective.kl)  # what is reported; the critic sees it token by token
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
    """log pi_old by the learner in the place of the engine's, and the weights that correct for the difference."""
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
