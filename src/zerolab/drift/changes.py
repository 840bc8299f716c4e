"""The change of accuracy, lengths and truncation by one step, by importance weights and by plain sampling.

A step moves the policy from pi to pi'. For a value v of a response (1 if it is right, its length, ...) the change of
its mean is E_pi'[v] - E_pi[v] = E_pi[(w - 1) v] with w = pi'(o) / pi(o). Over S samples of one question we take the
sample covariance of w and v: it is unbiased, since E[w] = 1, and needs no samples from pi'. Plain sampling draws from
pi' and subtracts. The length of right responses is a quotient of two means, each over all questions.

Suffixes here: Q questions, S responses to each, B bootstrap replicates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from zerolab.datatypes import Group
from zerolab.evaluation.intervals import Interval, bootstrap_weights, fieller, percentile_interval

METRICS = {  # in tables -> what it is
    "accuracy": "share of responses that are right",
    "right": "tokens of a right response",
    "wrong": "tokens of a wrong response",
    "truncated": "share of responses that the budget cuts off",
    "reward": "mean reward under the truncation policy",
}
REPLICATES = 10_000
ALPHA = 0.05  # of all checks of a report together
EFFECTIVE = 0.5  # importance weights that are worth less than this share of the responses are not trusted


@dataclass(frozen=True)
class Sample:
    """Graded responses, every array [Q, S].

    `probability` is None for responses that were drawn; else the S columns list every response that exists, and it
    holds their probabilities: sums over them are exact.
    """

    correct: np.ndarray  # bool
    length: np.ndarray  # tokens
    truncated: np.ndarray  # bool
    reward: np.ndarray
    enters: np.ndarray  # bool: False if the truncation policy masks the response
    probability: np.ndarray | None = None

    @classmethod
    def of(cls, groups: Sequence[Group]) -> "Sample":
        masks = [np.ones(len(g.completions), bool) if g.loss_mask_G is None else g.loss_mask_G for g in groups]
        return cls(
            correct=np.array([[grade.correct for grade in g.grades] for g in groups]),
            length=np.array([[len(c) for c in g.completions] for g in groups], dtype=float),
            truncated=np.array([[c.truncated for c in g.completions] for g in groups]),
            reward=np.array([g.rewards_G for g in groups]),
            enters=np.array(masks),
        )

    def quotient(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """(value_QS, unit_QS): the metric is the mean of the first over the mean of the second."""
        one_QS = np.ones_like(self.length)
        if metric in ("right", "wrong"):
            unit_QS = (self.correct if metric == "right" else ~self.correct).astype(float)
            return unit_QS * self.length, unit_QS
        if metric == "reward":  # under `mask` E[R | not masked]
            return self.reward * self.enters, self.enters.astype(float)
        return {"accuracy": self.correct, "truncated": self.truncated}[metric].astype(float), one_QS

    def mean(self, value_QS: np.ndarray) -> np.ndarray:
        """mean_Q of a value under pi."""
        return value_QS.mean(1) if self.probability is None else (self.probability * value_QS).sum(1)

    def change(self, value_QS: np.ndarray, weight_QS: np.ndarray) -> np.ndarray:
        """change_Q of the mean from pi to pi', by the importance weights pi'(o) / pi(o)."""
        if self.probability is not None:
            return (self.probability * (weight_QS - 1) * value_QS).sum(1)
        centred_QS = value_QS - value_QS.mean(1, keepdims=True)
        return (weight_QS * centred_QS).sum(1) / (value_QS.shape[1] - 1)


@dataclass(frozen=True)
class Moved:
    """What is known of a policy after a step: log pi'(o) - log pi(o) of the sample's responses after the whole step and
    after half of it, and responses drawn after the whole step to the same questions (None: not drawn)."""

    whole_QS: np.ndarray
    half_QS: np.ndarray
    plain: Sample | None = None


@dataclass(frozen=True)
class Change:
    """What a step does to one metric; shares between 0 and 1, lengths in tokens. None if no response has it."""

    metric: str
    before: float
    change: float  # after the whole step, by importance weights
    interval: Interval
    twice_half: float  # twice the change after half of the step: the same if the step is small enough
    plain: float | None  # after the whole step, by plain sampling
    plain_interval: Interval | None
    per_reward: float | None  # change for each unit of reward gained, None if the gain's interval holds 0
    per_reward_interval: Interval | None
    p_half: float  # that whole and half step agree
    p_plain: float | None  # that importance weights and plain sampling agree
    error: float  # half the width of the interval

    def disagreements(self, checks: int) -> list[str]:
        """What fails, at level ALPHA for `checks` checks together. A difference between the step sizes has to exceed
        the error of the change as well: below it the curve of the step cannot matter."""
        found = []
        if self.p_half * checks < ALPHA and abs(self.change - self.twice_half) > self.error:
            found.append(
                f"{self.metric}: half the step does {self.twice_half / 2:+.3g}, not half of {self.change:+.3g}"
            )
        if self.plain is not None and self.p_plain is not None and self.p_plain * checks < ALPHA:
            found.append(f"{self.metric}: plain sampling finds {self.plain:+.3g}, not {self.change:+.3g}")
        return found


@dataclass(frozen=True)
class Difference:
    """The change of one metric by a step, minus that by another, paired: both are measured on the same responses."""

    metric: str
    difference: float
    interval: Interval


def effective_share(log_weight_QS: np.ndarray) -> float:
    """Of the responses, the share that importance weights leave as if drawn from pi': (sum w)^2 / (n sum w^2)."""
    weight_QS = np.exp(log_weight_QS)
    return float((weight_QS.sum(1) ** 2 / (weight_QS**2).sum(1)).mean() / weight_QS.shape[1])


