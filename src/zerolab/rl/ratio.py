"""The surrogate of one token: importance ratio times advantage, clipped or not."""

import torch

from zerolab.rl.objective import Objective


def surrogate(
    logprobs_T: torch.Tensor, old_logprobs_T: torch.Tensor, advantage_T: torch.Tensor, objective: Objective
) -> tuple[torch.Tensor, torch.Tensor]:
    """(surrogate_T to be maximised, clipped_T: where the clip removed the gradient).

    At pi = pi_old every ratio is 1 and the gradient of all variants is A_i grad log pi(o_it).
    """
    if objective.ratio == "none":
        return logprobs_T * advantage_T, torch.zeros_like(advantage_T, dtype=torch.bool)
    ratio_T = torch.exp(logprobs_T - old_logprobs_T)
    plain_T = ratio_T * advantage_T
    if objective.clip == "none":
        return plain_T, torch.zeros_like(advantage_T, dtype=torch.bool)
    assert objective.clip_low is not None
    assert objective.clip_high is not None
    bounded_T = ratio_T.clamp(1 - objective.clip_low, 1 + objective.clip_high) * advantage_T
    return torch.minimum(plain_T, bounded_T), bounded_T < plain_T  # 1707.06347 eq. 7
