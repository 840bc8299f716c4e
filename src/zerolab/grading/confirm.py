"""The last resort: sympy, built through its constructors from a syntax tree, never from text. Only runs in a worker."""

from typing import Any

import sympy

from zerolab.grading.tree import Node, TooHard

MOST_OPERATIONS = 120

_FUNCTIONS: dict[str, Any] = {
    "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan, "cot": sympy.cot, "sec": sympy.sec, "csc": sympy.csc,
    "sinh": sympy.sinh, "cosh": sympy.cosh, "tanh": sympy.tanh, "coth": sympy.coth, "sech": sympy.sech,
    "csch": sympy.csch,
    "arcsin": sympy.asin, "arccos": sympy.acos, "arctan": sympy.atan, "arccot": sympy.acot, "arsinh": sympy.asinh,
    "arcosh": sympy.acosh, "artanh": sympy.atanh, "exp": sympy.exp, "abs": sympy.Abs, "floor": sympy.floor,
    "ceil": sympy.ceiling, "factorial": sympy.factorial,
}  # fmt: skip


def built(node: Node) -> sympy.Expr:
    """A sympy expression for a scalar tree. Raises TooHard for what has none or would be large."""
    args = [built(a) for a in node.args]
    kind = node.kind
    if kind == "num":
        return sympy.Rational(node.value.numerator, node.value.denominator)
    if kind == "sym":
        constants = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I}
        return constants.get(node.value) or sympy.Symbol(node.value, real=True)
    if kind == "add":
        return sympy.Add(*args)
    if kind == "mul":
        return sympy.Mul(*args)
    if kind == "neg":
        return sympy.Mul(sympy.Integer(-1), args[0])
    if kind == "pow":
        return _power(args[0], args[1])
    if kind == "root":
        if args[0].is_negative and args[1].is_odd:
            return sympy.Mul(sympy.Integer(-1), _power(-args[0], 1 / args[1]))
        return _power(args[0], 1 / args[1])
    if kind == "deg":
        return args[0] * sympy.pi / 180
    if kind == "pct":
        return args[0] / 100
    if kind == "fn" and node.value in _FUNCTIONS:
        if node.value == "factorial" and args[0].is_number and not 0 <= args[0] <= 500:
            raise TooHard("a factorial out of range")
        return _FUNCTIONS[node.value](args[0])
    if kind == "fn" and node.value == "log":
        return sympy.log(args[0]) if len(args) == 1 else sympy.log(args[0]) / sympy.log(args[1])
    if kind == "fn" and node.value == "binom":
        if any(a.is_number and not 0 <= a <= 500 for a in args):
            raise TooHard("a binomial out of range")
        return sympy.binomial(args[0], args[1])
    raise TooHard(f"no sympy form for {kind}")


def _power(base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
    if base.is_Rational and exponent.is_Rational:
        size = max(abs(int(base.p)).bit_length(), int(base.q).bit_length()) * abs(float(exponent))
        if size > 20_000:
            raise TooHard("a power with too many digits")
    elif exponent.is_Rational and abs(float(exponent)) > 60:
        raise TooHard("a power too large to expand")
    return sympy.Pow(base, exponent)


def proven_equal(a: Node, b: Node) -> bool:
    """Whether sympy reduces a - b to 0. False also where it cannot tell."""
    try:
        difference = built(a) - built(b)
        if sympy.count_ops(difference) > MOST_OPERATIONS:
            return False
        return difference == 0 or sympy.simplify(difference) == 0
    except (TooHard, ValueError, TypeError, ArithmeticError, AttributeError, NotImplementedError, RecursionError):
        return False
