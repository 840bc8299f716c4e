"""The distance to the reference policy: estimators of KL(pi || pi_ref) from tokens that pi sampled, and their place.

What each combination does to the expected gradient, for responses sampled from pi (the tests enumerate it):

    k1 in the reward  exactly the gradient of the reverse KL of whole responses, KL(pi || pi_ref)
    k2 in the loss    the reverse KL of the next token, at the states that pi visits
    k3 in the loss    the forward KL of the next token, KL(pi_ref || pi), at the states that pi visits (2402.03300)
    k1 in the loss    zero: E[grad log pi] = 0; k2 and k3 in the reward follow neither. All three are refused.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from zerolab.datatypes import Group


def kl_terms(logprobs_T: torch.Tensor, ref_logprobs_T: torch.Tensor, estimator: str) -> torch.Tensor:
    """The estimate of every token, with d = log pi - log pi_ref: k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d."""
    difference_T = logprobs_T - ref_logprobs_T
    if estimator == "k1":
        return difference_T
    if estimator == "k2":
        return difference_T.square() / 2
    if estimator == "k3":
        return torch.expm1(-difference_T) + difference_T  # 2402.03300 eq. 4
    raise ValueError(f"unknown estimator {estimator!r}")


def penalised(groups: Sequence[Group], kl_N: np.ndarray, coefficient: float) -> list[Group]:
    """Groups whose rewards lost coefficient * KL of each response, as a part of its own named kl.

    kl_N has sum_t (log pi_old - log pi_ref) of the responses that enter the update, in the order of the batch;
    responses that do not enter keep their reward.
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
