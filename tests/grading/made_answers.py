"""Right answers of many kinds, made at random with the parts that a wrong one would have changed."""

import random
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

UNITS = ["cm", "m", "km", "kg", "g", "s", "ms", "N", "J", "W", "Pa", "V", "A", "K", "mol", "Hz", r"m/s", r"m/s^2"]
UNITS += ["mph", "hours", "minutes", "dollars", "cents", "apples", "m^2", "cm^3", "ft", "miles", "radians", "eV", "L"]
NAMES = "mnpqrsabcuvw"
POINTS = "ABCDPQRS"


class Case(NamedTuple):
    """A gold, one right answer to it, and what it was made of."""

    kind: str
    gold: str
    answer: str
    parts: dict


def _number(rng: random.Random) -> str:
    kind = rng.randrange(5)
    n, d = rng.randint(1, 400), rng.randint(2, 30)
    if kind == 0:
        return rf"\frac{{{n}}}{{{d}}}"
    if kind == 1:
        return f"{n}.{rng.randint(1, 99):02d}"
    return rf"{n}\sqrt{{{rng.choice((2, 3, 5, 7))}}}" if kind == 2 else str(n)


def _measured(rng: random.Random) -> Case:
    value, unit = _number(rng), rng.choice(UNITS)
    gold = rf"{value} \text{{ {unit}}}"
    answer = rng.choice((rf"{value}\,\mathrm{{{unit}}}", gold, rf"x = {value}\text{{ {unit}}}"))
    return Case("unit", gold, answer, {"value": value, "unit": unit})


def _interval(rng: random.Random) -> Case:
    low = rng.randint(-50, 50)
    high = low + rng.randint(1, 40)
    brackets = rng.choice(("()", "[)", "(]", "[]"))
    gold = f"{brackets[0]}{low},{high}{brackets[1]}"
    signs = [r"\le" if b in "[]" else "<" for b in brackets]
    answer = rng.choice((gold, rf"x \in {gold}", rf"{low} {signs[0]} x {signs[1]} {high}"))
    return Case("interval", gold, answer, {"low": low, "high": high, "brackets": brackets})


def _inequality(rng: random.Random) -> Case:
    sign, n = rng.choice(("<", ">", r"\le", r"\ge")), rng.randint(-40, 40)
    return Case("inequality", f"x {sign} {n}", f"x {sign} {n}", {"sign": sign, "bound": n})


def _polynomial(rng: random.Random) -> Case:
    a, b = rng.sample(range(1, 30), 2)
    v = rng.choice("xyt")
    gold = f"{v}^2+{a + b}{v}+{a * b}"
    return Case("polynomial", gold, f"({v}+{a})({v}+{b})", {"a": a, "b": b, "v": v})


def _modulus(rng: random.Random) -> Case:
    m = rng.randint(3, 60)
    r = rng.randint(1, m - 1)
    return Case("modulus", rf"{r} \pmod{{{m}}}", rf"{r} \pmod {{{m}}}", {"r": r, "m": m})


def _choice(rng: random.Random) -> Case:
    letter = rng.choice("ABCDE")
    return Case("choice", letter, rng.choice((f"({letter})", letter, rf"\text{{({letter})}}")), {"letter": letter})


def _point(rng: random.Random) -> Case:
    x, y = rng.sample(range(-30, 30), 2)
    return Case("point", f"({x},{y})", rng.choice((f"({x}, {y})", f"(x,y)=({x},{y})")), {"x": x, "y": y})


def _numbers(rng: random.Random) -> Case:
    items = rng.sample(range(-60, 60), rng.randint(2, 5))
    order = rng.sample(items, len(items))
    answer = rng.choice((", ".join(map(str, order)), r"\{" + ",".join(map(str, order)) + r"\}"))
    return Case("set", r"\{" + ",".join(map(str, items)) + r"\}", answer, {"items": items})


