"""Tests between two models, and the sample sizes that they need.

Tests are exact if that is cheap, and paired if both models answered the same questions.
"""

from collections.abc import Sequence
from math import ceil, isfinite, sqrt
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from zerolab.evaluation.intervals import Interval


class Equivalence(NamedTuple):
    """Two one-sided tests. Equivalent at level alpha where p < alpha, that is, where `interval` lies inside the margin.

    `interval` has level 1 - 2 alpha with alpha = .05.
    """

    p: float
    difference: float
    interval: Interval


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p that both models are right equally often; only_a questions were solved by a alone."""
    if not only_a + only_b:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)


def paired_score(only_a: int, only_b: int, questions: int, difference: float) -> float:
    """Score statistic z that accuracy(a) - accuracy(b) is `difference`, on the same questions (Tango 1998).

    At difference 0 it is McNemar's z. It stays finite where the models never disagree.
    """
    n, b, c = questions, only_a, only_b
    linear = (2 * n - b + c) * difference - b - c  # the share of only_b under the null solves a quadratic
    share = (np.sqrt(max(linear**2 - 8 * n * (-c * difference * (1 - difference)), 0.0)) - linear) / (4 * n)
    variance = n * (2 * share + difference * (1 - difference))
    if variance <= 0:
        return 0.0 if b - c == n * difference else float(np.copysign(np.inf, b - c - n * difference))
    return float((b - c - n * difference) / np.sqrt(variance))


def paired_interval(only_a: int, only_b: int, questions: int, level: float = 0.95) -> Interval:
    """Interval of accuracy(a) - accuracy(b) of one greedy pass each over the same questions (Tango's score)."""
    z = float(stats.norm.isf((1 - level) / 2))
    estimate = (only_a - only_b) / questions

    def end(edge: float, sign: float) -> float:
        def gap(difference: float) -> float:
            return paired_score(only_a, only_b, questions, difference) - sign * z

        if gap(edge) * sign <= 0:
            return float(round(edge))
        return float(optimize.brentq(gap, *sorted((estimate, edge)), xtol=1e-10))

    return Interval(end(-1 + 1e-9, 1.0), end(1 - 1e-9, -1.0))


def tost_greedy(only_a: int, only_b: int, questions: int, margin: float) -> Equivalence:
    """Two one-sided score tests that |accuracy(a) - accuracy(b)| < margin, one greedy pass each, same questions."""
    _positive(margin)
    above = stats.norm.sf(paired_score(only_a, only_b, questions, -margin))
    below = stats.norm.cdf(paired_score(only_a, only_b, questions, margin))
    estimate = (only_a - only_b) / questions
    return Equivalence(float(max(above, below)), estimate, paired_interval(only_a, only_b, questions, 0.9))


def tost_paired(differences_Q: np.ndarray, margin: float, largest: float | None = None) -> Equivalence:
    """Two one-sided t tests that |mean difference| < margin, one difference per question (or per seed).

    Where all differences are equal, t knows no spread. `largest` bounds |difference| (1 for accuracies): were the mean
    at the margin, at least margin / largest of the questions would differ, and none does with p = (1 - that)^n. Without
    it p is 1.
    """
    _positive(margin)
    x = np.asarray(differences_Q, float)
    n, mean = len(x), float(x.mean())
    error = float(x.std(ddof=1)) / np.sqrt(n) if n > 1 else float("nan")
    if not error > 1e-12 * max(1.0, abs(mean)):
        silent = mean == 0 and largest is not None and n > 1
        p = (1 - min(1.0, margin / largest)) ** n if silent and largest else 1.0
        half = largest * (1 - 0.05 ** (1 / n)) if silent and largest else np.inf
        return Equivalence(float(p), mean, Interval(mean - half, mean + half))
    return tost_estimate(mean, error, n - 1, margin)


def tost_unpaired(a: np.ndarray, b: np.ndarray, margin: float) -> Equivalence:
    """Two one-sided Welch tests that |mean(a) - mean(b)| < margin, two independent samples of at least 2 values."""
    _positive(margin)
    va, vb = (float(np.var(x, ddof=1)) / len(x) for x in (a, b))
    mean = float(np.mean(a) - np.mean(b))
    if va + vb == 0:
        return Equivalence(1.0, mean, Interval(-np.inf, np.inf))
    degrees = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    return tost_estimate(mean, float(np.sqrt(va + vb)), degrees, margin)


def tost_estimate(mean: float, error: float, degrees: float, margin: float) -> Equivalence:
    """Two one-sided t tests of any estimate with its standard error; with infinite degrees of freedom, z tests."""
    above = stats.t.sf((mean + margin) / error, degrees)
    below = stats.t.cdf((mean - margin) / error, degrees)
    half = float(stats.t.isf(0.05, degrees)) * error
    return Equivalence(float(max(above, below)), mean, Interval(mean - half, mean + half))


def _positive(margin: float) -> None:
    if not margin > 0:
        raise ValueError(f"an equivalence margin must be positive, not {margin}")


def paired_t(differences: np.ndarray, alternative: str = "two-sided") -> float:
    """p of the paired t test that the mean difference is 0; alternative "less" asks whether it is below. 1 where all
    differences are 0 or there is only one."""
    x = np.asarray(differences, float)
    if len(x) < 2 or not x.any():
        return 1.0
    if np.ptp(x) <= 1e-12 * np.abs(x).max():
        return _sign_p(len(x), float(x[0]), alternative)
    return float(stats.ttest_1samp(x, 0.0, alternative=alternative).pvalue)


def _sign_p(n: int, value: float, alternative: str) -> float:
    """All differences are the same number: t would call that infinitely sure, the sign test knows n coins."""
    if alternative == "two-sided":
        return float(min(1.0, 2.0 ** (1 - n)))
    return 0.5**n if (value < 0) == (alternative == "less") else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): p values that hold together for the family, in the order given."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty(len(p))
    result[order] = np.minimum(adjusted, 1.0)
    return [float(x) for x in result]


