"""The grader: extract the answer, compare it with the gold, say why. The only entry of the training loop."""

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from zerolab.datatypes import Grade
from zerolab.errors import UserError
from zerolab.grading.countdown import decode_gold, verify
from zerolab.grading.equal import DEADLINE, Verdict, verdict
from zerolab.grading.extract import NAMES_ARE_ANSWERS, extract, first_mention
from zerolab.grading.rules import STANDARD, Rules
from zerolab.grading.sandbox import WorkerDied, WorkerFailed, WorkerTimeout, pool

Gold = str | float | Sequence[str | float]

BATCH_DEADLINE = 120.0  # seconds; what is still open then gets the reason "timeout"
LONGEST_GYM_ANSWER = 20_000  # characters; longer ones are wrong
GYM_SECONDS = 5.0  # for one answer
_BOX_COMMAND = re.compile(r"\\(?:boxed|fbox)")
_PROSE = re.compile(
    r"(?:^|\s)(?:the|is|are|was|be|answers?|so|therefore|thus|hence|we|it|(?-i:I)|get|got|final|result|equals?|because|that"
    r"|this|think|have|has|solution|find|would|must|should|can|there|which|since|if|then|let)(?=[\s,.:;]\s*\S)",
    re.IGNORECASE,
)
_LONGEST_BARE = 200


def _math(answer: str, gold: str) -> bool:
    return verdict(answer, gold).outcome == "correct"


def _countdown(answer: str, gold: str) -> bool:
    return bool(verify(answer, gold))


def verify_reasoning_gym(answer: str, gold: str) -> bool:
    """Whether the task's scorer gives the answer 1. Raises WorkerTimeout, WorkerDied or WorkerFailed."""
    if len(answer) > LONGEST_GYM_ANSWER:
        return False
    place = {key: value for key, value in json.loads(gold).items() if key in ("task", "options", "level", "index")}
    return pool().request({"do": "score", **place, "answer": answer}, GYM_SECONDS) >= 1.0 - 1e-9


def _capital(answer: str, gold: str) -> bool:
    return first_mention(answer, "capital") == first_mention(gold, "capital") is not None


def _element(answer: str, gold: str) -> bool:
    return first_mention(answer, "element") == first_mention(gold, "element") is not None


VERIFIERS: dict[str, Callable[[str, str], bool]] = {
    "math": _math,
    "countdown": _countdown,
    "reasoning_gym": verify_reasoning_gym,
    "capital": _capital,
    "element": _element,
}
"""How an extracted answer is compared with a gold, by the name in Question.verifier. Other entries may be added."""


def _unboxed(gold: str) -> str:
    """A gold that is given as a solution with a box is what stands in the box."""
    return extract(gold) or gold if "\\boxed" in gold else gold


def golds_of(gold: Gold) -> tuple[str, ...]:
    """Alternatives as text: any one of them makes an answer right. Raises UserError if there is none."""
    items = list(gold) if isinstance(gold, list | tuple | set | frozenset) else [gold]
    texts = []
    for item in items:
        if isinstance(item, float) and not math.isfinite(item):
            raise UserError(f"the gold answer {item!r} is no number; give a finite number or text")
        if not isinstance(item, str | int | float):
            raise UserError(f"a gold answer must be text or a number, not {type(item).__name__}; convert it first")
        try:
            texts.append(_unboxed(str(item)))
        except ValueError as error:
            raise UserError("the gold answer is an integer with too many digits; give it as text") from error
    if not texts:
        raise UserError("the list of gold answers is empty; give at least one answer")
    return tuple(texts)


def check_golds(golds: Sequence[str], verifier: str) -> None:
    """Raises UserError for golds that this verifier cannot read."""
    if verifier in NAMES_ARE_ANSWERS and not any(first_mention(gold, verifier) for gold in golds):
        raise UserError(f"the answer {golds[0][:80]!r} is no {verifier} that the verifier {verifier} knows")
    for gold in golds:
        try:
            if verifier == "countdown":
                decode_gold(gold)
            elif verifier == "reasoning_gym" and "task" not in json.loads(gold):
                raise ValueError("no task in it")
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"the answer {gold[:80]!r} is no gold of the verifier {verifier}: {error}") from None


