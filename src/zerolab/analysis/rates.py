"""Group responses by their sampling settings, and compute rates, agreement and paired differences over questions.

A difference of accuracy between two kinds of responses is taken inside each question. Easy questions may draw fewer
reflections than hard ones; across questions, reflection would then look harmful although it changes nothing.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from zerolab.evaluation.intervals import Interval, percentile_interval, population_interval
from zerolab.evaluation.responses import Response

SETTING = ("model", "template", "temperature")  # the columns of a Setting


class Setting(NamedTuple):
    """ "" and None where a file does not say."""

    model: str
    template: str
    temperature: float | None

    @property
    def label(self) -> str:
        parts = [self.model, self.template, "" if self.temperature is None else f"T={self.temperature:g}"]
        return " ".join(part for part in parts if part) or "responses"


@dataclass(frozen=True)
class Cell:
    """Responses under one setting."""

    setting: Setting
    responses: tuple[Response, ...]

    @property
    def question_N(self) -> np.ndarray:
        """[N] number of the question of each response, from 0 in order of appearance."""
        names: dict[tuple[str, str], int] = {}
        return np.array([names.setdefault((r.benchmark, r.question_id), len(names)) for r in self.responses])

    @property
    def samples_Q(self) -> np.ndarray:
        return np.bincount(self.question_N)

    def flags(self, of: Callable[[Response], bool]) -> np.ndarray:
        """[N] bool."""
        return np.array([of(r) for r in self.responses], bool)


def cells(responses: Sequence[Response]) -> list[Cell]:
    """One cell a setting, by model, template and temperature."""
    found: dict[Setting, list[Response]] = {}
    for response in responses:
        key = Setting(response.model, response.template, response.temperature)
        found.setdefault(key, []).append(response)
    order = sorted(found, key=lambda s: (s.model, s.template, -1.0 if s.temperature is None else s.temperature))
    return [Cell(setting, tuple(found[setting])) for setting in order]


class Rate(NamedTuple):
    """A mean over questions of the share of their responses, with its 95 % interval for a population of such questions.

    None where there is no response to take it of.
    """

    value: float | None
    interval: Interval | None
    responses: int


def rate(flags_N: np.ndarray, question_N: np.ndarray, chosen_N: np.ndarray | None = None) -> Rate:
    """Questions are the units: each counts alike, and the interval is that of as many draws of questions."""
    if chosen_N is not None:
        flags_N, question_N = flags_N[chosen_N], question_N[chosen_N]
    if not len(flags_N):
        return Rate(None, None, 0)
    _, question_N = np.unique(question_N, return_inverse=True)
    samples_Q = np.bincount(question_N)
    hits_Q = np.bincount(question_N, flags_N.astype(float))
    value = float((hits_Q / samples_Q).mean())
    return Rate(value, population_interval(hits_Q, samples_Q), len(flags_N))


def any_rate(flags_N: np.ndarray, question_N: np.ndarray) -> Rate:
    """Share of questions with at least one such response."""
    if not len(flags_N):
        return Rate(None, None, 0)
    hit_Q = (np.bincount(question_N, flags_N.astype(float)) > 0).astype(float)
    return Rate(float(hit_Q.mean()), population_interval(hit_Q, np.ones(len(hit_Q), int)), len(flags_N))


def solved(response: Response) -> bool:
    """Right in the template's own format, truncated or not: what `zerolab evaluate` counts."""
    return bool(response.grade and response.grade.correct)


@dataclass(frozen=True)
class Agreement:
    """Cohen's kappa; None where both detectors say the same one thing throughout, so that chance explains all."""

    items: int
    observed: float  # share of items with equal labels
    kappa: float | None
    interval: Interval | None  # 95 %, bootstrap over clusters


def cohen_kappa(table_KK: np.ndarray) -> float:
    """(p_o - p_e) / (1 - p_e) of a table of counts (Cohen 1960); NaN where chance alone explains full agreement."""
    total = table_KK.sum()
    observed = np.trace(table_KK) / total
    expected = float(table_KK.sum(0) @ table_KK.sum(1)) / total**2
    return float("nan") if expected >= 1 else float((observed - expected) / (1 - expected))


def agreement(
    a: Sequence[Hashable],
    b: Sequence[Hashable],
    clusters: Sequence[Hashable] | None = None,
    *,
    replicates: int = 2000,
    seed: int = 0,
) -> Agreement:
    """Kappa of two lists of labels. `clusters` (questions, say) are what the bootstrap draws; items by default.

    ValueError for lists of different lengths or without an item.
    """
    if not len(a) or len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} labels cannot be compared")
    labels = {label: i for i, label in enumerate(dict.fromkeys([*a, *b]))}
    size = len(labels)
    cell_N = np.array([labels[x] * size + labels[y] for x, y in zip(a, b, strict=True)])
    names: dict[Hashable, int] = {}
    keys = range(len(a)) if clusters is None else clusters
    cluster_N = np.array([names.setdefault(key, len(names)) for key in keys])
    table_CK = np.zeros((len(names), size * size))
    np.add.at(table_CK, (cluster_N, cell_N), 1)
    table = table_CK.sum(0).reshape(size, size)
    kappa = cohen_kappa(table)
    observed = float(np.trace(table) / table.sum())
    if np.isnan(kappa):
        return Agreement(len(a), observed, None, None)
    draw = np.random.default_rng(seed)
    count_BC = draw.multinomial(len(names), np.full(len(names), 1 / len(names)), replicates)
    found_B = np.array([cohen_kappa(t.reshape(size, size)) for t in count_BC @ table_CK])
    return Agreement(len(a), observed, kappa, percentile_interval(found_B))


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
