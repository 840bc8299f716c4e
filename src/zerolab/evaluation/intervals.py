"""Intervals of an accuracy and of anything that is averaged over questions and samples.

Suffixes here: R runs (training seeds), Q questions, S samples of a question, B bootstrap replicates.
"""

import math
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import special  # not scipy.stats, which takes a second to import

Level = Literal["runs", "questions", "samples"]
CHUNK = 1_500_000  # values drawn at once
FEWEST = 3  # replicates below which there is no interval


class Interval(NamedTuple):
    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low


def wilson(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Score interval of a binomial proportion (Wilson 1927). ValueError unless 0 <= successes <= trials, trials > 0."""
    _check(successes, trials)
    z = -float(special.ndtri((1 - level) / 2))
    mean, extra = successes / trials, z**2 / trials
    half = math.sqrt(extra * (mean * (1 - mean) + extra / 4))
    low, high = ((mean + extra / 2 + sign * half) / (1 + extra) for sign in (-1, 1))
    return Interval(low if successes else 0.0, high if successes < trials else 1.0)


def clopper_pearson(successes: float, trials: float, level: float = 0.95) -> Interval:
    """Exact interval of a binomial proportion (Clopper and Pearson 1934): covers at least `level`, whatever the truth.

    Fractions are allowed, for effective sample sizes. ValueError unless 0 <= successes <= trials, trials > 0.
    """
    _check(successes, trials)
    tail = (1 - level) / 2
    low = float(special.betaincinv(successes, trials - successes + 1, tail)) if successes > 0 else 0.0
    high = float(special.betainccinv(successes + 1, trials - successes, tail)) if successes < trials else 1.0
    return Interval(low, high)


def _check(successes: float, trials: float) -> None:
    if not 0 <= successes <= trials or trials <= 0:
        raise ValueError(f"{successes} successes of {trials} trials are no proportion")


def population_interval(correct_Q: np.ndarray, samples_Q: np.ndarray, level: float = 0.95) -> Interval:
    """Accuracy on a population of such questions, of which these are a random draw.

    correct_Q of samples_Q responses were right. Questions are the units: Clopper-Pearson at the effective number of
    responses, mean (1 - mean) / variance of the mean (Korn and Graubard 1998), which lies between the number of
    questions and that of responses. With one response a question this is Clopper-Pearson itself.
    """
    effective = effective_responses(correct_Q, samples_Q)
    return clopper_pearson(float((correct_Q / samples_Q).mean()) * effective, effective, level)


def effective_responses(correct_Q: np.ndarray, samples_Q: np.ndarray) -> float:
    """How many independent responses, each to a question of its own, would tell as much about the population.

    Half a disagreement is added to the spread between questions, so that a few right responses among thousands do not
    pass for thousands of questions.
    """
    rate_Q = correct_Q / samples_Q
    error = float(rate_Q.std(ddof=1)) / math.sqrt(len(rate_Q)) if len(rate_Q) > 1 else 0.0
    return _effective(float(rate_Q.mean()), error, len(rate_Q), int(samples_Q.sum()))


def population_interval_of(mean: float, error: float, questions: int, responses: int, level: float = 0.95) -> Interval:
    """`population_interval` from the mean over questions and its standard error."""
    effective = _effective(mean, error, questions, responses)
    return clopper_pearson(mean * effective, effective, level)


def _effective(mean: float, error: float, questions: int, responses: int) -> float:
    if questions < 2:
        return 1.0
    variance = error**2 + 0.25 / (questions - 1) / questions
    return float(min(max(mean * (1 - mean) / variance, questions), responses))


def fixed_set_interval(correct_Q: np.ndarray, samples_Q: np.ndarray, level: float = 0.95) -> Interval:
    """Accuracy on exactly these questions, were the model sampled without end: the sampling noise alone.

    Clopper-Pearson at the effective number of responses, with the variance within questions. Half a disagreement is
    added, so that few samples that happen to agree give no width of zero. With one sample a question the variance
    within is not seen, and the number of responses itself is a safe bound (Hoeffding 1956).
    """
    rate_Q = correct_Q / samples_Q
    questions, mean = len(rate_Q), float(rate_Q.mean())
    responses, degrees = int(samples_Q.sum()), int((samples_Q - 1).sum())
    effective = float(responses)
    if degrees > 0 and 0 < mean < 1:
        within = (float((samples_Q * rate_Q * (1 - rate_Q)).sum()) + 0.5) / (degrees + 1)
        variance = within * float((1 / samples_Q).sum()) / questions**2
        effective = max(effective, mean * (1 - mean) / variance)
    return clopper_pearson(mean * effective, effective, level)


def t_interval(values: Sequence[float] | np.ndarray, level: float = 0.95, share: bool = False) -> Interval:
    """Student's interval of a mean over replicates, such as seeds; NaN if there are fewer than FEWEST.

    Equal values have no spread. They then need to be enough for the sign test: at 95 %, n = 6 (2^(1-n) < .05). The
    interval has no width, and with fewer of them it is NaN.

    Args:
        share: the values are shares; the interval is taken on the scale of log odds, so that it stays within 0 and 1.
    """
    array = np.asarray(values, float)
    if len(array) < FEWEST:
        return Interval(math.nan, math.nan)
    spread = float(array.std(ddof=1))
    if spread == 0 and 2.0 ** (1 - len(array)) > 1 - level:
        return Interval(math.nan, math.nan)
    return t_interval_of(float(array.mean()), spread, len(array), level, share)


def t_interval_of(mean: float, spread: float, count: int, level: float = 0.95, share: bool = False) -> Interval:
    """The same from the mean, the standard deviation and the number of the replicates."""
    half = t_quantile(level, count - 1) * spread / math.sqrt(count)
    if not share or not 0 < mean < 1:
        return Interval(mean - half, mean + half)
    odds, half = math.log(mean / (1 - mean)), half / (mean * (1 - mean))  # the delta method
    return Interval(float(special.expit(odds - half)), float(special.expit(odds + half)))


def t_quantile(level: float, degrees: float) -> float:
    """The half-width, in standard errors, of Student's two-sided interval."""
    return -float(special.stdtrit(degrees, (1 - level) / 2))


def weighted_interval(
    estimates: Sequence[float], intervals: Sequence[Interval], weights: Sequence[float] | None = None
) -> Interval:
    """Interval of a weighted sum of independent estimates from the interval of each (MOVER, Zou and Donner 2008).

    Weights are those of a mean unless given; [1, -1] gives a difference, which with Wilson's intervals is Newcombe's.
    """
    weights_N = np.full(len(estimates), 1 / len(estimates)) if weights is None else np.asarray(weights, float)
    centre_N, low_N, high_N = (np.asarray(x, float) for x in (estimates, *zip(*intervals, strict=True)))
    below_N, above_N = centre_N - low_N, high_N - centre_N
    positive_N = weights_N >= 0
    down = np.sqrt((weights_N**2 * np.where(positive_N, below_N, above_N) ** 2).sum())
    up = np.sqrt((weights_N**2 * np.where(positive_N, above_N, below_N) ** 2).sum())
    centre = float(weights_N @ centre_N)
    return Interval(centre - float(down), centre + float(up))


def bootstrap_means(
    values: np.ndarray,
    replicates: int = 10_000,
    *,
    seed: int = 0,
    stream: int = 0,
    over: Collection[Level] = ("runs", "questions", "samples"),
) -> np.ndarray:
    """[B] replicates of the mean over runs and questions of the mean over samples.

    values is [Q], [Q, S] or [R, Q, S]; NaN marks a sample that is not there, each question of a run has at least one.
    Runs and questions are drawn crossed (all runs saw the same questions), samples inside a question of a run. What is
    not in `over` stays as it is.

    Calls with equal `seed` and number of questions draw the same questions, with equal `stream` and shape also the same
    samples: the difference or the ratio of two calls is that of a paired replicate. Means of questions carry their
    sampling noise already, so an interval for a population of questions is drawn over questions (and runs) alone;
    drawing samples as well counts that noise twice (Davison and Hinkley 1997, section 3.8) and is too wide.
    """
    values_RQS = np.asarray(values, dtype=np.float64)
    values_RQS = values_RQS[:, None] if values_RQS.ndim == 1 else values_RQS
    values_RQS = values_RQS[None] if values_RQS.ndim == 2 else values_RQS
    values_RQS, samples_RQ = _packed(values_RQS)
    if "samples" not in over or values_RQS.shape[2] == 1:
        values_RQS = np.nansum(values_RQS, axis=2, keepdims=True) / samples_RQ[:, :, None]
        samples_RQ = np.ones_like(samples_RQ)
    runs, questions, samples = values_RQS.shape
    draw_questions, draw_runs = (np.random.Generator(np.random.Philox(key=[seed, kind])) for kind in (0, 1))
    draw_samples = np.random.Generator(np.random.Philox(key=[seed, 2 + stream]))
    means_B = np.empty(replicates)
    step = max(1, CHUNK // values_RQS.size)
    for start in range(0, replicates, step):
        size = min(step, replicates - start)
        q_BQ = np.broadcast_to(np.arange(questions), (size, questions))
        r_BR = np.broadcast_to(np.arange(runs), (size, runs))
        q_BQ = draw_questions.integers(0, questions, (size, questions)) if "questions" in over else q_BQ
        r_BR = draw_runs.integers(0, runs, (size, runs)) if "runs" in over else r_BR
        row_BRQ = r_BR[:, :, None] * questions + q_BQ[:, None, :]
        drawn = _drawn(values_RQS, samples_RQ, row_BRQ, draw_samples if samples > 1 else None)
        means_B[start : start + size] = drawn.reshape(size, -1).mean(1)
    return means_B


def bootstrap_weights(questions: int, replicates: int = 10_000, seed: int = 0) -> np.ndarray:
    """[B, Q] weights, each row summing to 1, whose product with values of questions is `bootstrap_means(values_Q)`: for
    many columns over the same questions."""
    draw = np.random.Generator(np.random.Philox(key=[seed, 0]))
    drawn_BQ = draw.integers(0, questions, (replicates, questions))
    flat = (drawn_BQ + questions * np.arange(replicates)[:, None]).ravel()
    return np.bincount(flat, minlength=replicates * questions).reshape(replicates, questions) / questions


def fieller(
    numerator: float, denominator: float, covariance: np.ndarray, degrees: float, level: float = 0.95
) -> Interval | None:
    """Interval of the ratio of two estimates with this 2 x 2 covariance (Fieller 1954); None if the denominator may be
    0, where no interval of finite width covers.

    It holds every ratio r for which numerator - r denominator is within its own error of 0.
    """
    t2 = t_quantile(level, degrees) ** 2
    (var_n, cov), (_, var_d) = np.asarray(covariance, dtype=float)
    a, b, c = denominator**2 - t2 * var_d, numerator * denominator - t2 * cov, numerator**2 - t2 * var_n
    if a <= 0:
        return None
    root = float(np.sqrt(max(b**2 - a * c, 0.0)))
    return Interval((b - root) / a, (b + root) / a)


def _packed(values_RQS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(values with those that are there first, how many samples each question of each run has)."""
    missing_RQS = np.isnan(values_RQS)
    samples_RQ = (~missing_RQS).sum(2)
    if values_RQS.size == 0 or (samples_RQ == 0).any():
        raise ValueError("every question needs at least one value")
    if not missing_RQS.any():
        return values_RQS, samples_RQ
    order_RQS = np.argsort(missing_RQS, axis=2, kind="stable")
    return np.take_along_axis(values_RQS, order_RQS, axis=2), samples_RQ


def _drawn(
    values_RQS: np.ndarray, samples_RQ: np.ndarray, row_BRQ: np.ndarray, draw: np.random.Generator | None
) -> np.ndarray:
    """Values of the drawn questions: the only one, or as many draws of its samples as the question has (their mean)."""
    samples = values_RQS.shape[2]
    flat = values_RQS.reshape(-1)
    if draw is None:
        return flat[row_BRQ * samples]
    row_BRQ1 = (row_BRQ * samples)[..., None]
    if (samples_RQ == samples).all():
        kind = np.uint8 if samples < 256 else np.uint32
        at = draw.integers(0, samples, (*row_BRQ.shape, samples), dtype=kind)
        return flat[row_BRQ1 + at]
    count_BRQ1 = samples_RQ.reshape(-1)[row_BRQ][..., None]
    at = (draw.random((*row_BRQ.shape, samples)) * count_BRQ1).astype(np.int64)
    there = np.arange(samples) < count_BRQ1  # as many draws as the question has samples
    return np.where(there, flat[row_BRQ1 + at], 0).sum(-1) / count_BRQ1[..., 0]


def percentile_interval(replicates_B: np.ndarray, level: float = 0.95) -> Interval:
    """Percentile interval of bootstrap replicates; those that are not finite (no denominator) do not count."""
    finite_B = replicates_B[np.isfinite(replicates_B)]
    if not len(finite_B):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(finite_B, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def bootstrap(
    values: np.ndarray,
    level: float = 0.95,
    replicates: int = 10_000,
    *,
    seed: int = 0,
    over: Collection[Level] = ("runs", "questions", "samples"),
) -> Interval:
    """Hierarchical bootstrap interval of a mean; see `bootstrap_means`."""
    return percentile_interval(bootstrap_means(values, replicates, seed=seed, over=over), level)
