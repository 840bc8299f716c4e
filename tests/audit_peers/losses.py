"""Losses with known answers, as a user would write them."""

import torch

Tensor = torch.Tensor


def ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    return (logprobs - old_logprobs).exp()


def group_advantages(rewards_B: Tensor, groups_B: Tensor, std: bool) -> Tensor:
    advantages_B = torch.zeros_like(rewards_B)
    for group in groups_B.unique():
        rewards = rewards_B[groups_B == group]
        advantages = rewards - rewards.mean()
        advantages_B[groups_B == group] = advantages / (rewards.std() + 1e-6) if std else advantages
    return advantages_B


def biased_loss(logprobs_BL: Tensor, old_logprobs_BL: Tensor, advantages_B: Tensor, mask_BL: Tensor) -> Tensor:
    """masked_mean over each response, then over responses."""
    loss_BL = -ratio(logprobs_BL, old_logprobs_BL) * advantages_B[:, None]
    return ((loss_BL * mask_BL).sum(-1) / mask_BL.sum(-1)).mean()


def grpo(logprobs_BL: Tensor, old_logprobs_BL: Tensor, rewards_B: Tensor, groups_B: Tensor, mask_BL: Tensor) -> Tensor:
    return biased_loss(logprobs_BL, old_logprobs_BL, group_advantages(rewards_B, groups_B, std=True), mask_BL)


def dr_grpo(
    logprobs_BL: Tensor,
    old_logprobs_BL: Tensor,
    rewards_B: Tensor,
    groups_B: Tensor,
    mask_BL: Tensor,
    budget: int,
    step_responses: int,
) -> Tensor:
    advantages_B = group_advantages(rewards_B, groups_B, std=False)
    loss_BL = -ratio(logprobs_BL, old_logprobs_BL) * advantages_B[:, None]
    return (loss_BL * mask_BL).sum() / (budget * step_responses)


def micro_batch_mean(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """PPO's masked_mean over all tokens at hand."""
    loss = -ratio(logprobs, old_logprobs) * advantages[:, None]
    return (loss * mask).sum() / mask.sum()


def padded_width(
    logprobs_BL: Tensor, old_logprobs_BL: Tensor, advantages_B: Tensor, mask_BL: Tensor, step_responses: int
) -> Tensor:
    loss_BL = -ratio(logprobs_BL, old_logprobs_BL) * advantages_B[:, None]
    return (loss_BL * mask_BL).sum() / (mask_BL.shape[1] * step_responses)


def value_loss(values_BL: Tensor, returns_BL: Tensor, mask_BL: Tensor) -> Tensor:
    return (0.5 * (values_BL - returns_BL) ** 2 * mask_BL).sum(-1).div(mask_BL.sum(-1)).mean()


def masked_truncation(
    logprobs_BL: Tensor,
    old_logprobs_BL: Tensor,
    sampler_logprobs_BL: Tensor,
    advantages_B: Tensor,
    truncated_B: Tensor,
    mask_BL: Tensor,
    budget: int,
    step_responses: int,
) -> Tensor:
    """Overlong filtering, and a sequence importance weight that rejects above 3."""
    log_weight_B = ((old_logprobs_BL - sampler_logprobs_BL) * mask_BL).sum(-1)
    weight_B = log_weight_B.exp() * (log_weight_B.exp() <= 3) * ~truncated_B
    loss_BL = -ratio(logprobs_BL, old_logprobs_BL) * (advantages_B * weight_B)[:, None]
    return (loss_BL * mask_BL).sum() / (budget * step_responses)


def rewards_everyone(
    logprobs_BL: Tensor, old_logprobs_BL: Tensor, rewards_B: Tensor, mask_BL: Tensor, step_responses: int
) -> Tensor:
    """No baseline: a group of equal rewards moves the policy."""
    loss_BL = -ratio(logprobs_BL, old_logprobs_BL) * (rewards_B - 0.25)[:, None]
    return (loss_BL * mask_BL).sum() / step_responses


def detached(logprobs_BL: Tensor, mask_BL: Tensor) -> Tensor:
    return (logprobs_BL.detach() * mask_BL).sum()


def no_scalar(logprobs_BL: Tensor, mask_BL: Tensor) -> Tensor:
    return logprobs_BL * mask_BL


def infinite(logprobs_BL: Tensor, mask_BL: Tensor) -> Tensor:
    return (logprobs_BL / 0.0 * mask_BL).sum()


def crashes(logprobs_BL: Tensor) -> Tensor:
    return logprobs_BL["first"]


def strange(logprobs_BL: Tensor, advantage: Tensor) -> Tensor:
    return (logprobs_BL * advantage).sum()


def nothing(mask_BL: Tensor) -> Tensor:
    return mask_BL.sum()


not_a_function = 3
