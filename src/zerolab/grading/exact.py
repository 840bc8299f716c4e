"""Normal forms of syntax trees, and an exact test whether a normal form is 0.

The zero test of algebraic numbers rests on a bound: a non-zero one cannot be arbitrarily small, so enough digits
decide. For E = sum of c_k times roots, let U / L be its quotient of algebraic integers with conjugates bounded by u
and l, of degree at most D. Then E = 0 or |E| >= 1 / (u^(D-1) l) (the bound of Burnikel, Fleischer, Mehlhorn and
Schirra, 2000).
"""

from collections import defaultdict
from fractions import Fraction
from math import comb, factorial, lcm, log2
from typing import TYPE_CHECKING, Any

import mpmath

from zerolab.grading import numeric
from zerolab.grading.algebra import HALF, Algebra
from zerolab.grading.polynomial import ONE, Poly, Ratio, const
from zerolab.grading.tree import Node, TooHard, symbols_of

if TYPE_CHECKING:
    from zerolab.grading.algebra import Algebra

MOST_DIGITS = 12_000  # bits of precision
_ALGEBRAIC = frozenset(("integer", "unit", "base"))


def is_zero_combination(num: Poly, algebra: "Algebra") -> bool:
    """Whether every coefficient of `num`, read as a polynomial in its transcendental atoms, is the number 0."""
    groups: dict[tuple[Any, ...], Poly] = defaultdict(dict)
    algebraic = {i for i in range(len(algebra.atoms)) if _is_algebraic(i, algebra)}
    for m, c in num.items():
        rest = tuple((i, e) for i, e in m if i not in algebraic)
        groups[rest][tuple((i, e) for i, e in m if i in algebraic)] = c
    return all(len(group) > 1 and _is_zero(group, algebra) for group in groups.values())


def _is_algebraic(index: int, algebra: "Algebra") -> bool:
    kind, data = algebra.atoms[index]
    if kind == "base":
        return all(_is_algebraic(i, algebra) for poly in (data.num, data.den) for m in poly for i, _ in m)
    return kind in _ALGEBRAIC


def _is_zero(poly: Poly, algebra: "Algebra") -> bool:
    degrees: dict[int, int] = {}
    _degrees_of_generators(poly, algebra, degrees)
    degree = 1
    for index, d in degrees.items():
        degree *= 2 * d if algebra.atoms[index][0] == "unit" else d
    upper, lower = _bounds(poly, algebra)
    bits = (degree - 1) * max(upper, 0.0) + lower + 4
    if degree > 400 or bits + max(upper, 0.0) + 64 > MOST_DIGITS:
        return False
    with mpmath.workprec(80):
        if abs(_evaluate(poly, algebra)) > mpmath.mpf(2) ** -40 * sum(
            abs(mpmath.mpf(c.numerator)) for c in poly.values()
        ):
            return False
    with mpmath.workprec(int(bits + max(upper, 0.0) + 64)):
        return abs(_evaluate(poly, algebra)) < mpmath.mpf(2) ** -int(bits)


def _degrees_of_generators(poly: Poly, algebra: "Algebra", degrees: dict[int, int]) -> None:
    for m in poly:
        for index, e in m:
            degrees[index] = lcm(degrees.get(index, 1), e.denominator)
            kind, data = algebra.atoms[index]
            if kind == "base":
                _degrees_of_generators(data.num, algebra, degrees)
                _degrees_of_generators(data.den, algebra, degrees)


def _bounds(poly: Poly, algebra: "Algebra") -> tuple[float, float]:
    """log2 of bounds (u, l) on the conjugates of numerator and denominator of a sum of products of roots."""
    common = 1
    for c in poly.values():
        common = lcm(common, c.denominator)
    uppers, lowers = [], []
    for m, c in poly.items():
        u, low = log2(abs(int(c * common))) if c else 0.0, 0.0
        for index, e in m:
            bu, bl = _atom_bounds(index, e, algebra)
            u, low = u + bu, low + bl
        uppers.append(u)
        lowers.append(low)
    total = sum(lowers)
    return max(u + total - low for u, low in zip(uppers, lowers, strict=True)) + log2(len(uppers)), total + log2(common)


