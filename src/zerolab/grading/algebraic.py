"""Zero test for algebraic numbers: a non-zero one cannot be arbitrarily small, so enough digits decide.

For E = sum of c_k times roots, let U / L be its quotient of algebraic integers with conjugates bounded by u and l, of
degree at most D; then E = 0 or |E| >= 1 / (u^(D-1) l) (the bound of Burnikel, Fleischer, Mehlhorn and Schirra, 2000).
"""

from collections import defaultdict
from fractions import Fraction
from math import lcm, log2
from typing import TYPE_CHECKING

import mpmath

from zerolab.grading.polynomial import Poly, Ratio

if TYPE_CHECKING:
    from zerolab.grading.algebra import Algebra

MOST_DIGITS = 12_000  # bits of precision
_ALGEBRAIC = frozenset(("integer", "unit", "base"))


def is_zero_combination(num: Poly, algebra: "Algebra") -> bool:
    """Whether every coefficient of `num`, read as a polynomial in its transcendental atoms, is the number 0."""
    groups: dict[tuple, Poly] = defaultdict(dict)
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
    _degrees(poly, algebra, degrees)
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


def _degrees(poly: Poly, algebra: "Algebra", degrees: dict[int, int]) -> None:
    for m in poly:
        for index, e in m:
            degrees[index] = lcm(degrees.get(index, 1), e.denominator)
            kind, data = algebra.atoms[index]
            if kind == "base":
                _degrees(data.num, algebra, degrees)
                _degrees(data.den, algebra, degrees)


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
