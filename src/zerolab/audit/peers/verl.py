"""verl's ppo_loss and value_loss, as functions of the documented signature; see function.py.

They are called as FSDPEngine.forward_backward_batch calls them on one rank: with the token count and the number of
responses of the whole mini-batch, responses padded to the budget, and gradients summed over micro-batches. Advantages
come from verl's GRPO estimator.
"""

from typing import Any

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage
from verl.utils import tensordict_utils
from verl.workers.config import ActorConfig, CriticConfig
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.losses import value_loss as verl_value_loss

Tensor = torch.Tensor


def _packed(values_BL: Tensor, mask_BL: Tensor) -> Tensor:
    """A model's output without padding: one prompt token, then the response, shifted left by one."""
    rows = [F.pad(row[: int(mask.sum())], (0, 1)) for row, mask in zip(values_BL, mask_BL, strict=True)]
    return torch.cat(rows)


def _data(mask_BL: Tensor, budget: int, tokens: int, responses: int, **columns_BL: Tensor) -> TensorDict:
    count, missing = len(mask_BL), budget - mask_BL.shape[1]
    mask = F.pad(mask_BL, (0, missing))
    data = TensorDict(
        {
            "prompts": torch.ones(count, 1, dtype=torch.long),
            "responses": mask.long(),
            "attention_mask": F.pad(mask, (1, 0), value=1.0).long(),
            "response_mask": mask,
            **{name: F.pad(column, (0, missing)) for name, column in columns_BL.items()},
        },
        batch_size=count,
    )
    tensordict_utils.assign_non_tensor(
        data, dp_size=1, batch_num_tokens=tokens, global_batch_size=responses, max_response_len=budget
    )
    return data


class Policy:
    """ppo_loss under some settings of the actor; `std`: norm_adv_by_std_in_grpo."""

    def __init__(self, std: bool = True, **settings: Any):
        self.std, self.settings = std, settings

    def __call__(
        self,
        logprobs: Tensor,
        old_logprobs: Tensor,
        rewards: Tensor,
        groups: Tensor,
        mask: Tensor,
        budget: int,
        step_tokens: int,
        step_responses: int,
    ) -> Tensor:
        rewards_BL = F.pad(rewards[:, None], (0, mask.shape[1] - 1))
        advantages_BL, _ = compute_grpo_outcome_advantage(
            rewards_BL, mask, groups.numpy(), norm_adv_by_std_in_grpo=self.std
        )
        config = ActorConfig(strategy="fsdp", rollout_n=8, ppo_micro_batch_size_per_gpu=1, **self.settings)
        data = _data(mask, budget, step_tokens, step_responses, old_log_probs=old_logprobs, advantages=advantages_BL)
        found: Tensor = ppo_loss(config, {"log_probs": _packed(logprobs, mask)}, data)[0]
        return found


token_mean = Policy()
seq_mean_token_mean = Policy(loss_agg_mode="seq-mean-token-mean")
seq_mean_token_sum = Policy(loss_agg_mode="seq-mean-token-sum")
dr_grpo = Policy(std=False, loss_agg_mode="seq-mean-token-sum-norm")
gspo = Policy(loss_agg_mode="seq-mean-token-mean", policy_loss={"loss_mode": "gspo"})


def value_token_mean(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    budget: int,
    step_tokens: int,
    step_responses: int,
) -> Tensor:
    config = CriticConfig(strategy="fsdp", ppo_micro_batch_size_per_gpu=1)
    data = _data(mask, budget, step_tokens, step_responses, values=old_values, returns=returns)
    found: Tensor = verl_value_loss(config, {"values": _packed(values, mask)}, data)[0]
    return found