def _atom_bounds(index: int, e: Fraction, algebra: "Algebra") -> tuple[float, float]:
    kind, data = algebra.atoms[index]
    if kind == "unit":
        return 0.0, 0.0
    if kind == "integer":
        return (float(e) * log2(data), 0.0) if e >= 0 else (0.0, float(-e) * log2(data))
    num_u, num_l = _bounds(data.num, algebra)
    den_u, den_l = _bounds(data.den, algebra)
    u, low = max(num_u + den_l, 0.0), max(num_l + den_u, 0.0)
    a = abs(float(e))
    whole = int(a) + 1
    over, under = a * u + (whole - a) * low, whole * low
    return (over, under) if e >= 0 else (a * low + (whole - a) * u, whole * u)


def _evaluate(poly: Poly, algebra: "Algebra") -> mpmath.mpc:
    total = mpmath.mpc(0)
    for m, c in poly.items():
        term = mpmath.mpf(c.numerator) / c.denominator
        for index, e in m:
            term = term * _atom(index, e, algebra)
        total += term
    return total


def _atom(index: int, e: Fraction, algebra: "Algebra") -> mpmath.mpc:
    kind, data = algebra.atoms[index]
    exponent = mpmath.mpf(e.numerator) / e.denominator
    if kind == "unit":
        return mpmath.expjpi(exponent)
    if kind == "integer":
        return mpmath.mpf(data) ** exponent
    value = evaluate(data, algebra)
    if (
        abs(value.imag) < abs(value.real) * mpmath.mpf(2) ** (20 - mpmath.mp.prec)
        and value.real < 0
        and e.denominator % 2
    ):
        return (-1 if e.numerator % 2 else 1) * abs(value.real) ** exponent
    return value**exponent


def evaluate(value: Ratio, algebra: "Algebra") -> mpmath.mpc:
    """A ratio of algebraic atoms at the working precision."""
    return _evaluate(value.num, algebra) / _evaluate(value.den, algebra)


LARGEST_FACTORIAL = 2000
_ANGLES = sorted({Fraction(k, n) for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24) for k in range(-n, n + 1)})


def ratio(node: Node, algebra: Algebra) -> Ratio:
    """Normal form of a scalar expression. Raises TooHard if it has none within the caps."""
    kind, args = node.kind, node.args
    if kind == "num":
        return const(node.value)
    if kind == "sym":
        return _symbol(node.value, algebra)
    if kind == "add":
        total = ratio(args[0], algebra)
        for term in args[1:]:
            total = algebra.add(total, ratio(term, algebra))
        return total
    if kind == "mul":
        product = ratio(args[0], algebra)
        for factor in args[1:]:
            product = algebra.mul(product, ratio(factor, algebra))
        return product
    if kind == "neg":
        return algebra.neg(ratio(args[0], algebra))
    if kind == "pow":
        return algebra.general_power(ratio(args[0], algebra), ratio(args[1], algebra))
    if kind == "root":
        index = ratio(args[1], algebra).constant
        if index is None or index == 0:
            raise TooHard("a root with a variable index")
        return algebra.power(ratio(args[0], algebra), 1 / index)
    if kind == "deg":
        return _degrees(args[0], algebra)
    if kind == "pct":
        return algebra.mul(ratio(args[0], algebra), const(Fraction(1, 100)))
    if kind == "fn":
        return _function(node, algebra)
    raise TooHard(f"no normal form for {kind}")


def _degrees(value: Node, algebra: Algebra) -> Ratio:
    turn = algebra.mul(algebra.atomic("pi", None), const(Fraction(1, 180)))
    return algebra.mul(ratio(value, algebra), turn)


def _symbol(name: str, algebra: Algebra) -> Ratio:
    if name == "pi":
        return algebra.atomic("pi", None)
    if name == "e":
        return algebra.atomic("e", None)
    if name == "i":
        return algebra.unit(HALF)
    return algebra.atomic("free", name)


