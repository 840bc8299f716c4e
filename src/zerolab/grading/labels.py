"""Labels and derivations in front of an answer: `x = 5`, `m+n = 123+45 = 168`, `2^{10} = 1024`, `S_1:S_2 = 7:32`."""

import re
from typing import NamedTuple

from zerolab.grading import numeric
from zerolab.grading.tree import SCALAR_KINDS, Node, TooHard, is_scalar, kinds_of, number, symbols_of
from zerolab.grading.unit_table import DECORATED, takes_back

ROUNDED = 0.005  # relative distance up to which one number may stand for another behind \approx
_GREEK = "alpha|beta|gamma|delta|epsilon|theta|kappa|lambda|mu|nu|rho|sigma|tau|phi|chi|psi|omega"
_MEASURES = "area|perimeter|length|volume|measure|value|radius|distance|height|number|sum|probability"
_NAME = re.compile(
    rf"(?:(?:[A-Za-z]|{_GREEK}|triangle|det)(?:_.{{1,12}})?'*|{DECORATED}|(?:the )?(?:{_MEASURES}) of)", re.IGNORECASE
)
_COMPLEX = re.compile(r"[zw](?:_.{1,12})?")
_ANGLE = re.compile(rf"(?:(?:[A-Z]|{_GREEK})(?:_.{{1,12}})?'*|angle .*)")
_OF_ANGLES = frozenset(("sin", "cos", "tan", "cot", "sec", "csc"))
_INFINITY = Node("inf")
_MINUS_INFINITY = Node("neg", None, (_INFINITY,))


def is_label(node: Node) -> bool:
    """A name that an answer may be given under: x, m_{max}, angle ABC, (x, y), f(x), p(x), f^{-1}(x), AB."""
    if node.kind == "sym":
        return node.value not in ("e", "i", "pi") and not takes_back(node.value)
    if node.kind == "seq":
        return all(item.kind == "sym" for item in node.args)
    if node.kind == "mul" and len(node.args) == 2:  # p(x) and AB read as products
        head = node.args[0].args[0] if node.args[0].kind == "pow" else node.args[0]
        return head.kind == "sym" and node.args[1].kind == "sym"
    if node.kind != "fn" or not node.value.startswith("call:"):
        return False
    kinds = ("sym", "num", "rel") if node.value in ("call:P", "call:Pr") else ("sym", "num")  # P(X = 2)
    return all(a.kind in kinds for a in node.args)


def names_function(label: Node, value: Node) -> bool:
    """Whether a label is y, or a function of a variable of the value."""
    if label.kind == "sym":
        return label.value == "y"
    return label.kind in ("fn", "mul") and label.args[-1].kind == "sym" and label.args[-1].value in symbols_of(value)


def member(node: Node) -> Node:
    """The set S of "x in S", all reals as an interval."""
    if node.kind == "rel" and node.value == ("in",) and is_label(node.args[0]):
        node = node.args[1]
    return Node("seq", "()", (_MINUS_INFINITY, _INFINITY)) if node.kind == "reals" else node


def split_label(node: Node) -> tuple[Node | None, Node]:
    """(label, value): the last side of x = ... = v, or what stands before an approximation."""
    if node.kind != "rel":
        return None, node
    operators, sides = node.value, node.args
    if "~" in operators:
        cut = operators.index("~")
        if cut == 0 and is_label(sides[0]) and len(sides) == 2:
            return sides[0], sides[1]
        operators, sides = operators[:cut], sides[: cut + 1]
        if not operators:
            return None, sides[0]
    if set(operators) == {"="} and is_label(sides[0]):
        return sides[0], sides[-1]
    return None, Node("rel", operators, sides)


def unlabelled(a: Node, g: Node) -> tuple[Node, Node]:
    """Both without their labels, unless the labels name different things."""
    label_a, value_a = split_label(a)
    label_g, value_g = split_label(g)
    if label_a is not None and label_g is not None:
        one_is_y = Node("sym", "y") in (label_a, label_g)
        both_functions = one_is_y and names_function(label_a, value_a) and names_function(label_g, value_g)
        return (value_a, value_g) if label_a == label_g or both_functions else (a, g)
    label = label_a or label_g
    if label is None:
        return value_a, value_g
    value, other = (value_a, g) if label_a is not None else (value_g, a)
    if label.kind == "mul":
        segment = all(f.kind == "sym" and f.value[0].isupper() for f in label.args)
        if not (segment or names_function(label, value)):
            return a, g
    if other.kind == "rel" or (other.kind == "sym" and value == label):
        return a, g
    return value_a, value_g


