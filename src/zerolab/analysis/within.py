"""A difference of accuracy inside questions, so that their difficulty cannot fake it.

Easy questions may draw fewer reflections than hard ones, and then reflection looks harmful although it changes nothing.
Responses to one question all have its difficulty: only they are compared with each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from zerolab.evaluation.statistics import Interval, percentile_interval

REPLICATES = 10_000
FEWEST = 5  # informative questions from which on a bootstrap over questions means anything


@dataclass(frozen=True)
class WithinDifference:
    """Accuracy of marked minus unmarked responses, in [-1, 1]. None where the data do not say."""

    difference: float | None
    interval: Interval | None  # 95 %, bootstrap over questions
    p_value: float | None  # Cochran-Mantel-Haenszel: the mark and correctness are independent inside questions
    questions: int
    informative: int  # questions with both kinds: the others say nothing
    marked: int  # responses
    pooled_difference: float | None  # over all responses without regard to the question: confounded by difficulty


def within_difference(
    question_N: Sequence[int] | np.ndarray,
    marked_N: Sequence[bool] | np.ndarray,
    correct_N: Sequence[bool] | np.ndarray,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> WithinDifference:
    """Mantel-Haenszel risk difference with questions as strata (Greenland and Robins 1985, eq. for RD).

    A question with n1 marked and n0 unmarked responses has weight n1 n0 / (n1 + n0), the inverse variance of its
    difference up to a factor; a question of one kind only has none.
    """
    question_N = np.asarray(question_N)
    marked_N, correct_N = np.asarray(marked_N, bool), np.asarray(correct_N, bool)
    names, index_N = np.unique(question_N, return_inverse=True)
    size = len(names)
    n1_Q = np.bincount(index_N, marked_N, size)
    n0_Q = np.bincount(index_N, ~marked_N, size)
    right1_Q = np.bincount(index_N, marked_N & correct_N, size)
    right0_Q = np.bincount(index_N, ~marked_N & correct_N, size)
    both_Q = (n1_Q > 0) & (n0_Q > 0)
    n1_Q, n0_Q, right1_Q, right0_Q = (x[both_Q] for x in (n1_Q, n0_Q, right1_Q, right0_Q))
    pooled = None
    if marked_N.any() and not marked_N.all():
        pooled = float(correct_N[marked_N].mean() - correct_N[~marked_N].mean())
    informative, marked = int(both_Q.sum()), int(marked_N.sum())
    if not informative:
        return WithinDifference(None, None, None, size, 0, marked, pooled)
    weight_Q = n1_Q * n0_Q / (n1_Q + n0_Q)
    gain_Q = weight_Q * (right1_Q / n1_Q - right0_Q / n0_Q)
    difference = float(gain_Q.sum() / weight_Q.sum())
    interval = None
    p_value = _independence(n1_Q, n0_Q, right1_Q, right1_Q + right0_Q)
    if informative >= FEWEST and p_value is not None:
        interval = percentile_interval(_ratios(gain_Q, weight_Q, replicates, seed))
    return WithinDifference(difference, interval, p_value, size, informative, marked, pooled)


def _ratios(top_Q: np.ndarray, bottom_Q: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """[B] sum(top) / sum(bottom) over questions drawn with replacement."""
    draw = np.random.default_rng(seed)
    size, found = len(top_Q), []
    for start in range(0, replicates, 1000):
        count_BQ = draw.multinomial(size, np.full(size, 1 / size), min(1000, replicates - start))
        found.append((count_BQ @ top_Q) / (count_BQ @ bottom_Q))
    return np.concatenate(found)


def _independence(n1_Q: np.ndarray, n0_Q: np.ndarray, right1_Q: np.ndarray, right_Q: np.ndarray) -> float | None:
    """Two-sided p of Cochran-Mantel-Haenszel: given a question's totals, the right ones among the marked are
    hypergeometric. None where every question is all right or all wrong."""
    n_Q = n1_Q + n0_Q
    expected_Q = n1_Q * right_Q / n_Q
    variance_Q = n1_Q * n0_Q * right_Q * (n_Q - right_Q) / (n_Q**2 * (n_Q - 1))
    variance = float(variance_Q.sum())
    if variance <= 0:
        return None
    return float(stats.chi2.sf(float((right1_Q - expected_Q).sum()) ** 2 / variance, 1))
