"""The terms of the loss of every token, before they are multiplied by the weight of the token (aggregate.py).

1. The surrogate: importance ratio times advantage, with the clip or trust region of the objective.

2. The distance to the reference policy: estimators of KL(pi || pi_ref) from tokens that pi sampled. Their expected
   gradient, for responses sampled from pi (the tests enumerate it), is that of

    k1 in the reward  the reverse KL of whole responses, KL(pi || pi_ref)
    k2 in the loss    the reverse KL of the next token, at the states that pi visits
    k3 in the loss    the forward KL of the next token, KL(pi_ref || pi), at the states that pi visits (2402.03300)

   The config refuses three others: k1 in the loss has gradient 0, because E[grad log pi] = 0, and k2 and k3 in the
   reward have the gradient of no KL.

3. The weight pi_old / mu, which corrects for the slightly different probabilities of engine and learner. With exact
   weights E[weight] = 1, so the mass that a bound removes is 1 minus the mean weight that is kept. Weights of tokens
   vary little but leave a bias. The weight of a response is a product over its tokens: the longer the response, the
   further the weight is from 1. A bound on it removes mostly long responses, which is a length bias. So the removed
   mass is logged by length.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from zerolab.datatypes import Group
from zerolab.rl.batch import MicroBatch
from zerolab.rl.bias_meter import QUARTERS, length_quarters
from zerolab.rl.objective import Objective


def surrogate(
    logprobs_T: torch.Tensor,
    old_logprobs_T: torch.Tensor,
    advantage_T: torch.Tensor,
    objective: Objective,
    response_len_B: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(surrogate_T to be maximised; clipped_T, bool: True if a bound changed the token's surrogate).

    At pi = pi_old every ratio is 1, and with a token ratio the gradient is A_i grad log pi(o_it). A clipped token has
    no gradient, except under cispo, which bounds only its weight. `response_len_B` is needed for a sequence ratio.
    """
    if objective.ratio == "none":
        return logprobs_T * advantage_T, torch.zeros_like(advantage_T, dtype=torch.bool)
    log_ratio_T = logprobs_T - old_logprobs_T
    if objective.ratio == "sequence":
        assert response_len_B is not None
        log_ratio_T = _response_mean(log_ratio_T, response_len_B)
    ratio_T = torch.exp(log_ratio_T)
    plain_T = ratio_T * advantage_T
    if objective.clip == "none":
        return plain_T, torch.zeros_like(advantage_T, dtype=torch.bool)
    assert objective.clip_high is not None
    if objective.clip == "cispo":  # 2506.13585 eq. 4 and 5
        weight_T = ratio_T.detach().clamp(max=1 + objective.clip_high)
        return weight_T * advantage_T * logprobs_T, ratio_T.detach() > weight_T
    assert objective.clip_low is not None
    if objective.clip == "probability":  # 2602.04879, binary total variation
        moved_T = (torch.exp(logprobs_T) - torch.exp(old_logprobs_T)).detach()
        up_T = (advantage_T > 0) & (moved_T > objective.clip_high)
        left_T = up_T | ((advantage_T < 0) & (moved_T < -objective.clip_low))
        return plain_T.masked_fill(left_T, 0.0), left_T
    bounded_T = ratio_T.clamp(1 - objective.clip_low, 1 + objective.clip_high) * advantage_T
    return torch.minimum(plain_T, bounded_T), bounded_T < plain_T  # 1707.06347 eq. 7


def _response_mean(values_T: torch.Tensor, response_len_B: torch.Tensor) -> torch.Tensor:
    """For every token, the mean of the values over its response."""
    row_T = torch.repeat_interleave(torch.arange(len(response_len_B), device=values_T.device), response_len_B)
    sums_B = torch.zeros(len(response_len_B), dtype=values_T.dtype, device=values_T.device)
    return (sums_B.index_add(0, row_T, values_T) / response_len_B)[row_T]


def kl_terms(logprobs_T: torch.Tensor, ref_logprobs_T: torch.Tensor, estimator: str) -> torch.Tensor:
    """The KL estimate of every token, in nats, with d = log pi - log pi_ref.

    k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d. Raises ValueError for an unknown estimator.
    """
    difference_T = logprobs_T - ref_logprobs_T
    if estimator == "k1":
        return difference_T
    if estimator == "k2":
        return difference_T.square() / 2
    if estimator == "k3":
        return torch.expm1(-difference_T) + difference_T  # 2402.03300 eq. 4
    raise ValueError(f"unknown estimator {estimator!r}")


