"""Step 4 without a proof assistant: two scalar expressions are the same, different, or left open.

Confirmed by an exact normal form, refuted by high-precision values at seeded points. What is neither stays open: the
caller may ask confirm.py, and else counts it as wrong.
"""

from enum import Enum
from fractions import Fraction
from typing import Any

from zerolab.grading import numeric
from zerolab.grading.algebra import Algebra
from zerolab.grading.exact import is_zero, ratio
from zerolab.grading.polynomial import ONE, Poly, Ratio, added, scaled
from zerolab.grading.tree import Node, TooHard, symbols_of


class Answer(Enum):
    SAME = "same"
    DIFFERENT = "different"
    OPEN = "open"  # the same at every point, without a proof
    UNKNOWN = "unknown"  # outside the caps: no proof and no value


def top_degrees(node: Node) -> Node:
    """A value measured in degrees, without the sign."""
    if node.kind == "deg":
        return node.args[0]
    return Node("neg", None, (top_degrees(node.args[0]),)) if node.kind == "neg" else node


def readings(a: Node, g: Node) -> list[tuple[Node, Node]]:
    """Degree signs count as units, percent signs as a unit or as 1/100, where only one side has them."""
    da, dg = top_degrees(a), top_degrees(g)
    if da is not a or dg is not g:
        return [(da, dg)]
    if a.kind == "pct" and g.kind == "pct":
        return [(a.args[0], g.args[0])]
    if a.kind == "pct":
        return [(a, g), (a.args[0], g)]
    if g.kind == "pct":
        return [(a, g), (a, g.args[0])]
    return [(a, g)]


def scalar(a: Node, g: Node) -> Answer:
    """Whether two scalar expressions have the same value for all real values of their variables."""
    answers = {_scalar(x, y) for x, y in readings(a, g)}
    return next(answer for answer in (Answer.SAME, Answer.OPEN, Answer.UNKNOWN, Answer.DIFFERENT) if answer in answers)


def _scalar(a: Node, g: Node) -> Answer:
    if a == g:
        return Answer.SAME
    if a.kind == "num" and g.kind == "num":
        return Answer.SAME if a.value == g.value else Answer.DIFFERENT
    positive = positive_variables(a, g)
    try:
        algebra = Algebra(positive)
        if is_zero(algebra.sub(ratio(a, algebra), ratio(g, algebra)), algebra):
            return Answer.SAME
    except TooHard:
        pass
    differ = numeric.differ(a, g, symbols_of(a) | symbols_of(g), positive)
    return {True: Answer.DIFFERENT, False: Answer.OPEN, None: Answer.UNKNOWN}[differ]


def positive_variables(a: Node, g: Node) -> frozenset[str]:
    """Variables that are positive wherever both expressions are real, because of their square roots and logarithms.

    sqrt(1/n) and 1/sqrt(n) have values for positive n only. Under one root an odd power of two variables (sqrt(a/b))
    leaves both signs possible: these count if the other expression needs each of them positive (sqrt(a)/sqrt(b)).
    """
    (alone_a, among_a), (alone_g, among_g) = _needed(a), _needed(g)
    return frozenset((alone_a | among_a) & (alone_g | among_g) & (alone_a | alone_g))


def _needed(node: Node) -> tuple[set[str], set[str]]:
    """(variables that must be positive, variables of which a product must be) for a real value of `node`."""
    alone: set[str] = set()
    among: set[str] = set()
    stack = [node]
    while stack:
        top = stack.pop()
        stack.extend(top.args)
        even = top.kind == "root" and top.args[1].kind == "num" and top.args[1].value % 2 == 0
        exponent = numeric.rational(top.args[1]) if top.kind == "pow" else None
        even |= exponent is not None and exponent.denominator % 2 == 0
        if even or (top.kind == "fn" and top.value == "log"):
            powers = _monomial(top.args[0])
            odd = {name for name, power in (powers or {}).items() if power % 2}
            (alone if len(odd) == 1 else among).update(odd)
    return alone, among


