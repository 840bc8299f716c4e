"""The first certificate: production gradients against the exact policy gradient of enumerable policies (float64).

The policy is a real Qwen2 with a handful of tokens, so the code under test is the code that trains. Two steps make the
proof: (1) on sampled batches the production gradient is the sum of coefficient times score, however it is split;
(2) the mean of that sum over all groups, by enumeration, is compared with the true gradient.
"""

import numpy as np
import pytest
import torch
from enumerable import (
    BUDGET,
    PROMPTS,
    Enumeration,
    coefficient_sum,
    cosine,
    expected_gradient,
    production_gradient,
    tiny_policy,
)

from zerolab.rl.batch import make_batch
from zerolab.rl.objective import PRESETS


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


@pytest.mark.parametrize("name", [name for name, row in PRESETS.items() if not row.every_response_learns])
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


@pytest.mark.parametrize("name", ["dr_grpo", "grpo", "dapo", "gspo"])
def test_prompts_forwarded_once_give_the_gradient_of_whole_rows(enumeration: Enumeration, name: str) -> None:
    """However prompts and responses are cut; a response of one token needs no pass of its own."""
    generator = np.random.default_rng(1)
    picks = {q: [enumeration.space[i] for i in generator.integers(0, len(enumeration.space), 7)] for q in PROMPTS}
    batch = make_batch(enumeration.groups(picks), PRESETS[name])
    whole = production_gradient(enumeration.model, batch, PRESETS[name], share_prompts="off")
    for tokens in (1, 4, 9, 1000):
        limits = {"micro_batch_tokens": tokens, "share_prompts": "on"}
        shared = production_gradient(enumeration.model, batch, PRESETS[name], **limits)
        assert (shared - whole).norm() / whole.norm() < 1e-13
