"""Random expressions as trees and as LaTeX, for the property tests."""

import random
from fractions import Fraction

from zerolab.grading.tree import Node, number

VARIABLES = ("x", "y", "n")
UNARY = ("sin", "cos", "tan", "exp", "log", "abs", "floor", "sinh")


def expression(rng: random.Random, depth: int, variables: tuple[str, ...] = VARIABLES) -> Node:
    """A scalar tree of at most this depth."""
    if depth == 0 or rng.random() < 0.15:
        kind = rng.randrange(6)
        if kind < 3:
            return number(Fraction(rng.randint(-6, 9), rng.choice((1, 1, 1, 2, 3))))
        if kind == 3 or not variables:
            return Node("sym", rng.choice(("pi", "e", "i")))
        return Node("sym", rng.choice(variables))

    def inner() -> Node:
        return expression(rng, depth - 1, variables)

    kind = rng.randrange(9)
    if kind < 2:
        return Node("add", None, (inner(), inner()))
    if kind < 4:
        return Node("mul", None, (inner(), inner()))
    if kind == 4:
        return Node("neg", None, (inner(),))
    if kind == 5:
        return Node(
            "pow", None, (inner(), number(rng.choice((-2, -1, 2, 3, Fraction(1, 2), Fraction(1, 3), Fraction(2, 3)))))
        )
    if kind == 6:
        return Node("root", None, (inner(), number(rng.choice((2, 2, 3)))))
    if kind == 7:
        return Node("pow", None, (number(rng.choice((2, 3, 4, Fraction(1, 2)))), inner()))
    return Node("fn", rng.choice(UNARY), (inner(),))


def rewritten(rng: random.Random, node: Node) -> Node:
    """Another expression, equal or nearly so: rules that hold, and rules that hold for some values only."""
    args = tuple(rewritten(rng, a) for a in node.args)
    node = Node(node.kind, node.value, args)
    if rng.random() < 0.6:
        return node
    if node.kind in ("add", "mul"):
        return Node(node.kind, None, args[::-1])
    if node.kind == "root" and args[1] == number(2):
        return Node("pow", None, (args[0], number(Fraction(1, 2))))
    if node.kind == "pow" and args[0].kind == "pow":  # (a^b)^c as a^(bc): not always true
        return Node("pow", None, (args[0].args[0], Node("mul", None, (args[0].args[1], args[1]))))
    if node.kind == "pow" and args[0].kind == "mul":  # (ab)^c as a^c b^c: not always true
        return Node("mul", None, tuple(Node("pow", None, (f, args[1])) for f in args[0].args))
    if node.kind == "fn" and node.value == "log" and args[0].kind == "mul":  # not always true
        return Node("add", None, tuple(Node("fn", "log", (f,)) for f in args[0].args))
    if node.kind == "fn" and node.value == "abs" and rng.random() < 0.5:
        return args[0]
    if node.kind == "fn" and node.value == "tan":
        return Node("mul", None, (Node("fn", "sin", args), Node("pow", None, (Node("fn", "cos", args), number(-1)))))
    return node


def latex(node: Node) -> str:
    """LaTeX of a scalar tree, with all brackets."""
    a = [latex(x) for x in node.args]
    if node.kind == "num":
        value = node.value
        return str(value) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    if node.kind == "sym":
        return "\\pi " if node.value == "pi" else node.value
    if node.kind == "add":
        return "(" + "+".join(f"({x})" for x in a) + ")"
    if node.kind == "mul":
        return r" \cdot ".join(f"({x})" for x in a)
    if node.kind == "neg":
        return f"-({a[0]})"
    if node.kind == "pow":
        return f"({a[0]})^{{{a[1]}}}"
    if node.kind == "root":
        return rf"\sqrt[{a[1]}]{{{a[0]}}}"
    if node.value in ("abs", "floor"):
        return rf"\left|{a[0]}\right|" if node.value == "abs" else rf"\lfloor {a[0]} \rfloor"
    return rf"\{node.value}({a[0]})"
