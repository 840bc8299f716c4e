"""Exact normal forms: every expression as a ratio of polynomials in independent atoms. If the difference of two answers
reduces to 0 here they are equal; the converse needs more (numeric.py, confirm.py).

Atoms: free (a variable, pi, e), a positive integer (exponent kept in [0, 1)), the unit exp(i pi r) (exponent r kept in
[0, 1), so i is its power 1/2), a base (a sum under a root), and opaque functions of normal forms: exp, log, floor, ...
Every rule used holds for real variables of either sign and principal values: no sqrt(x^2) = x, no log(x^2) = 2 log x.
"""

from fractions import Fraction
from functools import lru_cache
from typing import Any

from zerolab.grading.polynomial import (
    MOST_BITS,
    MOST_TERMS,
    MOST_WORK,
    ONE,
    Monomial,
    Poly,
    Ratio,
    added,
    checked,
    const,
    content,
    scaled,
)
from zerolab.grading.tree import TooHard

HALF = Fraction(1, 2)
LARGEST_POWER = 200  # of a sum
LARGEST_FACTOR = 5000  # trial division
LONGEST_EXPONENT = 256  # bits of an exponent


@lru_cache(maxsize=4096)
def prime_factors(n: int) -> tuple[tuple[int, int], ...]:
    """(factor, exponent); what is left behind trial division stands as one factor."""
    found = []
    p = 2
    while p <= LARGEST_FACTOR and p * p <= n:
        k = 0
        while n % p == 0:
            n, k = n // p, k + 1
        if k:
            found.append((p, k))
        p += 1 if p == 2 else 2
    if n > 1:
        found.append((n, 1))
    return tuple(found)


