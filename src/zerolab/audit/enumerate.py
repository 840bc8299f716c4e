"""A policy whose every response can be listed: exact probabilities, scores and gradients.

The policy is a real Qwen2 of three tokens in float64, so that what is certified is the code that trains; the questions
are judged by rules, and their rewards come from the production `make_group`. Score means grad log pi(o | q) of a whole
response. Everything here is computed by transformers' own forward pass, one response at a time, and shares no code
with the learner.

Shape legend beside that of `types.py`: Q questions, O responses that exist, D parameters.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from zerolab.config import RewardConfig
from zerolab.datatypes import Completion, Grade, Group, Prompt, Question
from zerolab.rl.reward import make_group

VOCABULARY, EOS, BUDGET = 3, 0, 5
Response = tuple[int, ...]


@dataclass(frozen=True)
class Puzzle:
    """A question with rules in the place of a grader."""

    name: str
    prompt_ids: tuple[int, ...]
    correct: Callable[[Response], bool]
    formatted: Callable[[Response], bool] = lambda _: False


# Different pass rates; correctness shows early, so that length and correctness go together; the last one has four
# different rewards under REWARD.
PUZZLES = (
    Puzzle("easy", (2, 1), lambda o: o[0] != 2),
    Puzzle("hard", (1, 2, 2), lambda o: o[0] == 2 and o[-1] != 1),
    Puzzle("graded", (1, 1), lambda o: o[-1] == EOS, lambda o: o.count(1) >= 2),
)
REWARD = {"correctness": 1.0, "format": 0.25}
POLICIES: dict[str, RewardConfig] = {
    "keep": RewardConfig(**REWARD, truncation="keep"),
    "zero": RewardConfig(**REWARD, truncation="zero"),
    "soft": RewardConfig(**REWARD, truncation="soft", soft_margin=3),
    "mask": RewardConfig(**REWARD, truncation="mask"),
}


def _norm(self: Qwen2RMSNorm, hidden: torch.Tensor) -> torch.Tensor:
    """transformers rounds this norm to float32, which would drown what is measured here."""
    return self.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.variance_epsilon)


def tiny_qwen2(seed: int, vocabulary: int = VOCABULARY) -> Qwen2ForCausalLM:
    """About 700 parameters in float64, spread so that no response is nearly certain or nearly impossible."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=False,
        )
        model = Qwen2ForCausalLM(config).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.4 * torch.randn_like(parameter))
    for module in model.modules():
        if isinstance(module, Qwen2RMSNorm):
            module.forward = _norm.__get__(module)  # type: ignore[method-assign]
    return model


def all_responses() -> list[Response]:
    """Every response: EOS ends it, or the budget does."""
    words = range(1, VOCABULARY)
    finished = [(*body, EOS) for size in range(BUDGET) for body in itertools.product(words, repeat=size)]
    return [*finished, *itertools.product(words, repeat=BUDGET)]


def flat_gradient(model: torch.nn.Module) -> np.ndarray:
    """gradient_D of all parameters, as it stands now."""
    parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
    return torch.cat([part.flatten() for part in parts]).numpy().copy()


@dataclass(frozen=True)
class Table:
    """Rewards as the objective sees them under one truncation policy."""

    reward_QO: np.ndarray
    enters_QO: np.ndarray  # bool
    greedy_Q: list[float]  # rewards of the greedy responses


