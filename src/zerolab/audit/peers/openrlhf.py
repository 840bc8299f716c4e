"""OpenRLHF's PolicyLoss and ValueLoss, as functions of the documented signature; see function.py.

Totals of the optimizer step are handed in as its trainers do (openrlhf.utils.loss_utils, one rank). flash-attn cannot
be built without CUDA; the losses never call it, so an empty module stands in for it where it is missing.
"""

import importlib.machinery
import importlib.util
import sys
import types
from typing import Any

import torch

for _name in ("flash_attn", "flash_attn.bert_padding", "flash_attn.utils", "flash_attn.utils.distributed"):
    if _name == "flash_attn" and importlib.util.find_spec(_name) is not None:
        break
    _module = types.ModuleType(_name)
    _module.__spec__ = importlib.machinery.ModuleSpec(_name, None)
    for _missing in ("index_first_axis", "pad_input", "rearrange", "unpad_input", "all_gather"):
        setattr(_module, _missing, None)
    sys.modules[_name] = _module

from openrlhf.models.loss import PolicyLoss, ValueLoss  # noqa: E402

Tensor = torch.Tensor


class Policy:
    """PolicyLoss under some of its settings."""

    def __init__(self, **settings: Any):
        self.loss = PolicyLoss(**settings)

    def __call__(
        self,
        logprobs: Tensor,
        old_logprobs: Tensor,
        sampler_logprobs: Tensor,
        advantages: Tensor,
        mask: Tensor,
        step_tokens: int,
        step_responses: int,
    ) -> Tensor:
        found: Tensor = self.loss(
            logprobs,
            old_logprobs,
            advantages[:, None].expand_as(mask),
            action_mask=mask,
            rollout_log_probs=sampler_logprobs,
            batch_num_tokens=step_tokens,
            global_batch_size=step_responses,
        )[0]
        return found


token_mean = Policy()
seq_mean_token_mean = Policy(token_level_loss=False)
gspo = Policy(policy_loss_type="gspo")
correction_token = Policy(is_correction_level="token")
correction_sequence = Policy(is_correction_level="seq")


def value_token_mean(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, step_tokens: int, step_responses: int
) -> Tensor:
    found: Tensor = ValueLoss(clip_eps=0.5)(
        values, old_values, returns, mask, batch_num_tokens=step_tokens, global_batch_size=step_responses
    )
    return found
