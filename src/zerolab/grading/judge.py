"""Steps 3 and 4 on two normalised answers: everything that needs a tree. Runs in a worker (see sandbox.py)."""

import re

from zerolab.grading.normalize import compact, split_unit
from zerolab.grading.parser import parse
from zerolab.grading.structure import Comparison
from zerolab.grading.tree import Node, TooHard, Unreadable

_GROUPED = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?!,)")
_PROSE = re.compile(
    r"\s*,?\s*(?:\\text\{)?\s*\b(?:where|for all|for every|for any|for some|for each|in which|such that)\b.*$"
)
_MODULUS = re.compile(r"\s*\(?\\[pb]?mod\s*(?:\{[^{}]*\}|[0-9]+)\s*\)?\s*$")
_ALL_REALS = re.compile(r"(?:all )?real(?: number)?s", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"([+-]?[0-9]+),([0-9]+)")


def joined_groups(text: str) -> str:
    """`text` with its thousands separators dropped, outside brackets (inside one a comma separates)."""
    out, depth, start = [], 0, 0
    for k, char in enumerate(text):
        if char in "([{":
            if depth == 0:
                out.append(_GROUPED.sub(lambda m: m.group().replace(",", ""), text[start:k]))
                start = k
            depth += 1
        elif char in ")]}" and depth:
            depth -= 1
            if depth == 0:
                out.append(text[start : k + 1])
                start = k + 1
    out.append(text[start:] if depth else _GROUPED.sub(lambda m: m.group().replace(",", ""), text[start:]))
    return "".join(out)


def read(text: str) -> Node:
    """Tree of an answer. Raises Unreadable."""
    if _ALL_REALS.fullmatch(text):
        return Node("reals")
    try:
        return parse(text)
    except Unreadable:
        head = _MODULUS.sub("", text)
        if not head or head == text:
            raise
        return parse(head)


def judge(answer: str, gold: str, ordered: bool = False, confirm: bool = False) -> tuple[str, str]:
    """(same | different | open, why). `confirm` asks sympy about what normal forms and numbers leave open."""
    answer, units = split_unit(answer)
    gold, gold_units = split_unit(gold)
    if units and gold_units and units != gold_units and not units & gold_units:
        return "different", "unit"
    if answer and compact(answer) == compact(gold):
        return "same", "text"
    comma = _DECIMAL_COMMA.fullmatch(answer)
    if comma and "." in gold and f"{comma.group(1)}.{comma.group(2)}" == gold:
        return "same", "number"
    readings = {(joined_groups(answer), joined_groups(gold)), (answer, gold)}
    verdicts = [_compared(a, g, ordered, confirm) for a, g in sorted(readings)]
    for kind in ("same", "open"):
        for verdict in verdicts:
            if verdict[0] == kind:
                return verdict
    return verdicts[0]


def _compared(answer: str, gold: str, ordered: bool, confirm: bool) -> tuple[str, str]:
    if bool(_PROSE.search(answer)) != bool(_PROSE.search(gold)):  # a condition that only one side spells out
        answer, gold = (_PROSE.sub("", text).rstrip(" ,;") for text in (answer, gold))
    try:
        a, g = read(answer), read(gold)
    except Unreadable as error:
        return "different", f"unreadable: {error}"
    comparison = Comparison(ordered=ordered)
    try:
        if comparison.same(a, g):
            return "same", "value"
    except TooHard as error:
        return "open", f"too hard: {error}"
    except RecursionError:
        return "different", "too deep"
    if not comparison.open:
        return "different", "undecided" if comparison.unknown else "value"
    if not confirm:
        return "open", "value"
    return _confirmed(a, g, comparison)


def _confirmed(a: Node, g: Node, first: Comparison) -> tuple[str, str]:
    """The comparison again, with every value that sympy can prove equal."""
    from zerolab.grading.confirm import proven_equal

    proven = {pair for pair in first.unproven if proven_equal(*pair)}
    if not proven:
        return "different", "undecided"
    second = Comparison(ordered=first.ordered, proven=frozenset(proven))
    return ("same", "sympy") if second.same(a, g) else ("different", "undecided")
