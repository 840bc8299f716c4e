"""Which answers are the same answer: the classes that a majority is taken over."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from zerolab.evaluation.passk import NO_ANSWER, equivalence_classes
from zerolab.evaluation.responses import Response
from zerolab.grading import equal
from zerolab.grading.sandbox import pool


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