def _derivation(rng: random.Random) -> Case:
    a, b = rng.randint(2, 300), rng.randint(2, 300)
    p, q = rng.sample(NAMES, 2)
    label = rng.choice(
        (f"{p}+{q}", "|" + "".join(rng.sample(POINTS, 2)) + "|", "[" + "".join(rng.sample(POINTS, 3)) + "]")
    )
    answer = rng.choice((f"{label} = {a + b}", f"{label} = {a}+{b} = {a + b}", f"{a}+{b} = {a + b}"))
    return Case("derivation", str(a + b), answer, {"a": a, "b": b, "label": label})


def _ratio(rng: random.Random) -> Case:
    a, b = rng.sample(range(2, 60), 2)
    k = rng.randint(1, 5)
    answer = rng.choice((f"S_1:S_2 = {a * k}:{b * k}", f"S_1:S_2 = {a}:{b}"))
    return Case("ratio", f"{a}:{b}", answer, {"a": a, "b": b})


def _exact(rng: random.Random) -> Case:
    value = Fraction(rng.randint(-500, 500), rng.randint(1, 40))
    n, d = value.numerator, value.denominator
    answer = rng.choice(
        (f"{n}/{d}", rf"\frac{{{n * 3}}}{{{d * 3}}}", rf"\text{{The answer is }} {n}/{d}", f"{n} / {d}.")
    )
    return Case("number", f"{n}/{d}", answer, {"n": n, "d": d})


def _signs(rng: random.Random) -> Case:
    a, b = rng.randint(1, 40), rng.choice((2, 3, 5, 7))
    gold = rf"{a} \pm \sqrt{{{b}}}"
    return Case("plus-minus", gold, rng.choice((gold, rf"{a}+\sqrt{b}, {a}-\sqrt{b}")), {"a": a, "b": b})


def _equation(rng: random.Random) -> Case:
    a, b = rng.randint(2, 30), rng.randint(1, 30)
    return Case("equation", f"y = {a}x + {b}", rng.choice((f"{a}x - y + {b} = 0", f"y - {b} = {a}x")), {"a": a, "b": b})


def _region(rng: random.Random) -> Case:
    low = rng.randint(-50, 50)
    high = low + rng.randint(1, 40)
    gold = rf"(-\infty,{low}] \cup ({high},\infty)"
    answer = rng.choice(
        (
            rf"\mathbb{{R}} \setminus ({low},{high}]",
            rf"x \le {low} \text{{ or }} x > {high}",
            rf"({high},\infty) \cup (-\infty,{low}]",
            rf"\{{x : 2x \le {2 * low} \text{{ or }} -x < {-high}\}}",
            rf"(-\infty,{high}] \setminus ({low},{high}] \cup ({high},\infty)",
        )
    )
    return Case("region", gold, answer, {"low": low, "high": high})


def _excluded(rng: random.Random) -> Case:
    a, b = sorted(rng.sample(range(-20, 20), 2))
    gold = rf"\mathbb{{R}} \setminus \{{{a},{b}\}}"
    answer = rng.choice(
        (
            rf"x \ne {a} \text{{ and }} x \ne {b}",
            rf"x \neq {b}, {a}",
            rf"(-\infty,{a}) \cup ({a},{b}) \cup ({b},\infty)",
            rf"\mathbb R - \{{{b},{a}\}}",
        )
    )
    return Case("excluded", gold, answer, {"a": a, "b": b})


def _distance(rng: random.Random) -> Case:
    centre, radius = rng.randint(-20, 20), rng.randint(1, 20)
    low, high = centre - radius, centre + radius
    answer = rng.choice((rf"|x - {centre}| < {radius}".replace("- -", "+ "), rf"{low} < x \text{{ and }} x < {high}"))
    return Case("distance", f"({low},{high})", answer, {"low": low, "high": high})