def measure_changes(sample: Sample, moved: Moved, seed: int = 0) -> list[Change]:
    """The change of every metric, with a bootstrap over questions; metrics that no response has are left out."""
    draw_BQ = bootstrap_weights(len(sample.correct), REPLICATES, seed)
    gain = _Replicates(sample, moved, "reward", draw_BQ)
    found = []
    for metric in METRICS:
        of = gain if metric == "reward" else _Replicates(sample, moved, metric, draw_BQ)
        if of.exists:
            found.append(_change(metric, of, gain))
    return found


def measure_differences(sample: Sample, moved: Moved, other: Moved, seed: int = 0) -> list[Difference]:
    """What `moved` does beyond `other`, for every metric, by importance weights."""
    draw_BQ = bootstrap_weights(len(sample.correct), REPLICATES, seed)
    found = []
    for metric in METRICS:
        ours, theirs = (_Replicates(sample, step, metric, draw_BQ) for step in (moved, other))
        if ours.exists:
            values = ours.whole - theirs.whole
            found.append(Difference(metric, float(values[0]), percentile_interval(values[1:])))
    return found


class _Replicates:
    """One metric: estimates in [0], bootstrap replicates after it, for every way to measure its change."""

    def __init__(self, sample: Sample, moved: Moved, metric: str, draw_BQ: np.ndarray):
        rows = np.vstack([np.full(draw_BQ.shape[1], 1 / draw_BQ.shape[1]), draw_BQ])
        value_QS, unit_QS = sample.quotient(metric)
        value, unit = rows @ sample.mean(value_QS), rows @ sample.mean(unit_QS)
        self.exists = bool(unit[0] > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.before = value / unit

            def after(log_weight_QS: np.ndarray) -> np.ndarray:
                weight_QS = np.exp(log_weight_QS)
                up, down = (rows @ sample.change(x, weight_QS) for x in (value_QS, unit_QS))
                return (value + up) / (unit + down) - self.before

            self.whole, self.half = after(moved.whole_QS), 2 * after(moved.half_QS)
            self.plain = None
            if moved.plain is not None:
                value_QS, unit_QS = moved.plain.quotient(metric)
                self.plain = rows @ moved.plain.mean(value_QS) / (rows @ moved.plain.mean(unit_QS)) - self.before
        self.degrees = draw_BQ.shape[1] - 1

    def p_of_zero(self, values: np.ndarray) -> float:
        """Two-sided p that the estimate is 0, by its bootstrap error."""
        error = float(np.nanstd(values[1:][np.isfinite(values[1:])])) if np.isfinite(values[1:]).any() else 0.0
        if error == 0:
            return 1.0
        return float(2 * stats.t.sf(abs(values[0]) / error, self.degrees))


def _change(metric: str, of: _Replicates, gain: _Replicates) -> Change:
    interval = percentile_interval(of.whole[1:])
    ratio, ratio_interval = _per_reward(of, gain) if of is not gain else (None, None)
    return Change(
        metric=metric,
        before=float(of.before[0]),
        change=float(of.whole[0]),
        interval=interval,
        twice_half=float(of.half[0]),
        plain=None if of.plain is None else float(of.plain[0]),
        plain_interval=None if of.plain is None else percentile_interval(of.plain[1:]),
        per_reward=ratio,
        per_reward_interval=ratio_interval,
        p_half=of.p_of_zero(of.whole - of.half),
        p_plain=None if of.plain is None else of.p_of_zero(of.plain - of.whole),
        error=interval.width / 2,
    )


def _per_reward(of: _Replicates, gain: _Replicates) -> tuple[float | None, Interval | None]:
    """Change for each unit of reward gained, by Fieller; (None, None) unless the gain's interval excludes 0."""
    both = np.stack([of.whole[1:], gain.whole[1:]])
    low, high = percentile_interval(gain.whole[1:])
    both = both[:, np.isfinite(both).all(0)]
    if not (low > 0 or high < 0) or not both.shape[1]:
        return None, None
    interval = fieller(float(of.whole[0]), float(gain.whole[0]), np.cov(both), gain.degrees)
    return (float(of.whole[0] / gain.whole[0]), interval) if interval else (None, None)
