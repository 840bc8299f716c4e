"""Verdicts on recorded responses, strict and lenient side by side, in batches over all cores."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from zerolab.evaluation.responses import Response
from zerolab.grading import grade_batch
from zerolab.grading.rules import STANDARD, Rules
from zerolab.types import Grade

BATCH = 4000
LENIENT = "any"


def grade_responses(
    responses: Sequence[Response],
    extractor: str | Callable[[Response], str],
    rules: Rules = STANDARD,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Response]:
    """The same responses with both verdicts, in order. `extractor` is the strict mode: where the template wants it.

    Lenient: the answer in any known form. What the strict mode calls right is right leniently too.
    """
    mode = extractor if callable(extractor) else lambda response: extractor
    graded: list[Response] = []
    for (strict, verifier), batch in _batches(responses, mode):
        texts, golds = [r.response for r in batch], [r.answers for r in batch]
        exact = grade_batch(texts, golds, strict, verifier=verifier, rules=rules)
        loose = grade_batch(texts, golds, LENIENT, verifier=verifier, rules=rules)
        for response, grade, lenient in zip(batch, exact, loose, strict=True):
            lenient = grade if grade.correct else lenient
            graded.append(replace(response, grade=_untimed(grade), lenient=_untimed(lenient)))
        progress(len(graded))
    return graded


def _batches(
    responses: Sequence[Response], mode: Callable[[Response], str]
) -> Iterator[tuple[tuple[str, str], list[Response]]]:
    for key, run in groupby(responses, lambda response: (mode(response), response.verifier)):
        members = list(run)
        for start in range(0, len(members), BATCH):
            yield key, members[start : start + BATCH]


def _untimed(grade: Grade) -> Grade:
    """Without milliseconds, so that the same response has the same verdict, to the letter."""
    return replace(grade, milliseconds=0.0)
