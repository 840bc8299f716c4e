"""Statistics against published values, enumeration, or simulated truth."""

from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from scipy import stats

from zerolab.evaluation.intervals import (
    Interval,
    bootstrap,
    bootstrap_means,
    clopper_pearson,
    fixed_set_interval,
    percentile_interval,
    population_interval,
    weighted_interval,
    wilson,
)
from zerolab.evaluation.score import NO_ANSWER, equivalence_classes, maj_at_k, pass_at_k
from zerolab.evaluation.significance import (
    detectable_effect,
    holm,
    mcnemar,
    minimum_detectable_difference,
    paired_detectable_difference,
    paired_interval,
    paired_sample_size,
    paired_score,
    paired_t,
    sample_size,
    samples_for_width,
    t_power,
    tost_greedy,
    tost_paired,
    tost_unpaired,
)

# --- intervals -------------------------------------------------------------------------------------------------------


def test_clopper_pearson_of_13_of_30() -> None:
    assert clopper_pearson(13, 30) == pytest.approx((0.255, 0.626), abs=5e-4)


@pytest.mark.parametrize(  # Newcombe 1998, Statist. Med. 17:857, table I: methods 3 (score) and 5 (exact)
    ("successes", "trials", "score", "exact"),
    [
        (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
        (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
        (0, 20, (0.0, 0.1611), (0.0, 0.1684)),
        (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
    ],
)
def test_binomial_intervals_as_published(successes: int, trials: int, score: tuple, exact: tuple) -> None:
    assert wilson(successes, trials) == pytest.approx(score, abs=6e-5)
    assert clopper_pearson(successes, trials) == pytest.approx(exact, abs=6e-5)


def test_an_end_of_clopper_pearson_is_where_the_tail_is_a_fortieth() -> None:
    low, high = clopper_pearson(7, 19)
    assert stats.binom.sf(6, 19, low) == pytest.approx(0.025)
    assert stats.binom.cdf(7, 19, high) == pytest.approx(0.025)
    with pytest.raises(ValueError, match="4 successes of 3"):
        clopper_pearson(4, 3)


@pytest.mark.parametrize(  # Newcombe 1998, Statist. Med. 17:873, table II, method 10
    ("a", "b", "published"),
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((0, 10), (0, 10), (-0.2775, 0.2775)),
    ],
)
def test_the_weighted_interval_of_a_difference_is_newcombes(a: tuple, b: tuple, published: tuple) -> None:
    found = weighted_interval([a[0] / a[1], b[0] / b[1]], [wilson(*a), wilson(*b)], [1, -1])
    assert found == pytest.approx(published, abs=6e-5)


def test_the_interval_of_a_mean_is_narrower_than_its_parts_and_has_no_width_zero() -> None:
    parts = [clopper_pearson(0, 30), clopper_pearson(40, 83)]
    low, high = weighted_interval([0, 40 / 83], parts)
    assert low < 20 / 83 < high
    assert high - low < min(part.width for part in parts) + 0.1


def test_one_greedy_pass_has_the_binomial_interval() -> None:
    ones = np.ones(30, int)
    right = np.arange(30) < 13
    assert population_interval(right, ones) == pytest.approx(clopper_pearson(13, 30), abs=0.012)
    assert fixed_set_interval(right, ones) == clopper_pearson(13, 30)


@pytest.mark.parametrize("skew", [0.3, 3.0])
def test_both_intervals_cover_what_they_name(skew: float) -> None:
    """Simulated: 40 questions of Beta-distributed difficulty, 4 samples. A set is drawn, its own mean is known too."""
    rng = np.random.default_rng(1)
    truth = 0.3
    hits = {"population": 0, "fixed": 0}
    widths = {"population": 0.0, "fixed": 0.0}
    for _ in range(400):
        rate_Q = rng.beta(skew * truth, skew * (1 - truth), 40)
        correct_Q, samples_Q = rng.binomial(4, rate_Q), np.full(40, 4)
        for name, interval, target in (
            ("population", population_interval(correct_Q, samples_Q), truth),
            ("fixed", fixed_set_interval(correct_Q, samples_Q), float(rate_Q.mean())),
        ):
            hits[name] += interval.low <= target <= interval.high
            widths[name] += interval.width / 400
    assert min(hits.values()) >= 0.93 * 400
    assert widths["fixed"] < 0.85 * widths["population"]


def test_a_few_right_responses_are_not_known_better_than_none() -> None:
    four = np.full(500, 4)
    few = np.zeros(500, int)
    few[:2] = 1
    assert population_interval(few, four).high > population_interval(np.zeros(500, int), four).high


def test_agreement_by_luck_gives_no_width_of_zero() -> None:
    two = np.full(30, 2)
    sure = fixed_set_interval(np.where(np.arange(30) < 10, 2, 0), two)
    assert 0.02 < sure.width < 0.2
    assert fixed_set_interval(np.zeros(30, int), two) == clopper_pearson(0, 60)
    assert population_interval(np.zeros(30, int), two) == clopper_pearson(0, 30)


# --- bootstrap -------------------------------------------------------------------------------------------------------


def test_bootstrap_spread_is_that_of_its_levels() -> None:
    """Exact variances of resampled means, by the level that is drawn."""
    rng = np.random.default_rng(0)
    values_RQS = rng.normal(size=(3, 12, 4)) + rng.normal(size=(3, 1, 1)) + 2 * rng.normal(size=(1, 12, 1))
    within = values_RQS.var(2).mean() / (3 * 12 * 4)
    questions = values_RQS.mean((0, 2)).var() / 12
    runs = values_RQS.mean((1, 2)).var() / 3
    for over, variance in ((("samples",), within), (("questions",), questions), (("runs",), runs)):
        assert bootstrap_means(values_RQS, 20_000, over=over).var() == pytest.approx(variance, rel=0.05)
    both = bootstrap_means(values_RQS[0], 20_000, over=("questions", "samples")).var()
    means_Q = values_RQS[0].mean(1)
    assert both == pytest.approx(means_Q.var() / 12 + values_RQS[0].var(1).mean() / (12 * 4), rel=0.05)
    assert bootstrap_means(values_RQS, 5, over=()) == pytest.approx(values_RQS.mean())


def test_bootstrap_of_uneven_samples_weighs_questions_alike() -> None:
    values_QS = np.array([[1.0, np.nan, np.nan, np.nan], [0.0, 1.0, np.nan, 0.0], [0.0, 0.0, 0.0, 0.0]])
    found = bootstrap_means(values_QS, 40_000, over=("samples",))
    assert found.mean() == pytest.approx((1 + 1 / 3) / 3, abs=2e-3)
    assert found.var() == pytest.approx((1 / 3 * 2 / 3 / 3) / 9, rel=0.05)
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_means(np.array([[np.nan], [1.0]]), 10)


def test_equal_seeds_pair_the_questions_and_equal_streams_the_samples() -> None:
    hard_Q = np.random.default_rng(2).random(50)
    a, b = np.stack([hard_Q] * 4, 1), np.stack([hard_Q + 0.1] * 3, 1)
    assert np.ptp(bootstrap_means(b, 500, seed=7, stream=1) - bootstrap_means(a, 500, seed=7)) < 1e-12
    noisy = np.random.default_rng(3).random((50, 4))
    first, again, other = (bootstrap_means(noisy, 500, seed=7, stream=s) for s in (0, 0, 1))
    assert (first == again).all()
    assert 0 < np.corrcoef(first, other)[0, 1] < 0.95


def test_bootstrap_interval_of_a_mean_agrees_with_t() -> None:
    x = np.random.default_rng(4).normal(size=200)
    t = stats.t.interval(0.95, 199, x.mean(), stats.sem(x))
    assert bootstrap(x) == pytest.approx(t, abs=0.012)
    assert percentile_interval(np.array([1.0, np.inf, np.nan, 3.0])) == pytest.approx((1.05, 2.95))


# --- tests -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("only_a", "only_b"), [(5, 15), (0, 6), (8, 8), (1, 0)])
def test_exact_mcnemar_is_the_binomial_sum(only_a: int, only_b: int) -> None:
    n, less = only_a + only_b, min(only_a, only_b)
    tail = sum(comb(n, i) for i in range(less + 1)) / 2**n
    assert mcnemar(only_a, only_b) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(0, 0) == 1.0


def test_paired_score_interval_as_published() -> None:
    """Airway reactivity of 21 children before and after a transplantation, 1 and 7 pairs discordant: Tango's score
    interval in Fagerland, Lydersen and Laake 2014, Statist. Med. 33:2850."""
    assert paired_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert paired_score(12, 2, 50, 0.0) == pytest.approx(10 / 14**0.5)  # McNemar's z
    low, high = paired_interval(12, 2, 50)
    assert paired_interval(2, 12, 50) == pytest.approx((-high, -low))


def test_the_paired_score_uses_the_likeliest_shares_under_its_hypothesis() -> None:
    """The share that one model alone solves, by a search of the likelihood instead of the quadratic."""
    b, c, n, d = 9, 4, 40, -0.1
    share = np.linspace(1e-6, 1 - 1e-6, 400_001)  # of only_b
    with np.errstate(invalid="ignore", divide="ignore"):
        loglik = c * np.log(share) + b * np.log(share + d) + (n - b - c) * np.log(1 - 2 * share - d)
    best = share[np.nanargmax(loglik)]
    z = (b - c - n * d) / np.sqrt(n * (2 * best + d - d * d))
    assert paired_score(b, c, n, d) == pytest.approx(z, abs=1e-3)


def test_models_that_never_disagree_are_not_equal_for_sure() -> None:
    low, high = paired_interval(0, 0, 30)
    z2 = stats.norm.isf(0.025) ** 2
    assert (low, high) == pytest.approx((-z2 / (30 + z2), z2 / (30 + z2)), abs=1e-6)
    assert tost_greedy(0, 0, 30, 0.03).p > 0.1
    assert tost_greedy(0, 0, 1000, 0.03).p < 1e-6


def test_tost_paired_is_two_t_tests_and_its_interval_decides() -> None:
    x = np.random.default_rng(5).normal(0.01, 0.1, 60)
    found = tost_paired(x, 0.05)
    sides = [
        stats.ttest_1samp(x, -0.05, alternative="greater").pvalue,
        stats.ttest_1samp(x, 0.05, alternative="less").pvalue,
    ]
    assert found.p == pytest.approx(max(sides))
    for margin in np.linspace(0.005, 0.06, 12):
        low, high = found.interval
        assert (tost_paired(x, margin).p < 0.05) == (-margin < low and high < margin)
    assert tost_paired(np.zeros(30), 0.05).p == 1.0
    assert tost_paired(np.zeros(30), 0.05, largest=1.0).p == pytest.approx(0.95**30)


def test_tost_unpaired_is_two_welch_tests() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(0, 1, 25), rng.normal(0.1, 2, 40)
    sides = [
        stats.ttest_ind(a + 1, b, equal_var=False, alternative="greater").pvalue,
        stats.ttest_ind(a - 1, b, equal_var=False, alternative="less").pvalue,
    ]
    assert tost_unpaired(a, b, 1.0).p == pytest.approx(max(sides))


def test_paired_t_knows_when_it_knows_nothing() -> None:
    x = np.array([-3.0, 1.0, -2.0, -4.0])
    assert paired_t(x, "less") == pytest.approx(stats.ttest_1samp(x, 0, alternative="less").pvalue)
    assert paired_t(np.zeros(9)) == paired_t(np.array([5.0])) == 1.0
    assert paired_t(np.full(5, -2.0), "less") == 2**-5
    assert paired_t(np.full(5, 2.0), "less") == 1.0


def test_holm_as_published() -> None:
    """R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm") gives .05 .08 .09 .09 .09."""
    assert holm([0.03, 0.01, 0.05, 0.02, 0.04]) == pytest.approx([0.09, 0.05, 0.09, 0.08, 0.09])
    assert holm([]) == []


def test_holm_is_the_closed_bonferroni_test() -> None:
    p = [0.004, 0.3, 0.02, 0.011]
    for i, adjusted in enumerate(holm(p)):
        families = [f for r in range(1, 5) for f in combinations(range(4), r) if i in f]
        assert adjusted == pytest.approx(min(1.0, max(len(f) * min(p[j] for j in f) for f in families)))


# --- pass@k, maj@k ---------------------------------------------------------------------------------------------------


def test_pass_at_k_is_the_mean_over_all_subsets() -> None:
    for n, c, k in [(8, 3, 1), (8, 3, 4), (5, 0, 2), (5, 5, 5), (6, 4, 3)]:
        outcomes = [any(i < c for i in chosen) for chosen in combinations(range(n), k)]
        assert pass_at_k(np.array([c]), n, k)[0] == pytest.approx(np.mean(outcomes))
    with pytest.raises(ValueError, match="k = 3"):
        pass_at_k(np.array([1, 1]), np.array([4, 2]), 3)


def test_pass_at_k_is_unbiased() -> None:
    p, n, k = 0.15, 6, 4
    counts = np.arange(n + 1)
    mean = stats.binom.pmf(counts, n, p) @ pass_at_k(counts, n, k)
    assert mean == pytest.approx(1 - (1 - p) ** k)


def test_maj_at_k_is_the_mean_over_all_subsets_with_shared_ties() -> None:
    classes = np.array([[0, 0, 1, NO_ANSWER, 2, 1, 0]])
    correct = classes == 1
    for k in (1, 2, 3, 5, 7):
        wins = []
        for chosen in combinations(classes[0], k):
            votes = {c: chosen.count(c) for c in chosen if c != NO_ANSWER}
            top = [c for c, v in votes.items() if v == max(votes.values())]
            wins.append(top.count(1) / len(top) if top else 0.0)
        assert maj_at_k(classes, correct, k)[0] == pytest.approx(np.mean(wins))
    assert maj_at_k(np.full((1, 3), NO_ANSWER), np.zeros((1, 3)), 2)[0] == 0


def test_maj_at_k_by_drawn_subsets_is_near_the_exact_one() -> None:
    """C(24, 8) subsets are too many to enumerate; the exact value sums over how many of each class are drawn."""
    classes = np.array([[0] * 9 + [1] * 10 + [2] * 5])
    exact = sum(
        comb(9, a) * comb(10, b) * comb(5, 8 - a - b) * (b == max(a, b, 8 - a - b)) / [a, b, 8 - a - b].count(b)
        for a, b in product(range(9), range(9))
        if 0 <= 8 - a - b <= 5
    ) / comb(24, 8)
    assert maj_at_k(classes, classes == 1, 8)[0] == pytest.approx(exact, abs=0.04)


def test_answers_are_grouped_by_equality_of_the_grader() -> None:
    from zerolab.grading import equal

    answers = ["1/2", None, "0.5", "2", r"\frac{1}{2}", "2.0"]
    assert equivalence_classes(answers, equal) == [0, NO_ANSWER, 0, 1, 0, 1]


# --- sample sizes ----------------------------------------------------------------------------------------------------


def test_sample_size_as_published() -> None:
    """R's example: power.prop.test(p1 = .50, p2 = .75, power = .90) gives n = 76.7."""
    assert sample_size(0.5, 0.75, power=0.9) == pytest.approx(76.7, abs=0.05)


@pytest.mark.parametrize("p", [0.0, 0.02, 0.43, 0.9, 1.0])
def test_the_minimum_detectable_difference_needs_just_that_many_trials(p: float) -> None:
    d = minimum_detectable_difference(p, 200)
    sizes = [sample_size(p, q) for q in (p - d, p + d) if -1e-9 <= q <= 1 + 1e-9]
    assert min(sizes) == pytest.approx(200, rel=1e-3)
    assert minimum_detectable_difference(0.5, 2) == 1.0


def test_paired_sample_size_reaches_its_power() -> None:
    """Simulated McNemar z tests at the computed number of questions."""
    a, b = 0.16, 0.08
    n = round(paired_sample_size(a, b))
    draws = np.random.default_rng(7).multinomial(n, [a, b, 1 - a - b], 20_000)
    z = (draws[:, 0] - draws[:, 1]) / np.sqrt(np.maximum(draws[:, 0] + draws[:, 1], 1))
    assert np.mean(np.abs(z) > 1.96) == pytest.approx(0.8, abs=0.02)
    assert paired_detectable_difference(a + b, n) == pytest.approx(a - b, abs=1e-3)
    assert paired_detectable_difference(0.02, 30) == 0.02


def test_t_power_as_published() -> None:
    """R's examples: power.t.test(n = 20, delta = 1, sd = 1) gives .869, with power = .90 it gives n = 22.02."""
    assert t_power(20, 1.0) == pytest.approx(0.8689528, abs=1e-6)
    assert detectable_effect(22, power=0.9) == pytest.approx(1.0, abs=1e-3)
    assert detectable_effect(3) > 3  # three seeds an arm see only huge effects


def test_so_many_samples_make_the_interval_so_narrow() -> None:
    samples = samples_for_width(0.12, 30, 0.03)
    correct_Q = np.full(30, round(0.14 * samples))  # variance within of .12
    width = fixed_set_interval(correct_Q, np.full(30, samples)).width
    assert width == pytest.approx(0.03, rel=0.06)
    assert isinstance(fixed_set_interval(correct_Q, np.full(30, samples)), Interval)
