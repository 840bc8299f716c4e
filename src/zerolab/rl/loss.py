"""What the loss adds up: the terms of every token, before its weight."""

import torch

from zerolab.rl.batch import MicroBatch
from zerolab.rl.kl import kl_terms
from zerolab.rl.objective import Objective
from zerolab.rl.ratio import surrogate


def token_values(
    logprobs_T: torch.Tensor,
    old_logprobs_T: torch.Tensor,
    entropy_T: torch.Tensor,
    advantage_T: torch.Tensor,
    micro: MicroBatch,
    objective: Objective,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(value_T to be maximised, clipped_T: where the clip removed the gradient of the surrogate).

    value = c_it * surrogate + entropy * H_it - kl * k_it, all under the weight of the token. The bonus is the entropy
    at the states that were visited: its gradient leaves out that other tokens lead to other states, so it is not the
    gradient of the entropy of whole responses.
    """
    value_T, clipped_T = surrogate(logprobs_T, old_logprobs_T, advantage_T, objective, micro.response_len_B)
    if objective.correction != "none":
        if micro.correction_T is None:
            raise ValueError("the batch has no correction weights: make it with learner.prepare")
        value_T = value_T * micro.correction_T
    if objective.entropy:
        value_T = value_T + objective.entropy * entropy_T
    if objective.needs_reference_in_loss:
        if micro.ref_logprobs_T is None:
            raise ValueError("the batch has no reference log-probabilities: make it with learner.prepare")
        assert objective.kl_estimator is not None
        value_T = value_T - objective.kl * kl_terms(logprobs_T, micro.ref_logprobs_T, objective.kl_estimator)
    return value_T, clipped_T


def value_errors(values_T: torch.Tensor, micro: MicroBatch, objective: Objective) -> torch.Tensor:
    """error_T to be minimised, (V_it - target_it)^2 before its coefficient; V_it as the critic says now.

    With value_clip the larger of that and the error of V held within value_clip of its old value, so that one rollout
    moves V only so far.
    """
    if micro.value_target_T is None or micro.old_values_T is None:
        raise ValueError("the batch has no value targets: make it with learner.prepare")
    error_T = (values_T - micro.value_target_T).square()
    if objective.value_clip is None:
        return error_T
    moved_T = (values_T - micro.old_values_T).clamp(-objective.value_clip, objective.value_clip)
    return torch.maximum(error_T, (micro.old_values_T + moved_T - micro.value_target_T).square())
