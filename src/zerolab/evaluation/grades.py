"""Verdicts on recorded responses, strict and lenient side by side, in batches over all cores."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from zerolab.evaluation.responses import Response
from zerolab.grading import extract, grade_batch
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
        exact = [_untimed(g) for g in grade_batch(texts, golds, strict, verifier=verifier, rules=rules)]
        # Only another answer than the strict one can have another verdict.
        other = [
            i for i, g in enumerate(exact) if not g.correct and extract(texts[i], LENIENT) not in (g.extracted, None)
        ]
        loose = grade_batch(
            [texts[i] for i in other], [golds[i] for i in other], LENIENT, verifier=verifier, rules=rules
        )
        found = dict(zip(other, map(_untimed, loose), strict=True))
        graded += [
            replace(response, grade=grade, lenient=found.get(i, grade))
            for i, (response, grade) in enumerate(zip(batch, exact, strict=True))
        ]
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
