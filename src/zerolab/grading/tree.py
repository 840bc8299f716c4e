"""The syntax tree of an answer, and the caps that keep every later step bounded.

kind     value            args
num      Fraction
sym      name                                  a letter, a Greek letter, a letter with a subscript, an unknown word
inf / reals / empty
add mul                   terms, factors
neg                       one term             kept apart from `mul` only by the parser
pow                       base, exponent
pm       "+" or "-"       left, right          \\pm is "+", \\mp is "-": the sign taken first
fn       name             arguments            sin log abs floor factorial binom sqrt-free: roots are powers
qty      Unit                 value            a value with a unit behind it
deg pct                       value                degrees; percent
root                      radicand, index      an odd root of a negative number is real
seq      "()" "[)" ...    items                point, interval, vector
set                       items                \\{...\\}
ratio                     terms                3:4:5
list                      items                separated by commas, "and", "or" outside brackets
union intersect minus     sets
rel      operators        sides                chain: a < x <= b has two operators and three sides
mat      columns          cells, by rows
base     (digits, base)
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

LONGEST_NUMBER = 1000  # digits
MOST_NODES = 600
DEEPEST = 40


class Unreadable(ValueError):
    """The text is not in the notation, or breaks a cap. Never a verdict by itself: the answer is compared as text."""


class TooHard(ArithmeticError):
    """A computation would pass a work cap."""


@dataclass(frozen=True, slots=True)
class Node:
    kind: str
    value: Any = None
    args: tuple["Node", ...] = ()


def number(value: int | Fraction) -> Node:
    return Node("num", Fraction(value))


def symbols_of(node: Node) -> frozenset[str]:
    """Names of the variables (and opaque functions) of a tree."""
    found: set[str] = set()
    stack = [node]
    while stack:
        top = stack.pop()
        named = top.kind == "sym" and top.value not in ("pi", "e", "i")
        if named or (top.kind == "fn" and top.value.startswith("call:")):
            found.add(top.value)
        stack.extend(top.args)
    return frozenset(found)


def kinds_of(node: Node) -> frozenset[str]:
    found: set[str] = set()
    stack = [node]
    while stack:
        top = stack.pop()
        found.add(top.kind)
        stack.extend(top.args)
    return frozenset(found)


SCALAR_KINDS = frozenset(["num", "sym", "add", "mul", "neg", "pow", "fn", "deg", "pct", "root"])


def is_scalar(node: Node) -> bool:
    return kinds_of(node) <= SCALAR_KINDS
