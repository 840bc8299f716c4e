"""Synthetic question families: offline, with known answers and adjustable difficulty. Path `synthetic:NAME`.

Question number i of a family depends only on its options and i.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator, model_validator

from zerolab.datatypes import Question
from zerolab.errors import UserError
from zerolab.grading.countdown import encode_gold, evaluate
from zerolab.grading.extract import NAME_VERIFIERS, read_facts
from zerolab.toml import Strict, parse, refuse

PREFIX = "synthetic:"
COUNTDOWN_PHRASES = (
    "Use each of the numbers ",
    ", ",
    " exactly once, with the operations +, -, *, / and parentheses, to write an expression that equals ",
    ".",
)

FACT_PHRASES = {
    "capital": (
        "What is the capital of {}?",
        "Name the capital city of {}.",
        "Which city is the capital of {}?",
        "The capital of {} is which city?",
    ),
    "symbol": (
        "Which chemical element has the symbol {}?",
        "Name the chemical element whose symbol is {}.",
        "What element does the symbol {} stand for in the periodic table?",
        "{} is the symbol of which chemical element?",
    ),
    "atomic-number": (
        "Which chemical element has atomic number {}?",
        "Name the chemical element with atomic number {}.",
        "What element is number {} in the periodic table?",
        "Atomic number {} belongs to which chemical element?",
    ),
}


@dataclass(frozen=True)
class Family:
    """A family of questions, `question(i)` for 0 <= i < size. An endless family has size None."""

    name: str
    question: Callable[[int], Question]
    size: int | None


class ModularOptions(Strict):
    modulus: int = Field(13, ge=2, le=1000, description="All numbers are taken modulo this.")
    explicit: bool = Field(
        False, description="State the modulus in the question, for models that were not trained with it."
    )


class ArithmeticOptions(Strict):
    digits: int = Field(2, ge=1, le=12, description="Digits of every operand.")
    terms: int = Field(2, ge=2, le=8, description="Operands of a question.")
    operations: str = Field("+-*", description="Operations to draw from.")
    seed: int = Field(0, ge=0, description="Another seed gives other questions.")

    @field_validator("operations")
    @classmethod
    def _known(cls, operations: str) -> str:
        if not operations or set(operations) - set("+-*"):
            raise ValueError(f'draw from some of "+-*" (got {operations!r})')
        return operations


class ChainOptions(Strict):
    modulus: int = Field(10, ge=2, le=100, description="All numbers are taken modulo this.")
    shortest: int = Field(2, ge=1, le=32, description="Fewest additions and subtractions of a question.")
    longest: int = Field(3, ge=1, le=32, description="Most additions and subtractions of a question.")
    seed: int = Field(0, ge=0, description="Another seed gives other questions.")

    @model_validator(mode="after")
    def _range(self) -> "ChainOptions":
        refuse(
            (self.shortest > self.longest, f"shortest = {self.shortest} is above longest = {self.longest}: lower it")
        )
        return self


class CountdownOptions(Strict):
    numbers: int = Field(4, ge=2, le=8, description="Numbers of a question.")
    max_number: int = Field(99, ge=2, le=1000, description="Largest number.")
    max_target: int = Field(999, ge=10, le=100000, description="Largest target; the smallest is 1.")
    ascending: bool = Field(
        False,
        description="Sort the numbers, so that no two questions have the same numbers in another order and a holdout "
        "shares none with training.",
    )
    seed: int = Field(0, ge=0, description="Another seed gives other questions.")


class FactOptions(Strict):
    kinds: str = Field(
        "capital,symbol", description="Kinds of facts, separated by commas: capital, symbol, atomic-number."
    )
    phrasings: int = Field(4, ge=1, le=4, description="Phrasings of the question for every fact.")

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: str) -> str:
        names = [name.strip() for name in kinds.split(",")]
        if unknown := [name for name in names if name not in FACT_PHRASES]:
            raise ValueError(f"choose some of {', '.join(FACT_PHRASES)} (got {unknown[0]!r})")
        return ",".join(dict.fromkeys(names))


def make_family(name: str, options: Mapping[str, Any]) -> Family:
    """Make the family `name` with these options. Raises UserError for an unknown name or option."""
    if name not in FAMILIES:
        raise UserError(f"questions.path {PREFIX}{name}: no such family; choose one of {', '.join(FAMILIES)}")
    model, make = FAMILIES[name]
    return make(parse(model, dict(options), f"options of {PREFIX}{name}"))


def _modular(options: ModularOptions) -> Family:
    m = options.modulus

    def question(i: int) -> Question:
        operation, x, y = "+-*"[i // (m * m)], i // m % m, i % m
        z = {"+": x + y, "-": x - y, "*": x * y}[operation] % m
        text = f"({x} {operation} {y}) mod {m} = ?" if options.explicit else f"{x} {operation} {y} = ?"
        return Question(f"modular:{i}", text, (str(z),))

    return Family("modular", question, 3 * m * m)


def _arithmetic(options: ArithmeticOptions) -> Family:
    low, high = (10 ** (options.digits - 1) if options.digits > 1 else 0), 10**options.digits

    def question(i: int) -> Question:
        draw = _Random(options.seed, i)
        expression = str(low + draw.below(high - low))
        for _ in range(options.terms - 1):
            operation = options.operations[draw.below(len(options.operations))]
            expression += f" {operation} {low + draw.below(high - low)}"
        return Question(f"arithmetic:{i}", f"{expression} = ?", (str(evaluate(expression)[0]),), level=options.digits)

    return Family("arithmetic", question, None)


def _chain(options: ChainOptions) -> Family:
    def question(i: int) -> Question:
        start, steps = chain_problem(options, i)
        value = start
        for operation, operand in steps:
            value = apply_modulo(options.modulus, value, operation, operand)
        text = "".join([str(start), *(f" {operation} {operand}" for operation, operand in steps), " = ?"])
        return Question(f"chain:{i}", text, (str(value),), level=len(steps))

    return Family("chain", question, None)


def _countdown(options: CountdownOptions) -> Family:
    def question(i: int) -> Question:
        numbers, target, _ = countdown_problem(options, i)
        begin, comma, middle, end = COUNTDOWN_PHRASES
        text = begin + comma.join(map(str, numbers)) + middle + str(target) + end
        gold = encode_gold(numbers, target)
        return Question(f"countdown:{i}", text, (gold,), verifier="countdown", level=options.numbers)

    return Family("countdown", question, None)


def _facts(options: FactOptions) -> Family:
    kinds = options.kinds.split(",")
    facts = [fact for fact in read_facts() if fact.kind in kinds]

    def question(i: int) -> Question:
        fact = facts[i // options.phrasings]
        text = FACT_PHRASES[fact.kind][i % options.phrasings].format(fact.asked)
        verifier = NAME_VERIFIERS[fact.kind]
        # An element is one fact, whether the question has its symbol or its number.
        return Question(f"facts:{i}", text, fact.names[:1], verifier, group=f"{verifier}:{fact.names[0]}")

    return Family("facts", question, options.phrasings * len(facts))


FAMILIES: dict[str, tuple[type[Strict], Callable[[Any], Family]]] = {
    "modular": (ModularOptions, _modular),
    "arithmetic": (ArithmeticOptions, _arithmetic),
    "chain": (ChainOptions, _chain),
    "countdown": (CountdownOptions, _countdown),
    "facts": (FactOptions, _facts),
}


def chain_problem(options: ChainOptions, i: int) -> tuple[int, list[tuple[str, int]]]:
    """(first number, [(operation, operand)] in order) of question i."""
    draw = _Random(options.seed, i)
    count = options.shortest + draw.below(options.longest - options.shortest + 1)
    start = draw.below(options.modulus)
    return start, [("+-"[draw.below(2)], draw.below(options.modulus)) for _ in range(count)]


def apply_modulo(modulus: int, value: int, operation: str, operand: int) -> int:
    return (value + operand if operation == "+" else value - operand) % modulus


def countdown_problem(options: CountdownOptions, i: int) -> tuple[list[int], int, str]:
    """(numbers, target, an expression that solves it) of question i.

    A solution exists by construction: random pairs are joined by operations that keep every value a positive integer,
    until one value is left, which is the target.
    """
    draw = _Random(options.seed, i)
    while True:
        numbers = [1 + draw.below(options.max_number) for _ in range(options.numbers)]
        numbers = sorted(numbers) if options.ascending else numbers
        values = [(n, str(n)) for n in numbers]
        while len(values) > 1:
            first, second = (values.pop(draw.below(len(values))) for _ in range(2))
            values.append(_join(first, second, "+-*/"[draw.below(4)]))
        target, expression = values[0]
        if target <= options.max_target:
            return numbers, target, _without_outer_parentheses(expression)


def _join(a: tuple[int, str], b: tuple[int, str], operation: str) -> tuple[int, str]:
    """(value, expression) of a and b joined. If - or / does not give a positive integer, + or * is used instead."""
    if a[0] < b[0]:
        a, b = b, a
    if operation == "-" and a[0] > b[0]:
        value = a[0] - b[0]
    elif operation == "/" and a[0] % b[0] == 0:
        value = a[0] // b[0]
    else:
        operation = {"-": "+", "/": "*"}.get(operation, operation)
        value = a[0] + b[0] if operation == "+" else a[0] * b[0]
    return value, f"({a[1]} {operation} {b[1]})"


def _without_outer_parentheses(expression: str) -> str:
    return expression[1:-1] if expression.startswith("(") else expression


class _Random:
    """Random integers that depend only on seed and index. Python keeps `random()` the same in all versions."""

    def __init__(self, seed: int, index: int):
        self._uniform = random.Random(f"{seed}:{index}").random

    def below(self, size: int) -> int:
        return int(self._uniform() * size)
