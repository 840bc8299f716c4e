"""Steps 3 and 4 on two normalised answers: everything that needs a tree. Runs in a worker (see sandbox.py)."""

import re
from typing import NamedTuple

from zerolab.grading.normalize import compact, exact, without_primes
from zerolab.grading.parser import parse
from zerolab.grading.structure import Comparison
from zerolab.grading.tree import Node, TooHard, Unreadable, is_scalar
from zerolab.grading.unit_table import Unit
from zerolab.grading.units import SAME_UNIT, conversion, nouns_of, split_measure

_GROUPED = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?!,)")
# conditions behind an answer: "k \pi, k \in \Z", "where n is an integer", sets {2k : k \in \Z}
_LONGEST = 80  # characters of a condition
_NAME = r"[A-Za-z](?:_\{?[0-9A-Za-z]\}?)?"
_NAMES = rf"(?P<names>{_NAME}(?:\s*,\s*{_NAME})*)"
_SET = (
    r"\\(?P<set>[ZNQRC])(?![A-Za-z])\s*"
    r"(?P<positive>[\^_]\s*\{?\s*\+\s*\}?|_\s*\{\s*(?:>|\\ge|\\geq)\s*[01]\s*\})?"
)
_KIND = (
    r"(?P<kind>(?:positive |non-?negative |negative |non-?zero |natural |whole |real |rational |complex |arbitrary )*"
    r"(?:integers?|numbers?|constants?))"
)
_LEAD = r"[\s,;(]*(?:(?:where|for|with|and|such that|when)\s+)?(?:(?:all|any|every|some|each)\s+|\\forall\s*)?"
_BEHIND = re.compile(
    rf"{_LEAD}(?:{_NAMES}\s*(?:\\in|is in|in)\s*{_SET}"
    rf"|{_NAMES.replace('names', 'names1')}\s+(?:is|are|be|being)\s+(?:an?\s+|any\s+|some\s+)?{_KIND}"
    rf"|{_KIND.replace('kind', 'kind2')}\s+{_NAMES.replace('names', 'names2')}"
    rf"|{_NAMES.replace('names', 'names3')}\s*=\s*(?P<all>0\s*,\s*\\pm\s*1\s*,\s*\\pm\s*2\s*,?\s*\\ldots))[\s)]*"
)
_START = re.compile(r"[,(;]|\\text\{|\\forall(?![A-Za-z])|(?<![A-Za-z])(?:where|for|with|such that)(?![A-Za-z])")
_BEFORE = re.compile(rf"\s*(?:for\s+)?(?P<names>{_NAME})\s*\\in\s*\\(?P<set>[ZN])(?![A-Za-z^_])\s*[,:]\s*(?=\S)")
_BUILDER = re.compile(
    r"\\\{\s*(.+?)\s*(?:\\mid(?![A-Za-z])|\\vert(?![A-Za-z])|\\colon(?![A-Za-z])|[|:])\s*(.+?)\s*\\\}"
)
_MEMBER = re.compile(r"([A-Za-z])(?:\s*\\in\s*\\R)?")
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
_BOUNDED = re.compile(r"[<>\[\]]|\\(?:l|g)(?:e|eq|t|eqslant)(?![A-Za-z])|\\(?:in|infty|ne|neq)(?![A-Za-z])")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")

_MODULUS = re.compile(
    r"\s*(?:\(\s*)?(?:\\[pb]?mod(?![A-Za-z])|\\text\{mod\}|(?<![A-Za-z\\])mod(?![A-Za-z]))"
    r"\s*(?:\{([^{}]*)\}|([0-9]+|[A-Za-z]))\s*(?:\)\s*)?$"
)
_ONE_SIGN = re.compile(r"(?<=[\^_])\{([0-9A-Za-z])\}(?![0-9])")
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
    if change == SAME_UNIT:
        if unit is not None and gold_unit is not None and "=" not in answer:  # another side may have another unit
            unit = gold_unit = None
        if answer and bare(answer) == bare(gold):
            return "same", "text"
        for text, other in ((answer, gold), (gold, answer)):
            comma = _DECIMAL_COMMA.fullmatch(text)
            if comma and "." in other and f"{comma.group(1)}.{comma.group(2)}" == other:
                return "same", "number"
    readings = {(joined_groups(answer), joined_groups(gold)), (answer, gold)}
    verdicts = [_compared((a, unit), (g, gold_unit), ordered, confirm) for a, g in sorted(readings)]
    for kind in ("same", "open"):
        for verdict in verdicts:
            if verdict[0] == kind:
                return verdict
    return verdicts[0]


def bare(text: str) -> str:
    """`text` without the spaces and the braces that change nothing in print: x^{2} is x^2."""
    return compact(_ONE_SIGN.sub(r"\1 ", text))