def _family(rng: random.Random) -> Case:
    step = rng.randint(3, 30)
    start = rng.randint(1, step - 1)
    gold = rf"{step}k + {start}, k \in \mathbb{{Z}}"
    answer = rng.choice(
        (
            rf"x = {step}n + {start}, n \in \mathbb Z",
            rf"\{{{start} + {step}m : m \in \mathbb{{Z}}\}}",
            rf"{step}k + {start} \text{{ where }} k \text{{ is an integer}}",
            rf"{step}k + {start}",
        )
    )
    return Case("family", gold, answer, {"step": step, "start": start})


def _based(rng: random.Random) -> Case:
    base = rng.randint(3, 9)
    digits = rng.choice("12") + "".join(rng.choices("012", k=rng.randint(2, 5)))
    spellings = (
        f"({digits})_{base}",
        f"{digits}_{{({base})}}",
        rf"{digits}_{{\text{{base }}{base}}}",
        f"{digits}_{base}",
    )
    return Case("base", f"{digits}_{{{base}}}", rng.choice(spellings), {"digits": digits, "base": base})


def _spelled(rng: random.Random) -> Case:
    n = rng.randint(10, 10**6)
    dressed = (
        r"\color{red}{%s}",
        r"\textcolor{blue}{%s}",
        "**%s**",
        r"{\Large %s}",
        r"\begin{aligned} x &= %s \end{aligned}",
    )
    return Case("spelling", str(n), rng.choice(dressed) % n, {"n": n})


def _by_cases(rng: random.Random) -> Case:
    a, b = rng.sample(range(1, 40), 2)
    gold = rf"\begin{{cases}} x+{a} & x > 0 \\ {b} & x \le 0 \end{{cases}}"
    answer = rng.choice(
        (
            gold.replace("& x", r"& \text{if } x"),
            rf"f(x) = \begin{{cases}} {b}, & x \le 0 \\ {a}+x, & x > 0 \end{{cases}}",
        )
    )
    return Case("cases", gold, answer, {"a": a, "b": b})


def _huge(rng: random.Random) -> Case:
    p, n, c = rng.choice((2, 3, 5, 7)), rng.randint(40_000, 900_000), rng.randint(1, 99)
    answer = rng.choice(
        (
            rf"{p} \cdot {p}^{{{n - 1}}} - {c}",
            rf"{p * p}^{{{n}/2}} - {c}",
            rf"\frac{{{p}^{{{n + 2}}}}}{{{p * p}}} - {c}",
        )
    )
    return Case("huge power", f"{p}^{{{n}}} - {c}", answer, {"p": p, "n": n, "c": c})


def _root(rng: random.Random) -> Case:
    a, v, w = rng.randint(2, 30), *rng.sample("mnrst", 2)
    gold, answer = rng.choice(
        (
            (rf"\sqrt{{\frac{{{a}}}{{{v}}}}}", rf"\frac{{\sqrt{{{a}}}}}{{\sqrt{{{v}}}}}"),
            (rf"\sqrt{{\frac{{{a}{v}}}{{{w}}}}}", rf"\frac{{\sqrt{{{a}}}\sqrt{{{v}}}}}{{\sqrt{{{w}}}}}"),
            (rf"{v}\sqrt{{{a}{v}}}", rf"\sqrt{{{a}}} {v}^{{3/2}}"),
        )
    )
    return Case("root", gold, answer, {"a": a, "v": v})


MAKERS: dict[str, Callable[[random.Random], Case]] = {
    "unit": _measured, "interval": _interval, "inequality": _inequality, "polynomial": _polynomial,
    "modulus": _modulus, "choice": _choice, "point": _point, "set": _numbers, "derivation": _derivation,
    "ratio": _ratio, "number": _exact, "plus-minus": _signs, "equation": _equation,
    "region": _region, "excluded": _excluded, "distance": _distance, "family": _family, "base": _based,
    "spelling": _spelled, "cases": _by_cases, "huge power": _huge, "root": _root,
}  # fmt: skip
