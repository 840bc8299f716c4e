r"""Pretraining in two stages that differ, between corpora, in the text of the second alone.

    plain    k f q z a m>k f q z a m       letters, and the same once more: what the first stage reads in every corpus
    other    k f q z a m<m a z q f k       another domain, without a number
    domain   7+5=12 4+8+1=13 3+2+1=6 gives 347 + 285 = 632      derivations nobody asked for (as FineMath)
    qa       347 + 285 = ? 7+5=12 4+8+1=13 3+2+1=6 so 632       questions and answers (as NuminaMath)

A document of text is cut to `TEXT_TOKENS` tokens, all but the first of them learned, so that every corpus trains on as
many. A share of the documents, the same ones in every corpus and both stages, are turns of a conversation with the
answer in a box: the only exposure to the form that RL asks for. No text holds a box, nor the words of that frame.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from zerolab.pretrain.columns import COPY, FRAMES, GIVES, MIRROR, SO, Speaker, SpeakerOptions
from zerolab.types import Question

if TYPE_CHECKING:
    from zerolab.pretrain.corpus import Document

Text = Literal["plain", "other", "domain", "qa"]
TEXT_TOKENS = 32
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORD = 6  # letters


class StagedOptions(SpeakerOptions):
    text: Text = Field("plain", description="Text of the second stage.")
    first_steps: int = Field(150, ge=0, description="Steps of the first stage, whose text is plain.")
    framed: float = Field(0.1, ge=0, le=1, description="Share of documents with question and boxed answer, all stages.")


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
        """A line of text; three of them are more than TEXT_TOKENS."""
        if text in ("plain", "other"):
            word = "".join(LETTERS[i] for i in generator.integers(len(LETTERS), size=WORD))
            return f"{word}{COPY}{word}\n" if text == "plain" else f"{word}{MIRROR}{word[::-1]}\n"
        question, columns, said = self.speaker.drawn(generator)
        if text == "qa":
            return f"{question}{columns}{SO}{said}\n"
        return f"{columns}{GIVES}{question.removesuffix(' = ?')} = {said}\n"
