"""Texts of a corpus: find its files and columns, and read them endlessly, with a position to resume from.

A text is plain, or a question in the source's template with its worked answer. Rows with an empty text are skipped and
counted. A row without the column raises UserError.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zerolab.data.builtin import BUILT_IN, TEXTS
from zerolab.data.question_config import CorpusSource
from zerolab.data.questions import side_of
from zerolab.data.readers import READERS, TEXT_SUFFIXES, Opener, Position, find_files, open_files, open_hub
from zerolab.data.sources import PROBLEM_KEYS
from zerolab.errors import UserError

TEXT_KEYS = ("text", "content")
SOLUTION_KEYS = ("solution", "response", "completion", "output", "answer")


@dataclass(frozen=True)
class Text:
    """A document as text. `prompt` is the text before the answer, empty for a plain text."""

    prompt: str
    rest: str
    key: str  # its hash gives the side of the holdout: the question, or the plain text


@dataclass(frozen=True)
class TextSet:
    """An opened corpus. `text` makes a text of a row."""

    name: str
    source: CorpusSource
    open: Opener
    fingerprint: str = ""  # hash of the files; a saved position is valid only for the same hash

    def text(self, place: str, row: Any) -> Text | None:
        """The text of a row; None if it is empty. Raises UserError for a row without the column."""
        if not isinstance(row, Mapping):
            raise UserError(f"{place}: expected an object with a text, found {type(row).__name__}")
        source = self.source
        if source.problem_key is None and (key := _key(row, source.text_key, TEXT_KEYS)) is not None:
            text = _string(row[key], place, key)
            return Text("", text, text) if text.strip() else None
        problem = _key(row, source.problem_key, () if source.text_key else PROBLEM_KEYS)
        answer = _key(row, source.answer_key, () if source.text_key else SOLUTION_KEYS)
        if problem is None or answer is None:
            raise UserError(f"{place}: {self._missing(problem, answer)} (the row has {', '.join(map(str, row))[:200]})")
        question, solution = _string(row[problem], place, problem), _string(row[answer], place, answer)
        if not question.strip() or not solution.strip():
            return None
        return Text(source.template.replace("{question}", question), solution, question)

    def _missing(self, problem: str | None, answer: str | None) -> str:
        source = self.source
        if source.text_key:
            return f"no text under {source.text_key!r}; corpora.text_key names the column"
        if source.problem_key:
            absent = source.problem_key if problem is None else source.answer_key
            return f"no column {absent!r}; corpora.problem_key and corpora.answer_key name the columns"
        return (
            f"neither a text ({', '.join(TEXT_KEYS)}) nor a question with its answer ({', '.join(PROBLEM_KEYS)}; "
            f"{', '.join(SOLUTION_KEYS)}); corpora.text_key names the column"
        )


def open_corpus(source: CorpusSource, data_dir: str | None) -> TextSet:
    """Open the corpus of a source that is not synthetic. Raises UserError if it is not found."""
    local = _in_folder(source.path, data_dir)
    files = find_files(str(local) if local else source.path)
    if files:
        name = source.name or Path(source.path).stem or source.path
        return TextSet(name, source, open_files(files, source.unit), fingerprint(files))
    if built_in := TEXTS.get(source.path):
        known = {key: getattr(source, key) or getattr(built_in, key) for key in ("problem_key", "answer_key")}
        subset, split = source.subset or built_in.subset, source.split or built_in.split
        opened = open_hub(built_in.hub_id, subset, split, source.stream)
        return TextSet(source.name or source.path, source.model_copy(update=known), opened)
    path = Path(source.path)
    if path.suffix in (*READERS, *TEXT_SUFFIXES) or any(sign in source.path for sign in "*?["):
        raise UserError(f"{source.path}: no such file")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source.path) and not source.path.startswith("."):
        opened = open_hub(source.path, source.subset, source.split or "train", source.stream)
        return TextSet(source.name or path.name, source, opened)
    close = difflib.get_close_matches(source.path, TEXTS, n=1)
    kind = "a set of questions, not of texts" if source.path in BUILT_IN else "no file, folder, hub id or built-in name"
    raise UserError(
        f"corpora.path {source.path!r} is {kind}"
        + (f" (did you mean {close[0]}?)" if close else f": built in are {', '.join(TEXTS)}")
    )


def fingerprint(files: Sequence[Path]) -> str:
    """A hash of the names and sizes of files. Reading their content would take too long."""
    text = "\n".join(f"{file.name} {file.stat().st_size}" for file in files)
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()


class TextReader:
    """The training texts of a corpus, endlessly, in a new order for every pass.

    `buffer` texts are read at once and put in random order. The state is the position at which the buffer begins and
    the number of texts taken from it, so it is small, and no text is lost or read twice.
    """

    def __init__(self, found: TextSet, *, seed: int, buffer: int, holdout: float):
        self.found, self.seed, self.size, self.holdout = found, seed, buffer, holdout
        self.epoch = self.block = self.index = self.kept = self.skipped = 0
        self._begin: Position | None = None
        self._before = (0, 0)  # kept and skipped at the beginning of the buffer
        self._load()

    def next(self) -> Text:
        if self.index == len(self.buffer):
            self._advance()
        self.index += 1
        return self.buffer[self.index - 1]

    def state_dict(self) -> dict[str, Any]:
        kept, skipped = self._before
        return {
            "fingerprint": self.found.fingerprint,
            "epoch": self.epoch,
            "block": self.block,
            "begin": self._begin,
            "index": self.index,
            "kept": kept,
            "skipped": skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["fingerprint"] != self.found.fingerprint:
            raise UserError(
                f"{self.found.name}: the files are not those that the run began with (other names or sizes): put them "
                "back, or begin a new run from its model"
            )
        self.epoch, self.block, self._begin = state["epoch"], state["block"], state["begin"]
        self.kept, self.skipped = state["kept"], state["skipped"]
        self._load()
        self.index = state["index"]

    def _advance(self) -> None:
        """Read the next buffer, or the first one of a new pass."""
        if self._end is None:
            self.epoch, self.block, self.kept = self.epoch + 1, 0, 0
        else:
            self.block += 1
        self._begin = self._end
        self._load()

    def _load(self) -> None:
        self._before = (self.kept, self.skipped)
        rows = self.found.open(self._begin)
        taken: list[Text] = []
        self._end: Position | None = None
        for place, row in rows:
            text = self.found.text(place, row)
            if text is None:
                self.skipped += 1
                continue
            self.kept += 1
            if side_of(text.key, self.holdout) == "train":
                taken.append(text)
            if self.kept == self.found.source.limit:
                break
            if len(taken) == self.size:
                self._end = rows.position()
                break
        if not taken and self._end is None and self._begin is None:
            raise UserError(f"{self.found.name}: no text to learn from" + _why(self.kept, self.skipped))
        key = int.from_bytes(hashlib.blake2b(self.found.name.encode(), digest_size=8).digest(), "big")
        generator = np.random.Generator(np.random.Philox([self.seed, self.epoch, self.block, key]))
        order = generator.permutation(len(taken)) if self.size > 1 else range(len(taken))
        self.buffer, self.index = [taken[i] for i in order], 0
        if not taken:  # the rest of the pass was empty or held out
            self._advance()


def held_out(found: TextSet, holdout: float, count: int) -> list[Text]:
    """The first `count` held-out texts of a corpus, in file order."""
    kept: list[Text] = []
    for number, text in enumerate(_texts(found), 1):
        if side_of(text.key, holdout) == "holdout":
            kept.append(text)
        if len(kept) == count or number == found.source.limit:
            break
    return kept


def first_texts(found: TextSet, count: int) -> Iterator[Text]:
    """The first texts of a corpus, in file order."""
    for number, text in enumerate(_texts(found), 1):
        yield text
        if number == min(count, found.source.limit or count):
            return


def _texts(found: TextSet) -> Iterator[Text]:
    for place, row in found.open(None):
        if (text := found.text(place, row)) is not None:
            yield text


def _key(row: Mapping[str, Any], key: str | None, known: tuple[str, ...]) -> str | None:
    return next((name for name in ((key,) if key else known) if name in row), None)


def _string(value: Any, place: str, key: str) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    if not isinstance(value, str):
        raise UserError(f"{place}: {key} is a {type(value).__name__}; expected text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{place}: holds a lone surrogate, which is no valid Unicode text") from None
    return value


def _why(kept: int, skipped: int) -> str:
    if kept:
        return "; all of it is held out: lower corpora.holdout"
    return "; its texts are empty" if skipped else "; it is empty"


def _in_folder(name: str, data_dir: str | None) -> Path | None:
    """The file NAME.jsonl (or another suffix), or the folder NAME, in the local folder; None if it is not there."""
    if data_dir is None or "/" in name:
        return None
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise UserError(f"corpora.data_dir {data_dir}: no such folder")
    if (folder / name).is_dir():
        return folder / name
    return next((f for suffix in (*READERS, *TEXT_SUFFIXES) if (f := folder / f"{name}{suffix}").is_file()), None)
