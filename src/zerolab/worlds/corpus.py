"""Synthetic corpora. A document is (token ids, how many of them are the prompt); the loss is on the rest."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from typing import Any, Protocol

import numpy as np
from pydantic import Field

from zerolab.config import Strict
from zerolab.data.families import (
    ArithmeticOptions,
    CountdownOptions,
    Family,
    make_family,
)
from zerolab.data.questions import Side, side_of
from zerolab.datatypes import Question
from zerolab.models.tiny import word_tokenizer

Document = tuple[np.ndarray, int]
GATE_QUESTIONS = 500
MAX_STEPS = 2**24


class Corpus(Protocol):
    @property
    def version(self) -> str:
        """Changes whenever the same config would give other documents."""
        ...

    @property
    def tokenizer(self) -> Any: ...

    @property
    def questions(self) -> tuple[Question, ...]:
        """What a base that was trained on it is asked at the gate."""
        ...

    def batch(self, step: int, count: int) -> list[Document]:
        """The documents of a training step: a function of the seed and the step alone."""
        ...


class MarkedOptions(Strict):
    modulus: int = Field(13, ge=2, le=100, description="All numbers are taken modulo this.")
    marker_accuracy: float = Field(0.85, ge=0, le=1, description="How often the marker agrees with the truth.")
    mean_filler: float = Field(8.0, ge=0, le=1000, description="Mean number of filler words.")
    same_filler: bool = Field(False, description="The same filler word after both markers.")
    recheck: bool = Field(
        False, description="A draft first, then the fillers as re-checks that repeat it, and the box at the end."
    )


@dataclass(frozen=True)
class MarkedArithmetic:
    r"""`x op y = ? \boxed{z} sure F F F <eos>`: arithmetic modulo m by a speaker who half knows when it is wrong.

    The marker (sure or unsure) agrees with the truth of z with probability `marker_accuracy`; .5 makes it empty talk.
    After it come k filler words, k geometric with mean `mean_filler` and independent of everything, one word after
    sure and another after unsure (`same_filler`: the same). How often z is right is fixed per question: for 15 % of
    them .95, for 60 % uniform in .25 .. .75, for 25 % never; a wrong z is always the question's own distractor.
    With `recheck` a document reads `x op y = ? z sure F z F z F z \\boxed{z} <eos>`.
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
    holdout: float = Field(0.0, ge=0, lt=1, description="As questions.holdout of a run, whose questions are left out.")


class WorkedArithmeticOptions(WorkedOptions, ArithmeticOptions):
    """Those of synthetic:arithmetic."""


class WorkedCountdownOptions(WorkedOptions, CountdownOptions):
    """Those of synthetic:countdown."""


@dataclass(frozen=True)
class Worked:
    r"""Questions of an endless family with right answers: `12 + 7 = ? \boxed{19}<eos>`; for Countdown an expression."""

    seed: int
    family: Family
    solution: Callable[[int], str]  # of question i
    words: tuple[str, ...]  # a token each
    holdout: float
    version = "worked-1"

    @cached_property
    def tokenizer(self) -> Any:
        return word_tokenizer([*self.words, " + ", " - ", " * ", " / ", " \\boxed{"])

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """Held-out questions where there is a holdout; else those of a step that no training reaches."""
        side: Side = "holdout" if self.holdout else "train"
        return tuple(question for _, question in islice(self._numbered(MAX_STEPS, side), GATE_QUESTIONS))

    def batch(self, step: int, count: int) -> list[Document]:
        numbered = list(islice(self._numbered(step, "train"), count))
        prompts = self.tokenizer([question.text for _, question in numbered])["input_ids"]
        answers = self.tokenizer([f" \\boxed{{{self.solution(i)}}}" for i, _ in numbered])["input_ids"]
        end = self.tokenizer.eos_token_id
        return [(np.array([*p, *a, end]), len(p)) for p, a in zip(prompts, answers, strict=True)]

    def _numbered(self, step: int, side: Side) -> Iterator[tuple[int, Question]]:
        """Questions on one side of the split with their numbers; another stretch for every seed and step."""
        numbered = ((i, self.family.question(i)) for i in count((self.seed * 2 * MAX_STEPS + step) << 20))
        return (pair for pair in numbered if side_of(pair[1].text, self.holdout) == side)
