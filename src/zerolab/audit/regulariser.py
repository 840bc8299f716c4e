"""What KL and entropy terms add to a gradient, by transformers' own forward pass, one response at a time."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch

from zerolab.audit.enumerate import BUDGET, EnumerablePolicy, flat_gradient, tiny_qwen2
from zerolab.rl.aggregate import token_weights
from zerolab.rl.batch import Batch
from zerolab.rl.objective import Objective


def with_reference(policy: EnumerablePolicy, step: Batch) -> Batch:
    """The step with log pi_ref of another policy, far enough away for a KL term to be seen."""
    reference = tiny_qwen2(policy.seed + 1)
    with torch.no_grad():
        columns = [_chosen(logits_LV, response_L) for logits_LV, response_L in _passes(reference, step)]
    return dataclasses.replace(step, ref_logprobs_T=torch.cat(columns).numpy())


def regulariser_gradient(policy: EnumerablePolicy, step: Batch, objective: Objective) -> np.ndarray:
    """gradient_D of sum_i w_i sum_t (entropy * H_it - kl * k_it), with k2 and k3 written out anew."""
    policy.model.zero_grad()
    weight_N = token_weights(step.response_len_N, objective.aggregation, BUDGET)
    start = 0
    for weight, (logits_LV, response_L) in zip(weight_N, _passes(policy.model, step), strict=True):
        normalised_LV = logits_LV.log_softmax(-1)
        value = -objective.entropy * (normalised_LV.exp() * normalised_LV).sum()
        if objective.needs_reference_in_loss and step.ref_logprobs_T is not None:
            ref_L = torch.from_numpy(step.ref_logprobs_T[start : start + len(response_L)])
            x_L = torch.exp(_chosen(logits_LV, response_L) - ref_L)
            k_L = x_L.log().square() / 2 if objective.kl_estimator == "k2" else 1 / x_L - 1 + x_L.log()
            value = value - objective.kl * k_L.sum()
        (float(weight) * value).backward()
        start += len(response_L)
    return flat_gradient(policy.model)


def _passes(model: torch.nn.Module, step: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(logits_LV that predict the response, response_L) of every row."""
    for row in range(len(step)):
        part = step.select(np.array([row]))
        ids_S, prompt = torch.from_numpy(part.tokens_S), int(part.prompt_len_N[0])
        yield model(ids_S[None]).logits[0, prompt - 1 : -1], ids_S[prompt:]


def _chosen(logits_LV: torch.Tensor, response_L: torch.Tensor) -> torch.Tensor:
    return logits_LV.log_softmax(-1).gather(-1, response_L[:, None]).squeeze(-1)
