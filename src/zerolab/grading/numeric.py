"""High-precision values at seeded random points: enough to refute an equality, never to prove one."""

import math
import random
from collections.abc import Mapping
from fractions import Fraction

import mpmath

from zerolab.grading.tree import Node, TooHard

DIGITS = 40
LARGEST = 4000.0  # log2 of the largest value looked at
SAME = mpmath.mpf(10) ** -20
_SEED = 20250326


def value(node: Node, point: Mapping[str, mpmath.mpf] | None = None) -> mpmath.mpc:
    """Value of a scalar tree, its variables given by `point`. Raises TooHard outside the caps or the domain."""
    with mpmath.workdps(DIGITS):
        try:
            return mpmath.mpmathify(_value(node, point or {}))
        except (ZeroDivisionError, ValueError, OverflowError, TypeError, KeyError) as error:
            raise TooHard(f"no value: {type(error).__name__}") from error


def _checked(x: mpmath.mpc) -> mpmath.mpc:
    if not mpmath.isfinite(x) or (x != 0 and abs(mpmath.mag(x)) > LARGEST):
        raise TooHard("a value out of range")
    return x


def _value(node: Node, point: Mapping[str, mpmath.mpf]) -> mpmath.mpc:
    kind = node.kind
    if kind == "num":
        return _checked(mpmath.mpf(node.value.numerator) / node.value.denominator)
    if kind == "sym":
        constants = {"pi": mpmath.pi, "e": mpmath.e, "i": mpmath.j}
        return point[node.value] if node.value in point else +constants[node.value]
    args = [_value(a, point) for a in node.args]
    if kind == "add":
        return _checked(mpmath.fsum(args))
    if kind == "mul":
        return _checked(mpmath.fprod(args))
    if kind == "neg":
        return -args[0]
    if kind == "pow":
        exponent = rational(node.args[1])
        if exponent is not None and exponent.denominator % 2 and exponent.denominator > 1:
            root = _root(args[0], mpmath.mpf(exponent.denominator))
            return _power(root, mpmath.mpf(exponent.numerator))
        return _power(args[0], args[1])
    if kind == "root":
        return _root(args[0], args[1])
    if kind == "deg":
        return args[0] * mpmath.pi / 180
    if kind == "pct":
        return args[0] / 100
    if kind == "fn":
        return _checked(_function(node.value, args))
    raise TooHard(f"no value for {kind}")


def rational(node: Node) -> Fraction | None:
    """A rational number that is written as a product or quotient of numbers."""
    if node.kind == "num":
        return node.value
    parts = [rational(a) for a in node.args]
    if not parts or None in parts:
        return None
    known = [p for p in parts if p is not None]
    if node.kind == "neg":
        return -known[0]
    if node.kind == "mul":
        return math.prod(known, start=Fraction(1))
    return 1 / known[0] if node.kind == "pow" and known[1] == -1 and known[0] else None


def _power(base: mpmath.mpc, exponent: mpmath.mpc) -> mpmath.mpc:
    if base == 0:
        if mpmath.re(exponent) > 0:
            return mpmath.mpf(0)
        raise TooHard("a power of zero")
    if abs(exponent) * max(abs(mpmath.mag(base)), 2) > LARGEST:
        raise TooHard("a power out of range")
    return _checked(mpmath.power(base, exponent))


def _root(radicand: mpmath.mpc, index: mpmath.mpc) -> mpmath.mpc:
    if mpmath.im(radicand) == 0 and mpmath.re(radicand) < 0 and mpmath.isint(index) and int(mpmath.re(index)) % 2:
        return -_power(-radicand, 1 / index)
    return _power(radicand, 1 / index)


def _gamma(x: mpmath.mpc) -> mpmath.mpc:
    if abs(x) > 400:
        raise TooHard("a factorial out of range")
    return mpmath.gamma(x + 1)


def _function(name: str, args: list[mpmath.mpc]) -> mpmath.mpc:
    x = args[0]
    if name in _DIRECT:
        if name not in ("abs", "log") and abs(x) > 2000:
            raise TooHard("an argument out of range")
        return _DIRECT[name](x) if len(args) == 1 else mpmath.log(x) / mpmath.log(args[1])
    if name == "factorial":
        return _gamma(x)
    if name == "binom":
        return _gamma(x) / (_gamma(args[1]) * _gamma(x - args[1]))
    if name.startswith("call:"):  # an unknown function: some fixed smooth one, another for each name
        return mpmath.sin(sum((i + 2) * a for i, a in enumerate(args)) * (1 + mpmath.mpf(ord(name[-1])) / 7)) + 2
    raise TooHard(f"no value for {name}")


_DIRECT = {
    "sin": mpmath.sin, "cos": mpmath.cos, "tan": mpmath.tan, "cot": mpmath.cot, "sec": mpmath.sec, "csc": mpmath.csc,
    "sinh": mpmath.sinh, "cosh": mpmath.cosh, "tanh": mpmath.tanh, "coth": mpmath.coth, "sech": mpmath.sech,
    "csch": mpmath.csch,
    "arcsin": mpmath.asin, "arccos": mpmath.acos, "arctan": mpmath.atan, "arccot": mpmath.acot, "log": mpmath.log,
    "exp": mpmath.exp, "abs": mpmath.fabs, "floor": mpmath.floor, "ceil": mpmath.ceil, "arsinh": mpmath.asinh,
    "arcosh": mpmath.acosh, "artanh": mpmath.atanh,
}  # fmt: skip


def points(names: frozenset[str], positive: frozenset[str] = frozenset()) -> list[dict[str, mpmath.mpf]]:
    """Seeded values for the variables: two points with positive values, two with both signs where these may be."""
    if not names:
        return [{}]
    rng = random.Random(_SEED)
    made = []
    for signs in ((1,), (1,), (1, -1), (-1, 1)):
        made.append(
            {
                n: (1 if n in positive else signs[k % len(signs)]) * mpmath.mpf(rng.uniform(0.3, 2.7))
                for k, n in enumerate(sorted(names))
            }
        )
    return made


def differ(a: Node, b: Node, names: frozenset[str], positive: frozenset[str] = frozenset()) -> bool | None:
    """Whether some point shows that a and b are not the same function; None if no point gives both a value."""
    seen = False
    for point in points(names, positive):
        try:
            x, y = value(a, point), value(b, point)
        except TooHard:
            continue
        if abs(x - y) > SAME * max(abs(x), abs(y), SAME):
            return True
        seen = True
    return False if seen else None
