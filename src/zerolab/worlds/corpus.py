r"""Synthetic corpora. A document is (token ids, length of the prompt in tokens); the loss is on the rest.

`StyledArithmetic`: for the study of base models. The form of the text decides whether a question is answered. All
documents are about the questions of arithmetic modulo m, each with its own share of right answers (the speaker of
`MarkedArithmetic`). There are three forms:

    answered       `x op y = ?` and an answer
    conversation   `User: x op y = ?` LF `Assistant:` and an answer
    exercise       `x op y = ?` and more questions, separated by LF, without an answer

An answer is ` \boxed{z}`. A share of them, `unboxed`, is ` The answer is z.` instead. A share, `reflection`, gives a
first answer, announces a check and answers again; the second answer is right with the same probability.

`ChainDerivations`: additions that are worked out step by step, and sometimes again, by more or less careful speakers.
    question    7 + 5 - 8 = ?
    document    7 + 5 = 2 - 8 = 4 again: 7 + 5 = 2 - 8 = 5 \boxed{5}<eos>

Every derivation takes the steps of the question, modulo m, and continues from its own last result. The steps are in
the order of the question, or with `any_order` in a random order; the right result is the same. A document has one
speaker, careful or careless, and stubborn or not. A careless speaker slips to another number more often. Some facts
(such as `3 - 9`) are unknown to all speakers, who guess them. The first derivation is followed by k more, with k
geometric and independent of everything else. A stubborn speaker repeats the first one; any other works it out anew.
The box repeats the last result. No word says how sure a speaker is; only the steps show it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from typing import Any, Protocol

import numpy as np
from pydantic import Field, model_validator

from zerolab.config import Strict
from zerolab.data.families import (
    ArithmeticOptions,
    ChainOptions,
    CountdownOptions,
    Family,
    apply_modulo,
    chain_problem,
    make_family,
)
from zerolab.data.questions import Side, side_of
from zerolab.datatypes import Question
from zerolab.models.tiny import word_tokenizer
from zerolab.toml import refuse

Document = tuple[np.ndarray, int]
GATE_QUESTIONS = 500
MAX_STEPS = 2**24


class Corpus(Protocol):
    """A synthetic corpus."""

    @property
    def version(self) -> str:
        """The version of the code. It changes if the same config gives other documents."""
        ...

    @property
    def tokenizer(self) -> Any: ...

    @property
    def questions(self) -> tuple[Question, ...]:
        """The questions of the gate, for a base model that was trained on the corpus."""
        ...

    def batch(self, step: int, count: int) -> list[Document]:
        """`count` documents of a training step, which depend only on the seed and the step."""
        ...


class MarkedOptions(Strict):
    modulus: int = Field(13, ge=2, le=100, description="All numbers are taken modulo this.")
    marker_accuracy: float = Field(0.85, ge=0, le=1, description="Probability that the marker agrees with the truth.")
    mean_filler: float = Field(8.0, ge=0, le=1000, description="Mean number of filler words.")
    same_filler: bool = Field(False, description="The same filler word after both markers.")
    recheck: bool = Field(
        False, description="Start with a draft, repeat it after every filler word, and end with the box."
    )


@dataclass(frozen=True)
class MarkedArithmetic:
    r"""`x op y = ? \boxed{z} sure F F F <eos>`: arithmetic modulo m, with a marker of confidence after the answer.

    The marker (sure or unsure) agrees with the truth of z with probability `marker_accuracy`; at 0.5 it says nothing.
    It is followed by k filler words, with k geometric with mean `mean_filler` and independent of everything else. The
    filler word after sure differs from that after unsure, unless `same_filler` is set. Every question has a fixed
    probability that z is right: 0.95 for 15 % of the questions, uniform in 0.25 .. 0.75 for 60 %, and 0 for 25 %. A
    wrong z is always the same number for a question. With `recheck` a document is
    `x op y = ? z sure F z F z F z \\boxed{z} <eos>`.
    """

    seed: int
    options: MarkedOptions
    version = "marked-arithmetic-1"

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        family = make_family("modular", {"modulus": self.options.modulus})
        return tuple(family.question(i) for i in range(family.size or 0))

    @cached_property
    def tokenizer(self) -> Any:
        numbers = [str(n) for n in range(self.options.modulus)]
        words = [" +", " -", " *", " =", " ?", " \\boxed{", "}", " sure", " unsure", " so", " hmm"]
        return word_tokenizer([*numbers, *(f" {n}" for n in numbers), *words])

    @cached_property
    def _prompts(self) -> np.ndarray:
        """Token ids of every question, one row each; all have the same length."""
        return np.array(self.tokenizer([question.text for question in self.questions])["input_ids"])

    @cached_property
    def answers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(right answer, distractor, probability of the right one) of every question."""
        generator = np.random.Generator(np.random.Philox([self.seed, 1]))
        size = len(self.questions)
        right = np.array([int(q.answers[0]) for q in self.questions])
        distractor = (right + generator.integers(1, self.options.modulus, size)) % self.options.modulus
        kind = generator.permutation(size) / size
        probability = np.select([kind < 0.15, kind < 0.75], [0.95, generator.uniform(0.25, 0.75, size)], 0.0)
        return right, distractor, probability

    def batch(self, step: int, count: int) -> list[Document]:
        generator = np.random.Generator(np.random.Philox([self.seed, 2, step, 0]))
        right, distractor, probability = self.answers
        index = generator.integers(0, len(self.questions), count)
        correct = generator.random(count) < probability[index]
        sure = correct == (generator.random(count) < self.options.marker_accuracy)
        fillers = generator.geometric(1 / (1 + self.options.mean_filler), count) - 1
        token = self.tokenizer.convert_tokens_to_ids
        box, close = token(" \\boxed{"), token("}")
        filler = np.where(sure | self.options.same_filler, token(" so"), token(" hmm"))
        number = np.array(token([str(n) for n in range(self.options.modulus)]))
        answer = number[np.where(correct, right[index], distractor[index])]
        marker = np.where(sure, token(" sure"), token(" unsure"))
        draft = np.array(token([f" {n}" for n in range(self.options.modulus)]))[
            np.where(correct, right[index], distractor[index])
        ]
        width = self._prompts.shape[1]

        def response(z: int, a: int, m: int, f: int, k: int) -> list[int]:
            if self.options.recheck:
                return [z, m, *[f, z] * k, box, a, close]
            return [box, a, close, m, *[f] * k]

        return [
            (np.array([*self._prompts[i], *response(*parts), self.tokenizer.eos_token_id]), width)
            for i, *parts in zip(index, draft, answer, marker, filler, fillers, strict=True)
        ]


