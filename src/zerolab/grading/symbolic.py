"""Step 4 without a proof assistant: two scalar expressions are the same, different, or left open.

Confirmed by an exact normal form, refuted by high-precision values at seeded points. What is neither stays open: the
caller may ask confirm.py, and else counts it as wrong.
"""

from enum import Enum
from fractions import Fraction

from zerolab.grading import numeric
from zerolab.grading.algebra import Algebra
from zerolab.grading.exact import is_zero, ratio, settled
from zerolab.grading.polynomial import ONE, Ratio, scaled
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
    try:
        algebra = Algebra()
        if is_zero(algebra.sub(ratio(a, algebra), ratio(g, algebra)), algebra):
            return Answer.SAME
    except TooHard:
        pass
    differ = numeric.differ(a, g, symbols_of(a) | symbols_of(g))
    return {True: Answer.DIFFERENT, False: Answer.OPEN, None: Answer.UNKNOWN}[differ]


def proportional(a: Node, g: Node, sign: int) -> bool:
    """Whether a = c g for a number c, of the given sign unless that is 0. For equations a denominator is cleared."""
    try:
        algebra = Algebra()
        x, y = ratio(a, algebra), ratio(g, algebra)
        if sign and not (x.whole and y.whole):
            return x.den == y.den and _proportional(x.num, y.num, sign, algebra)
        return _proportional(cleared(x, algebra), cleared(y, algebra), sign, algebra)
    except TooHard:
        return False


def cleared(x: Ratio, algebra: Algebra) -> dict:
    """The numerator, with no negative power of a variable left."""
    num = settled(x.num, algebra)
    lowest: dict[int, Fraction] = {}
    for m in num:
        for index, e in m:
            if e < 0 and algebra.atoms[index][0] in ("free", "pi", "e", "exp"):
                lowest[index] = min(lowest.get(index, Fraction(0)), e)
    shift = algebra.monomial(tuple(sorted((i, -e) for i, e in lowest.items())), Fraction(1)).num
    return algebra.multiplied(num, shift)


def _proportional(a: dict, g: dict, sign: int, algebra: Algebra) -> bool:
    if not a or not g:
        return not a and not g
    lead = max(g)
    if lead not in a:
        return False
    factor = a[lead] / g[lead]
    if sign and (factor > 0) != (sign > 0):
        return False
    return is_zero(algebra.sub(Ratio(a, ONE), Ratio(scaled(g, factor), ONE)), algebra)