def _function(node: Node, algebra: Algebra) -> Ratio:
    name, args = node.value, node.args
    if name == "binom":
        return _binomial(ratio(args[0], algebra), ratio(args[1], algebra), algebra)
    if name == "abs":
        return _absolute(args[0], algebra)
    if name in ("floor", "ceil"):
        return _floor(args[0], name, algebra)
    inner = ratio(args[0], algebra) if args else const(0)
    if name == "factorial":
        return _factorial(inner, algebra)
    if name == "log":
        value = algebra.log(inner)
        return value if len(args) == 1 else algebra.mul(value, algebra.inverse(algebra.log(ratio(args[1], algebra))))
    if name == "exp":
        return algebra.exp(inner)
    if name in _CIRCULAR:
        return _circular(name, inner, algebra)
    if name in _HYPERBOLIC:
        return _circular(_HYPERBOLIC[name], inner, algebra, hyperbolic=True)
    if name in ("arcsin", "arccos", "arctan"):
        return _inverse(node, inner, algebra)
    if name.startswith("call:") and len(args) == 1:
        return algebra.atomic(name, inner)
    raise TooHard(f"no normal form for {name}")


_CIRCULAR = frozenset(("sin", "cos", "tan", "cot", "sec", "csc"))
_HYPERBOLIC = {"sinh": "sin", "cosh": "cos", "tanh": "tan", "coth": "cot", "sech": "sec", "csch": "csc"}


def _circular(name: str, of: Ratio, algebra: Algebra, hyperbolic: bool = False) -> Ratio:
    """Through exponentials: with E = exp(i x), cos x = (E + 1/E) / 2 and i sin x = (E - 1/E) / 2."""
    i = const(1) if hyperbolic else algebra.unit(HALF)
    up = algebra.exp(algebra.mul(i, of))
    down = algebra.exp(algebra.neg(algebra.mul(i, of)))
    half = const(HALF)
    cos = algebra.mul(algebra.add(up, down), half)
    sin = algebra.mul(algebra.mul(algebra.sub(up, down), half), algebra.inverse(i))
    over = {"sin": sin, "cos": cos, "tan": sin, "cot": cos, "sec": const(1), "csc": const(1)}[name]
    under = {"sin": const(1), "cos": const(1), "tan": cos, "cot": sin, "sec": cos, "csc": sin}[name]
    return over if under.constant == 1 else algebra.mul(over, algebra.inverse(under))


def _inverse(node: Node, of: Ratio, algebra: Algebra) -> Ratio:
    """An inverse circular function: a rational multiple of pi where that is proven, else odd in its argument."""
    name = node.value
    if not symbols_of(node):
        guess = numeric.value(node)
        if abs(guess.imag) < 1e-20:
            for angle in _ANGLES:
                if abs(float(angle) * 3.141592653589793 - float(guess.real)) < 1e-12:
                    turn = algebra.mul(algebra.atomic("pi", None), const(angle))
                    back = _circular(name[3:], turn, algebra)
                    if is_zero(algebra.sub(back, of), algebra):
                        return turn
    if name == "arccos":
        quarter = algebra.mul(algebra.atomic("pi", None), const(HALF))
        return algebra.sub(quarter, _odd("arcsin", of, algebra))
    return _odd(name, of, algebra)


def _odd(name: str, of: Ratio, algebra: Algebra) -> Ratio:
    lead = of.num[min(of.num)] if of.num else Fraction(1)
    return algebra.atomic(name, of) if lead > 0 else algebra.neg(algebra.atomic(name, algebra.neg(of)))


def _absolute(node: Node, algebra: Algebra) -> Ratio:
    inner = ratio(node, algebra)
    if not inner.num:
        return inner
    if not symbols_of(node):
        value = numeric.value(node)
        if abs(value.imag) < abs(value.real) * Fraction(1, 10**20):
            return inner if value.real > 0 else algebra.neg(inner)
        if inner.whole and all(algebra.atoms[i][0] == "unit" and e == HALF for m in inner.num for i, e in m):
            real = inner.num.get((), Fraction(0))
            imaginary = sum((c for m, c in inner.num.items() if m), Fraction(0))
            return algebra.power(const(real**2 + imaginary**2), HALF)
        raise TooHard("the modulus of a complex number")
    if any(algebra.atoms[i][0] == "unit" for m in inner.num for i, _ in m):
        raise TooHard("the modulus of a complex expression")
    return algebra.atomic("abs", inner if inner.num[min(inner.num)] > 0 else algebra.neg(inner))