class Algebra:
    """The atoms that two answers share, and arithmetic on their ratios. Raises TooHard past the work budget."""

    def __init__(self, positive: frozenset[str] = frozenset()) -> None:
        self.positive_names = positive  # of variables that are known to be positive
        self.atoms: list[tuple[str, Any]] = []
        self.index: dict[tuple[str, Any], int] = {}
        self.work = 0
        self.huge = False  # whether some power of an integer is too long to be written out

    def atom(self, kind: str, data: Any) -> int:
        key = (kind, data.key if isinstance(data, Ratio) else data)
        if key not in self.index:
            self.index[key] = len(self.atoms)
            self.atoms.append((kind, data))
            if len(self.atoms) > 60:
                raise TooHard("too many quantities")
        return self.index[key]

    def atomic(self, kind: str, data: Any, exponent: Fraction = Fraction(1)) -> Ratio:
        return self.monomial(((self.atom(kind, data), exponent),), Fraction(1))

    # -- arithmetic

    def monomial(self, powers: Monomial, coefficient: Fraction) -> Ratio:
        m, c = self.reduced(dict(powers), coefficient)
        return Ratio({m: c}, ONE)

    def reduced(self, powers: dict[int, Fraction], coefficient: Fraction) -> tuple[Monomial, Fraction]:
        """Integers and the unit give their whole powers to the coefficient, unless that would be too long a number."""
        for index, exponent in list(powers.items()):
            if exponent == 0:
                del powers[index]
                continue
            kind, data = self.atoms[index]
            if kind not in ("integer", "unit") or 0 <= exponent < 1:
                continue
            whole = exponent.numerator // exponent.denominator
            if kind == "unit":
                coefficient = -coefficient if whole % 2 else coefficient
            else:
                if abs(whole) * data.bit_length() > MOST_BITS:
                    self.huge = True
                    if whole.bit_length() > LONGEST_EXPONENT:
                        raise TooHard("a power with too many digits")
                    continue
                coefficient = checked(coefficient * Fraction(data) ** whole)
            if exponent == whole:
                del powers[index]
            else:
                powers[index] = exponent - whole
        return tuple(sorted(powers.items())), coefficient

    def multiplied(self, a: Poly, b: Poly) -> Poly:
        self.work += len(a) * len(b)
        if self.work > MOST_WORK or len(a) * len(b) > MOST_TERMS * 4:
            raise TooHard("too much to expand")
        out: Poly = {}
        for ma, ca in a.items():
            for mb, cb in b.items():
                if not ma or not mb:
                    m, c = ma or mb, ca * cb
                else:
                    powers = dict(ma)
                    for index, exponent in mb:
                        powers[index] = powers.get(index, Fraction(0)) + exponent
                    m, c = self.reduced(powers, ca * cb)
                total = out.get(m, Fraction(0)) + c
                if total:
                    out[m] = checked(total)
                else:
                    out.pop(m, None)
        return out

    def ratio(self, num: Poly, den: Poly) -> Ratio:
        """num / den; a denominator of one term goes into the numerator."""
        if not den:
            raise TooHard("a division by zero")
        if den != ONE and len(den) == 1:
            ((m, c),) = den.items()
            inverse, factor = self.reduced({i: -e for i, e in m}, 1 / c)
            num, den = self.multiplied(num, {inverse: factor}), ONE
        return Ratio(num, den if num else ONE)

    def add(self, a: Ratio, b: Ratio) -> Ratio:
        if a.den == b.den:
            return self.ratio(added(a.num, b.num), a.den)
        return self.ratio(
            added(self.multiplied(a.num, b.den), self.multiplied(b.num, a.den)), self.multiplied(a.den, b.den)
        )

    def mul(self, a: Ratio, b: Ratio) -> Ratio:
        if a.num == b.den and b.den != ONE:
            return Ratio(b.num, a.den)
        return self.ratio(
            self.multiplied(a.num, b.num), self.multiplied(a.den, b.den) if b.den != ONE or a.den != ONE else ONE
        )

    def neg(self, a: Ratio) -> Ratio:
        return Ratio({m: -c for m, c in a.num.items()}, a.den)

    def inverse(self, a: Ratio) -> Ratio:
        return self.ratio(a.den, a.num)

    def sub(self, a: Ratio, b: Ratio) -> Ratio:
        return self.add(a, self.neg(b))

    # -- powers

    def positive(self, index: int) -> bool:
        """Whether an atom is a positive real whatever the real variables are."""
        kind, data = self.atoms[index]
        if kind in ("integer", "pi", "e"):
            return True
        if kind == "free":
            return data in self.positive_names
        return kind == "exp" and isinstance(data, tuple) and all(self.real(i) and e.denominator == 1 for i, e in data)

    def real(self, index: int) -> bool:
        """Whether an atom is real whatever the real variables are."""
        kind, data = self.atoms[index]
        if kind == "log":
            return isinstance(data, tuple)  # of a positive number
        return kind in ("free", "abs", "floor") or self.positive(index)

    def power(self, base: Ratio, r: Fraction, *, real_root: bool = True) -> Ratio:
        """base ** r for a rational r. An odd root of a negative number is real."""
        if r.denominator == 1:
            return self.whole_power(base, int(r))
        if not base.num:
            if r < 0:
                raise TooHard("a division by zero")
            return base
        if r.denominator > 1000 or r.numerator.bit_length() > LONGEST_EXPONENT:
            raise TooHard("an exponent out of range")
        if base.single:
            ((m, c),) = base.num.items()
            return self.single_power(m, c, r, real_root)
        if abs(r) > 1000:
            raise TooHard("an exponent out of range")
        factor = content(base.num) / content(base.den)
        rest = Ratio(scaled(base.num, 1 / content(base.num)), scaled(base.den, 1 / content(base.den)))
        return self.mul(self.single_power((), factor, r, real_root), self.base_power(rest, r))

    def whole_power(self, base: Ratio, n: int) -> Ratio:
        if n < 0:
            return self.whole_power(self.inverse(base), -n)
        if n == 0 and not base.num:
            raise TooHard("0 to the power 0")
        if base.single:
            ((m, c),) = base.num.items()
            if (c.numerator.bit_length() + c.denominator.bit_length()) * n > MOST_BITS and abs(c) != 1:
                return self.huge_power(m, c, n)
            powers, factor = self.reduced({i: e * n for i, e in m}, c**n)
            return Ratio({powers: factor}, ONE)
        if n > LARGEST_POWER:
            raise TooHard("a power too large to expand")
        out = const(1)
        while n:
            if n & 1:
                out = self.mul(out, base)
            n >>= 1
            if n:
                base = self.mul(base, base)
        return out

    def huge_power(self, m: Monomial, c: Fraction, n: int) -> Ratio:
        """(c m) ** n as powers of primes, which are not multiplied out."""
        out = self.monomial(tuple((i, e * n) for i, e in m), Fraction(-1 if c < 0 and n % 2 else 1))
        for number, sign in ((abs(c.numerator), 1), (c.denominator, -1)):
            for p, k in prime_factors(number):
                out = self.mul(out, self.atomic("integer", p, Fraction(sign * k * n)))
        return out

    def single_power(self, m: Monomial, c: Fraction, r: Fraction, real_root: bool) -> Ratio:
        """(c m) ** r: the positive part splits off, what can be negative stays together."""
        positive = [(i, e) for i, e in m if self.positive(i)]
        rest = [(i, e) for i, e in m if not self.positive(i)]
        out = self.monomial(tuple((i, e * r) for i, e in positive), Fraction(1))
        for n, sign in ((abs(c.numerator), 1), (c.denominator, -1)):
            for p, k in prime_factors(n):
                out = self.mul(out, self.atomic("integer", p, sign * k * r))
        if not rest:
            if c < 0:
                odd_root = real_root and r.denominator % 2
                out = (
                    self.neg(out) if odd_root and r.numerator % 2 else out if odd_root else self.mul(out, self.unit(r))
                )
            return out
        index, exponent = rest[0]
        if len(rest) == 1 and c > 0 and -1 < exponent <= 1 and self.atoms[index][0] not in ("unit", "base"):
            return self.mul(out, self.monomial(((index, exponent * r),), Fraction(1)))
        if len(rest) == 1 and c > 0 and self.atoms[index][0] == "unit":
            return self.mul(out, self.unit(exponent * r))
        return self.mul(out, self.base_power(Ratio({tuple(rest): Fraction(1 if c > 0 else -1)}, ONE), r))

    def base_power(self, base: Ratio, r: Fraction) -> Ratio:
        whole = r.numerator // r.denominator
        out = self.atomic("base", base, r - whole) if r != whole else const(1)
        return self.mul(out, self.whole_power(base, whole)) if whole else out

    def unit(self, r: Fraction) -> Ratio:
        """exp(i pi r)"""
        return self.atomic("unit", None, r)

    # -- transcendental

    def exp(self, exponent: Ratio) -> Ratio:
        if not exponent.whole:
            return self.atomic("exp", exponent)
        out = const(1)
        i, pi = self.atom("unit", None), self.atom("pi", None)
        turn = tuple(sorted(((i, HALF), (pi, Fraction(1)))))
        for m, c in exponent.num.items():
            if m == ():
                out = self.mul(out, self.atomic("e", None, c))
            elif m == turn:
                out = self.mul(out, self.unit(c))
            else:
                out = self.mul(out, self.atomic("exp", m, c))
        return out

    def general_power(self, base: Ratio, exponent: Ratio) -> Ratio:
        r = exponent.constant
        if r is not None:
            return self.power(base, r)
        if base.single and base.num == {((self.atom("e", None), Fraction(1)),): Fraction(1)}:
            return self.exp(exponent)
        if not exponent.whole:
            return self.exp(self.mul(exponent, self.log(base)))
        constant = exponent.num.get((), Fraction(0))
        rest = Ratio({m: c for m, c in exponent.num.items() if m}, ONE)
        return self.mul(self.power(base, constant), self.exp(self.mul(rest, self.log(base))))

    def log(self, of: Ratio) -> Ratio:
        """Natural logarithm; log(a b) = log a + log b for a positive a."""
        if not of.num:
            raise TooHard("the logarithm of 0")
        factor = content(of.num) / content(of.den)
        out = const(0)
        for n, sign in ((factor.numerator, 1), (factor.denominator, -1)):
            for p, k in prime_factors(n):
                out = self.add(out, self.mul(const(sign * k), self.atomic("log", ("integer", p))))
        rest = Ratio(scaled(of.num, 1 / content(of.num)), scaled(of.den, 1 / content(of.den)))
        if rest.single:
            ((m, c),) = rest.num.items()
            for i, e in [(i, e) for i, e in m if self.positive(i)]:
                out = self.add(out, self.mul(const(e), self.log_atom(i)))
            m = tuple((i, e) for i, e in m if not self.positive(i))
            if not m and c < 0:
                return self.add(out, self.mul(self.unit(HALF), self.atomic("pi", None)))
            rest = Ratio({m: c}, ONE)
        return out if rest.constant == 1 else self.add(out, self.atomic("log", rest))

    def log_atom(self, index: int) -> Ratio:
        kind, data = self.atoms[index]
        if kind == "e":
            return const(1)
        if kind == "exp":
            return Ratio({data: Fraction(1)}, ONE) if isinstance(data, tuple) else data
        return self.atomic("log", ("integer", data) if kind == "integer" else ("pi", None))
