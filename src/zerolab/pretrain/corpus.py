"""Synthetic corpora. A document is (token ids, how many of them are the prompt); the loss is on the rest."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from zerolab.config import CorpusConfig
from zerolab.data.synthetic import make_family
from zerolab.errors import UserError
from zerolab.models.tokenizer import word_tokenizer
from zerolab.types import Question

Document = tuple[np.ndarray, int]


class Corpus(Protocol):
    version: str  # changes whenever the same config would give other documents
    tokenizer: Any
    questions: tuple[Question, ...]  # what a base trained on it is asked at the gate

    def batch(self, step: int, count: int) -> list[Document]:
        """The documents of a training step: a function of the seed and the step alone."""
        ...


@dataclass(frozen=True)
class MarkedArithmetic:
    r"""`x op y = ? \boxed{z} sure F F F <eos>`: arithmetic modulo m by a speaker who half knows when it is wrong.

    The marker (sure or unsure) agrees with the truth of z with probability `marker_accuracy`; .5 makes it empty talk.
    After it come k filler words, k geometric with mean `mean_filler` and independent of everything, one word after
    sure and another after unsure (`same_filler`: the same). How often z is right is fixed per question: for 15 % of
    them .95, for 60 % uniform in .25 .. .75, for 25 % never; a wrong z is always the question's own distractor.
    """

    seed: int
    modulus: int = 13
    marker_accuracy: float = 0.85
    mean_filler: float = 8.0
    same_filler: bool = False
    version = "marked-arithmetic-1"

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        family = make_family("modular", {"modulus": self.modulus})
        return tuple(family.question(i) for i in range(family.size or 0))

    @cached_property
    def tokenizer(self) -> Any:
        numbers = [str(n) for n in range(self.modulus)]
        words = [" +", " -", " *", " =", " ?", " \\boxed{", "}", " sure", " unsure", " so", " hmm"]
        return word_tokenizer([*numbers, *(f" {n}" for n in numbers), *words])

    @cached_property
    def _prompts(self) -> np.ndarray:
        """Token ids of every question, one row each; all have the same length."""
        return np.array([self.tokenizer(q.text)["input_ids"] for q in self.questions])

    @cached_property
    def _answers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(right answer, distractor, probability of the right one) of every question."""
        generator = np.random.Generator(np.random.Philox([self.seed, 1]))
        size = len(self.questions)
        right = np.array([int(q.answers[0]) for q in self.questions])
        distractor = (right + generator.integers(1, self.modulus, size)) % self.modulus
        kind = generator.permutation(size) / size
        probability = np.select([kind < 0.15, kind < 0.75], [0.95, generator.uniform(0.25, 0.75, size)], 0.0)
        return right, distractor, probability

    def batch(self, step: int, count: int) -> list[Document]:
        generator = np.random.Generator(np.random.Philox([self.seed, 2, step, 0]))
        right, distractor, probability = self._answers
        index = generator.integers(0, len(self.questions), count)
        correct = generator.random(count) < probability[index]
        sure = correct == (generator.random(count) < self.marker_accuracy)
        fillers = generator.geometric(1 / (1 + self.mean_filler), count) - 1
        token = self.tokenizer.convert_tokens_to_ids
        box, close, filler = token(" \\boxed{"), token("}"), np.where(sure | self.same_filler, token(" so"), token(" hmm"))
        number = np.array(token([str(n) for n in range(self.modulus)]))
        answer = number[np.where(correct, right[index], distractor[index])]
        marker = np.where(sure, token(" sure"), token(" unsure"))
        width = self._prompts.shape[1]
        return [
            (np.array([*self._prompts[i], box, a, close, m, *[f] * k, self.tokenizer.eos_token_id]), width)
            for i, a, m, f, k in zip(index, answer, marker, filler, fillers, strict=True)
        ]


CORPORA: dict[str, Callable[..., Corpus]] = {"marked-arithmetic": MarkedArithmetic}


def make_corpus(config: CorpusConfig, seed: int) -> Corpus:
    """The corpus of a recipe. Raises UserError for an unknown name or option."""
    if config.name not in CORPORA:
        raise UserError(f"corpus.name {config.name!r} is unknown: choose one of {', '.join(CORPORA)}")
    try:
        return CORPORA[config.name](seed=seed, **config.options)
    except TypeError as error:
        raise UserError(f"corpus.options of {config.name}: {error}") from None