def penalised(groups: Sequence[Group], kl_N: np.ndarray, coefficient: float) -> list[Group]:
    """The groups with coefficient * KL subtracted from every reward, as a reward term named kl.

    kl_N is sum_t (log pi_old - log pi_ref) of the responses that are not masked, in the order of the batch. Masked
    responses keep their reward.
    """
    changed, start = [], 0
    for group in groups:
        loss_mask_G = np.ones(len(group.completions), bool) if group.loss_mask_G is None else group.loss_mask_G
        part_G = np.zeros(len(loss_mask_G))
        part_G[loss_mask_G] = -coefficient * kl_N[start : start + loss_mask_G.sum()]
        start += loss_mask_G.sum()
        parts_G = {**group.parts_G, "kl": part_G}
        changed.append(dataclasses.replace(group, rewards_G=group.rewards_G + part_G, parts_G=parts_G))
    return changed


def token_values(
    logprobs_T: torch.Tensor,
    old_logprobs_T: torch.Tensor,
    entropy_T: torch.Tensor,
    advantage_T: torch.Tensor,
    micro: MicroBatch,
    objective: Objective,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(value_T to be maximised; clipped_T as in `surrogate`), both before the weight of the token.

    value = c_it * surrogate + entropy * H_it - kl * k_it. The entropy bonus is computed at the visited states. Its
    gradient ignores that other tokens lead to other states, so it is not the gradient of the entropy of whole
    responses. Raises ValueError if the batch lacks a column that the objective needs.
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
    """error_T to be minimised: (V_it - target_it)^2, before its coefficient. `values_T` is V_it.

    With value_clip it is the larger of this error and the error of V_it clipped to within value_clip of its old value,
    which limits how far one rollout moves V. Raises ValueError if the batch has no value targets.
    """
    if micro.value_target_T is None or micro.old_values_T is None:
        raise ValueError("the batch has no value targets: make it with learner.prepare")
    error_T = (values_T - micro.value_target_T).square()
    if objective.value_clip is None:
        return error_T
    moved_T = (values_T - micro.old_values_T).clamp(-objective.value_clip, objective.value_clip)
    return torch.maximum(error_T, (micro.old_values_T + moved_T - micro.value_target_T).square())


def correction_weights(
    old_logprobs_T: np.ndarray, sampled_logprobs_T: np.ndarray, response_len_N: np.ndarray, kind: str, cap: float
) -> np.ndarray:
    """weight_T, the factor of every token's surrogate, in the dtype of old_logprobs_T.

    token_truncate     min(w_it, cap), w_it = pi_old / mu of the token
    token_mask         w_it if it is at most cap, else 0
    sequence_truncate  min(w_i, cap), w_i = product of w_it over the response
    sequence_mask      w_i if it is at most cap, else 0
    """
    level, _, bound = kind.partition("_")
    log_T = old_logprobs_T.astype(np.float64) - sampled_logprobs_T
    if level == "sequence":
        row_T = np.repeat(np.arange(len(response_len_N)), response_len_N)
        log_T = np.bincount(row_T, log_T, len(response_len_N))[row_T]
    within_T = log_T <= np.log(cap)
    beyond = {"truncate": cap, "mask": 0.0}[bound]
    return np.where(within_T, np.exp(np.minimum(log_T, np.log(cap))), beyond).astype(old_logprobs_T.dtype)


def mismatch_metrics(old_logprobs_T: np.ndarray, sampled_logprobs_T: np.ndarray) -> dict[str, float]:
    """Mean of |log pi_old - log mu| over tokens, and the k3 estimate of KL(mu || pi_old), both in nats."""
    gap_T = old_logprobs_T.astype(np.float64) - sampled_logprobs_T
    if not len(gap_T):
        return {"mismatch/abs": float("nan"), "mismatch/k3": float("nan")}
    return {"mismatch/abs": float(np.abs(gap_T).mean()), "mismatch/k3": float((np.expm1(gap_T) - gap_T).mean())}


def removed_mass(weight_T: np.ndarray, response_len_N: np.ndarray, budget: int) -> dict[str, float]:
    """1 - mean kept weight, by quarter of the budget; every response counts once. NaN for an empty quarter."""
    row_T = np.repeat(np.arange(len(response_len_N)), response_len_N)
    kept_N = np.bincount(row_T, weight_T, len(response_len_N)) / response_len_N
    quarter_N = length_quarters(response_len_N, budget)
    inside = {name: kept_N[quarter_N == number] for number, name in enumerate(QUARTERS)}
    return {
        f"mismatch/removed/{n}": float(1 - kept.mean()) if len(kept) else float("nan") for n, kept in inside.items()
    }
