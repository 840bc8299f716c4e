r"""Corpora of additions that are worked out column by column. The rule holds for questions that were never seen.

    347 + 285 = ?  7+5=12 4+8+1=13 3+2+1=6 \boxed{632}

The columns go from right to left, and a carry is a third term. The speaker sometimes errs by one in the sum of a column
and continues with the wrong sum, so the last number always follows from the columns. A frame is the text around
question and answer.

A staged corpus has two stages. Corpora differ only in the text of the second stage:

    plain    k f q z a m>k f q z a m       letters, repeated; the text of the first stage in every corpus
    other    k f q z a m<m a z q f k       another domain, without numbers
    domain   7+5=12 4+8+1=13 3+2+1=6 gives 347 + 285 = 632      derivations without a question (as FineMath)
    qa       347 + 285 = ? 7+5=12 4+8+1=13 3+2+1=6 so 632       questions and answers (as NuminaMath)

A document of text is cut to `TEXT_TOKENS` tokens, and all except the first are learned, so every corpus has the same
number. A share of the documents, the same in every corpus and in both stages, are conversations with a boxed answer.
Only these have the form that RL rewards: no text has a box or the words of that frame.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count as counted
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from zerolab.config import Strict
from zerolab.data.families import make_family
from zerolab.data.questions import side_of
from zerolab.datatypes import Question
from zerolab.models.tiny import word_tokenizer
from zerolab.toml import refuse

if TYPE_CHECKING:
    from zerolab.worlds.corpus import Document

GATE_QUESTIONS = 200
BOX, TAGS = " \\boxed{%s}", " </think> <answer>%s</answer>"


@dataclass(frozen=True)
class Frame:
    template: str  # template.text of a run
    answer: str  # format of the answer; %s is the last number
    extractor: str  # template.extractor of a run
    stop: tuple[str, ...] = ()

    def overrides(self, name: str) -> list[str]:
        """The --set texts of a run whose template is this frame."""
        values = {"name": name, "text": self.template, "extractor": self.extractor, "stop": list(self.stop)}
        return ["template={" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items()) + "}"]


FRAMES: Mapping[str, Frame] = {
    "bare": Frame("{question}", BOX, "boxed"),
    "turns": Frame("User: {question}\nAssistant:", BOX, "boxed"),
    "r1-like": Frame("Think first.\nUser: {question}\nAssistant: <think>", TAGS, "answer-tag", ("</answer>",)),
}
SO, GIVES, RAMBLE, COPY, MIRROR = " so ", " gives ", " and", ">", "<"
WORDS = (
    *(" + ", " = ?", " = ", " \\boxed{", "}", "Think first.\n", "User: ", "\nAssistant:", " <think>"),
    *(" </think>", " <answer>", "</answer>", SO, GIVES, RAMBLE),
    *(f" {digit}" for digit in range(10)),
    *(f"+{digit}" for digit in range(10)),
    *(f"={total}" for total in range(20)),
)


def columns_tokenizer() -> Any:
    """A tokenizer with one token per digit of operands and answers, per term of a column and per sum of a column."""
    return word_tokenizer(WORDS)


def worked(x: int, y: int, digits: int, error: float, generator: np.random.Generator) -> tuple[str, int]:
    """(text of the columns, the number that follows from them).

    Every sum is off by one with probability `error`, up or down at random.
    """
    said, carry, columns = 0, 0, []
    for column in range(digits):
        terms = [x // 10**column % 10, y // 10**column % 10] + [carry] * (carry > 0)
        total = sum(terms)
        if generator.random() < error:
            total = min(19, abs(total + (1 if generator.random() < 0.5 else -1)))
        columns.append(" " + "+".join(map(str, terms)) + f"={total}")
        carry = total // 10
        said += (total if column == digits - 1 else total % 10) * 10**column
    return "".join(columns), said


class SpeakerOptions(Strict):
    digits: int = Field(3, ge=1, le=6, description="Digits of every operand.")
    error: float = Field(0.2, ge=0, le=1, description="Probability that the sum of a column is off by one.")
    rambling: float = Field(0.0, ge=0, le=100, description="Mean number of filler words after a boxed answer.")
    holdout: float = Field(0.1, ge=0, lt=1, description="questions.holdout of a run; those questions are left out.")


class ColumnsOptions(SpeakerOptions):
    turns: float = Field(0.02, ge=0, le=1, description="Share of documents in the frame of turns; the rest are bare.")
    r1: float = Field(0.01, ge=0, le=1, description="Share of documents in the R1-like frame.")

    @model_validator(mode="after")
    def _shares(self) -> "ColumnsOptions":
        refuse(
            (self.turns + self.r1 > 1, "corpus.options: turns and r1 are shares of all documents: their sum is above 1")
        )
        return self


@dataclass(frozen=True)
class Speaker:
    """Draws questions of the training side and writes answers to them."""

    seed: int
    options: SpeakerOptions

    @cached_property
    def tokenizer(self) -> Any:
        return columns_tokenizer()

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """Questions for the gate; if there is a holdout, held-out ones, which no document has."""
        family = make_family("arithmetic", {"digits": self.options.digits, "operations": "+", "seed": 1})
        found: Iterator[Question] = (family.question(i) for i in counted())
        side = "holdout" if self.options.holdout else "train"
        return tuple(islice((q for q in found if side_of(q.text, self.options.holdout) == side), GATE_QUESTIONS))

    def drawn(self, generator: np.random.Generator) -> tuple[str, str, int]:
        """(question, text of the columns, the number that follows from them)."""
        digits = self.options.digits
        low = 10 ** (digits - 1) if digits > 1 else 0
        while True:
            x, y = (int(n) for n in generator.integers(low, 10**digits, 2))
            if side_of(text := f"{x} + {y} = ?", self.options.holdout) == "train":
                return (text, *worked(x, y, digits, self.options.error, generator))

    def framed(self, frame: Frame, generator: np.random.Generator) -> tuple[str, str]:
        """(prompt, response) in a frame."""
        text, columns, said = self.drawn(generator)
        rambling = int(generator.geometric(1 / (1 + self.options.rambling))) - 1 if frame.answer == BOX else 0
        return frame.template.format(question=text), columns + frame.answer % said + RAMBLE * rambling

    def documents(self, texts: "list[tuple[str, str]]") -> "list[Document]":
        if not texts:  # the tokenizer refuses an empty list
            return []
        prompts = self.tokenizer([prompt for prompt, _ in texts])["input_ids"]
        complete = self.tokenizer([prompt + response for prompt, response in texts])["input_ids"]
        end = self.tokenizer.eos_token_id
        return [(np.array([*ids, end]), len(prompt)) for ids, prompt in zip(complete, prompts, strict=True)]


@dataclass(frozen=True)
class FramedColumns:
    """Worked additions in three frames with different frequencies: bare, turns and r1-like."""

    seed: int
    options: ColumnsOptions
    version = "columns-1"

    @cached_property
    def speaker(self) -> Speaker:
        return Speaker(self.seed, self.options)

    @property
    def tokenizer(self) -> Any:
        return self.speaker.tokenizer

    @property
    def questions(self) -> tuple[Question, ...]:
        return self.speaker.questions

    def batch(self, step: int, count: int) -> "list[Document]":
        generator = np.random.Generator(np.random.Philox([self.seed, 4, step, 0]))
        shares = [1 - self.options.turns - self.options.r1, self.options.turns, self.options.r1]
        frames = generator.choice(list(FRAMES), size=count, p=shares)
        return self.speaker.documents([self.speaker.framed(FRAMES[frame], generator) for frame in frames])


Text = Literal["plain", "other", "domain", "qa"]
TEXT_TOKENS = 32
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORD = 6  # letters


class StagedOptions(SpeakerOptions):
    text: Text = Field("plain", description="Text of the second stage.")
    first_steps: int = Field(150, ge=0, description="Steps of the first stage, which has plain text.")
    framed: float = Field(
        0.1, ge=0, le=1, description="Share of documents with question and boxed answer, in both stages."
    )


@dataclass(frozen=True)
class StagedColumns:
    seed: int
    options: StagedOptions
    version = "staged-columns-1"

    @cached_property
    def speaker(self) -> Speaker:
        return Speaker(self.seed, self.options)

    @property
    def tokenizer(self) -> Any:
        return self.speaker.tokenizer

    @property
    def questions(self) -> tuple[Question, ...]:
        return self.speaker.questions

    def batch(self, step: int, count: int) -> "list[Document]":
        text: Text = "plain" if step < self.options.first_steps else self.options.text
        framed, free = (np.random.Generator(np.random.Philox([self.seed, 5, step, k])) for k in (0, 1))
        asked = int(framed.binomial(count, self.options.framed))
        answered = self.speaker.documents([self.speaker.framed(FRAMES["turns"], framed) for _ in range(asked)])
        items = ["".join(self._item(text, free) for _ in range(3)) for _ in range(count - asked)]
        ids = self.tokenizer(items)["input_ids"] if items else []
        return answered + [(np.array(row[:TEXT_TOKENS]), 1) for row in ids]

    def _item(self, text: Text, generator: np.random.Generator) -> str:
        """A line of text. Three lines have more than TEXT_TOKENS tokens."""
        if text in ("plain", "other"):
            word = "".join(LETTERS[i] for i in generator.integers(len(LETTERS), size=WORD))
            return f"{word}{COPY}{word}\n" if text == "plain" else f"{word}{MIRROR}{word[::-1]}\n"
        question, columns, said = self.speaker.drawn(generator)
        if text == "qa":
            return f"{question}{columns}{SO}{said}\n"
        return f"{columns}{GIVES}{question.removesuffix(' = ?')} = {said}\n"
