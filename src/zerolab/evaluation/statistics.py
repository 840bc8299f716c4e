"""The statistics of an honest comparison, in one place; each has its own file and its test against published values."""

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
from zerolab.evaluation.passk import NO_ANSWER, equivalence_classes, maj_at_k, pass_at_k
from zerolab.evaluation.power import (
    detectable_effect,
    minimum_detectable_difference,
    paired_detectable_difference,
    paired_sample_size,
    sample_size,
    samples_for_width,
    t_power,
)
from zerolab.evaluation.significance import (
    Equivalence,
    holm,
    mcnemar,
    paired_interval,
    paired_score,
    paired_t,
    tost_greedy,
    tost_paired,
    tost_unpaired,
)

__all__ = [
    "NO_ANSWER", "Equivalence", "Interval", "bootstrap", "bootstrap_means", "clopper_pearson", "detectable_effect",
    "equivalence_classes", "fixed_set_interval", "holm", "maj_at_k", "mcnemar", "minimum_detectable_difference",
    "paired_detectable_difference", "paired_interval", "paired_sample_size", "paired_score", "paired_t", "pass_at_k",
    "percentile_interval", "population_interval", "sample_size", "samples_for_width", "t_power", "tost_greedy",
    "tost_paired", "tost_unpaired", "weighted_interval", "wilson",
]  # fmt: skip
