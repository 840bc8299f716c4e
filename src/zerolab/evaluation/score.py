"""The result of an evaluation on one benchmark: accuracy with its intervals, pass@k, maj@k and avg@k.

pass@k, maj@k and avg@k come from n samples a question, averaged over random k-subsets of the samples. For maj@k,
answers that the grader finds equal are one answer.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from math import comb

import numpy as np
from scipy import stats

from zerolab.datatypes import Grade
from zerolab.evaluation.intervals import (
    Interval,
    bootstrap,
    effective_responses,
    fixed_set_interval,
    population_interval,
    weighted_interval,
)
from zerolab.evaluation.responses import Response
from zerolab.evaluation.significance import minimum_detectable_difference
from zerolab.grading import equal
from zerolab.grading.sandbox import pool

NO_ANSWER = -1  # class of a response without an answer: it has no vote
EXACT_SUBSETS = 2_000  # enumerated up to so many, drawn beyond
DRAWN_SUBSETS = 2_000


def pass_at_k(correct_Q: np.ndarray, samples_Q: np.ndarray | int, k: int) -> np.ndarray:
    """[Q] unbiased estimates 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374, eq. 1).

    c of n samples were right. ValueError where a question has fewer than k samples.
    """
    correct_Q = np.asarray(correct_Q)
    samples_Q = np.broadcast_to(samples_Q, correct_Q.shape)
    _check_k(samples_Q, k)
    miss_Q = np.ones(correct_Q.shape)
    for i in range(k):
        miss_Q *= np.maximum(samples_Q - correct_Q - i, 0) / (samples_Q - i)
    return 1 - miss_Q


def maj_at_k(classes_QS: np.ndarray, correct_QS: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """[Q] probability that the most frequent answer of a random k-subset of the samples is right.

    classes_QS: integers, equal where two answers are equivalent; NO_ANSWER has no vote. Tied answers share the win. A
    class that is only partly right (equivalence is not transitive) counts as that share. All questions have S >= k
    samples; subsets are enumerated up to EXACT_SUBSETS and drawn beyond.
    """
    classes_QS, correct_QS = np.asarray(classes_QS), np.asarray(correct_QS, float)
    samples = classes_QS.shape[1]
    _check_k(np.array([samples]), k)
    chosen_MS = subsets(samples, k, seed)
    result_Q = np.zeros(len(classes_QS))
    for q, (classes_S, correct_S) in enumerate(zip(classes_QS, correct_QS, strict=True)):
        names = np.unique(classes_S[classes_S != NO_ANSWER])
        if not len(names):
            continue
        member_SC = (classes_S[:, None] == names).astype(float)
        right_C = correct_S @ member_SC / member_SC.sum(0)
        votes_MC = chosen_MS @ member_SC
        most_M1 = votes_MC.max(1, keepdims=True)
        winner_MC = (votes_MC == most_M1) & (most_M1 > 0)
        result_Q[q] = (winner_MC @ right_C / np.maximum(winner_MC.sum(1), 1)).mean()
    return result_Q


def subsets(samples: int, k: int, seed: int = 0) -> np.ndarray:
    """[M, S] indicators of all k-subsets, or of a random draw of them where they are too many."""
    if comb(samples, k) <= EXACT_SUBSETS:
        chosen = np.array(list(combinations(range(samples), k)))
    else:
        order = np.random.default_rng(seed).random((DRAWN_SUBSETS, samples)).argsort(1)
        chosen = order[:, :k]
    indicators = np.zeros((len(chosen), samples))
    np.put_along_axis(indicators, chosen, 1.0, axis=1)
    return indicators


def equivalence_classes(answers: Sequence[str | None], same: Callable[[str, str], bool]) -> list[int]:
    """Number of the class of each answer; None is NO_ANSWER. An answer joins the first class whose first member it
    equals by `same`, which is asked about different texts only."""
    first: list[str] = []
    known: dict[str, int] = {}
    for answer in answers:
        if answer is None or answer in known:
            continue
        known[answer] = next((i for i, other in enumerate(first) if same(answer, other)), len(first))
        if known[answer] == len(first):
            first.append(answer)
    return [NO_ANSWER if answer is None else known[answer] for answer in answers]


def _check_k(samples_Q: np.ndarray, k: int) -> None:
    if k < 1 or (len(samples_Q) and samples_Q.min() < k):
        raise ValueError(f"k = {k} needs at least {k} samples of every question, one has {int(samples_Q.min())}")


def vote_classes(responses_QS: Sequence[Sequence[Response]]) -> np.ndarray:
    """[Q, S] classes of the strictly extracted answers by the grader's equivalence, NO_ANSWER where there is none.

    Right answers all equal the gold and are one class; only wrong ones have to be compared with one another.
    """

    def classes(row: Sequence[Response]) -> list[int]:
        wrong = [None if r.grade is None or r.grade.correct else r.grade.extracted for r in row]
        found = equivalence_classes(wrong, equal)
        return [0 if r.grade and r.grade.correct else c + 1 if c >= 0 else c for r, c in zip(row, found, strict=True)]

    with ThreadPoolExecutor(pool().size) as threads:
        rows = list(threads.map(classes, responses_QS))
    result = np.full((len(rows), max(map(len, rows))), NO_ANSWER)
    for q, row in enumerate(rows):
        result[q, : len(row)] = row
    return result


REPLICATES = 2_000


@dataclass(frozen=True)
class Table:
    """The graded responses of one benchmark as columns: questions x samples, NaN and -1 where a sample is missing."""

    name: str
    question_ids: tuple[str, ...]
    responses_QS: tuple[tuple[Response, ...], ...]

    @classmethod
    def of(cls, name: str, responses: Sequence[Response]) -> "Table":
        """Raises ValueError for a response without grades."""
        by_question: dict[str, list[Response]] = {}
        for response in responses:
            if response.grade is None or response.lenient is None:
                raise ValueError(f"{response.key} has no grade")
            by_question.setdefault(response.question_id, []).append(response)
        rows = tuple(tuple(sorted(group, key=lambda r: r.sample)) for group in by_question.values())
        return cls(name, tuple(by_question), rows)

    @cached_property
    def samples_Q(self) -> np.ndarray:
        return np.array([len(row) for row in self.responses_QS])

    @cached_property
    def correct_QS(self) -> np.ndarray:
        return self._column(lambda r: _grade(r.grade).correct)

    @cached_property
    def lenient_QS(self) -> np.ndarray:
        return self._column(lambda r: _grade(r.lenient).correct)

    @cached_property
    def tokens_QS(self) -> np.ndarray:
        """Lengths in tokens; NaN where the file does not say."""
        return self._column(lambda r: np.nan if r.tokens is None else r.tokens)

    @cached_property
    def truncated_QS(self) -> np.ndarray:
        return self._column(lambda r: np.nan if r.truncated is None else r.truncated)

    @cached_property
    def greedy(self) -> bool:
        return all(r.temperature == 0 for row in self.responses_QS for r in row)

    @cached_property
    def classes_QS(self) -> np.ndarray:
        return vote_classes(self.responses_QS)

    def column(self, value: str) -> np.ndarray:
        """[Q, S] of a truth about the strict grade: formatted, say."""
        return self._column(lambda r: getattr(_grade(r.grade), value))

    def _column(self, value: object) -> np.ndarray:
        filled_QS = np.full((len(self.responses_QS), int(self.samples_Q.max())), np.nan)
        for q, row in enumerate(self.responses_QS):
            filled_QS[q, : len(row)] = [value(r) for r in row]  # type: ignore[operator]
        return filled_QS


def _grade(grade: Grade | None) -> Grade:
    assert grade is not None
    return grade


def tables(responses: Sequence[Response]) -> dict[str, Table]:
    """A table for each benchmark, in the order of the file."""
    by_name: dict[str, list[Response]] = {}
    for response in responses:
        by_name.setdefault(response.benchmark, []).append(response)
    return {name: Table.of(name, rows) for name, rows in by_name.items()}


@dataclass(frozen=True)
class Score:
    """Shares between 0 and 1, lengths in tokens; None where a file does not say or nothing can be said.

    `fixed_set` is None after one greedy pass, which has no sampling noise, and for somebody else's single pass at an
    unknown temperature it is the safe bound. `detectable` is the smallest true difference to another model, evaluated
    alike, that an unpaired test would show with 80 % power.
    """

    name: str
    questions: int
    samples: int  # of every question; the fewest
    responses: int
    missing: int  # asked for, never received: not part of any number here
    accuracy: float
    fixed_set: Interval | None
    population: Interval
    lenient: float
    detectable: float
    formatted: float
    answered: float  # an answer in any form
    truncated: float | None
    right_but_truncated: float | None
    mean_length: float | None
    median_length: float | None
    max_length: float | None
    tokens_per_correct: float | None
    pass_at: Mapping[int, float] = field(default_factory=dict)
    maj_at: Mapping[int, float] = field(default_factory=dict)
    pass_interval: Mapping[int, Interval] = field(default_factory=dict)
    maj_interval: Mapping[int, Interval] = field(default_factory=dict)


def score(table: Table, missing: int = 0, fixed_level: float = 0.95) -> Score:
    """One benchmark. `fixed_level`: of the fixed-set interval; above .95 where it was looked at several times."""
    samples_Q = table.samples_Q
    correct_Q = np.nansum(table.correct_QS, 1)
    accuracy = float((correct_Q / samples_Q).mean())
    passes, majorities = _at_k(table)
    truncated_QS, tokens_QS = table.truncated_QS, table.tokens_QS
    cut = bool(np.isfinite(truncated_QS).any())
    counted = np.isfinite(tokens_QS).sum() == samples_Q.sum()
    right = float(correct_Q.sum())
    return Score(
        name=table.name,
        questions=len(samples_Q),
        samples=int(samples_Q.min()),
        responses=int(samples_Q.sum()),
        missing=missing,
        accuracy=accuracy,
        fixed_set=None if table.greedy else fixed_set_interval(correct_Q, samples_Q, fixed_level),
        population=population_of(table),
        lenient=_mean(table.lenient_QS),
        detectable=minimum_detectable_difference(accuracy, effective_responses(correct_Q, samples_Q)),
        formatted=_mean(table.column("formatted")),
        answered=float(np.mean([_grade(r.lenient).formatted for row in table.responses_QS for r in row])),
        truncated=_mean(truncated_QS) if cut else None,
        right_but_truncated=_mean(truncated_QS * table.correct_QS) if cut else None,
        mean_length=_mean(tokens_QS) if counted else None,
        median_length=float(np.nanmedian(tokens_QS)) if counted else None,
        max_length=float(np.nanmax(tokens_QS)) if counted else None,
        tokens_per_correct=float(np.nansum(tokens_QS)) / right if counted and right else None,
        pass_at={k: float(v.mean()) for k, v in passes.items()},
        maj_at={k: float(v.mean()) for k, v in majorities.items()},
        pass_interval={k: bootstrap(v, replicates=REPLICATES) for k, v in passes.items()},
        maj_interval={k: bootstrap(v, replicates=REPLICATES) for k, v in majorities.items()},
    )


def population_of(table: Table) -> Interval:
    """The interval of a table's accuracy for a population of such questions."""
    return population_interval(np.nansum(table.correct_QS, 1), table.samples_Q)


