"""Right answers turned into wrong ones by rule: a unit, a sign, a bound, a letter, a digit, a modulus is another one.

Every rule states why its result is wrong, so no grader is needed to tell. A rule returns None if it does not apply.
"""

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


MAKERS: dict[str, Callable[[random.Random], Case]] = {
    "unit": _measured, "interval": _interval, "inequality": _inequality, "polynomial": _polynomial,
    "modulus": _modulus, "choice": _choice, "point": _point, "set": _numbers, "derivation": _derivation,
    "ratio": _ratio, "number": _exact, "plus-minus": _signs, "equation": _equation,
}  # fmt: skip


def mutate(rng: random.Random, case: Case) -> str:
    """A wrong answer to the gold of `case`, near to the right one."""
    p, k = case.parts, rng.randint(1, 9)
    rules: dict[str, Callable[[], list[str]]] = {
        "unit": lambda: [
            rf"{p['value']} \text{{ {rng.choice([u for u in UNITS if u != p['unit']])}}}",
            rf"-{p['value']} \text{{ {p['unit']}}}",
            rf"{p['value']} \text{{ {p['unit']}}}^{{{rng.randint(4, 7)}}}",
            rf"{p['value']} \text{{ {rng.choice(('halves', 'doubled', 'thirds', 'or more', 'false'))}}}",
            rf"\text{{not }} {p['value']} \text{{ {p['unit']}}}",
        ],
        "interval": lambda: [
            f"{'[' if p['brackets'][0] == '(' else '('}{p['low']},{p['high']}{p['brackets'][1]}",
            f"{p['brackets'][0]}{p['low']},{p['high']}{']' if p['brackets'][1] == ')' else ')'}",
            f"{p['brackets'][0]}{p['low']},{p['high'] + k}{p['brackets'][1]}",
            f"{p['low'] - k} < x < {p['high']}",
            rf"{p['brackets'][0]}{p['low']},{p['high']}{p['brackets'][1]} \cup [{p['high'] + k},{p['high'] + k + 1}]",
            rf"\{{{p['low']},{p['high']}\}}" if p["brackets"] != "()" else f"{p['low']}, {p['high']}",
        ],
        "inequality": lambda: [
            f"x {rng.choice([s for s in ('<', '>', chr(92) + 'le', chr(92) + 'ge') if s != p['sign']])} {p['bound']}",
            f"x {p['sign']} {p['bound'] + k}",
            f"-x {p['sign']} {-p['bound']}",
            f"y {p['sign']} {p['bound']}",
            f"x = {p['bound']}",
        ],
        "polynomial": lambda: [
            f"({p['v']}+{p['a']})({p['v']}-{p['b']})",
            f"({p['v']}+{p['a'] + k})({p['v']}+{p['b']})",
            case.answer.replace(p["v"], "z"),
            f"({p['v']}+{p['a']})({p['v']}+{p['b']})^2",
            f"({p['v']}+{p['a']})({p['v']}+{p['b']}) = 0",
        ],
        "modulus": lambda: [
            rf"{p['r']} \pmod{{{p['m'] + k}}}",
            rf"{(p['r'] + rng.randint(1, p['m'] - 1)) % p['m']} \pmod{{{p['m']}}}",
            str(p["r"]),
        ],
        "choice": lambda: [
            rng.choice([c for c in "ABCDE" if c != p["letter"]]),
            rf"({p['letter']}) \text{{ or }} ({'A' if p['letter'] != 'A' else 'B'})",
            rf"\text{{({p['letter']}) is wrong}}",
            "A B C D E",
            rf"\text{{not }} ({p['letter']})",
        ],
        "point": lambda: [
            f"({p['y']},{p['x']})",
            f"({p['x']},{p['y'] + k})",
            f"({p['x']},{p['y']},{k})",
            f"[{p['x']},{p['y']}]",
            f"y = {p['x']}, x = {p['y']}",
        ],
        "set": lambda: [
            ", ".join(map(str, p["items"][1:])),
            ", ".join(map(str, [*p["items"], 60 + k])),
            ", ".join(map(str, [-100 - k, *p["items"][1:]])),
            "(" + ",".join(map(str, p["items"])) + ")",
            r"\{" + ",".join(map(str, [p["items"][0], *p["items"][2:], 77])) + r"\}",
        ],
        "derivation": lambda: [
            f"{p['label']} = {p['a'] + p['b'] + k}",
            f"{p['label']} = {p['a']}+{p['b'] + k} = {p['a'] + p['b']}",
            f"{p['a'] + p['b']} = {p['a'] + p['b'] + k}",
            f"2x = {p['a'] + p['b']}",
            rf"\text{{not }} {p['label']} = {p['a'] + p['b']}",
            rf"\text{{half of }} {p['label']} = {p['a'] + p['b']}",
            rf"\text{{The answer is not }} {p['a'] + p['b']}",
            rf"{p['label']} \ne {p['a'] + p['b']}",
            rf"{p['label']} < {p['a'] + p['b']}",
        ],
        "ratio": lambda: [
            f"{p['b']}:{p['a']}",
            f"S_1:S_2 = {p['a']}:{p['b'] + k}",
            f"S_1:S_2 = {p['b']}:{p['a']}",
            f"{p['a']}:{p['b']}:{k}",
            rf"\frac{{{p['b']}}}{{{p['a']}}}",
        ],
        "number": lambda: [
            f"{p['n'] + k}/{p['d']}",
            f"{-p['n'] or k}/{p['d']}",
            rf"\frac{{{p['n'] or 1}}}{{{p['d'] + k}}}",
            f"{p['n']}/{p['d']} or {p['n'] + 1}/{p['d']}",
            rf"\text{{The answer is not }} {p['n']}/{p['d']}",
            f"{p['n']}/{p['d']} + x",
            rf"{p['n']}/{p['d']} = {p['n'] + k}/{p['d']}",
        ],
        "plus-minus": lambda: [
            rf"{p['a']} + \sqrt{{{p['b']}}}",
            rf"-{p['a']} \pm \sqrt{{{p['b']}}}",
            rf"{p['a']} \pm \sqrt{{{p['b'] + 11}}}",
            rf"{p['a']} \pm {p['b']}",
        ],
        "equation": lambda: [
            f"y = {p['a']}x - {p['b']}",
            f"x = {p['a']}y + {p['b']}",
            f"y = {p['a'] + k}x + {p['b']}",
            f"y > {p['a']}x + {p['b']}",
            f"{p['a']}x + y + {p['b']} = 0",
            f"z = {p['a']}x + {p['b']}",
        ],
    }  # fmt: skip
    return rng.choice(rules[case.kind]())
