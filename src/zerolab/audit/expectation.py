"""The exact mean of an estimator over every step that could have been sampled.

A step has every question once, G responses each. The coefficient of a response's score is A_i w_i: the production
advantage and the production token weight. A_i depends on its own reward and on the rewards of the step, w_i on its own
length, on the number of responses N and on their summed length. So responses with the same (reward, length) form a
class; the law of (how many of each reward, summed length) follows by convolution; coefficients come from `make_batch`
and `token_weights` on representatives; and

    E[gradient] = sum over questions, classes of  G E[A_i w_i | class of i] * sum over o in class of pi(o) score(o)

with no sampling error. `tests/audit` compares it with the plain enumeration of groups, which assumes none of this.

With a critic, an advantage differs from token to token but depends only on its own response. So the mean over all steps
needs no classes, also if the critic is wrong:

    E[gradient] = sum over questions, responses o of  G pi(o) E[w | length of o] sum_t A_t(o) grad log pi(o_t)
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from zerolab.audit.enumerate import BUDGET, EnumerablePolicy, flat_gradient
from zerolab.datatypes import Completion, Grade, Group, Prompt, Question
from zerolab.errors import UserError
from zerolab.learner.learner import Learner
from zerolab.learner.prepare import with_values
from zerolab.rl.aggregate import token_weights
from zerolab.rl.batch import Batch, make_batch
from zerolab.rl.objective import Objective

Counts = tuple[int, ...]  # how many responses carry each label
Law = dict[Counts, np.ndarray]  # probability of (counts, summed length of the responses that enter)
LENGTHS = range(1, BUDGET + 1)


@dataclass(frozen=True)
class Classes:
    """Responses of one question, merged by label and length. A label is a reward; the last one may be `masked`."""

    rewards: tuple[float, ...]  # of the labels that enter
    probability_KL: np.ndarray  # row per label (a last one for masked responses), column per length 0 .. BUDGET
    score_KLD: np.ndarray  # sum over the class of pi(o) score(o); zero for masked responses
    greedy_reward: float

    def entering(self, counts: Counts) -> int:
        return sum(counts[: len(self.rewards)])


def classes(policy: EnumerablePolicy, q: int, truncation: str) -> Classes:
    table = policy.table(truncation)
    enters_O = table.enters_QO[q]
    rewards = tuple(np.unique(table.reward_QO[q][enters_O]).tolist())
    label_O = np.where(enters_O, np.searchsorted(rewards, table.reward_QO[q]).clip(max=len(rewards) - 1), len(rewards))
    labels = len(rewards) + int(not enters_O.all())
    probability_KL = np.zeros((labels, BUDGET + 1))
    score_KLD = np.zeros((labels, BUDGET + 1, policy.score_QOD.shape[2]))
    np.add.at(probability_KL, (label_O, policy.length_O), policy.probability_QO[q])
    weighted_OD = (policy.probability_QO[q] * enters_O)[:, None] * policy.score_QOD[q]
    np.add.at(score_KLD, (label_O, policy.length_O), weighted_OD)
    return Classes(rewards, probability_KL, score_KLD, table.greedy_Q[q])


def group_law(of: Classes, size: int) -> Law:
    """The law of `size` independent responses. Masked responses are counted, but their lengths are not."""
    kernels = [*of.probability_KL[: len(of.rewards)]]
    kernels += [np.array([row.sum()]) for row in of.probability_KL[len(of.rewards) :]]
    law: Law = {(0,) * len(kernels): np.ones(1)}
    for _ in range(size):
        grown: Law = {}
        for counts, mass in law.items():
            for k, kernel in enumerate(kernels):
                _add(grown, _plus(counts, k), np.convolve(mass, kernel))
        law = grown
    return law


def _plus(counts: Counts, k: int) -> Counts:
    return (*counts[:k], counts[k] + 1, *counts[k + 1 :])


def _add(law: dict[Any, np.ndarray], key: tuple[Any, ...], mass: np.ndarray) -> None:
    old = law.get(key, np.zeros(0))
    short, long = sorted((old, mass), key=len)
    total = long.copy()
    total[: len(short)] += short
    law[key] = total


def representative(rewards: Sequence[float], number: int = 0, greedy_reward: float = 0.0) -> Group:
    """A group with these rewards and that of a greedy response; nothing else of it reaches an advantage."""
    completion = Completion(number, "", np.zeros(1, np.int64), np.zeros(1), "stop", 0)
    prompt = Prompt(Question(str(number), "", ("",)), "", (0,))
    size = len(rewards)
    grades = (Grade(False, False, "wrong"),) * size
    return Group(prompt, (completion,) * size, grades, np.array(rewards), greedy_reward=greedy_reward)


@dataclass(frozen=True)
class Situation:
    """What else is in a step beside one response to question q."""

    siblings: Counts  # labels of the G - 1 responses to the same question
    others: tuple[Counts, ...]  # labels of the other questions' groups; () where no advantage looks there
    entering_others: int  # responses that enter from the other questions
    mass_S: np.ndarray  # probability, by the summed length of all other responses that enter


class StepLaw:
    """The situations of a step of all questions, G responses each, under one truncation policy."""

    def __init__(self, policy: EnumerablePolicy, size: int, truncation: str, coupled: bool):
        self.size, self.coupled = size, coupled
        self.classes = [classes(policy, q, truncation) for q in range(len(policy.puzzles))]
        self.situations = [list(self._situations(q)) for q in range(len(self.classes))]

    def _situations(self, q: int) -> Iterator[Situation]:
        rest: dict[tuple[Any, ...], np.ndarray] = {((), 0): np.ones(1)}
        for other, of in enumerate(self.classes):
            if other == q:
                continue
            grown: dict[tuple[Any, ...], np.ndarray] = {}
            for (known, entering), mass in rest.items():
                for counts, more in group_law(of, self.size).items():
                    key = ((*known, counts) if self.coupled else (), entering + of.entering(counts))
                    _add(grown, key, np.convolve(mass, more))
            rest = grown
        for siblings, mass in group_law(self.classes[q], self.size - 1).items():
            for (others, entering), more in rest.items():
                yield Situation(siblings, others, entering, np.convolve(mass, more))


@lru_cache(maxsize=64)
def step_law(policy: EnumerablePolicy, size: int, truncation: str, coupled: bool) -> StepLaw:
    return StepLaw(policy, size, truncation, coupled)


@dataclass(frozen=True)
class Expectation:
    gradient_QD: np.ndarray  # exact mean of what question q adds to a step's gradient, times the budget L_max
    weight_L: np.ndarray  # mean of N L_max w_i for a response of length 1 .. BUDGET; 1 under constant aggregation


def expectation(policy: EnumerablePolicy, objective: Objective, size: int, truncation: str = "keep") -> Expectation:
    """The exact mean of an objective's on-policy gradient over all steps, times L_max.

    The gradient of the whole step is the sum over its questions; multiplied by Q, row q compares with grad E[R | q].
    """
    law = step_law(policy, size, truncation, couples_questions(objective))
    weights = TokenWeights(objective)
    gradients, weight_QL = [], []
    for q, of in enumerate(law.classes):
        coefficient_KL, weight_L, seen = np.zeros(of.score_KLD.shape[:2]), np.zeros(len(LENGTHS)), 0.0
        advantages = _Advantages(objective, law.classes, q)
        for situation in law.situations[q]:
            for k in range(len(of.rewards)):
                counts = _plus(situation.siblings, k)
                number = of.entering(counts) + situation.entering_others
                mean_L = weights.mean(number, situation.mass_S)
                coefficient_KL[k, 1:] += advantages(counts, situation.others)[k] * mean_L
            weight_L += mean_L * number  # the number is the same whichever label enters
            seen += situation.mass_S.sum()
        gradients.append(BUDGET * size * np.einsum("kl,kld->d", coefficient_KL, of.score_KLD))
        weight_QL.append(BUDGET * weight_L / seen)
    return Expectation(np.array(gradients), np.mean(weight_QL, axis=0))


def couples_questions(objective: Objective) -> bool:
    """Whether an advantage looks at the rewards of other questions: asked of production, not of a name."""
    mixed, *rests = ([0.0, 1.0], [0.0, 0.0], [0.0, 1.0], [1.0, 1.0])
    seen = [make_batch([representative(mixed), representative(r, 1)], objective).advantage_N[:2] for r in rests]
    return any(not np.array_equal(seen[0], other) for other in seen[1:])


class _Advantages:
    """A of every label of question q by the rewards of its group and, where they matter, of the other groups."""

    def __init__(self, objective: Objective, of: Sequence[Classes], q: int):
        self.objective, self.mine = objective, of[q]
        self.others = [c for other, c in enumerate(of) if other != q]
        self.known: dict[tuple[Any, ...], np.ndarray] = {}

    def __call__(self, counts: Counts, others: tuple[Counts, ...]) -> np.ndarray:
        if (counts, others) not in self.known:
            chosen = [(self.mine, counts), *zip(self.others, others, strict=False)]
            groups = [representative(_spread(of, c), n, of.greedy_reward) for n, (of, c) in enumerate(chosen)]
            batch = make_batch(groups, self.objective)
            reward_G, advantage_G = (column[batch.group_N == 0] for column in (batch.reward_N, batch.advantage_N))
            found = [advantage_G[reward_G == r] for r in self.mine.rewards]
            self.known[counts, others] = np.array([a[0] if len(a) else np.nan for a in found])
        return self.known[counts, others]


def _spread(of: Classes, counts: Counts) -> list[float]:
    return [reward for reward, count in zip(of.rewards, counts, strict=False) for _ in range(count)]


class TokenWeights:
    """w of a response by its length, the number of responses in the step and their summed length."""

    def __init__(self, objective: Objective):
        self.aggregation = objective.aggregation
        self.known: dict[int, np.ndarray] = {}

    def mean(self, number: int, mass_S: np.ndarray) -> np.ndarray:
        """sum over S of mass * w, for own lengths 1 .. BUDGET; the other number - 1 responses have summed length S."""
        if number not in self.known:
            self.known[number] = np.array(
                [[self._weight(own, number, s) for own in LENGTHS] for s in self._sums(number)]
            )
        reachable = slice(number - 1, (number - 1) * BUDGET + 1)
        return mass_S[reachable] @ self.known[number][: len(mass_S[reachable])]

    @staticmethod
    def _sums(number: int) -> range:
        return range(number - 1, (number - 1) * BUDGET + 1)

    def _weight(self, own: int, number: int, rest: int) -> float:
        others = np.full(number - 1, rest // max(1, number - 1))
        others[: rest - int(others.sum())] += 1
        return float(token_weights(np.array([own, *others]), self.aggregation, BUDGET)[0])


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


def step_gradient(policy: EnumerablePolicy, batch: Batch, objective: Objective) -> np.ndarray:
    """The on-policy gradient of a step, policy then critic, by transformers' own forward pass, a response at a time:
    ascent on sum_i w_i sum_t (A_it log pi(o_it) - value (V_it - target_it)^2)."""
    model, critic = policy.model, copy.deepcopy(policy.model)
    head = nn.Linear(model.config.hidden_size, 1, dtype=torch.float64)
    make_wrong(head)
    model.zero_grad()
    weight_N = token_weights(batch.response_len_N, objective.aggregation, BUDGET)
    start = 0
    for row, weight in enumerate(weight_N):
        part = batch.select(np.array([row]))
        ids_S, prompt = torch.from_numpy(part.tokens_S), int(part.prompt_len_N[0])
        end = start + len(ids_S) - prompt
        assert batch.advantage_T is not None
        assert batch.value_target_T is not None
        advantage_L, target_L = (torch.from_numpy(x[start:end]) for x in (batch.advantage_T, batch.value_target_T))
        logits_LV = model(ids_S[None]).logits[0, prompt - 1 : -1]
        logprobs_L = logits_LV.log_softmax(-1).gather(-1, ids_S[prompt:, None]).squeeze(-1)
        (float(weight) * (advantage_L * logprobs_L).sum()).backward()
        values_L = head(critic.model(ids_S[None]).last_hidden_state[0, prompt - 1 : -1]).squeeze(-1)
        (-objective.value * float(weight) * (values_L - target_L).square().sum()).backward()
        start = end
    return np.concatenate([flat_gradient(model), flat_gradient(critic.model), flat_gradient(head)])