def _verdict(answer: str, golds: tuple[str, ...], verifier: str, rules: Rules, end: float | None = None) -> Verdict:
    """The best verdict over the alternatives: correct, else an overrun or error, else wrong."""
    worst = Verdict("wrong", "value")
    for gold in golds:
        if verifier != "math":
            found = _verified(answer, gold, verifier)
        else:
            left = DEADLINE if end is None else min(DEADLINE, end - time.monotonic())
            found = verdict(answer, gold, rules, left)
        if found.outcome == "correct":
            return found
        if found.outcome != "wrong":
            worst = found
    return worst


def _verified(answer: str, gold: str, verifier: str) -> Verdict:
    """What a verifier of its own says; one that asks a worker may run out of time."""
    try:
        return Verdict("correct" if VERIFIERS[verifier](answer, gold) else "wrong", verifier)
    except WorkerTimeout:
        return Verdict("timeout", verifier)
    except (WorkerDied, WorkerFailed) as error:
        return Verdict("error", f"{verifier}: {error}")


def _check_verifier(verifier: str) -> None:
    if verifier not in VERIFIERS:
        raise UserError(f"unknown verifier {verifier!r}; choose one of {', '.join(VERIFIERS)}")


def _grade(found: Verdict | None, answer: str | None, start: float) -> Grade:
    reason = "unformatted" if found is None else found.outcome
    milliseconds = 1e3 * (time.perf_counter() - start)
    return Grade(reason == "correct", found is not None, reason, answer, milliseconds)  # type: ignore[arg-type]


def grade(response: str, gold: Gold, mode: str = "boxed", *, verifier: str = "math", rules: Rules = STANDARD) -> Grade:
    """Verdict on one response.

    `gold` is an answer or a list of alternatives; `mode` one of extract.MODES. Reason "timeout" means that a worker
    was killed at its deadline: the only verdict that another run may not repeat. Raises UserError on an unknown mode or
    verifier and on a gold that is no answer, never on anything in the response.
    """
    start = time.perf_counter()
    _check_verifier(verifier)
    golds = golds_of(gold)
    answer = extract(response, mode, verifier)
    return _grade(None if answer is None else _verdict(answer, golds, verifier, rules), answer, start)


def warm() -> threading.Thread:
    """Start a worker with sympy in the background, so that the first answer that needs one does not wait for it."""
    return pool().warm()


def is_correct(response: str, gold: Gold) -> bool:
    """Whether the last box of `response` holds the answer.

    A text without any box counts if it is nothing but an answer ("1/2", "10 square units"), so that two bare answers
    can be compared here too; prose does not ("the answer is 5"). `grade`, which pays the reward, wants the box.
    """
    if _BOX_COMMAND.search(response):
        return grade(response, gold).correct
    bare = response.strip()
    if not bare or "\n" in bare or len(bare) > _LONGEST_BARE or _PROSE.search(bare):
        return False
    return _verdict(bare, golds_of(gold), "math", STANDARD).outcome == "correct"


def grade_batch(
    responses: Iterable[str],
    golds: Iterable[Gold],
    mode: str = "boxed",
    *,
    verifier: str = "math",
    rules: Rules = STANDARD,
    deadline: float = BATCH_DEADLINE,
) -> list[Grade]:
    """One verdict per pair, in order. Equal pairs are decided once; the rest is shared among the workers.

    `deadline` in seconds holds for the whole batch. A verdict depends on its own pair alone, whatever the order of the
    batch and the number of workers.
    """
    _check_verifier(verifier)
    end = time.monotonic() + deadline
    rows = [(extract(r, mode, verifier), golds_of(g)) for r, g in zip(responses, golds, strict=True)]
    pairs = list(dict.fromkeys((a, g) for a, g in rows if a is not None))
    decided: dict[tuple[str, tuple[str, ...]], Grade] = {}
    lock = threading.Lock()

    def decide(pair: tuple[str, tuple[str, ...]]) -> None:
        start = time.perf_counter()
        result = _grade(_verdict(*pair, verifier, rules, end), pair[0], start)
        with lock:
            decided[pair] = result

    waiting = iter(pairs)

    def decide_rest(thread: int = 0) -> None:
        for pair in waiting:  # shared: each thread takes the next one, which costs less than a task for each
            decide(pair)

    if len(pairs) < 8:
        decide_rest()
    else:
        with ThreadPoolExecutor(pool().size) as threads:
            list(threads.map(decide_rest, range(pool().size)))
    missing = Grade(False, False, "unformatted")
    return [missing if a is None else decided[a, g] for a, g in rows]