class EnumerablePolicy:
    """pi(o | q) and its score for every response o to every puzzle q."""

    def __init__(self, seed: int = 0, puzzles: Sequence[Puzzle] = PUZZLES):
        self.seed, self.puzzles = seed, tuple(puzzles)
        self.model = tiny_qwen2(seed)
        self.responses = all_responses()
        self.length_O = np.array([len(o) for o in self.responses])
        self.truncated_O = np.array([o[-1] != EOS for o in self.responses])
        self.correct_QO = np.array([[puzzle.correct(o) for o in self.responses] for puzzle in puzzles])
        self.logprobs = {(q, o): self._score(q, o) for q in range(len(puzzles)) for o in range(len(self.responses))}
        self.score_QOD = np.array(
            [[self.logprobs[q, o][1] for o in range(len(self.responses))] for q in range(len(puzzles))]
        )
        self.probability_QO = np.exp(
            [[self.logprobs[q, o][0].sum() for o in range(len(self.responses))] for q in range(len(puzzles))]
        )
        self.greedy_Q = [self._greedy(q) for q in range(len(puzzles))]
        self.table = lru_cache(maxsize=None)(self._table)
        self.token_scores = lru_cache(maxsize=None)(self._token_scores)

    def _score(self, q: int, o: int) -> tuple[np.ndarray, np.ndarray]:
        """(token log-probabilities_L, score_D) by transformers' own forward pass."""
        prompt, response = self.puzzles[q].prompt_ids, self.responses[o]
        self.model.zero_grad()
        logits = self.model(torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
        positions = range(len(prompt) - 1, len(prompt) + len(response) - 1)
        logprobs_L = logits[positions, response]
        logprobs_L.sum().backward()
        return logprobs_L.detach().numpy(), flat_gradient(self.model)

    def _greedy(self, q: int) -> int:
        """The response whose every token is the likeliest where it stands: its number."""
        chance = {o: self.logprobs[q, i][0] for i, o in enumerate(self.responses)}
        left = list(self.responses)
        while len(left) > 1:
            depth = next(t for t in range(BUDGET) if len({o[: t + 1] for o in left}) > 1)
            best = max(left, key=lambda o: chance[o][depth])
            left = [o for o in left if o[: depth + 1] == best[: depth + 1]]
        return self.responses.index(left[0])

    def _token_scores(self, q: int, o: int) -> np.ndarray:
        """score_LD of every token of a response."""
        prompt, response = self.puzzles[q].prompt_ids, self.responses[o]
        logits = self.model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        rows = []
        for t, token in enumerate(response):
            self.model.zero_grad()
            logits[t, token].backward(retain_graph=True)
            rows.append(flat_gradient(self.model))
        return np.array(rows)

    def groups(self, picks: Sequence[tuple[int, Sequence[int]]], truncation: str = "keep") -> list[Group]:
        """Production groups of (question, responses) pairs; log pi_old is the exact one."""
        return [self._group(number, q, chosen, truncation) for number, (q, chosen) in enumerate(picks)]

    def _group(self, number: int, q: int, chosen: Sequence[int], truncation: str) -> Group:
        group = self._graded(number, q, chosen, truncation)
        greedy = self._graded(number, q, [self.greedy_Q[q]], truncation)
        return dataclasses.replace(group, greedy_reward=float(greedy.rewards_G[0]))

    def _graded(self, number: int, q: int, chosen: Sequence[int], truncation: str) -> Group:
        puzzle = self.puzzles[q]
        completions = [
            Completion(
                request_id=i,
                text="",
                token_ids_L=np.array(self.responses[o]),
                logprobs_L=self.logprobs[q, o][0],
                finish_reason="length" if self.truncated_O[o] else "stop",
                version=0,
            )
            for i, o in enumerate(chosen)
        ]
        grades = [
            Grade(right, puzzle.formatted(self.responses[o]), "correct" if right else "wrong")
            for o, right in zip(chosen, self.correct_QO[q, list(chosen)].tolist(), strict=True)
        ]
        prompt = Prompt(Question(str(number), puzzle.name, ("",)), puzzle.name, puzzle.prompt_ids)
        return make_group(prompt, completions, grades, POLICIES[truncation], BUDGET)

    def _table(self, truncation: str) -> Table:
        everything = range(len(self.responses))
        groups = self.groups([(q, everything) for q in range(len(self.puzzles))], truncation)
        greedy_Q = [float(g.rewards_G[o]) for g, o in zip(groups, self.greedy_Q, strict=True)]
        enters = [np.ones(len(everything), bool) if g.loss_mask_G is None else g.loss_mask_G for g in groups]
        return Table(np.array([g.rewards_G for g in groups]), np.array(enters), greedy_Q)

    def sample(self, size: int, seed: int) -> list[tuple[int, list[int]]]:
        """`size` responses to every question, as picks for `groups`."""
        generator = np.random.default_rng(seed)
        return [
            (q, generator.choice(len(self.responses), size, p=p / p.sum()).tolist())
            for q, p in enumerate(self.probability_QO)
        ]

    def gradient_QD(self, value_QO: np.ndarray) -> np.ndarray:
        """grad E[value | q] = sum over o of pi(o) value(o) score(o), for values that do not depend on the policy."""
        return np.einsum("qo,qod->qd", self.probability_QO * value_QO, self.score_QOD)

    def true_gradient_QD(self, truncation: str = "keep") -> np.ndarray:
        """The gradient of what a truncation policy states to optimise, for every question; the whole is its mean.

        keep E[R], zero E[R 1{finished}], soft E[R + overlong penalty], mask E[R | finished].
        """
        reward_QO, finished_QO = self.table("keep").reward_QO, np.broadcast_to(~self.truncated_O, self.correct_QO.shape)
        if truncation == "zero":
            return self.gradient_QD(reward_QO * finished_QO)
        if truncation == "soft":
            margin = POLICIES["soft"].soft_margin
            assert margin is not None
            over_O = np.maximum(0, self.length_O - (BUDGET - margin)) / margin
            return self.gradient_QD(reward_QO - over_O)
        if truncation == "mask":
            return self._conditional_gradient_QD(reward_QO, finished_QO)
        return self.gradient_QD(reward_QO)

    def _conditional_gradient_QD(self, value_QO: np.ndarray, event_QO: np.ndarray) -> np.ndarray:
        """grad E[value | event, q] by the quotient rule."""
        chance_Q1 = (self.probability_QO * event_QO).sum(1, keepdims=True)
        mean_Q1 = (self.probability_QO * event_QO * value_QO).sum(1, keepdims=True) / chance_Q1
        return (self.gradient_QD(value_QO * event_QO) - mean_Q1 * self.gradient_QD(event_QO)) / chance_Q1

    def incorrect_length_gradient(self) -> np.ndarray:
        """grad_D of the mean length of incorrect responses, over all questions together."""
        wrong_QO, length_QO = ~self.correct_QO, np.broadcast_to(self.length_O, self.correct_QO.shape)
        chance = (self.probability_QO * wrong_QO).sum()
        mean = (self.probability_QO * wrong_QO * length_QO).sum() / chance
        return (self.gradient_QD(wrong_QO * length_QO) - mean * self.gradient_QD(wrong_QO)).sum(0) / chance
