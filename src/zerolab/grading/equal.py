"""Is this answer that gold? Cheapest first: text, exact numbers, then structure and symbols in a worker."""

import os
import re
import threading
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from zerolab.grading.normalize import LONGEST, compact, exact, normalize, same_number, without_primes
from zerolab.grading.rules import STANDARD, Rules
from zerolab.grading.sandbox import WorkerDied, WorkerTimeout, pool
from zerolab.grading.unit_table import DEGREE, DENIALS, NOUNS, Unit
from zerolab.grading.units import conversion, nouns_of, singular, split_measure

DEADLINE = 1.0  # seconds for one pair in a worker

_PLAIN = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_WORDS = re.compile(
    r"[A-Za-z]{3,}(?:[ '-]+[A-Za-z]+)*|(?:[A-Za-z]+[ '-]+)+[A-Za-z]{3,}(?:[ '-]+[A-Za-z]+)*|[Nn]o|NO|[Oo]n"
)
_NAMED = frozenset(("infinity", "inf", "alpha", "beta", "gamma", "delta", "theta", "lambda", "sigma", "omega", "sqrt"))
_CHOICE = re.compile(
    r"(?:(?:the )?(?:correct )?(?:answer|option|choice)(?: is)?:? )*\(?(?-i:([A-J]))\)?", re.IGNORECASE
)
_CHOICE_WITH_TEXT = re.compile(r"(?:\(([A-J])\)[.:]?\s+|([A-J])[).:]\s+)([^\s,;&/|+].*)")
_ANOTHER_LETTER = re.compile(r"(?<![A-Za-z])[A-J](?![A-Za-z])|\?")
_COLON = re.compile(r"[0-9]+\s*:\s*[0-9]+")
_LONGEST_CHOICE = 60  # characters of the text behind a letter
_TIME = re.compile(
    r"([01]?[0-9]|2[0-4])\s*:\s*([0-5][0-9])(?:\s*:\s*([0-5][0-9]))?\s*(?:\\text\{)?\s*([ap])?\.?\s*(?:m\.?)?\s*\}?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """outcome: correct, wrong, timeout or error. why: the step that decided, for the counts."""

    outcome: str
    why: str

    @property
    def reproducible(self) -> bool:
        """False where the clock decided."""
        return self.outcome != "timeout"


_counts: Counter[str] = Counter()
_counts_lock = threading.Lock()


def _after_fork() -> None:
    global _counts_lock
    _counts_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def counts() -> Counter[str]:
    """How many pairs each step decided in this process, e.g. {"correct: number": 12, "wrong: undecided": 1}."""
    with _counts_lock:
        return Counter(_counts)


def count(verdict: Verdict) -> None:
    with _counts_lock:
        _counts[f"{verdict.outcome}: {verdict.why.split(':')[0]}"] += 1


@cache
def _decided(same: bool, why: str) -> Verdict:
    return Verdict("correct" if same else "wrong", why)


def _clock(text: str) -> tuple[int, int, int, str] | None:
    match = _TIME.fullmatch(text)
    if not match:
        return None
    hour, minute, second, half = int(match[1]), int(match[2]), int(match[3] or 0), (match[4] or "").lower()
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    return hour, minute, second, half


def _same_time(a: tuple[int, int, int, str], g: tuple[int, int, int, str]) -> bool:
    if a[1:3] != g[1:3]:
        return False
    return a[0] == g[0] or (bool(a[3]) != bool(g[3]) and a[0] % 12 == g[0] % 12)


def _choice(text: str) -> tuple[str, str] | None:
    """(letter, text of the choice) of "C", "(C)", "(C) ellipse". None if the text takes the letter back or adds one."""
    alone = _CHOICE.fullmatch(text)
    if alone:
        return alone[1], ""
    match = _CHOICE_WITH_TEXT.fullmatch(text)
    if not match or len(match[3]) > _LONGEST_CHOICE or _ANOTHER_LETTER.search(match[3]):
        return None
    words = set(re.findall("[a-z]+", match[3].casefold()))
    return None if words & DENIALS else (match[1] or match[2], match[3].casefold())


def _same_words(a: str, g: str) -> Verdict | None:
    """Names, choices and times. None if this is no matter of words."""
    choice = _choice(g)
    if choice:
        given = _choice(a)
        if given:
            texts = {given[1], choice[1]} - {""}
            return _decided(given[0] == choice[0] and len(texts) < 2, "choice")
    times = _clock(a), _clock(g)
    if times[0] and times[1]:
        return _decided(_same_time(times[0], times[1]), "time")
    if (times[0] or times[1]) and _COLON.fullmatch(a) and _COLON.fullmatch(g):  # 8:60 is no other way to write 4:30
        return _decided(False, "time")
    words = _WORDS.fullmatch(a), _WORDS.fullmatch(g)
    if words[0] and words[1] and a.lower() not in _NAMED and g.lower() not in _NAMED:
        return _decided(_counted(a) == _counted(g), "words")
    return None


def _counted(words: str) -> str:
    """`words` in lower case, with things that are counted in the singular ("no solutions")."""
    if " and " in words:  # names in any order
        return " and ".join(sorted(map(_counted, words.split(" and "))))
    parts = re.split(r"([ '-]+)", words.casefold())
    return "".join(one if (one := singular(part)) in NOUNS else part for part in parts)


Quantity = tuple[Fraction, bool, Unit | None, str]


def _quantity(text: str, letters: bool, nouns: frozenset[str], gold: bool) -> Quantity | None:
    """(value, whether in percent, unit, text of the value) of a plain number with or without a unit."""
    found, value, unit = exact(text), text, None
    if found is None:
        value, unit = split_measure(text, letters, nouns, gold)
        value = without_primes(value)
        if value.endswith("°") and unit is None:
            value, unit = value.removesuffix("°").rstrip(), DEGREE
        found = exact(value)
    return None if found is None else (*found, unit, value)


def _same_numbers(a: str, g: str, rules: Rules) -> Verdict | None:
    """Both are plain numbers, with or without a unit, or this is None."""
    gold = _quantity(g, False, frozenset(), True)
    if gold is None:
        return None
    answer = _quantity(a, True, nouns_of(gold[2]), False)
    if answer is None:
        return None
    change = conversion(answer[2], gold[2])
    if (
        change is None or (answer[1] and gold[2] is not None) or (gold[1] and answer[2] is not None)
    ):  # 12% of no dollars
        return _decided(False, "unit")
    x, y = (answer[0] * change[0] + change[1], answer[1]), gold[:2]
    if rules.percent_is_unit:
        x, y = (x[0], False), (y[0], False)
    if rules.strict_form and _other_form(answer[3], gold[3], y[0]):
        return _decided(False, "form")
    if same_number(x, y):
        return _decided(True, "number")
    if not rules.relative_tolerance:
        return _decided(False, "number")
    return _decided(abs(x[0] - y[0]) <= Fraction(rules.relative_tolerance) * abs(y[0]), "number")


def _other_form(answer: str, gold: str, value: Fraction) -> bool:
    """Whether the answer is a quotient where the gold is an integer, or another quotient than the gold."""
    quotients = ["frac" in text or "/" in text for text in (answer, gold)]
    if value.denominator == 1:
        return quotients[0]
    return all(quotients) and re.findall("[0-9]+", answer) != re.findall("[0-9]+", gold)


def quick(answer: str, gold: str, rules: Rules) -> Verdict | None:
    """A verdict that needs no tree, or None."""
    if _PLAIN.fullmatch(answer) and _PLAIN.fullmatch(gold):
        return _decided(int(answer) == int(gold), "number")
    if len(answer) > LONGEST or len(gold) > LONGEST:
        return _decided(answer.strip() == gold.strip() != "", "too long")
    a, g = normalize(answer), normalize(gold)
    if not a or not g:
        return Verdict("wrong", "empty")
    if a == g or ((" " in a or " " in g) and compact(a) == compact(g)):
        return _decided(True, "text")
    if a[0].isalpha() or g[0].isalpha():
        found = _same_words(a, g) or _same_numbers(a, g, rules)
    else:
        found = _same_numbers(a, g, rules) or _same_words(a, g)
    if found is None and rules.strict_form and _PLAIN.fullmatch(g):
        return _decided(False, "form")
    return found


_known: dict[tuple[str, str, Rules], Verdict] = {}
_KNOWN_SIZE = 16384


def verdict(answer: str, gold: str, rules: Rules = STANDARD, seconds: float = DEADLINE) -> Verdict:
    """The comparison of two bare answers (no box around them), by every step that is needed.

    Verdicts are kept, but for those in which a clock or a failure had a part.
    """
    key = (answer, gold, rules)
    found = _known.get(key)
    if found is None:
        found = quick(answer, gold, rules) or _ask(normalize(answer), normalize(gold), rules, seconds)
        if found.outcome in ("correct", "wrong") and len(answer) + len(gold) <= LONGEST:
            if len(_known) >= _KNOWN_SIZE:
                _known.clear()
            _known[key] = found
    count(found)
    return found


def _ask(answer: str, gold: str, rules: Rules, seconds: float) -> Verdict:
    if seconds <= 0:
        return Verdict("timeout", "batch deadline")
    try:
        outcome, why = pool().ask(answer, gold, rules.ordered_lists, seconds)
    except WorkerTimeout:
        return Verdict("timeout", "deadline")
    except WorkerDied as error:
        return Verdict("error", f"worker: {error}")
    if outcome == "error":
        return Verdict("error", why)
    return Verdict("correct" if outcome == "same" else "wrong", why)


def equal(answer: str, gold: str, rules: Rules = STANDARD) -> bool:
    """Whether two bare answers are the same, e.g. equal("1/2", "0.5")."""
    return verdict(answer, gold, rules).outcome == "correct"
