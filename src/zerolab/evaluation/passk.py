"""pass@k, maj@k and avg@k from n samples a question, averaged over random k-subsets of the samples.

For maj@k, answers that the grader finds equal are one answer.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from math import comb

import numpy as np

from zerolab.evaluation.responses import Response
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
