"""Two models on the same questions: who is better, whether they are equal, and whether one needs fewer tokens."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zerolab.evaluation.intervals import Interval, Level, bootstrap_means, percentile_interval
from zerolab.evaluation.responses import Response, text_id
from zerolab.evaluation.score import Table
from zerolab.evaluation.significance import (
    Equivalence,
    holm,
    mcnemar,
    paired_interval,
    paired_t,
    tost_estimate,
    tost_greedy,
    tost_paired,
)

REPLICATES = 10_000
QUESTIONS: tuple[Level, ...] = ("questions",)


@dataclass(frozen=True)
class Comparison:
    """b against a on one benchmark or on the average: differences are b - a, shares between 0 and 1.

    `p_better`: of no difference in accuracy, two-sided. `equal`: two one-sided tests. `p_shorter`: of b using as many
    tokens as a or more, one-sided; None, as the ratio b / a, where lengths are not known.
    """

    benchmark: str
    a: str
    b: str
    questions: int
    difference: float
    interval: Interval
    p_better: float
    method: str
    equal: Equivalence
    token_ratio: float | None
    token_interval: Interval | None
    p_shorter: float | None


@dataclass(frozen=True)
class Pair:
    """One benchmark of two models: the questions that both answered, in one order."""

    benchmark: str
    a: Table
    b: Table
    left_out: int  # questions that only one of them answered


def pair_up(a: Sequence[Table], b: Sequence[Table]) -> list[Pair]:
    """Questions are the same where their words are. Two files of one benchmark each are of the same one, whatever their
    names say."""
    by_name = {table.name: table for table in b}
    if len(a) == len(b) == 1:
        by_name = {a[0].name: b[0]}
    return [found for table in a if table.name in by_name and (found := _pair(table, by_name[table.name]))]


def _pair(a: Table, b: Table) -> Pair | None:
    left, right = (_by_words(table) for table in (a, b))
    shared = [key for key in left if key in right]
    if not shared:
        return None
    chosen = [
        Table(a.name, tuple(rows[key][0].question_id for key in shared), tuple(rows[key] for key in shared))
        for rows in (left, right)
    ]
    return Pair(a.name, chosen[0], chosen[1], len(left.keys() ^ right.keys()))


def _by_words(table: Table) -> dict[tuple[str, int], tuple[Response, ...]]:
    """Samples by question: its words, and the how manieth of these words it is."""
    seen: Counter[str] = Counter()
    found = {}
    for row in table.responses_QS:
        name = text_id(row[0].problem) if row[0].problem else row[0].question_id
        found[name, seen[name]] = row
        seen[name] += 1
    return found


def compare(pair: Pair, names: tuple[str, str], margin: float, seed: int = 0) -> Comparison:
    """Exact McNemar and Tango's interval for one response a question each; otherwise a paired bootstrap over questions,
    whose samples ride along, and t tests on the differences of the questions.

    Equality is not concluded if every response of both models has the same verdict: that says something about the
    format or the questions, not about the models.
    """
    a, b = pair.a, pair.b
    questions = len(a.responses_QS)
    difference_Q = np.nanmean(b.correct_QS, 1) - np.nanmean(a.correct_QS, 1)
    if a.correct_QS.shape[1] == b.correct_QS.shape[1] == 1:
        only_b, only_a = int((difference_Q > 0).sum()), int((difference_Q < 0).sum())
        interval, p = paired_interval(only_b, only_a, questions), mcnemar(only_b, only_a)
        equal, method = tost_greedy(only_b, only_a, questions, margin), f"McNemar {only_b}:{only_a}"
    else:
        means_B = bootstrap_means(difference_Q, REPLICATES, seed=seed, over=QUESTIONS)
        interval, p, method = percentile_interval(means_B), bootstrap_p(means_B), "bootstrap"
        equal = tost_paired(difference_Q, margin, largest=1.0)
        if not difference_Q.any():  # every replicate is 0, which is no interval
            interval = paired_interval(0, 0, questions)
    if is_constant(pair):
        equal = unknown_equivalence(float(difference_Q.mean()))
    ratio, ratio_interval, shorter = _tokens(a, b, seed)
    return Comparison(
        pair.benchmark, *names, questions, float(difference_Q.mean()), interval, p, method, equal, ratio,
        ratio_interval, shorter,
    )  # fmt: skip


def is_constant(pair: Pair) -> bool:
    """Whether every response of both models has the same verdict."""
    found = np.concatenate([table.correct_QS[np.isfinite(table.correct_QS)] for table in (pair.a, pair.b)])
    return bool((found == found[0]).all())


def unknown_equivalence(difference: float) -> Equivalence:
    return Equivalence(1.0, difference, Interval(-1.0, 1.0))


def _tokens(a: Table, b: Table, seed: int) -> tuple[float | None, Interval | None, float | None]:
    lengths = _lengths(a, b)
    if lengths is None:
        return None, None, None
    a_Q, b_Q = lengths
    a_B, b_B = (bootstrap_means(lengths_Q, REPLICATES, seed=seed) for lengths_Q in (a_Q, b_Q))
    ratio = float(b_Q.mean() / a_Q.mean()) if a_Q.mean() else float("nan")
    return ratio, percentile_interval(b_B / np.maximum(a_B, 1e-9)), paired_t(b_Q - a_Q, "less")


def _lengths(a: Table, b: Table) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean tokens of each question; None where a length is not known."""
    for table in (a, b):
        if np.isfinite(table.tokens_QS).sum() != table.samples_Q.sum():
            return None
    return np.nanmean(a.tokens_QS, 1), np.nanmean(b.tokens_QS, 1)


