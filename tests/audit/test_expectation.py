"""The exact expectation against plain enumeration, and the oracles of every objective's expectation."""

import itertools
import math

import numpy as np
import pytest

from zerolab.audit.certificate import Direction
from zerolab.audit.enumerate import BUDGET, POLICIES, PUZZLES, EnumerablePolicy
from zerolab.audit.expectation import couples_questions, expectation
from zerolab.audit.split_invariance import coefficients
from zerolab.rl.batch import make_batch
from zerolab.rl.objective import PRESETS, Objective


@pytest.fixture(scope="module")
def policy() -> EnumerablePolicy:
    return EnumerablePolicy(1)


@pytest.fixture(scope="module")
def pair() -> EnumerablePolicy:
    """Two questions: every step of two responses each can be listed."""
    return EnumerablePolicy(2, PUZZLES[1:])


def bias(policy: EnumerablePolicy, objective: Objective, size: int) -> float:
    mean = expectation(policy, objective, size).gradient_QD.sum(0)
    return Direction.of(mean, policy.true_gradient_QD().mean(0)).bias


def test_probabilities_and_scores_are_those_of_a_distribution(policy: EnumerablePolicy) -> None:
    assert np.allclose(policy.probability_QO.sum(1), 1, atol=1e-14)
    assert np.abs(policy.gradient_QD(np.ones_like(policy.probability_QO))).max() < 1e-14
    pass_rates = (policy.probability_QO * policy.correct_QO).sum(1)
    assert np.ptp(pass_rates) > 0.1
    assert sorted(set(policy.table("keep").reward_QO[0])) == [0, 1]
    assert sorted(set(policy.table("keep").reward_QO[2])) == [0, 0.25, 1, 1.25]


def test_the_true_gradients_are_those_of_finite_differences(policy: EnumerablePolicy) -> None:
    """The score of every response, the conditional gradient and that of wrong lengths, all at once."""
    import torch

    def values(at: EnumerablePolicy) -> tuple[float, float]:
        finished_QO = at.probability_QO * ~at.truncated_O
        masked = ((finished_QO * at.table("keep").reward_QO).sum(1) / finished_QO.sum(1)).mean()
        wrong_QO = at.probability_QO * ~at.correct_QO
        return masked, (wrong_QO * at.length_O).sum() / wrong_QO.sum()

    def moved(by: float) -> EnumerablePolicy:
        other = EnumerablePolicy(1)
        with torch.no_grad():
            flat = torch.nn.utils.parameters_to_vector(other.model.parameters()) + by * torch.from_numpy(direction_D)
            torch.nn.utils.vector_to_parameters(flat, other.model.parameters())
        other.probability_QO = np.exp(
            [[other._score(q, o)[0].sum() for o in range(len(other.responses))] for q in range(len(other.puzzles))]
        )
        return other

    direction_D = np.random.default_rng(0).normal(size=policy.score_QOD.shape[2])
    up, down, step = values(moved(1e-5)), values(moved(-1e-5)), 2e-5
    assert policy.true_gradient_QD("mask").mean(0) @ direction_D == pytest.approx((up[0] - down[0]) / step, rel=1e-6)
    assert policy.incorrect_length_gradient() @ direction_D == pytest.approx((up[1] - down[1]) / step, rel=1e-6)


@pytest.mark.parametrize("truncation", POLICIES)
@pytest.mark.parametrize("name", ["dr_grpo", "grpo", "dapo"])
def test_convolution_gives_what_the_plain_enumeration_of_groups_gives(name: str, truncation: str) -> None:
    """One question, every multiset of two responses, coefficients from make_batch on the responses themselves."""
    objective, alone = PRESETS[name], EnumerablePolicy(2, PUZZLES[2:])
    total_D = np.zeros(alone.score_QOD.shape[2])
    for pair in itertools.combinations_with_replacement(range(len(alone.responses)), 2):
        probability = math.prod(alone.probability_QO[0, o] for o in pair) * (1 if pair[0] == pair[1] else 2)
        [group] = alone.groups([(0, pair)], truncation)
        batch = make_batch([group], objective)
        entering = [
            o for o, enters in zip(pair, alone.table(truncation).enters_QO[0, list(pair)], strict=True) if enters
        ]
        total_D += probability * coefficients(batch, objective) @ alone.score_QOD[0, entering].reshape(-1, len(total_D))
    exact_D = expectation(alone, objective, 2, truncation).gradient_QD[0]
    assert np.linalg.norm(BUDGET * total_D - exact_D) < 1e-12 * np.linalg.norm(exact_D)


@pytest.mark.parametrize("name", [n for n in PRESETS if n in ("dapo", "lite_ppo", "reinforce_pp_baseline")])
def test_a_sampled_mean_agrees_where_denominators_couple_the_questions(pair: EnumerablePolicy, name: str) -> None:
    """Within 5 standard errors over 4000 sampled steps, along the direction of the exact mean."""
    objective = PRESETS[name]
    exact_D = expectation(pair, objective, 2).gradient_QD.sum(0)
    along = []
    for seed in range(4000):
        picks = pair.sample(2, seed)
        score_ND = np.concatenate([pair.score_QOD[q, chosen] for q, chosen in picks])
        along.append(BUDGET * coefficients(make_batch(pair.groups(picks), objective), objective) @ score_ND @ exact_D)
    error = np.std(along) / math.sqrt(len(along))
    assert abs(np.mean(along) - exact_D @ exact_D) < 5 * error
    assert error < 0.1 * (exact_D @ exact_D)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_dr_grpo_is_the_true_gradient_times_g_minus_1_over_g_and_rloo_is_exact(
    policy: EnumerablePolicy, size: int
) -> None:
    true_QD = policy.true_gradient_QD()
    for name, scale in (("dr_grpo", (size - 1) / size), ("rloo", 1.0), ("reinforce", 1.0)):
        mean_QD = len(true_QD) * expectation(policy, PRESETS[name], size).gradient_QD
        assert np.abs(mean_QD - scale * true_QD).max() < 1e-12


def test_a_token_mean_loses_its_bias_with_the_size_of_the_step_and_one_over_length_does_not(
    policy: EnumerablePolicy,
) -> None:
    plain = {"preset": "dapo", "scale": "none", "std_ddof": None, "std_epsilon": None}
    token_mean = Objective(**Objective.resolve(plain))
    assert bias(policy, token_mean, 8) < 0.5 * bias(policy, token_mean, 2)
    assert bias(policy, PRESETS["grpo_std_fix"], 8) > 0.9 * bias(policy, PRESETS["grpo_std_fix"], 2)


def test_std_cannot_be_seen_with_one_question_of_binary_rewards() -> None:
    """It only re-weights questions: one shows nothing, two do, and at G = 2 every mixed group has the same std."""
    alone, two = EnumerablePolicy(1, PUZZLES[:1]), EnumerablePolicy(3, PUZZLES[:2])
    objective = PRESETS["grpo_length_fix"]
    assert bias(alone, objective, 4) < 1e-12
    assert bias(two, objective, 4) > 1e-3
    assert bias(two, objective, 2) < 1e-7  # epsilon of the std alone
    assert bias(alone, PRESETS["grpo_std_fix"], 4) > 1e-3


def test_an_advantage_that_looks_at_other_questions_is_noticed() -> None:
    assert not any(couples_questions(PRESETS[name]) for name in ("dr_grpo", "grpo", "rloo", "dapo", "reinforce"))
