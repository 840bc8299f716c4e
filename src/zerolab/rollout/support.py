"""Which tokens a row may draw: top-k, top-p and a minimum length, for evaluation.

Training never restricts the support: the learner's probabilities are the whole softmax's, so that every ratio would be
wrong by the mass that was cut off.
"""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Support:
    """One value per row; rows that take all tokens have 0, 1.0 and False."""

    top_k_N: np.ndarray  # int64
    top_p_N: np.ndarray  # float64
    endless_N: np.ndarray  # bool: no end-of-sequence token yet


def restrict(logits_NV: torch.Tensor, support: Support, eos: torch.Tensor) -> torch.Tensor:
    """The logits (at the sampling temperature) with -inf for every token that may not be drawn.

    First the end-of-sequence tokens `eos` (int64) go where they must wait; then top-k keeps the k largest logits; then
    top-p keeps the fewest of the largest whose probability among those left reaches p. Whatever ties with the last one
    kept is kept too, so the support does not depend on an order among equals.
    """
    device = logits_NV.device
    logits_NV = logits_NV.clone()
    endless = torch.from_numpy(np.nonzero(support.endless_N)[0]).to(device)
    if len(endless):
        logits_NV[endless[:, None], eos] = -torch.inf
    cut = np.nonzero((support.top_k_N > 0) | (support.top_p_N < 1))[0]
    if len(cut):
        rows = torch.from_numpy(cut).to(device)
        part_MV = logits_NV[rows]
        top_k_M1 = torch.from_numpy(support.top_k_N[cut]).to(device)[:, None]
        top_p_M1 = torch.from_numpy(support.top_p_N[cut]).to(device)[:, None]
        logits_NV[rows] = part_MV.masked_fill(part_MV < _least(part_MV, top_k_M1, top_p_M1), -torch.inf)
    return logits_NV


def _least(logits_MV: torch.Tensor, top_k_M1: torch.Tensor, top_p_M1: torch.Tensor) -> torch.Tensor:
    """[M, 1]: the smallest logit that stays."""
    size = logits_MV.shape[1]
    falling_MV = logits_MV.sort(-1, descending=True).values
    count_M1 = torch.where(top_k_M1 > 0, top_k_M1.clamp(max=size), size)
    least_M1 = falling_MV.gather(1, count_M1 - 1)
    mass_MV = (falling_MV - falling_MV[:, :1]).double().exp_().masked_fill_(falling_MV < least_M1, 0.0)
    cdf_MV = mass_MV.cumsum_(-1)
    last_M1 = torch.searchsorted(cdf_MV, top_p_M1 * cdf_MV[:, -1:]).clamp_(max=size - 1)
    # Where p is 1 the sum's own rounding must not cut a tail off.
    return torch.where(top_p_M1 < 1, falling_MV.gather(1, last_M1).maximum(least_M1), least_M1)
