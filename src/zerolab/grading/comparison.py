"""Steps 3 and 4 on two normalised answers: everything that needs a tree. Runs in a worker (see sandbox.py)."""

import re

from zerolab.grading.normalize import compact, exact, without_primes
from zerolab.grading.parser import parse
from zerolab.grading.structure import Comparison
from zerolab.grading.tree import Node, TooHard, Unreadable, is_scalar
from zerolab.grading.unit_table import Unit
from zerolab.grading.units import conversion, nouns_of, split_measure

_GROUPED = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?!,)")
_PROSE = re.compile(
    r"\s*,?\s*(?:\\text\{)?\s*\b(?:where|for(?=[\s}]*\$?\s*[A-Za-z]\s*\\in)"
    r"|for all|for every|for any|for some|for each|in which|such that)\b.*$"
)
_DOMAIN = re.compile(
    r"(?:[\s,()}]|\\text\{|(?:where|for|all|every|any|some|each|in|which|such|that|is|are|an|a|and|the|of|set|arbitrary)\b"
    r"|(?:integers?|reals?|numbers?|natural|rational|constants?|variables?)\b"
    r"|(?<![A-Za-z\\])[A-Za-z](?:_\{?[0-9A-Za-z]\}?)?(?![A-Za-z])|\\(?:in|R|Z|N|Q)(?![A-Za-z])|\\mathbb\s*\{?\s*[ZNQR]\s*\}?)*"
)
_VARIABLE = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
_MODULUS = re.compile(
    r"\s*(?:\(\s*)?(?:\\[pb]?mod(?![A-Za-z])|\\text\{mod\}|(?<![A-Za-z\\])mod(?![A-Za-z]))"
    r"\s*(?:\{([^{}]*)\}|([0-9]+|[A-Za-z]))\s*(?:\)\s*)?$"
)
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
    return Node("reals") if _ALL_REALS.fullmatch(text) else parse(text)


def split_modulus(text: str) -> tuple[str, str | None]:
    """(residue, modulus) of "3 \\pmod 7"; (text, None) if there is no modulus."""
    match = _MODULUS.search(text)
    if not match or not text[: match.start()].strip():
        return text, None
    return text[: match.start()].strip(), compact(match[1] or match[2])


def same_residue(answer: str, gold: str, ordered: bool, confirm: bool) -> tuple[str, str] | None:
    """The verdict on two answers of which one has a modulus, which is part of it; None if none has.

    A residue answers a question for a number if it is the least one: "3 (mod 7)" is 3, "10 (mod 7)" is not 10.
    """
    (residue, modulus), (gold_residue, gold_modulus) = split_modulus(answer), split_modulus(gold)
    if modulus is None and gold_modulus is None:
        return None
    if modulus is None or gold_modulus not in (None, modulus):
        return "different", "modulus"
    if modulus.isdigit() and int(modulus) > 0:
        period = int(modulus)
        x, y = exact(residue), exact(gold_residue)
        if x and y and x[0].denominator == y[0].denominator == 1 and not (x[1] or y[1]):
            if gold_modulus is None:
                return ("same" if x[0] == y[0] and 0 <= x[0] < period else "different"), "modulus"
            return ("same" if (x[0] - y[0]) % period == 0 else "different"), "modulus"
    return judge(residue, gold_residue, ordered, confirm)


def judge(answer: str, gold: str, ordered: bool = False, confirm: bool = False) -> tuple[str, str]:
    """(same | different | open, why). `confirm` asks sympy about what normal forms and numbers leave open."""
    found = same_residue(answer, gold, ordered, confirm)
    if found is not None:
        return found
    gold, gold_unit = split_measure(gold, invent=True)
    answer, unit = split_measure(answer, letters=exact(gold) is not None, nouns=nouns_of(gold_unit))
    answer, gold = without_primes(answer), without_primes(gold)
    change = conversion(unit, gold_unit)
    if change is None:
        return "different", "unit"
    if change == (1, 0):
        if unit is not None and gold_unit is not None and "=" not in answer:  # another side may have another unit
            unit = gold_unit = None
        if answer and compact(answer) == compact(gold):
            return "same", "text"
        comma = _DECIMAL_COMMA.fullmatch(answer)
        if comma and "." in gold and f"{comma.group(1)}.{comma.group(2)}" == gold:
            return "same", "number"
    readings = {(joined_groups(answer), joined_groups(gold)), (answer, gold)}
    verdicts = [_compared((a, unit), (g, gold_unit), ordered, confirm) for a, g in sorted(readings)]
    for kind in ("same", "open"):
        for verdict in verdicts:
            if verdict[0] == kind:
                return verdict
    return verdicts[0]


def measured(tree: Node, unit: Unit | None) -> Node:
    """`tree` with the unit that stood behind it."""
    if unit is None:
        return tree
    if tree.kind == "rel" and is_scalar(tree.args[-1]):
        return Node("rel", tree.value, (*tree.args[:-1], Node("qty", unit, tree.args[-1:])))
    return Node("qty", unit, (tree,))


def without_condition(text: str, other: str, gold: bool = False) -> str:
    """`text` without a condition behind it that `other` does not spell out.

    Of a gold any condition may be missing; an answer to a gold with variables may add the domain of one, no more.
    """
    match = _PROSE.search(text)
    if not match or _PROSE.search(other):
        return text
    if not gold and not (_DOMAIN.fullmatch(match.group()) and _VARIABLE.search(other)):
        return text
    return text[: match.start()].rstrip(" ,;")


def _compared(
    measured_answer: tuple[str, Unit | None], measured_gold: tuple[str, Unit | None], ordered: bool, confirm: bool
) -> tuple[str, str]:
    (answer, unit), (gold, gold_unit) = measured_answer, measured_gold
    answer, gold = without_condition(answer, gold), without_condition(gold, answer, gold=True)
    try:
        a, g = measured(read(answer), unit), measured(read(gold), gold_unit)
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