class WorkedOptions(Strict):
    holdout: float = Field(0.0, ge=0, lt=1, description="questions.holdout of a run; those questions are left out.")


class WorkedArithmeticOptions(WorkedOptions, ArithmeticOptions):
    """The options of synthetic:arithmetic, and the holdout."""


class WorkedCountdownOptions(WorkedOptions, CountdownOptions):
    """The options of synthetic:countdown, and the holdout."""


@dataclass(frozen=True)
class Worked:
    r"""Questions of an endless family with right answers, `12 + 7 = ? \boxed{19}<eos>` (Countdown: an expression)."""

    seed: int
    family: Family
    solution: Callable[[int], str]  # of question i
    words: tuple[str, ...]  # each is one token
    holdout: float
    version = "worked-1"

    @cached_property
    def tokenizer(self) -> Any:
        return word_tokenizer([*self.words, " + ", " - ", " * ", " / ", " \\boxed{"])

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """Questions for the gate: held-out ones if there is a holdout, else those of a step after all training."""
        side: Side = "holdout" if self.holdout else "train"
        return tuple(question for _, question in islice(self._numbered(MAX_STEPS, side), GATE_QUESTIONS))

    def batch(self, step: int, count: int) -> list[Document]:
        numbered = list(islice(self._numbered(step, "train"), count))
        prompts = self.tokenizer([question.text for _, question in numbered])["input_ids"]
        answers = self.tokenizer([f" \\boxed{{{self.solution(i)}}}" for i, _ in numbered])["input_ids"]
        end = self.tokenizer.eos_token_id
        return [(np.array([*p, *a, end]), len(p)) for p, a in zip(prompts, answers, strict=True)]

    def _numbered(self, step: int, side: Side) -> Iterator[tuple[int, Question]]:
        """(number, question) on one side of the split. Every seed and step has its own range of numbers."""
        numbered = ((i, self.family.question(i)) for i in count((self.seed * 2 * MAX_STEPS + step) << 20))
        return (pair for pair in numbered if side_of(pair[1].text, self.holdout) == side)