def _mean(values_QS: np.ndarray) -> float:
    """Over questions of the mean over samples, as the accuracy is."""
    kept_QS = values_QS[np.isfinite(values_QS).any(1)]
    return float(np.nanmean(kept_QS, 1).mean())


def _at_k(table: Table) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """pass@k and maj@k of every question for k = 2, 4, 8 .. and the number of samples; none for one sample."""
    samples = int(table.samples_Q.min())
    if samples < 2:
        return {}, {}
    ks = sorted({*(2**i for i in range(1, samples.bit_length()) if 2**i <= samples), samples})
    correct_Q = np.nansum(table.correct_QS, 1).astype(int)
    first = slice(0, samples)  # where questions have uneven numbers of samples, the first of each vote
    classes_QS, right_QS = table.classes_QS[:, first], np.nan_to_num(table.correct_QS[:, first])
    passes = {k: pass_at_k(correct_Q, table.samples_Q, k) for k in ks}
    return passes, {k: maj_at_k(classes_QS, right_QS, k) for k in ks if k > 2}


def average(scores: Sequence[Score]) -> Score | None:
    """The unweighted mean over benchmarks, as the paper's; None of a single one. Its intervals combine theirs."""
    if len(scores) < 2:
        return None

    def mean(name: str) -> float | None:
        values = [getattr(s, name) for s in scores]
        return None if None in values else float(np.mean(values))

    centres = [s.accuracy for s in scores]
    fixed = [s.fixed_set for s in scores if s.fixed_set is not None]
    population = weighted_interval(centres, [s.population for s in scores])
    columns = ("lenient", "formatted", "answered", "truncated", "right_but_truncated", "mean_length")
    at_k = {}
    for column in ("pass_at", "maj_at"):
        each = [getattr(s, column) for s in scores]
        at_k[column] = {k: float(np.mean([v[k] for v in each])) for k in each[0] if all(k in v for v in each)}
    tokens = [None if s.mean_length is None else s.mean_length * s.responses for s in scores]
    right = sum(s.accuracy * s.responses for s in scores)
    return Score(
        name="average",
        questions=sum(s.questions for s in scores),
        samples=min(s.samples for s in scores),
        responses=sum(s.responses for s in scores),
        missing=sum(s.missing for s in scores),
        accuracy=float(np.mean(centres)),
        fixed_set=weighted_interval(centres, fixed) if len(fixed) == len(scores) else None,
        population=population,
        detectable=_detectable_mean(population),
        median_length=None,
        max_length=None if None in [s.max_length for s in scores] else max(s.max_length or 0 for s in scores),
        tokens_per_correct=None if None in tokens or not right else sum(t or 0 for t in tokens) / right,
        **{name: mean(name) for name in columns},  # type: ignore[arg-type]
        **at_k,  # type: ignore[arg-type]
    )


def _detectable_mean(interval: Interval) -> float:
    """Smallest true difference of two such means that a test with 80 % power shows; 2 z standard errors make the
    interval."""
    z_level, z_power = stats.norm.isf(0.025), stats.norm.ppf(0.8)
    return float((z_level + z_power) * np.sqrt(2) * interval.width / (2 * z_level))
