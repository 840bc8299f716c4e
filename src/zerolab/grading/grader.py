"""The grader: extract, compare, say why."""

import time
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

from zerolab.errors import UserError
from zerolab.grading.extract import extract
from zerolab.types import Grade

Gold = str | float | Sequence


def _math(answer: str, gold: str) -> bool:
    def clean(text: str) -> str:
        return text.strip().strip("$").replace(" ", "").replace(",", "")

    a, b = clean(answer), clean(gold)
    if a == b:
        return bool(a)
    try:
        return len(a) < 50 and len(b) < 50 and "e" not in a + b and Fraction(a) == Fraction(b)
    except (ValueError, ZeroDivisionError):
        return False


def _countdown(answer: str, gold: str) -> bool:
    from zerolab.data.countdown import verify

    return verify(answer, gold)


VERIFIERS: dict[str, Callable[[str, str], bool]] = {"math": _math, "countdown": _countdown}


def golds_of(gold: Gold) -> tuple[str, ...]:
    """Alternatives as strings: any one of them makes an answer right."""
    return tuple(str(g) for g in gold) if isinstance(gold, list | tuple) else (str(gold),)


def grade(response: str, gold: Gold, mode: str = "boxed", *, verifier: str = "math") -> Grade:
    """Verdict on one response. `gold` is an answer or a list of alternatives."""
    start = time.perf_counter()
    if verifier not in VERIFIERS:
        raise UserError(f"unknown verifier {verifier!r}; choose one of {', '.join(VERIFIERS)}")
    answer = extract(response, mode)
    correct = answer is not None and any(VERIFIERS[verifier](answer, g) for g in golds_of(gold))
    reason = "correct" if correct else "unformatted" if answer is None else "wrong"
    return Grade(correct, answer is not None, reason, answer, 1e3 * (time.perf_counter() - start))  # type: ignore[arg-type]


def is_correct(response: str, gold: Gold) -> bool:
    """Whether the last box of `response` holds the answer."""
    return grade(response, gold).correct


def grade_batch(
    responses: Iterable[str], golds: Iterable[Gold], mode: str = "boxed", *, verifier: str = "math"
) -> list[Grade]:
    """One verdict per pair, in order."""
    return [grade(r, g, mode, verifier=verifier) for r, g in zip(responses, golds, strict=True)]