class Statement(NamedTuple):
    """What `label = ... = value` states: values that are written as equal, and those that only come near them."""

    label: Node | None
    exact: tuple[Node, ...]
    rounded: tuple[Node, ...]


def is_constant(node: Node) -> bool:
    """Whether a side of an equation is a number, a measured number or a ratio of numbers."""
    return kinds_of(node) <= SCALAR_KINDS | {"qty", "ratio", "base"} and not symbols_of(node)


def is_quantity(node: Node) -> bool:
    """A label that is no unknown to be solved for: m+n, |AB|, [ABC], S_1:S_2, sin A. `2x` and `x^2` are none."""
    if node.kind == "ratio":
        return all(is_label(part) or is_quantity(part) for part in node.args)
    names = symbols_of(node)
    if not is_scalar(node) or not all(_NAME.fullmatch(name) for name in names) or _spells_denial(node):
        return False
    if node.kind == "fn" and node.value in _OF_ANGLES and len(names) == 1:
        return bool(_ANGLE.fullmatch(next(iter(names))))
    if len(names) > 1:
        return True
    length = node.args[0] if node.kind == "pow" and node.args[1].kind == "num" else node  # |z|^2
    name = "".join(names)
    return length.kind == "fn" and length.value == "abs" and bool(re.match(DECORATED, name) or _COMPLEX.fullmatch(name))


def is_geometric(node: Node) -> bool:
    """A quantity that no equation of a curve begins with: AB, |AB|, [ABC], sin A, S_1:S_2."""
    if node.kind == "mul":
        parts = [f.args[0] if f.kind == "pow" and f.args[1] == number(-1) else f for f in node.args]  # AB/CD
        return all(f.value[0].isupper() if f.kind == "sym" else f.kind == "mul" and is_geometric(f) for f in parts)
    if node.kind == "fn" and node.value == "abs":
        return is_geometric(node.args[0])
    return node.kind in ("ratio", "fn") and is_quantity(node)


def _spells_denial(node: Node) -> bool:
    """Whether letters that read as a product spell a word such as "not"."""
    if node.kind == "mul" and all(f.kind == "sym" for f in node.args):
        word = "".join(f.value for f in node.args)
        if word.lower() == "not" or (not word.isupper() and takes_back(word)):
            return True
    return any(_spells_denial(part) for part in node.args)


def stated(node: Node, gold: bool = False) -> Statement | None:
    """What a chain of equal constants says, with or without a label in front; None if it is an equation.

    A gold of two names (`a + b = 5`) is an equation, whatever an answer of this form is.
    """
    if node.kind != "rel" or not set(node.value) <= {"=", "~"}:
        return None
    sides = node.args
    first = next((k for k, side in enumerate(sides) if is_constant(side)), len(sides))
    label = sides[0] if first else None
    values = sides[first:]
    if not values or not all(is_constant(v) for v in values):
        return None
    if label is not None and not (
        (is_label(label) and label.kind in ("sym", "fn")) or (is_geometric(label) if gold else is_quantity(label))
    ):
        return None
    unit = values[-1].value if values[-1].kind == "qty" else None
    if unit is not None:
        values = tuple(v if v.kind == "qty" else Node("qty", unit, (v,)) for v in values)
    operators = node.value[first:]
    cut = operators.index("~") + 1 if "~" in operators else len(values)
    return Statement(label, values[:cut], values[cut:])


def is_rounded(value: Node, exact: Node) -> bool:
    """Whether one number may stand for another behind an approximation sign."""
    try:
        x, y = (numeric.value(v.args[0] if v.kind == "qty" else v) for v in (value, exact))
    except TooHard:
        return False
    return abs(x - y) <= ROUNDED * abs(y)