def bootstrap_p(difference_B: np.ndarray) -> float:
    """Two-sided p of no difference: twice the rarer side of zero among the replicates, never below 2 / (B + 1)."""
    size = len(difference_B)
    side = min((difference_B <= 0).sum(), (difference_B >= 0).sum())
    return float(min(1.0, 2 * (side + 1) / (size + 1)))


def compare_average(pairs: Sequence[Pair], names: tuple[str, str], margin: float, seed: int = 0) -> Comparison | None:
    """The unweighted mean over benchmarks: questions are drawn inside each of them."""
    if len(pairs) < 2:
        return None
    each = [np.nanmean(pair.b.correct_QS, 1) - np.nanmean(pair.a.correct_QS, 1) for pair in pairs]
    draws = [bootstrap_means(d_Q, REPLICATES, seed=seed + i, over=QUESTIONS) for i, d_Q in enumerate(each)]
    means_B = np.mean(draws, 0)
    difference = float(np.mean([d_Q.mean() for d_Q in each]))
    error = float(np.sqrt(sum(d_Q.var(ddof=1) / len(d_Q) for d_Q in each if len(d_Q) > 1))) / len(each)
    known = error > 0 and not any(is_constant(pair) for pair in pairs)
    equal = tost_estimate(difference, error, np.inf, margin) if known else unknown_equivalence(difference)
    interval = percentile_interval(means_B)
    if not any(d_Q.any() for d_Q in each):  # every replicate is 0, which is no interval
        interval = paired_interval(0, 0, min(map(len, each)))
    ratio, ratio_interval, shorter = _average_tokens(pairs, seed)
    questions = sum(len(pair.a.responses_QS) for pair in pairs)
    return Comparison(
        "average", *names, questions, difference, interval, bootstrap_p(means_B), "bootstrap",
        equal, ratio, ratio_interval, shorter,
    )  # fmt: skip


def _average_tokens(pairs: Sequence[Pair], seed: int) -> tuple[float | None, Interval | None, float | None]:
    lengths = [_lengths(pair.a, pair.b) for pair in pairs]
    known = [pair for pair in lengths if pair is not None]
    if len(known) < len(lengths):
        return None, None, None
    a_B, b_B = (
        np.mean([bootstrap_means(pair[side], REPLICATES, seed=seed + i) for i, pair in enumerate(known)], 0)
        for side in (0, 1)
    )
    a, b = (float(np.mean([pair[side].mean() for pair in known])) for side in (0, 1))
    shorter = float((1 + (b_B >= a_B).sum()) / (len(a_B) + 1))
    return b / a if a else float("nan"), percentile_interval(b_B / np.maximum(a_B, 1e-9)), shorter


def holm_columns(comparisons: Sequence[Comparison]) -> Mapping[str, list[float | None]]:
    """The p values of each question asked, corrected over all its rows: one family a column."""
    adjusted: dict[str, list[float | None]] = {
        "better": list(holm([c.p_better for c in comparisons])),
        "equal": list(holm([c.equal.p for c in comparisons])),
        "shorter": [None] * len(comparisons),
    }
    known = [i for i, c in enumerate(comparisons) if c.p_shorter is not None]
    for i, p in zip(known, holm([comparisons[i].p_shorter or 0.0 for i in known]), strict=True):
        adjusted["shorter"][i] = p
    return adjusted


def verdict(comparison: Comparison, better: float, equal: float, shorter: float | None, alpha: float = 0.05) -> str:
    """In words, at level alpha after the correction. Not different is not equal."""
    if better < alpha:
        word = "better" if comparison.difference > 0 else "worse"
        return f"{word}, fewer tokens" if shorter is not None and shorter < alpha else word
    if equal < alpha:
        return "same accuracy, fewer tokens" if shorter is not None and shorter < alpha else "same accuracy"
    return "undecided, fewer tokens" if shorter is not None and shorter < alpha else "undecided"
