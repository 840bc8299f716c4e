"""How many questions, samples or seeds it takes to see a difference, and the smallest that a given number can show."""

from math import ceil, isfinite, sqrt

from scipy import optimize, stats


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