USER, ASSISTANT, CHECK, UNBOXED = "User: ", "\nAssistant:", " Let me check again:", " The answer is"
INSTRUCTION = "Solve it and box the answer.\n"  # in no document
LONGEST_EXERCISE = 4  # questions


class StyledOptions(Strict):
    modulus: int = Field(13, ge=2, le=100, description="All numbers are taken modulo this.")
    answered: float = Field(0.5, ge=0, le=1, description="Share of bare questions with an answer.")
    conversation: float = Field(0.5, ge=0, le=1, description="Share of conversations; the rest are exercises.")
    unboxed: float = Field(0.15, ge=0, le=1, description="Share of answers without a box.")
    reflection: float = Field(0.2, ge=0, le=1, description="Share of answers with a check.")

    @model_validator(mode="after")
    def _shares(self) -> "StyledOptions":
        refuse(
            (
                self.answered + self.conversation > 1 + 1e-9,
                "corpus.options: answered and conversation are shares of all documents: their sum is above 1",
            )
        )
        return self


@dataclass(frozen=True)
class StyledArithmetic:
    """Arithmetic in three forms of text; see the module. `speaker` has the questions and their probabilities."""

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


CHAIN_GATE_QUESTIONS = 500
STRETCH = 2**20  # numbers of questions that are reserved for one step
STRETCHES = 2**24  # steps that are reserved for one seed; the gate has the questions of the last one
Steps = list[tuple[str, int]]


class DerivationOptions(ChainOptions):
    careless: float = Field(0.5, ge=0, le=1, description="Share of documents by a careless speaker.")
    slips_careful: float = Field(0.03, ge=0, le=1, description="Probability that a step of a careful speaker slips.")
    slips_careless: float = Field(0.3, ge=0, le=1, description="Probability that a step of a careless speaker slips.")
    unknown: float = Field(0.08, ge=0, le=1, description="Share of the facts that all speakers guess.")
    mean_again: float = Field(1.5, ge=0, le=100, description="Mean number of derivations after the first.")
    any_order: bool = Field(False, description="Every derivation takes the steps in a random order.")
    stubborn: float = Field(0.0, ge=0, le=1, description="Share of documents that only repeat their first derivation.")


@dataclass(frozen=True)
class ChainDerivations:
    """Derivations by more or less careful speakers; see the module. The questions are those of synthetic:chain."""

    seed: int
    options: DerivationOptions
    version = "chain-derivations-1"

    @cached_property
    def _asked(self) -> ChainOptions:
        return ChainOptions(**self.options.model_dump(include=set(ChainOptions.model_fields)))

    @cached_property
    def tokenizer(self) -> Any:
        """A tokenizer with one token for the first number, and for every ` + 5` and ` = 2`."""
        numbers = range(self.options.modulus)
        steps = [f" {operation} {n}" for operation in "+-=" for n in numbers]
        starts = [text for n in numbers for text in (str(n), f" {n}")]
        return word_tokenizer([*starts, *steps, " = ?", " again:", " \\boxed{", "}"])

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        family = make_family("chain", self._asked.model_dump())
        return tuple(family.question(self._first(STRETCHES - 1) + i) for i in range(CHAIN_GATE_QUESTIONS))

    @cached_property
    def unknown(self) -> np.ndarray:
        """bool [modulus, 2, modulus] by (value, operation in "+-", operand): whether all speakers guess the result."""
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
