"""Right answers turned into wrong ones by rule: a unit, a sign, a bound, a letter, a digit, a modulus is another one.

Every rule states why its result is wrong, so no grader is needed to tell. A rule returns None if it does not apply.
"""

import random
from collections.abc import Callable

from made_answers import UNITS, Case


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
        "region": lambda: [
            rf"(-\infty,{p['low']}) \cup ({p['high']},\infty)",
            rf"\mathbb{{R}} \setminus ({p['low']},{p['high']})",
            rf"\mathbb{{R}} \setminus [{p['low']},{p['high']}]",
            rf"x \le {p['low']} \text{{ and }} x > {p['high']}",
            rf"x \le {p['low']} \text{{ or }} x > {p['high'] + k}",
            rf"x \ge {p['low']} \text{{ or }} x > {p['high']}",
            rf"({p['low']},{p['high']}]",
            rf"x > {p['high']}",
            rf"x \le {p['low']} \text{{ or }} y > {p['high']}",
        ],
        "excluded": lambda: [
            rf"x \ne {p['a']}",
            rf"\{{{p['a']},{p['b']}\}}",
            r"\mathbb{R}",
            rf"\mathbb{{R}} \setminus \{{{p['a']},{p['b']},{p['b'] + k}\}}",
            rf"\mathbb{{R}} \setminus [{p['a']},{p['b']}]",
            rf"x \ne {p['a']} \text{{ or }} x \ne {p['b']}",
            rf"x \ne {p['a']}, y \ne {p['b']}",
            rf"x = {p['a']}, {p['b']}",
        ],
        "distance": lambda: [
            rf"{p['low']} < x \text{{ and }} x \le {p['high']}",
            rf"{p['low']} < x \text{{ or }} x < {p['high']}",
            rf"{p['low']} < x \text{{ and }} y < {p['high']}",
            rf"|x - {p['low']}| < {p['high'] - p['low']}",
            rf"|2x - {p['low'] + p['high']}| \le {p['high'] - p['low']}",
            rf"|2x - {p['low'] + p['high']}| > {p['high'] - p['low']}",
        ],
        "family": lambda: [
            rf"{p['step']}k + {p['start']}, k \in \mathbb{{N}}",
            rf"{p['step']}k + {p['start']} \text{{ where }} k \text{{ is a positive integer}}",
            rf"{p['step'] + k}k + {p['start']}, k \in \mathbb{{Z}}",
            rf"{p['step']}n + {p['start'] + 1}, n \in \mathbb{{Z}}",
            rf"{p['step']}n + {p['start']}, k \in \mathbb{{Z}}",
            rf"\{{{p['step']}, {p['start']}\}}",
            str(p["start"]),
        ],
        "base": lambda: [
            f"({p['digits']})_{{{p['base'] + 1}}}",
            f"({p['digits']}1)_{{{p['base']}}}",
            p["digits"],
            str(int(p["digits"], p["base"])),
            rf"{p['digits']} \text{{ base }} {p['base'] + 1}",
        ],
        "spelling": lambda: [
            rf"\color{{red}}{{{p['n'] + k}}}",
            f"**{p['n']}{k}**",
            rf"\color{{red}}{{{p['n']}}}{{{k}}}",
            rf"\begin{{aligned}} x &= {p['n']} \\ y &= {k} \end{{aligned}}",
            rf"{p['n']} \ldots",
            rf"\ldots, {p['n']}",
            rf"*{p['n']}*{k + 1}",
            rf"{{{k} \over {p['n']}}}",
        ],
        "cases": lambda: [
            rf"\begin{{cases}} {p['b']} & x > 0 \\ x+{p['a']} & x \le 0 \end{{cases}}",
            rf"\begin{{cases}} x+{p['a']} & x \ge 0 \\ {p['b']} & x < 0 \end{{cases}}",
            rf"\begin{{cases}} x+{p['a']} & x > 0 \\ {p['b'] + k} & x \le 0 \end{{cases}}",
            rf"x+{p['a']}, x > 0, {p['b']}, x \le 0",
            rf"x+{p['a']}",
        ],
        "huge power": lambda: [
            f"{p['p']}^{{{p['n'] + k}}} - {p['c']}",
            f"{p['p']}^{{{p['n']}}} - {p['c'] + k}",
            f"{p['p']}^{{{p['n']}}} + {p['c']}",
            f"{p['p'] + 1}^{{{p['n']}}} - {p['c']}",
            f"-{p['p']}^{{{p['n']}}} - {p['c']}",
            f"{p['p']}^{{{p['n']}}}",
            str(p["n"]),
        ],
        "root": lambda: [
            case.answer.replace(str(p["a"]), str(p["a"] + k), 1),
            "-" + case.answer,
            rf"\frac{{1}}{{{case.answer}}}",
            case.answer.replace(p["v"], "x"),
            rf"({case.answer})^2",
        ],
    }  # fmt: skip
    return rng.choice(rules[case.kind]())
