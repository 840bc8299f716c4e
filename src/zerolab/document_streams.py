"""Endless streams of tokenized documents, cut to the context, and their mix by weight. All can be resumed to the token.

A document is (token ids, how many of them are the prompt); what is learned is the rest. One longer than the context is
cut, and each further piece begins with the last token of the piece before: every token is learned once.
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
# Of the synthetic corpora: beyond every step of a base's own pretraining, and beyond that what is held out.
FIRST_STEP, HELD_OUT_STEP = 2**20, 2**23
MAX_EMPTY_IN_A_ROW = 10_000

Encode = Callable[[str], list[int]]


class Texts(Protocol):
    """An endless stream of texts."""

    def next(self) -> Text: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class SyntheticTexts:
    """Documents of a synthetic corpus as text, in the order of its steps."""

    def __init__(self, corpus: Corpus):
        self.corpus, self.number = corpus, 0
        self._made: tuple[int, list[Text]] = (-1, [])

    def next(self) -> Text:
        step, place = divmod(self.number, SYNTHETIC_BLOCK)
        if self._made[0] != step:
            self._made = step, as_texts(self.corpus, FIRST_STEP + step, SYNTHETIC_BLOCK)
        self.number += 1
        return self._made[1][place]

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"]


def as_texts(corpus: Corpus, step: int, count: int) -> list[Text]:
    """Documents of a step without their end of text, which belongs to the tokenizer of whoever reads them."""
    read = corpus.tokenizer.decode
    documents = corpus.batch(step, count)
    return [Text(prompt := read(ids[:n]), read(ids[n:-1]), prompt) for ids, n in documents]


@dataclass(frozen=True)
class Tokens:
    """From a text to the pieces of its document. `begin` encodes the start of a text as the model expects it (with a
    BOS where it has one), `go_on` what follows; the border of prompt and answer is a border of tokens."""

    begin: Encode
    go_on: Encode
    end: int  # the end-of-text token
    context: int
    answer_only: bool

    def pieces(self, text: Text) -> list[Document]:
        """Pieces with at least one token to learn."""
        prompt = self.begin(text.prompt) if text.prompt else []
        rest = self.go_on(text.rest) if text.prompt else self.begin(text.rest)
        ids = np.array([*prompt, *rest, self.end], dtype=np.int64)
        return cut(ids, max(1, len(prompt)) if self.answer_only else 1, self.context)


def cut(ids: np.ndarray, prompt: int, context: int) -> list[Document]:
    """`ids` in pieces of at most `context` tokens that overlap by one, those without a token to learn left out."""
    starts = range(0, max(1, len(ids) - 1), context - 1)
    found = [(ids[a : a + context], min(max(1, prompt - a), context)) for a in starts]
    return [(piece, first) for piece, first in found if len(piece) > first]


class DocumentStream:
    """The pieces of one corpus, one after another."""

    def __init__(self, name: str, weight: float, texts: Texts, tokens: Tokens):
        self.name, self.weight, self.texts, self.tokens = name, weight, texts, tokens
        self.taken = 0  # tokens
        self._begin(0)

    def _begin(self, used: int) -> None:
        """Looks at no text yet: the state is that before the text whose `used` pieces were taken."""
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
        """Passes begun before this one and rows passed over, where the corpus has an end."""
        return {"epoch": self.texts.epoch, "skipped": self.texts.skipped} if isinstance(self.texts, TextReader) else {}


@dataclass(frozen=True)
class Mix:
    """The next document is from the corpus that is furthest behind its share of the tokens: no draw, no drift."""

    streams: tuple[DocumentStream, ...]

    def step(self, tokens: int) -> list[Document]:
        """Documents of together `tokens` tokens, and at most one piece more."""
        documents: list[Document] = []
        while tokens > 0:
            behind = min(self.streams, key=lambda stream: stream.taken / stream.weight)
            documents.append(behind.next())
            tokens -= len(documents[-1][0])
        return documents

    def metrics(self) -> dict[str, float]:
        """Tokens taken so far, the share of every corpus in them, its passes, and rows without text."""
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
    """A source that was opened: a synthetic corpus, or texts."""

    name: str
    source: CorpusSource
    synthetic: Corpus | None
    texts: TextSet | None

    def first(self, count: int) -> Iterator[Text]:
        """Some texts, to make a tokenizer from."""
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
    """Every source of a run, under a name of its own. Raises UserError for one that is not there."""
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
    """The documents of a run. Raises UserError for a corpus without a text to learn from."""
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
    """Held-out documents of every corpus that has some. Raises UserError where none has."""
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
