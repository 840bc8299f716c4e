"""Step 2: exact numbers as fractions. No tolerance and no factor of 100: 0.333 is not 1/3, 28 is not 0.28."""

import re
from fractions import Fraction
from functools import lru_cache

from zerolab.grading.lexer import SCALES
from zerolab.grading.tree import LONGEST_NUMBER

LARGEST_EXPONENT = 4000

_DECIMAL = (
    r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?)"
)
_SIGN = r"(?P<sign>[+-]?)\s*"
_EXPONENT = r"\{?\s*\(?\s*(?P<exponent>[+-]?\s*[0-9]{1,6})\s*\)?\s*\}?"
_FORMS = tuple(
    re.compile(_SIGN + form + r"(?P<percent>\s*%)?", re.ASCII)
    for form in (
        rf"(?P<value>{_DECIMAL})",
        rf"\(?(?P<value>{_DECIMAL})\)?\s*(?:\\times|\\cdot|\*|x)\s*10\s*(?:\^|\*\*)\s*{_EXPONENT}",
        rf"(?P<value>{_DECIMAL})[eE](?P<exponent>[+-]?[0-9]{{1,6}})",
        rf"(?P<ten>10)\s*\^\s*{_EXPONENT}",
        r"(?:(?P<whole>[0-9]+)\s*)?\\frac\s*(?:\{\s*(?P<over>-?\s*[0-9]+)\s*\}|(?P<over1>[0-9]))\s*(?:\{\s*(?P<under>[0-9]+)\s*\}|(?P<under1>[0-9]))",
        rf"(?P<over>{_DECIMAL})\s*/\s*(?P<under>{_DECIMAL})",
        r"(?P<whole>[0-9]+)\s+(?P<over>[0-9]+)\s*/\s*(?P<under>[0-9]+)",
        r"(?P<head>[0-9]*\.[0-9]*)\\(?:overline|bar)\s*\{?\s*(?P<period>[0-9]+)\s*\}?",
        rf"(?P<value>{_DECIMAL})\s*(?:\\text\{{\s*)?(?P<scale>hundred|thousand|million|billion|trillion)(?:\s*\}})?",
    )
)
_SIMPLE = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_STARTS_LIKE_A_NUMBER = re.compile(r"[-+]?\s*(?:[0-9.(]|\\frac)")


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", ""))


def _fraction(found: dict[str, str]) -> Fraction | None:
    over = _decimal(found.get("over") or found["over1"])
    under = _decimal(found.get("under") or found["under1"])
    if under == 0:
        return None
    if not found.get("whole"):
        return over / under
    return int(found["whole"]) + over / under if 0 <= over < under else None


def _value(found: dict[str, str]) -> Fraction | None:
    if "over" in found or "over1" in found:
        return _fraction(found)
    if "head" in found:
        head, period = found["head"], found["period"]
        decimals = len(head) - head.index(".") - 1
        return _decimal(head + "0") + Fraction(int(period), (10 ** len(period) - 1) * 10**decimals)
    value = Fraction(1) if "ten" in found else _decimal(found["value"])
    if "scale" in found:
        return value * 10 ** SCALES[found["scale"]]
    exponent = int(found.get("exponent", "0").replace(" ", ""))
    if abs(exponent) > LARGEST_EXPONENT:
        return None
    return value * Fraction(10) ** exponent


@lru_cache(maxsize=8192)
def exact(text: str) -> tuple[Fraction, bool] | None:
    """(value as written, whether a percent sign follows) of normalised text; None if it is not one plain number."""
    if _SIMPLE.fullmatch(text) and len(text) <= LONGEST_NUMBER:
        return Fraction(text), False
    if not _STARTS_LIKE_A_NUMBER.match(text) or len(text) > LONGEST_NUMBER:
        return None
    for form in _FORMS:
        match = form.fullmatch(text)
        if match:
            found = {k: v for k, v in match.groupdict().items() if v is not None}
            value = _value(found)
            return None if value is None else (-value if found["sign"] == "-" else value, "percent" in found)
    return None


def same_number(a: tuple[Fraction, bool], b: tuple[Fraction, bool]) -> bool:
    """Equality of exact numbers. A percent sign on one side only is a unit or 1/100; on both sides it is a unit."""
    if a[0] == b[0]:
        return True
    if a[1] == b[1]:
        return False
    return (a[0] / 100 if a[1] else a[0]) == (b[0] / 100 if b[1] else b[0])
