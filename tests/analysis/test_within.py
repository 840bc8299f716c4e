"""The difference inside questions is blind to their difficulty, and sees what is there."""

from itertools import permutations

import numpy as np
import pytest

from zerolab.analysis.rates import within_difference


def sampled(rng, questions=60, samples=16, effect=0.0, difficulty=True):
    """Hard questions draw more reflections: with effect 0 reflection and correctness are independent inside each."""
    solved_Q = rng.uniform(0.1, 0.9, questions)
    reflects_Q = 0.9 - 0.8 * solved_Q if difficulty else np.full(questions, 0.5)
    question_N = np.repeat(np.arange(questions), samples)
    marked_N = rng.random(len(question_N)) < reflects_Q[question_N]
    correct_N = rng.random(len(question_N)) < np.clip(solved_Q[question_N] + effect * marked_N, 0, 1)
    return question_N, marked_N, correct_N


def test_difficulty_alone_fakes_a_pooled_effect_but_none_inside_questions() -> None:
    rng = np.random.default_rng(0)
    found = [within_difference(*sampled(rng), replicates=400, seed=i) for i in range(150)]
    assert np.mean([f.pooled_difference for f in found]) < -0.15
    assert abs(np.mean([f.difference for f in found])) < 0.01
    covered = np.mean([f.interval.low <= 0 <= f.interval.high for f in found])
    assert 0.89 <= covered <= 0.99
    rejected = np.mean([f.p_value < 0.05 for f in found])
    assert 0.005 <= rejected <= 0.11


def test_a_planted_effect_is_found_with_its_size() -> None:
    rng = np.random.default_rng(1)
    found = within_difference(*sampled(rng, questions=400, effect=-0.08), seed=1)
    assert found.interval.low < -0.08 < found.interval.high < 0
    assert found.difference == pytest.approx(-0.08, abs=0.03)
    assert found.p_value < 1e-3


def test_without_confounding_the_two_agree() -> None:
    found = within_difference(*sampled(np.random.default_rng(2), questions=300, effect=0.1, difficulty=False))
    assert found.difference == pytest.approx(found.pooled_difference, abs=0.02)


def test_the_weights_are_those_of_mantel_and_haenszel() -> None:
    # 1 of 2 against 1 of 2 (weight 1); 2 of 2 against 0 of 1 (weight 2/3); a question of one kind does not count.
    question = [0, 0, 0, 0, 1, 1, 1, 2, 2]
    marked = [1, 1, 0, 0, 1, 1, 0, 1, 1]
    correct = [1, 0, 1, 0, 1, 1, 0, 1, 1]
    found = within_difference(question, marked, correct)
    assert found.difference == pytest.approx((1 * 0 + 2 / 3 * 1) / (1 + 2 / 3))
    assert (found.questions, found.informative, found.marked) == (3, 2, 6)
    assert found.interval is None  # two questions are no sample of questions


def test_the_test_of_independence_is_that_of_all_permutations() -> None:
    """Mean and variance of the number right among the marked, over every reordering inside a question."""
    marked, correct = [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]
    counts = [sum(c for c, m in zip(order, marked, strict=True) if m) for order in permutations(correct)]
    z2 = (2 - np.mean(counts)) ** 2 / np.var(counts)
    found = within_difference([0] * 5, marked, correct)
    from scipy import stats

    assert found.p_value == pytest.approx(stats.chi2.sf(z2, 1))


@pytest.mark.parametrize("marked", [0, 1])
def test_where_the_data_say_nothing_nothing_is_said(marked: int) -> None:
    found = within_difference([0, 0, 1, 1], [marked] * 4, [1, 0, 1, 0])
    assert (found.difference, found.interval, found.p_value, found.pooled_difference) == (None, None, None, None)
    all_right = within_difference(np.repeat(range(8), 2), [0, 1] * 8, [1] * 16)
    assert (all_right.difference, all_right.interval, all_right.p_value) == (0, None, None)