def _floor(node: Node, name: str, algebra: Algebra) -> Ratio:
    inner = ratio(node, algebra)
    c = inner.constant
    if c is not None:
        return const(c.numerator // c.denominator if name == "floor" else -(-c.numerator // c.denominator))
    if not symbols_of(node):
        value = numeric.value(node)
        nearest = round(value.real)
        if abs(value.imag) > 1e-20 or abs(value.real - nearest) < 1e-20 or abs(nearest) > 10**15:
            raise TooHard("a rounding that cannot be decided")
        below = nearest if nearest < value.real else nearest - 1
        return const(below if name == "floor" else below + 1)
    if name == "ceil":
        return algebra.neg(_floor(Node("neg", None, (node,)), "floor", algebra))
    shift = inner.num.get((), Fraction(0)) if inner.whole else Fraction(0)
    whole = Fraction(shift.numerator // shift.denominator)
    return algebra.add(algebra.atomic("floor", algebra.sub(inner, const(whole))), const(whole))


def _factorial(of: Ratio, algebra: Algebra) -> Ratio:
    c = of.constant
    if c is not None:
        if c.denominator != 1 or c < 0:
            raise TooHard("a factorial out of range")
        if c > LARGEST_FACTORIAL:
            return algebra.atomic("factorial", of)
        return const(factorial(int(c)))
    shift = of.num.get((), Fraction(0)) if of.whole else Fraction(0)
    if shift.denominator != 1 or abs(shift) > 12:
        return algebra.atomic("factorial", of)
    base = algebra.sub(of, const(shift))
    out = algebra.atomic("factorial", base)
    for k in range(1, int(shift) + 1):
        out = algebra.mul(out, algebra.add(base, const(k)))
    for k in range(int(shift) + 1, 1):
        out = algebra.mul(out, algebra.inverse(algebra.add(base, const(k))))
    return out


def _binomial(n: Ratio, k: Ratio, algebra: Algebra) -> Ratio:
    a, b = n.constant, k.constant
    if a is not None and b is not None and a.denominator == b.denominator == 1 and 0 <= b <= a <= LARGEST_FACTORIAL:
        return const(comb(int(a), int(b)))
    under = algebra.mul(_factorial(k, algebra), _factorial(algebra.sub(n, k), algebra))
    return algebra.mul(_factorial(n, algebra), algebra.inverse(under))


def is_zero(difference: Ratio, algebra: Algebra) -> bool:
    """Whether a normal form is provably 0."""
    num = settled(difference.num, algebra)
    if algebra.huge:
        num = lowered(num, algebra)
    return not num or is_zero_combination(num, algebra)


def lowered(num: dict[Any, Any], algebra: Algebra) -> dict[Any, Any]:
    """`num` times powers of integers that shorten the powers of its terms, if these have one in common."""
    for index, (kind, _) in enumerate(algebra.atoms):
        if kind == "integer" and num:
            powers = [dict(m).get(index, Fraction(0)) for m in num]
            lowest = min(powers)
            shift = Fraction(lowest.numerator // lowest.denominator)
            if shift:
                num = algebra.multiplied(num, {((index, -shift),): Fraction(1)})
    return num


def settled(num: dict[Any, Any], algebra: Algebra) -> dict[Any, Any]:
    """`num` times a non-zero factor, with every root of a sum brought to powers in [0, 1), newest root first."""
    for index in range(len(algebra.atoms) - 1, -1, -1):
        kind, base = algebra.atoms[index]
        if kind != "base":
            continue
        exponents = [dict(m).get(index, Fraction(0)) for m in num]
        wholes = [e.numerator // e.denominator for e in exponents]
        low, high = min(wholes, default=0), max(wholes, default=0)
        if low == high == 0:
            continue
        out: dict[Any, Any] = {}
        for (m, c), e, k in zip(num.items(), exponents, wholes, strict=True):
            powers = dict(m)
            powers[index] = e - k
            term = algebra.monomial(tuple(sorted(powers.items())), c).num
            term = algebra.multiplied(term, algebra.whole_power(Ratio(base.num, ONE), k - low).num)
            term = algebra.multiplied(term, algebra.whole_power(Ratio(base.den, ONE), high - k).num)
            out = algebra.add(Ratio(out, ONE), Ratio(term, ONE)).num
        num = out
    return num
