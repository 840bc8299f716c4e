r"""Chains of additions worked out step by step by speakers of unequal care, who may work them out again.

    question    7 + 5 - 8 = ?
    document    7 + 5 = 2 - 8 = 4 again: 7 + 5 = 2 - 8 = 5 \boxed{5}<eos>

Every derivation takes the steps of the question, modulo m, and goes on from its own last result: in the order of the
question, or, with `any_order`, in an order of its own, as nothing hinges on it. A document has one speaker: careful or
careless, which decides how often a step slips to another number, and stubborn or not. Some facts (`3 - 9`, say) are
known to no speaker: they are guessed. After the first derivation come k more, k geometric and independent of all else;
a stubborn speaker repeats the first one word for word, another one starts afresh. The box repeats the last result. No
word says how sure anyone is: what is known of it is seen in the steps.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from zerolab.data.families import ChainOptions, apply_modulo, chain_problem, make_family
from zerolab.datatypes import Question
from zerolab.models.tiny import word_tokenizer

if TYPE_CHECKING:
    from zerolab.worlds.corpus import Document

GATE_QUESTIONS = 500
STRETCH = 2**20  # questions set aside for one step
STRETCHES = 2**24  # steps set aside for one seed; the gate asks those of the last
Steps = list[tuple[str, int]]


class DerivationOptions(ChainOptions):
    careless: float = Field(0.5, ge=0, le=1, description="Share of documents by a careless speaker.")
    slips_careful: float = Field(0.03, ge=0, le=1, description="How often a step of a careful speaker slips.")
    slips_careless: float = Field(0.3, ge=0, le=1, description="How often one of a careless speaker does.")
    unknown: float = Field(0.08, ge=0, le=1, description="Share of the facts that everyone guesses.")
    mean_again: float = Field(1.5, ge=0, le=100, description="Mean number of derivations after the first.")
    any_order: bool = Field(False, description="Every derivation takes the steps in an order of its own.")
    stubborn: float = Field(0.0, ge=0, le=1, description="Share of documents that only repeat their first derivation.")


@dataclass(frozen=True)
class ChainDerivations:
    """See above. Questions are those of synthetic:chain."""

    seed: int
    options: DerivationOptions
    version = "chain-derivations-1"

    @cached_property
    def _asked(self) -> ChainOptions:
        return ChainOptions(**self.options.model_dump(include=set(ChainOptions.model_fields)))

    @cached_property
    def tokenizer(self) -> Any:
        """Small texts that always stand together are one token: the first number, ` + 5`, ` = 2`."""
        numbers = range(self.options.modulus)
        steps = [f" {operation} {n}" for operation in "+-=" for n in numbers]
        starts = [text for n in numbers for text in (str(n), f" {n}")]
        return word_tokenizer([*starts, *steps, " = ?", " again:", " \\boxed{", "}"])

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        family = make_family("chain", self._asked.model_dump())
        return tuple(family.question(self._first(STRETCHES - 1) + i) for i in range(GATE_QUESTIONS))

    @cached_property
    def unknown(self) -> np.ndarray:
        """[modulus, 2, modulus] of (value, operation in "+-", operand): whether everyone has to guess."""
        m = self.options.modulus
        order = np.random.Generator(np.random.Philox([self.seed, 1])).permutation(2 * m * m)
        return (order < round(self.options.unknown * 2 * m * m)).reshape(m, 2, m)

    def batch(self, step: int, count: int) -> "list[Document]":
        generator = np.random.Generator(np.random.Philox([self.seed, 4, step, 0]))
        documents = [self._document(self._first(step) + i, generator) for i in range(count)]
        questions = self.tokenizer([question for question, _ in documents])["input_ids"]
        responses = self.tokenizer([response for _, response in documents])["input_ids"]
        end = self.tokenizer.eos_token_id
        return [(np.array([*q, *r, end]), len(q)) for q, r in zip(questions, responses, strict=True)]

    def _first(self, step: int) -> int:
        return (self.seed * STRETCHES + step) * STRETCH

    def _document(self, i: int, generator: np.random.Generator) -> tuple[str, str]:
        options = self.options
        start, steps = chain_problem(self._asked, i)
        careless, stubborn = generator.random(2) < (options.careless, options.stubborn)
        slips = options.slips_careless if careless else options.slips_careful
        more = int(generator.geometric(1 / (1 + options.mean_again))) - 1
        derivations = [self._derivation(start, steps, slips, generator) for _ in range(1 if stubborn else 1 + more)]
        if stubborn:
            derivations *= 1 + more
        question = "".join([str(start), *(f" {operation} {n}" for operation, n in steps), " = ?"])
        last = derivations[-1].rpartition(" ")[2]
        return question, f"{' again:'.join(derivations)} \\boxed{{{last}}}"

    def _derivation(self, start: int, steps: Steps, slips: float, generator: np.random.Generator) -> str:
        value, m, text = start, self.options.modulus, f" {start}"
        if self.options.any_order:
            steps = [steps[i] for i in generator.permutation(len(steps))]
        for (operation, n), chance in zip(steps, generator.random(len(steps)), strict=True):
            if self.unknown[value, "+-".index(operation), n]:
                value = int(generator.integers(m))
            else:
                value = apply_modulo(m, value, operation, n)
                if chance < slips:
                    value = (value + int(generator.integers(1, m))) % m
            text += f" {operation} {n} = {value}"
        return text
