"""The surrogate of one token: importance ratio times advantage, and what keeps it near 1."""

import torch

from zerolab.rl.objective import Objective


def surrogate(
    logprobs_T: torch.Tensor,
    old_logprobs_T: torch.Tensor,
    advantage_T: torch.Tensor,
    objective: Objective,
    response_len_B: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(surrogate_T to be maximised, clipped_T: where a bound acted). Only a sequence ratio needs the lengths.

    At pi = pi_old every ratio is 1 and the gradient of all token variants is A_i grad log pi(o_it). A bound removes the
    gradient, but under cispo only the weight beyond it.
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
    """Every token's mean over its response."""
    row_T = torch.repeat_interleave(torch.arange(len(response_len_B), device=values_T.device), response_len_B)
    sums_B = torch.zeros(len(response_len_B), dtype=values_T.dtype, device=values_T.device)
    return (sums_B.index_add(0, row_T, values_T) / response_len_B)[row_T]
