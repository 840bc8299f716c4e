"""Sparse Laurent polynomials with rational coefficients, under a work budget.

A monomial is a sorted tuple of (atom, exponent); an atom is the index of an independent quantity in an Algebra, an
exponent a Fraction (2^(1/2), e^(x/2) and x^(1/2) are powers of the atoms 2, e^x and x). A Ratio is num / den.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm
from typing import Any

from zerolab.grading.tree import TooHard

Monomial = tuple[tuple[int, Fraction], ...]
Poly = dict[Monomial, Fraction]

MOST_TERMS = 1500
MOST_BITS = 60_000
MOST_WORK = 60_000  # products of two terms in one comparison

ONE: Poly = {(): Fraction(1)}


@dataclass(frozen=True, slots=True)
class Ratio:
    num: Poly
    den: Poly

    @property
    def key(self) -> tuple[Any, ...]:
        """Hashable form."""
        return (tuple(sorted(self.num.items())), tuple(sorted(self.den.items())))

    @property
    def whole(self) -> bool:
        return self.den == ONE

    @property
    def single(self) -> bool:
        """One term, with no denominator."""
        return len(self.num) == 1 and self.den == ONE

    @property
    def constant(self) -> Fraction | None:
        """Its value if it is a rational number."""
        if self.den != ONE:
            return None
        if not self.num:
            return Fraction(0)
        return self.num.get(()) if len(self.num) == 1 else None


def const(value: int | Fraction) -> Ratio:
    return Ratio({(): Fraction(value)} if value else {}, ONE)


def checked(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > MOST_BITS:
        raise TooHard("a number with too many digits")
    return value


def content(poly: Poly) -> Fraction:
    """The positive rational that leaves coprime integer coefficients."""
    over, under = 0, 1
    for c in poly.values():
        over, under = gcd(over, c.numerator), lcm(under, c.denominator)
        if under.bit_length() > MOST_BITS:
            raise TooHard("a number with too many digits")
    return Fraction(over, under) if over else Fraction(1)


def scaled(poly: Poly, factor: Fraction) -> Poly:
    return {m: checked(c * factor) for m, c in poly.items()}


def added(a: Poly, b: Poly) -> Poly:
    out = dict(a)
    for m, c in b.items():
        total = out.get(m, Fraction(0)) + c
        if total:
            out[m] = checked(total)
        else:
            out.pop(m, None)
    if len(out) > MOST_TERMS:
        raise TooHard("too many terms")
    return out
