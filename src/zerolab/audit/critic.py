"""Objectives with a critic: the exact mean of their gradient under a critic that is wrong, and the gradient of a step.

An advantage then differs from token to token, but looks at its own response alone. So the mean over all steps needs no
classes: E[gradient] = sum over questions, responses o of  G pi(o) E[w | length of o] sum_t A_t(o) grad log pi(o_t).
"""

import copy

import numpy as np
import torch
from torch import nn

from zerolab.audit.enumerate import BUDGET, EnumerablePolicy, flat_gradient
from zerolab.audit.expectation import Expectation, TokenWeights, step_law
from zerolab.errors import UserError
from zerolab.learner.learner import Learner
from zerolab.rl.aggregate import token_weights
from zerolab.rl.batch import Batch, make_batch
from zerolab.rl.gae import with_values
from zerolab.rl.objective import Objective

HEAD_SEED = 11


def make_wrong(head: nn.Linear) -> None:
    """A value head that knows nothing: random, and far from 0."""
    generator = torch.Generator().manual_seed(HEAD_SEED)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def valued(learner: Learner, batch: Batch, objective: Objective) -> Batch:
    """The production columns of a batch under the learner's critic."""
    return with_values(batch, learner.values_of(batch), objective)


def critic_expectation(
    policy: EnumerablePolicy, objective: Objective, size: int, learner: Learner, truncation: str = "keep"
) -> Expectation:
    """As `expectation`, for advantages A_it of `learner`'s critic. Raises UserError where the critic's advantages look
    at the whole rollout."""
    if objective.scale != "none":
        raise UserError(f'no expectation is computed for objective.scale = "{objective.scale}": certify it with "none"')
    law = step_law(policy, size, truncation, coupled=False)
    weights = TokenWeights(objective)
    gradients, weight_QL = [], []
    for q, of in enumerate(law.classes):
        mean_L, counted_L, seen = np.zeros(BUDGET), np.zeros(BUDGET), 0.0
        for situation in law.situations[q]:
            number = 1 + of.entering(situation.siblings) + situation.entering_others
            mean = weights.mean(number, situation.mass_S)
            mean_L, counted_L, seen = mean_L + mean, counted_L + mean * number, seen + situation.mass_S.sum()
        gradient_LD = _gradient_by_length(policy, q, objective, learner, truncation)
        gradients.append(BUDGET * size * mean_L @ gradient_LD)
        weight_QL.append(BUDGET * counted_L / seen)
    return Expectation(np.array(gradients), np.mean(weight_QL, axis=0))


def _gradient_by_length(
    policy: EnumerablePolicy, q: int, objective: Objective, learner: Learner, truncation: str
) -> np.ndarray:
    """sum over the responses of each length of pi(o) sum_t A_t grad log pi(o_t); row per length 1 .. BUDGET."""
    groups = policy.groups([(q, range(len(policy.responses)))], truncation)
    batch = valued(learner, make_batch(groups, objective), objective)
    assert batch.advantage_T is not None
    entering = np.flatnonzero(policy.table(truncation).enters_QO[q])
    found_LD = np.zeros((BUDGET, policy.score_QOD.shape[2]))
    parts = np.split(batch.advantage_T, np.cumsum(batch.response_len_N)[:-1])
    for o, advantage_L in zip(entering, parts, strict=True):
        found_LD[len(advantage_L) - 1] += policy.probability_QO[q, o] * advantage_L @ policy.token_scores(q, int(o))
    return found_LD


def step_gradient(policy: EnumerablePolicy, step: Batch, objective: Objective) -> np.ndarray:
    """The on-policy gradient of a step, policy then critic, by transformers' own forward pass, a response at a time:
    ascent on sum_i w_i sum_t (A_it log pi(o_it) - value (V_it - target_it)^2)."""
    model, critic = policy.model, copy.deepcopy(policy.model)
    head = nn.Linear(model.config.hidden_size, 1, dtype=torch.float64)
    make_wrong(head)
    model.zero_grad()
    weight_N = token_weights(step.response_len_N, objective.aggregation, BUDGET)
    start = 0
    for row, weight in enumerate(weight_N):
        part = step.select(np.array([row]))
        ids_S, prompt = torch.from_numpy(part.tokens_S), int(part.prompt_len_N[0])
        end = start + len(ids_S) - prompt
        assert step.advantage_T is not None
        assert step.value_target_T is not None
        advantage_L, target_L = (torch.from_numpy(x[start:end]) for x in (step.advantage_T, step.value_target_T))
        logits_LV = model(ids_S[None]).logits[0, prompt - 1 : -1]
        logprobs_L = logits_LV.log_softmax(-1).gather(-1, ids_S[prompt:, None]).squeeze(-1)
        (float(weight) * (advantage_L * logprobs_L).sum()).backward()
        values_L = head(critic.model(ids_S[None]).last_hidden_state[0, prompt - 1 : -1]).squeeze(-1)
        (-objective.value * float(weight) * (values_L - target_L).square().sum()).backward()
        start = end
    return np.concatenate([flat_gradient(model), flat_gradient(critic.model), flat_gradient(head)])
