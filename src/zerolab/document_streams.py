"""Endless streams of tokenized documents, cut to the context, and their mix by weight. A resume loses no token.

A document is (token ids, length of the prompt in tokens); the rest is learned. A document longer than the context is
cut into pieces. Each further piece begins with the last token of the piece before, so every token is learned once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from zerolab.config import CorpusConfig, CorpusSource, TextRunConfig
from zerolab.data.texts import Text, TextReader, TextSet, first_texts, held_out, open_corpus
from zerolab.errors import UserError
from zerolab.worlds.corpora import make_corpus
from zerolab.worlds.corpus import Corpus, Document

SYNTHETIC_BLOCK = 256  # documents made at once
# Steps of synthetic corpora: after all steps of a base model's pretraining, and for held-out documents after those.
FIRST_STEP, HELD_OUT_STEP = 2**20, 2**23
MAX_EMPTY_IN_A_ROW = 10_000

Encode = Callable[[str], list[int]]


class Texts(Protocol):
    """An endless stream of texts."""

    def next(self) -> Text: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class SyntheticTexts:
    """The documents of a synthetic corpus as text, in the order of its steps."""

    def __init__(self, corpus: Corpus):
        self.corpus, self.number = corpus, 0
        self._made: tuple[int, list[Text]] = (-1, [])

    def next(self) -> Text:
        step, index = divmod(self.number, SYNTHETIC_BLOCK)
        if self._made[0] != step:
            self._made = step, as_texts(self.corpus, FIRST_STEP + step, SYNTHETIC_BLOCK)
        self.number += 1
        return self._made[1][index]

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"]


def as_texts(corpus: Corpus, step: int, count: int) -> list[Text]:
    """The documents of a step as text, without the end-of-text token, which each tokenizer adds itself."""
    read = corpus.tokenizer.decode
    documents = corpus.batch(step, count)
    return [Text(prompt := read(ids[:n]), read(ids[n:-1]), prompt) for ids, n in documents]


@dataclass(frozen=True)
class Tokens:
    """Makes the pieces of a document from a text. Prompt and answer are tokenized separately."""

    begin: Encode  # encodes the start of a text, with BOS if the model expects it
    go_on: Encode  # encodes text that follows
    end: int  # the end-of-text token
    context: int
    answer_only: bool

    def pieces(self, text: Text) -> list[Document]:
        """The pieces of a text that have at least one token to learn."""
        prompt = self.begin(text.prompt) if text.prompt else []
        rest = self.go_on(text.rest) if text.prompt else self.begin(text.rest)
        ids = np.array([*prompt, *rest, self.end], dtype=np.int64)
        return cut(ids, max(1, len(prompt)) if self.answer_only else 1, self.context)


def cut(ids: np.ndarray, prompt: int, context: int) -> list[Document]:
    """Cut `ids` into pieces of at most `context` tokens that overlap by one token.

    `prompt` is the number of tokens that are not learned. Pieces without a learned token are left out.
    """
    starts = range(0, max(1, len(ids) - 1), context - 1)
    found = [(ids[a : a + context], min(max(1, prompt - a), context)) for a in starts]
    return [(piece, first) for piece, first in found if len(piece) > first]


class DocumentStream:
    """The endless stream of the pieces of one corpus."""

    def __init__(self, name: str, weight: float, texts: Texts, tokens: Tokens):
        self.name, self.weight, self.texts, self.tokens = name, weight, texts, tokens
        self.taken = 0  # tokens
        self._begin(0)

    def _begin(self, used: int) -> None:
        """Store the state before the next text, of which `used` pieces were already taken. Reads nothing."""
        self._before, self._pieces, self._used = self.texts.state_dict(), list[Document](), used

    def next(self) -> Document:
        empty = 0
        while self._used >= len(self._pieces):
            if empty == MAX_EMPTY_IN_A_ROW:
                raise UserError(f"{self.name}: {empty} texts in a row without a token: does the tokenizer fit them?")
            self._begin(0)
            self._pieces = self.tokens.pieces(self.texts.next())
            empty += 1
        self._used += 1
        piece = self._pieces[self._used - 1]
        self.taken += len(piece[0])
        return piece

    def state_dict(self) -> dict[str, Any]:
        return {"texts": self._before, "used": self._used, "taken": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.texts.load_state_dict(state["texts"])
        self._begin(0)
        self.taken = state["taken"]
        if state["used"]:
            self._pieces, self._used = self.tokens.pieces(self.texts.next()), state["used"]

    def progress(self) -> dict[str, float]:
        """The number of finished passes and of skipped rows, for a corpus that has an end."""
        return {"epoch": self.texts.epoch, "skipped": self.texts.skipped} if isinstance(self.texts, TextReader) else {}


@dataclass(frozen=True)
class Mix:
    """A mix of streams. The next document comes from the stream that is furthest behind its share of the tokens."""

    streams: tuple[DocumentStream, ...]

    def step(self, tokens: int) -> list[Document]:
        """Documents with at least `tokens` tokens in total; the last one may exceed it."""
        documents: list[Document] = []
        while tokens > 0:
            behind = min(self.streams, key=lambda stream: stream.taken / stream.weight)
            documents.append(behind.next())
            tokens -= len(documents[-1][0])
        return documents

    def metrics(self) -> dict[str, float]:
        """Metrics: tokens taken so far, the share of every corpus in them, its passes and its rows without text."""
        total = sum(stream.taken for stream in self.streams)
        found = {"tokens/seen": float(total)}
        for stream in self.streams:
            found[f"mix/{stream.name}"] = stream.taken / total if total else 0.0
            found |= {f"{kind}/{stream.name}": value for kind, value in stream.progress().items()}
        return found

    def state_dict(self) -> dict[str, Any]:
        return {stream.name: stream.state_dict() for stream in self.streams}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for stream in self.streams:
            stream.load_state_dict(state[stream.name])


@dataclass(frozen=True)
class Found:
    """An opened source: a synthetic corpus, or texts."""

    name: str
    source: CorpusSource
    synthetic: Corpus | None
    texts: TextSet | None

    def first(self, count: int) -> Iterator[Text]:
        """The first texts, from which a tokenizer is trained."""
        if self.texts is not None:
            return first_texts(self.texts, count)
        assert self.synthetic is not None
        return iter(as_texts(self.synthetic, FIRST_STEP, min(count, 4096)))

    def held_out(self, holdout: float, count: int) -> list[Text]:
        if self.texts is not None:
            return held_out(self.texts, holdout, count) if holdout else []
        assert self.synthetic is not None
        return as_texts(self.synthetic, HELD_OUT_STEP, count)

    @property
    def answer_only(self) -> bool:
        return (self.source.loss or ("answer" if self.synthetic else "all")) == "answer"


def find_corpora(config: TextRunConfig) -> list[Found]:
    """Open every source of a run, each under a unique name. Raises UserError if one is not found."""
    found: list[Found] = []
    for source in config.corpora.sources:
        if source.synthetic is None:
            texts = open_corpus(source, config.corpora.data_dir)
            entry = Found(_unique(texts.name, found), source, None, texts)
        else:
            seed = config.seed if source.seed is None else source.seed
            corpus = make_corpus(CorpusConfig(name=source.synthetic, options=source.options), seed)
            entry = Found(_unique(source.name or source.synthetic, found), source, corpus, None)
        found.append(entry)
    return found


def _unique(name: str, found: Sequence[Found]) -> str:
    taken = {entry.name for entry in found}
    return next(n for n in (name, *(f"{name}-{i}" for i in range(2, len(found) + 3))) if n not in taken)


def make_tokens(tokenizer: Any, begin: Encode, context: int, answer_only: bool) -> Tokens:
    def go_on(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    return Tokens(begin, go_on, tokenizer.eos_token_id, context, answer_only)


def make_mix(config: TextRunConfig, found: Sequence[Found], tokenizer: Any, begin: Encode, context: int) -> Mix:
    """Make the mix of documents of a run. Raises UserError for a corpus without a text to learn from."""
    streams = []
    for entry in found:
        texts: Texts
        if entry.texts is not None:
            corpora = config.corpora
            texts = TextReader(entry.texts, seed=config.seed, buffer=corpora.shuffle_buffer, holdout=corpora.holdout)
        else:
            assert entry.synthetic is not None
            texts = SyntheticTexts(entry.synthetic)
        tokens = make_tokens(tokenizer, begin, context, entry.answer_only)
        streams.append(DocumentStream(entry.name, entry.source.weight, texts, tokens))
    return Mix(tuple(streams))


def held_out_documents(
    config: TextRunConfig, found: Sequence[Found], tokenizer: Any, begin: Encode, context: int
) -> dict[str, list[Document]]:
    """The held-out documents of every corpus that has some. Raises UserError if none has."""
    documents: dict[str, list[Document]] = {}
    for entry in found:
        tokens = make_tokens(tokenizer, begin, context, entry.answer_only)
        texts = entry.held_out(config.corpora.holdout, config.evaluation.max_documents)
        if pieces := [piece for text in texts for piece in tokens.pieces(text)]:
            documents[entry.name] = pieces
    if not documents:
        raise UserError(
            f"corpora.holdout = {config.corpora.holdout} keeps no document for the held-out loss: raise it, or set "
            "evaluation.every to 0"
        )
    return documents