def _monomial(node: Node) -> dict[str, int] | None:
    """Whole powers of the variables in a product with a positive factor; None if it is no such product."""
    if not symbols_of(node):
        value = numeric.rational(node)
        return {} if (value is not None and value > 0) or node == Node("sym", "pi") else None
    if node.kind == "sym":
        return {node.value: 1}
    if node.kind == "pow":
        exponent, inner = numeric.rational(node.args[1]), _monomial(node.args[0])
        if inner is None or exponent is None or exponent.denominator != 1:
            return None
        return {name: power * int(exponent) for name, power in inner.items()}
    if node.kind != "mul":
        return None
    total: dict[str, int] = {}
    for factor in node.args:
        powers = _monomial(factor)
        if powers is None:
            return None
        for name, power in powers.items():
            total[name] = total.get(name, 0) + power
    return total


def proportional(a: Node, g: Node, sign: int) -> bool:
    """Whether a = c g for a number c, of the given sign unless that is 0.

    For equations (sign 0) a factor that is nowhere 0 may differ too: xy = 1 is y = 1/x, but y/x = 1 is not y = x, which
    holds at (0, 0). An inequality keeps its denominators, whose sign is unknown.
    """
    try:
        algebra = Algebra()
        if sign and _denominators(a, algebra) != _denominators(g, algebra):
            return False  # a cancelled denominator leaves a hole: x(x - 3)/x < 0 is not x < 3
        x, y = ratio(a, algebra), ratio(g, algebra)
        if x.den == y.den and _proportional(x.num, y.num, sign, algebra):
            return True
        if sign:
            return False
        cleared = [cleared_equation(r, algebra) for r in (x, y)]
        if cleared[0] is None or cleared[1] is None:
            return False
        return _proportional(cleared[0], cleared[1], 0, algebra)
    except TooHard:
        return False


def _denominators(node: Node, algebra: Algebra) -> set[tuple[Any, ...]]:
    """Normal forms of everything with a variable in it that is divided by."""
    found: set[tuple[Any, ...]] = set()
    stack = [node]
    while stack:
        top = stack.pop()
        stack.extend(top.args)
        exponent = numeric.rational(top.args[1]) if top.kind == "pow" else None
        if exponent is not None and exponent < 0 and symbols_of(top.args[0]):
            found.add(ratio(top.args[0], algebra).key)
    return found


def cleared_equation(x: Ratio, algebra: Algebra) -> Poly | None:
    """A polynomial that is 0 where x is; None if it may be 0 where x has no value."""
    num = x.num
    lowest: dict[int, Fraction] = {}
    for m in num:
        for index, e in m:
            if e < 0:
                lowest[index] = min(lowest.get(index, Fraction(0)), e)
    if any(algebra.atoms[i][0] not in ("free", "pi", "e", "exp") for i in lowest):
        return None
    shift = algebra.monomial(tuple(sorted((i, -e) for i, e in lowest.items())), Fraction(1)).num
    num = algebra.multiplied(num, shift)
    for index in lowest:
        if algebra.atoms[index][0] == "free" and not _never_zero(
            {m: c for m, c in num.items() if index not in dict(m)}
        ):
            return None
    return num if x.whole or _no_common_zero(num, x.den, algebra) else None


def _never_zero(poly: Poly) -> bool:
    return len(poly) == 1 and () in poly


def _no_common_zero(num: Poly, den: Poly, algebra: Algebra) -> bool:
    """Whether num is not 0 where den is, for a den that is linear in some variable v with a constant coefficient."""
    for m, c in den.items():
        if len(m) != 1 or m[0][1] != 1 or algebra.atoms[m[0][0]][0] != "free":
            continue
        v = m[0][0]
        rest = {n: -d / c for n, d in den.items() if n != m}
        if any(v in dict(n) for n in rest):
            continue
        total: Poly = {}
        for n, d in num.items():
            power = dict(n).pop(v, Fraction(0))
            if power.denominator != 1 or power < 0:
                return False
            term: Poly = {tuple(p for p in n if p[0] != v): d}
            for _ in range(int(power)):
                term = algebra.multiplied(term, rest) if rest else {}
            total = added(total, term)
        return _never_zero(total)
    return False


def _proportional(a: Poly, g: Poly, sign: int, algebra: Algebra) -> bool:
    if not a or not g:
        return not a and not g
    lead = max(g)
    if lead not in a:
        return False
    factor = a[lead] / g[lead]
    if sign and (factor > 0) != (sign > 0):
        return False
    return is_zero(algebra.sub(Ratio(a, ONE), Ratio(scaled(g, factor), ONE)), algebra)
