"""A policy whose every response can be enumerated: a real Qwen2 of four tokens in float64."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import Qwen2ForCausalLM

from zerolab.audit.enumerate import tiny_qwen2
from zerolab.config import LearnerConfig
from zerolab.datatypes import Completion, Grade, Group, Prompt, Question
from zerolab.learner.learner import Learner
from zerolab.rl.aggregate import token_weights
from zerolab.rl.batch import Batch, make_batch
from zerolab.rl.objective import Objective

VOCABULARY, EOS, BUDGET = 4, 0, 2
PROMPTS = {"easy": (3, 1), "hard": (1, 3)}


def tiny_policy(seed: int = 0) -> Qwen2ForCausalLM:
    return tiny_qwen2(seed, VOCABULARY)


def make_learner(
    model: Qwen2ForCausalLM, micro_batch_tokens: int = 10_000, reference: bool = False, **changes: Any
) -> Learner:
    config = LearnerConfig(micro_batch_tokens=micro_batch_tokens, lr=1e-3, **changes)
    return Learner(model, config, budget=BUDGET, total_steps=1, reference=reference)


def responses(steps: int) -> list[tuple[int, ...]]:
    """Every response: a bandit ends after one token, the two-step policy after EOS or two tokens."""
    if steps == 1:
        return [(token,) for token in range(VOCABULARY)]
    return [(EOS,), *itertools.product(range(1, VOCABULARY), range(VOCABULARY))]


def reward(prompt: str, response: Sequence[int]) -> float:
    """Binary, with different pass rates, and true for responses of both lengths."""
    if prompt == "easy":
        return float(response[0] in (0, 1))
    return float(response[-1] == 2 or (len(response) == 1 and response[0] == EOS))


def logits_of(model: Qwen2ForCausalLM, prompt: str, response: Sequence[int]) -> torch.Tensor:
    """Logits_LV of the positions that predict the response, by transformers' own forward, with gradient."""
    start = len(PROMPTS[prompt])
    return model(torch.tensor([[*PROMPTS[prompt], *response]])).logits[0, start - 1 : -1]


def logprobs_of(model: Qwen2ForCausalLM, prompt: str, response: Sequence[int]) -> torch.Tensor:
    """Token log-probabilities, with gradient."""
    return logits_of(model, prompt, response).log_softmax(-1)[range(len(response)), list(response)]


def with_reference(batch: Batch, reference: Qwen2ForCausalLM) -> Batch:
    """The batch with log pi_ref, row by row by transformers' own forward."""
    columns = []
    for i in range(len(batch)):
        row = batch.select(np.array([i]))
        prompt = next(p for p, ids in PROMPTS.items() if ids == tuple(row.tokens_S[: row.prompt_len_N[0]].tolist()))
        columns.append(logprobs_of(reference, prompt, row.tokens_S[row.prompt_len_N[0] :].tolist()).detach().numpy())
    return dataclasses.replace(batch, ref_logprobs_T=np.concatenate(columns))


def flat_gradient(model: Qwen2ForCausalLM) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])


class Enumeration:
    """Probabilities and score sums S_i of every response to every question."""

    def __init__(self, model: Qwen2ForCausalLM, steps: int):
        self.model, self.space = model, responses(steps)
        self.probability, self.score, self.logprobs = {}, {}, {}
        for prompt in PROMPTS:
            for response in self.space:
                model.zero_grad()
                logprobs_L = logprobs_of(model, prompt, response)
                logprobs_L.sum().backward()
                self.logprobs[prompt, response] = logprobs_L.detach().numpy()
                total = logprobs_L.detach().sum()
                self.probability[prompt, response] = math.exp(total.item())
                self.score[prompt, response] = flat_gradient(model).clone()
        model.zero_grad()
        self.greedy = {prompt: self._greedy(prompt) for prompt in PROMPTS}

    def _greedy(self, prompt: str) -> tuple[int, ...]:
        """Token by token the likeliest; as long as a response of its kind is."""
        chosen: tuple[int, ...] = ()
        while chosen not in self.space:
            ids = torch.tensor([[*PROMPTS[prompt], *chosen]])
            chosen = (*chosen, int(self.model(ids).logits[0, -1].argmax()))
        return chosen

    def true_gradient(self) -> torch.Tensor:
        """Mean over questions of sum_o pi(o) R(o) grad log pi(o)."""
        terms = [self.probability[q, o] * reward(q, o) * self.score[q, o] for q in PROMPTS for o in self.space]
        return torch.stack(terms).sum(0) / len(PROMPTS)

    def groups(self, chosen: dict[str, Sequence[tuple[int, ...]]]) -> list[Group]:
        made = []
        for number, (prompt, picks) in enumerate(chosen.items()):
            completions = tuple(
                Completion(
                    request_id=i,
                    text="",
                    token_ids_L=np.array(o),
                    logprobs_L=self.logprobs[prompt, o],
                    finish_reason="stop",
                    version=0,
                )
                for i, o in enumerate(picks)
            )
            rewards = np.array([reward(prompt, o) for o in picks])
            grades = tuple(Grade(bool(r), True, "correct" if r else "wrong") for r in rewards)
            question = Question(id=str(number), text=prompt, answers=("",))
            greedy = reward(prompt, self.greedy[prompt])
            prompt_ids = Prompt(question, prompt, PROMPTS[prompt])
            made.append(Group(prompt_ids, completions, grades, rewards, greedy_reward=greedy))
        return made


def production_gradient(model: Qwen2ForCausalLM, batch: Batch, objective: Objective, **kwargs: int) -> torch.Tensor:
    learner = make_learner(model, **kwargs)
    learner.forward_backward(batch, objective)
    gradient = -flat_gradient(model).clone()  # the learner descends a loss
    model.zero_grad(set_to_none=False)
    return gradient


def coefficient_sum(enumeration: Enumeration, batch: Batch, objective: Objective) -> torch.Tensor:
    """sum_i w_i A_i S_i with the production weights and advantages."""
    coefficient_N = token_weights(batch.response_len_N, objective.aggregation, BUDGET) * batch.advantage_N
    prompts, total = list(PROMPTS), torch.zeros_like(next(iter(enumeration.score.values())))
    for i, coefficient in enumerate(coefficient_N):
        row = batch.select(np.array([i]))
        prompt = next(p for p in prompts if PROMPTS[p] == tuple(row.tokens_S[: row.prompt_len_N[0]]))
        total += coefficient * enumeration.score[prompt, tuple(row.tokens_S[row.prompt_len_N[0] :].tolist())]
    return total


def expected_gradient(enumeration: Enumeration, objective: Objective, size: int) -> torch.Tensor:
    """Exact mean over all groups of `size` responses of one question: multisets with their multiplicity."""
    terms = []
    for prompt in PROMPTS:
        for picks in itertools.combinations_with_replacement(enumeration.space, size):
            orderings = math.factorial(size) / math.prod(math.factorial(picks.count(o)) for o in set(picks))
            probability = orderings * math.prod(enumeration.probability[prompt, o] for o in picks)
            batch = make_batch(enumeration.groups({prompt: picks}), objective)
            terms.append(probability * coefficient_sum(enumeration, batch, objective))
    return torch.stack(terms).sum(0) / len(PROMPTS)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))
