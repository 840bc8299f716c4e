"""The first certificate: production gradients against the exact policy gradient of enumerable policies (float64).

The policy is a real Qwen2 with a handful of tokens, so the code under test is the code that trains. Two steps make the
proof: (1) on sampled batches the production gradient is the sum of coefficient times score, however it is split;
(2) the mean of that sum over all groups, by enumeration, is compared with the true gradient.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from zerolab.config import LearnerConfig
from zerolab.learner.learner import Learner
from zerolab.rl.aggregate import token_weights
from zerolab.rl.batch import Batch, make_batch
from zerolab.rl.objective import PRESETS, Objective
from zerolab.types import Completion, Grade, Group, Prompt, Question

VOCABULARY, EOS, BUDGET = 4, 0, 2
PROMPTS = {"easy": (3, 1), "hard": (1, 3)}


def norm_in_float64(self: Qwen2RMSNorm, hidden: torch.Tensor) -> torch.Tensor:
    """transformers rounds this norm to float32, which would drown what is measured here."""
    return self.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.variance_epsilon)


def tiny_policy(seed: int = 0) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
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
            module.forward = norm_in_float64.__get__(module)
    return model


def make_learner(model: Qwen2ForCausalLM, micro_batch_tokens: int = 10_000, logits_mb: int = 256) -> Learner:
    config = LearnerConfig(micro_batch_tokens=micro_batch_tokens, logits_mb=logits_mb, lr=1e-3)
    return Learner(model, config, budget=BUDGET, total_steps=1)


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


def logprobs_of(model: Qwen2ForCausalLM, prompt: str, response: Sequence[int]) -> torch.Tensor:
    """Token log-probabilities by transformers' own forward, with gradient."""
    ids = torch.tensor([[*PROMPTS[prompt], *response]])
    logits = model(ids).logits[0].log_softmax(-1)
    start = len(PROMPTS[prompt])
    return logits[range(start - 1, ids.shape[1] - 1), ids[0, start:]]


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
            made.append(Group(Prompt(question, prompt, PROMPTS[prompt]), completions, grades, rewards))
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


@pytest.fixture(scope="module", params=[1, 2], ids=["bandit", "two-step"])
def enumeration(request: pytest.FixtureRequest) -> Enumeration:
    return Enumeration(tiny_policy(), request.param)


def test_probabilities_and_scores_are_those_of_a_distribution(enumeration: Enumeration) -> None:
    for prompt in PROMPTS:
        probabilities = torch.tensor(
            [enumeration.probability[prompt, o] for o in enumeration.space], dtype=torch.float64
        )
        scores = torch.stack([enumeration.score[prompt, o] for o in enumeration.space])
        assert probabilities.sum().item() == pytest.approx(1, abs=1e-14)
        assert (probabilities @ scores).abs().max() < 1e-14


def test_dr_grpo_has_the_true_gradient_up_to_g_minus_1_over_g(enumeration: Enumeration) -> None:
    truth = enumeration.true_gradient()
    for size in (2, 3):
        mean = expected_gradient(enumeration, PRESETS["dr_grpo"], size) * BUDGET
        assert torch.allclose(mean, truth * (size - 1) / size, atol=1e-12, rtol=1e-9)


def test_rloo_and_reinforce_have_the_true_gradient(enumeration: Enumeration) -> None:
    truth = enumeration.true_gradient()
    for name in ("rloo", "reinforce"):
        mean = expected_gradient(enumeration, PRESETS[name], 2) * BUDGET
        assert torch.allclose(mean, truth, atol=1e-12, rtol=1e-9)


def test_grpo_has_another_direction_and_each_half_fix_mends_half(enumeration: Enumeration) -> None:
    """1/L needs two lengths to show; std two pass rates and G of 4, for all mixed groups of 3 have the same std."""
    truth = enumeration.true_gradient()
    off = {
        name: 1 - cosine(expected_gradient(enumeration, PRESETS[name], 4), truth)
        for name in ("grpo", "grpo_length_fix", "grpo_std_fix", "dr_grpo")
    }
    bandit = len({len(o) for o in enumeration.space}) == 1
    assert off["dr_grpo"] < 1e-12
    assert off["grpo"] > 1e-6
    assert off["grpo_length_fix"] > 1e-8
    assert (off["grpo_std_fix"] < 1e-12) if bandit else (off["grpo_std_fix"] > 1e-6)


@pytest.mark.parametrize("name", PRESETS)
def test_production_gradient_is_coefficient_times_score_however_it_is_split(
    enumeration: Enumeration, name: str
) -> None:
    generator = np.random.default_rng(0)
    picks = {q: [enumeration.space[i] for i in generator.integers(0, len(enumeration.space), 6)] for q in PROMPTS}
    batch = make_batch(enumeration.groups(picks), PRESETS[name])
    whole = production_gradient(enumeration.model, batch, PRESETS[name])
    assert whole.norm() > 0
    assert (whole - coefficient_sum(enumeration, batch, PRESETS[name])).norm() / whole.norm() < 1e-13
    for limits in ({"micro_batch_tokens": 1}, {"micro_batch_tokens": 8}, {"micro_batch_tokens": 13}):
        split = production_gradient(enumeration.model, batch, PRESETS[name], **limits)
        assert (split - whole).norm() / whole.norm() < 1e-13
    reordered = batch.select(generator.permutation(len(batch)))
    assert (production_gradient(enumeration.model, reordered, PRESETS[name]) - whole).norm() / whole.norm() < 1e-13


def test_a_gradient_from_several_optimizer_steps_is_the_mean_of_its_parts() -> None:
    """A constant denominator makes a rollout's gradient the size-weighted mean of its minibatches' gradients."""
    enumeration = Enumeration(tiny_policy(), 2)
    batch = make_batch(enumeration.groups(dict.fromkeys(PROMPTS, enumeration.space[1:7])), PRESETS["dr_grpo"])
    whole = production_gradient(enumeration.model, batch, PRESETS["dr_grpo"])
    parts = batch.optimizer_steps(3, seed=1)
    assert sorted(len(p) for p in parts) == [4, 4, 4]
    mean = sum(production_gradient(enumeration.model, p, PRESETS["dr_grpo"]) for p in parts) / 3
    assert torch.allclose(mean, whole, atol=1e-14)