def measured(tree: Node, unit: Unit | None) -> Node:
    """`tree` with the unit that stood behind it."""
    if unit is None:
        return tree
    if tree.kind == "rel" and is_scalar(tree.args[-1]):
        return Node("rel", tree.value, (*tree.args[:-1], Node("qty", unit, tree.args[-1:])))
    return Node("qty", unit, (tree,))


# -- conditions


class Domain(NamedTuple):
    """The values that some variables may have, e.g. (("k",), "Z")."""

    names: tuple[str, ...]
    values: str


def _domain(found: dict[str, str]) -> Domain:
    names = next(found[key] for key in ("names", "names1", "names2", "names3") if key in found)
    if "set" in found:
        values = found["set"] + ("+" if "positive" in found else "")
    elif "all" in found:
        values = "Z"
    else:
        words = (found.get("kind") or found["kind2"]).replace("arbitrary ", "").rstrip("s")
        values = {"integer": "Z", "real number": "R", "natural number": "N", "rational number": "Q"}.get(words, words)
    return Domain(tuple(sorted(name.strip() for name in names.split(","))), values)


def split_domain(text: str) -> tuple[str, Domain | None]:
    """(answer, domain of its variables) of "k \\pi, k \\in \\Z" and of sets built so; (text, None) of other answers."""
    text = unfolded(text)
    if not _VARIABLE.search(text):
        return text, None
    before = _BEFORE.match(text)
    if before:
        return text[before.end() :], _domain({k: v for k, v in before.groupdict().items() if v is not None})
    for match in _START.finditer(text, max(0, len(text) - _LONGEST)):
        behind = _BEHIND.fullmatch(" ".join(_TEXT.sub(r" \1 ", text[match.start() :]).split()).strip(" ."))
        if behind and text[: match.start()].strip():
            found = {k: v for k, v in behind.groupdict().items() if v is not None}
            return text[: match.start()].rstrip(" ,;"), _domain(found)
    return text, None


def unfolded(text: str) -> str:
    """The property for the set of all x that have it; "2k, k \\in \\Z" for the set of all 2k with k in Z."""
    match = _BUILDER.fullmatch(text)
    if not match or (text.count("|") > 1 and "|" in text[match.end(1) : match.start(2)]):
        return text
    member = _MEMBER.fullmatch(match[1])
    if member and re.search(rf"(?<![A-Za-z\\]){member[1]}(?![A-Za-z])", match[2]):
        return match[2]
    return f"{match[1]}, {match[2]}" if _BEHIND.fullmatch(match[2]) else text


def without_domains(answer: str, gold: str) -> tuple[str, str, tuple[str, str] | None] | None:
    """(answer, gold, (name in the answer, name in the gold)) without the domains of their variables.

    None if the two domains differ. A name for the members of a domain may be another one than the gold's. One of the
    two may leave the domain out, but not of what it only bounds: "x > 3, x \\in \\Z" is not x > 3.
    """
    plain_answer, domain = split_domain(answer)
    plain_gold, gold_domain = split_domain(gold)
    if domain is None or gold_domain is None:
        found, of = (domain, plain_answer) if gold_domain is None else (gold_domain, plain_gold)
        if found is not None and found.values != "R" and (_BOUNDED.search(of) or (domain and domain.values != "Z")):
            return None
        if domain is not None and not _VARIABLE.search(plain_gold):
            return answer, plain_gold, None
        return plain_answer, plain_gold, None
    if domain.values != gold_domain.values or len(domain.names) != len(gold_domain.names):
        return None
    if domain.names == gold_domain.names:
        return plain_answer, plain_gold, None
    return (plain_answer, plain_gold, (domain.names[0], gold_domain.names[0])) if len(domain.names) == 1 else None


def renamed(node: Node, names: tuple[str, str] | None) -> Node:
    """`node` with one variable exchanged for another: both ways, so that no two become one."""
    if names is None:
        return node
    if node.kind == "sym" and node.value in names:
        return Node("sym", names[1 - names.index(node.value)])
    return Node(node.kind, node.value, tuple(renamed(a, names) for a in node.args))


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


# -- trees


def _compared(
    measured_answer: tuple[str, Unit | None], measured_gold: tuple[str, Unit | None], ordered: bool, confirm: bool
) -> tuple[str, str]:
    (answer, unit), (gold, gold_unit) = measured_answer, measured_gold
    plain = without_domains(answer, gold)
    if plain is None:
        return "different", "domain"
    answer, gold, names = plain
    answer, gold = without_condition(answer, gold), without_condition(gold, answer, gold=True)
    try:
        a, g = measured(renamed(read(answer), names), unit), measured(read(gold), gold_unit)
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
