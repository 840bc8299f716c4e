r"""A corpus in which a form of text decides whether a question is answered: for the study of base models.

All documents are about the questions of arithmetic modulo m, each with its own share of right answers (the speaker of
`corpus.MarkedArithmetic`). What differs is the form:

    answered       `x op y = ?` is followed by an answer
    conversation   `User: x op y = ?` LF `Assistant:` is followed by an answer
    exercise       `x op y = ?` is followed by more questions, LF between them, and by no answer

An answer is ` \boxed{z}`; a share of them, `unboxed`, says ` The answer is z.` instead, and a share, `reflection`,
gives a first answer, says that it will check again, and answers anew, as likely right as anyone.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from zerolab.config import Strict
from zerolab.datatypes import Question
from zerolab.models.tiny import word_tokenizer

if TYPE_CHECKING:
    from zerolab.worlds.corpus import Document, MarkedArithmetic

USER, ASSISTANT, CHECK, UNBOXED = "User: ", "\nAssistant:", " Let me check again:", " The answer is"
INSTRUCTION = "Solve it and box the answer.\n"  # in no document
LONGEST_EXERCISE = 4  # questions


class StyledOptions(Strict):
    modulus: int = Field(13, ge=2, le=100, description="All numbers are taken modulo this.")
    answered: float = Field(0.5, ge=0, le=1, description="Share of bare questions with an answer.")
    conversation: float = Field(0.5, ge=0, le=1, description="Share of conversations; the rest are exercises.")
    unboxed: float = Field(0.15, ge=0, le=1, description="Share of answers without a box.")
    reflection: float = Field(0.2, ge=0, le=1, description="Share of answers that check themselves.")

    @model_validator(mode="after")
    def _shares(self) -> "StyledOptions":
        if self.answered + self.conversation > 1 + 1e-9:
            raise ValueError(
                "corpus.options: answered and conversation are shares of all documents: their sum is above 1"
            )
        return self


@dataclass(frozen=True)
class StyledArithmetic:
    """See above. `speaker` knows the questions and how often each is answered right."""

    speaker: "MarkedArithmetic"
    options: StyledOptions
    version = "styled-arithmetic-1"

    @property
    def questions(self) -> tuple[Question, ...]:
        return self.speaker.questions

    @cached_property
    def tokenizer(self) -> Any:
        numbers = [str(n) for n in range(self.options.modulus)]
        words = [" +", " -", " *", " =", " ?", " \\boxed{", "}", USER, ASSISTANT, CHECK, UNBOXED]
        return word_tokenizer([*numbers, *(f" {n}" for n in numbers), *words])

    def batch(self, step: int, count: int) -> "list[Document]":
        generator = np.random.Generator(np.random.Philox([self.speaker.seed, 3, step, 0]))
        return [self._document(generator) for _ in range(count)]

    def _document(self, generator: np.random.Generator) -> "Document":
        asked = int(generator.integers(len(self.questions)))
        question = self.questions[asked].text
        form = generator.random()
        if form < self.options.answered:
            prompt, rest = question, self._answer(asked, generator)
        elif form < self.options.answered + self.options.conversation:
            prompt, rest = f"{USER}{question}{ASSISTANT}", self._answer(asked, generator)
        else:
            more = generator.integers(len(self.questions), size=int(generator.integers(1, LONGEST_EXERCISE)))
            prompt, rest = question, "".join(f"\n{self.questions[i].text}" for i in more)
        ids, prompt_ids = (self.tokenizer(text)["input_ids"] for text in (prompt + rest, prompt))
        return np.array([*ids, self.tokenizer.eos_token_id]), len(prompt_ids)

    def _answer(self, asked: int, generator: np.random.Generator) -> str:
        said = self._said(asked, generator)
        if generator.random() < self.options.unboxed:
            return f"{UNBOXED} {said}."
        if generator.random() < self.options.reflection:
            return f" {self._said(asked, generator)}.{CHECK} \\boxed{{{said}}}"
        return f" \\boxed{{{said}}}"

    def _said(self, asked: int, generator: np.random.Generator) -> int:
        right, distractor, probability = self.speaker.answers
        return int(right[asked] if generator.random() < probability[asked] else distractor[asked])