def _z(level: float, power: float) -> tuple[float, float]:
    return float(stats.norm.isf((1 - level) / 2)), float(stats.norm.ppf(power))


def sample_size(p_a: float, p_b: float, level: float = 0.95, power: float = 0.8) -> float:
    """Independent trials per model for a two-sided test of two proportions, normal approximation (Fleiss 1981).

    Not rounded. ValueError where the proportions are equal.
    """
    if p_a == p_b:
        raise ValueError("no number of questions shows a difference of 0")
    z_level, z_power = _z(level, power)
    pooled = (p_a + p_b) / 2
    spread = z_level * sqrt(2 * pooled * (1 - pooled)) + z_power * sqrt(p_a * (1 - p_a) + p_b * (1 - p_b))
    return (spread / (p_a - p_b)) ** 2


def minimum_detectable_difference(p: float, trials: float, level: float = 0.95, power: float = 0.8) -> float:
    """Smallest true difference from accuracy p that a test of two models with so many trials each would show.

    Two-sided at 1 - level, with the given power, unpaired: on the same questions a paired test can do better. The
    easier direction counts (away from the middle). `trials` may be an effective number. 1 where nothing is enough.
    """
    found = [
        optimize.brentq(lambda d, s=sign: sample_size(p, p + s * d, level, power) - trials, 1e-9, room)
        for sign, room in ((1, 1 - p), (-1, p))
        if room > 1e-6 and sample_size(p, p + sign * room, level, power) <= trials
    ]
    return float(min(found, default=1.0))


def paired_sample_size(only_a: float, only_b: float, level: float = 0.95, power: float = 0.8) -> float:
    """Questions for McNemar's test, from the shares that one model alone would solve (Connor 1987). Not rounded."""
    if only_a == only_b:
        raise ValueError("no number of questions shows a difference of 0")
    z_level, z_power = _z(level, power)
    either, difference = only_a + only_b, only_a - only_b
    return ((z_level * sqrt(either) + z_power * sqrt(either - difference**2)) / difference) ** 2


def paired_detectable_difference(either: float, questions: float, level: float = 0.95, power: float = 0.8) -> float:
    """Smallest accuracy difference McNemar's test would show where a share `either` of the questions is solved by one
    model alone. `either` itself where nothing smaller does."""

    def missing(d: float) -> float:
        return paired_sample_size((either + d) / 2, (either - d) / 2, level, power) - questions

    if either <= 0 or missing(either) > 0:
        return either
    return float(optimize.brentq(missing, 1e-9, either))


def samples_for_width(within_variance: float, questions: int, width: float, level: float = 0.95) -> int:
    """Samples per question until the fixed-set interval of the mean is so narrow; the variance is that of one sample,
    averaged over questions."""
    z = float(stats.norm.isf((1 - level) / 2))
    return max(1, ceil((2 * z / width) ** 2 * within_variance / questions))


def t_power(runs: int, effect: float, level: float = 0.95) -> float:
    """Power of the two-sided two-sample t test with so many runs an arm, for a difference of `effect` standard
    deviations (noncentral t; for a few training seeds)."""
    degrees, shift = 2 * (runs - 1), effect * sqrt(runs / 2)
    critical = stats.t.isf((1 - level) / 2, degrees)
    wrong_side = float(stats.nct.cdf(-critical, degrees, shift))  # scipy has NaN where it is nothing
    return float(stats.nct.sf(critical, degrees, shift)) + (wrong_side if isfinite(wrong_side) else 0.0)


def detectable_effect(runs: int, level: float = 0.95, power: float = 0.8) -> float:
    """Smallest difference of two arms, in standard deviations between runs, that so many runs an arm would show."""
    if runs < 2:
        raise ValueError("one run an arm has no spread to test against")
    return float(optimize.brentq(lambda d: t_power(runs, d, level) - power, 1e-6, 100.0))
