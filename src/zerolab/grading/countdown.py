"""Countdown: reach a target from given numbers with + - * / and parentheses, every number exactly once.

The rule is that of TinyZero (all numbers, each once). Only the four binary operations count: no signs, powers, decimals
or implied products. An answer may end in "= target". Text is parsed here, never evaluated, in exact fractions.
"""

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

MAX_CHARS = 500
MAX_DEPTH = 50
_MAX_DIGITS = 15
_TOKEN = re.compile(r"\s*([0-9]+|[-+*/()])")
_SPELLINGS = str.maketrans({"×": "*", "·": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-", "$": " "})
_COMMANDS = re.compile(r"\\(times|cdot|div|left|right)(?![A-Za-z])")
_COMMAND_MEANS = {"times": "*", "cdot": "*", "div": "/", "left": "", "right": ""}


class Malformed(ValueError):
    """Not an expression of this game."""


def encode_gold(numbers: Sequence[int], target: int) -> str:
    """The gold answer `verify` reads: "target: a b c"."""
    return f"{target}: {' '.join(map(str, numbers))}"


def decode_gold(gold: str) -> tuple[int, list[int]]:
    """(target, numbers). Raises ValueError for anything else than `encode_gold` writes."""
    target, colon, numbers = gold.partition(":")
    if not colon or not numbers.split():
        raise ValueError(f"not a Countdown gold: {gold[:80]!r}; expected 'target: a b c'")
    return int(target), [int(number) for number in numbers.split()]


def verify(expression: str, gold: str) -> bool:
    """Whether `expression` reaches the target of `gold` with every number exactly once. Never raises for its text."""
    target, numbers = decode_gold(gold)
    if len(expression) > MAX_CHARS:
        return False
    left, equals, right = expression.partition("=")
    try:
        value, used = evaluate(left)
        if equals and evaluate(right)[0] != target:
            return False
    except (Malformed, ZeroDivisionError):
        return False
    return value == target and Counter(used) == Counter(numbers)


def evaluate(expression: str) -> tuple[Fraction, list[int]]:
    """(exact value, numbers used) of an expression. Raises Malformed or ZeroDivisionError."""
    tokens = tokenize(expression)
    value, end = _sum(tokens, 0, 0)
    if end != len(tokens):
        raise Malformed(f"unexpected {tokens[end]!r}")
    return value, [int(token) for token in tokens if token.isdigit()]


def tokenize(expression: str) -> list[str]:
    """Numbers, operators and parentheses. Raises Malformed for any other text."""
    if len(expression) > MAX_CHARS:
        raise Malformed("too long")
    text = expression.translate(_SPELLINGS)
    text = _COMMANDS.sub(lambda match: _COMMAND_MEANS[match[1]], text).strip()
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or len(match[1]) > _MAX_DIGITS:
            raise Malformed(f"unexpected {text[at : at + 20]!r}")
        tokens.append(match[1])
        at = match.end()
    return tokens


# sum = product (("+" | "-") product)*      product = atom (("*" | "/") atom)*      atom = number | "(" sum ")"


def _sum(tokens: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    value, at = _product(tokens, at, depth)
    while at < len(tokens) and tokens[at] in "+-":
        other, end = _product(tokens, at + 1, depth)
        value = value + other if tokens[at] == "+" else value - other
        at = end
    return value, at


def _product(tokens: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    value, at = _atom(tokens, at, depth)
    while at < len(tokens) and tokens[at] in "*/":
        other, end = _atom(tokens, at + 1, depth)
        value = value * other if tokens[at] == "*" else value / other
        at = end
    return value, at


def _atom(tokens: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    if at < len(tokens) and tokens[at].isdigit():
        return Fraction(int(tokens[at])), at + 1
    if at < len(tokens) and tokens[at] == "(" and depth < MAX_DEPTH:
        value, at = _sum(tokens, at + 1, depth + 1)
        if at < len(tokens) and tokens[at] == ")":
            return value, at + 1
    raise Malformed("a number or a parenthesis is missing")
