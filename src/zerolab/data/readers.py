"""Read rows of question files, text files and hub data sets, each with its file and line for error messages.

Texts are read in one pass that can stop and go on at a position. A position is a small JSON value that says where the
next row begins. Only a piece of a file is in memory at a time, except for .json files and the cells of one row.
"""

from __future__ import annotations

import csv
import glob
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from zerolab.errors import UserError

Row = tuple[str, Any]  # (file and line, as "file.jsonl:17"; content)
MAX_CELL_CHARS = 10_000_000


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a JSONL, JSON, CSV or Parquet file. Raises UserError naming file and line."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: give a question file ({', '.join(READERS)})")
    if path.suffix not in READERS:
        raise UserError(f"{path}: questions are read from {', '.join(READERS)} files")
    try:
        yield from READERS[path.suffix](path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                place = f"{path}:{number}"
                yield place, parse_json(decode(line, place), place)


def _json(path: Path) -> Iterator[Row]:
    rows = parse_json(decode(path.read_bytes(), str(path)), str(path))
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of questions, found {type(rows).__name__}; one per line is .jsonl")
    for number, row in enumerate(rows, 1):
        yield f"{path}, entry {number}", row


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(MAX_CELL_CHARS)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                place = f"{path}:{reader.line_num}"
                if None in row or None in row.values():
                    raise UserError(f"{place}: does not have the {len(reader.fieldnames or ())} columns of the header")
                yield place, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path}:{reader.line_num + 1}: not valid CSV ({error})") from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({_line(error)})") from None
    for number, row in enumerate(rows, 1):
        yield f"{path}, row {number}", row


READERS = {".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}


def hub_rows(hub_id: str, subset: str | None, split: str) -> Iterator[Row]:
    """Rows of one split of a hub data set, from the local cache if it is there."""
    for number, row in enumerate(load_hub(hub_id, subset, split)):
        yield f"{hub_id}, {split} row {number}", row


def load_hub(hub_id: str, subset: str | None, split: str, stream: bool = False, table: str = "questions") -> Any:
    """Load one split of a hub data set, or open it as a stream. Raises UserError if it cannot be loaded.

    Args:
        table: table of the config that the message names if the hub is not reached.
    """
    import datasets

    try:
        return datasets.load_dataset(hub_id, subset, split=split, streaming=stream)
    except ConnectionError as error:
        raise UserError(
            f"cannot reach the hub for {hub_id}: give a local file, or set {table}.data_dir to a folder that has it "
            f"({_line(error)})"
        ) from error
    except Exception as error:  # many libraries have their own: a missing data set, subset or split, a broken file
        raise UserError(f"cannot load split {split!r} of {hub_id} ({_line(error)})") from error


def decode(raw: bytes, place: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: not UTF-8 text (byte {error.start})") from None


def parse_json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if error.lineno > 1 else ""
        raise UserError(f"{place}: not valid JSON ({error.msg} at column {error.colno}{line})") from None
    except (ValueError, RecursionError) as error:  # a number with thousands of digits, very deep nesting
        raise UserError(f"{place}: not readable JSON ({_line(error)})") from None


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


Position = Any
TEXT_SUFFIXES = (".txt", ".text", ".md")
LINES = (".jsonl", ".ndjson")
PARQUET_ROWS = 1024  # read at once


class RowReader(Protocol):
    """Rows from a position to the end. `position()` is the position of the next row."""

    def __iter__(self) -> Iterator[Row]: ...
    def position(self) -> Position: ...


Opener = Callable[[Position | None], RowReader]  # None: from the start


def find_files(path: str) -> list[Path]:
    """The files of a path, sorted by name: a file, the readable files of a folder, or the files of a pattern.

    Empty if nothing matches. Raises UserError if a folder has no readable file, or if a file has another suffix.
    """
    named = Path(path).expanduser()
    known = (*READERS, *TEXT_SUFFIXES)
    if named.is_dir():
        found = sorted(p for p in named.rglob("*") if p.suffix in known and p.is_file())
        if not found:
            raise UserError(f"{named}: no file to read in this folder ({', '.join(known)})")
        return found
    if named.is_file():
        found = [named]
    else:
        found = sorted(Path(p) for p in glob.glob(str(named), recursive=True) if Path(p).is_file())
    for file in found:
        if file.suffix not in known:
            raise UserError(f"{file}: texts are read from {', '.join(known)} files")
    return found


@dataclass
class FileReader:
    """Rows of files, one file after another.

    A position is [number of the file, offset in it]. The offset is in bytes for JSON Lines, in rows for other files.
    """

    files: Sequence[Path]
    unit: str  # of a text file: see CorpusSource
    number: int = 0
    place: int = 0

    def __iter__(self) -> Iterator[Row]:
        while self.number < len(self.files):
            file = self.files[self.number]
            try:
                yield from self._rows(file)
            except OSError as error:
                raise UserError(f"{file}: cannot be read ({error.strerror or error})") from None
            self.number, self.place = self.number + 1, 0

    def position(self) -> Position:
        return [self.number, self.place]

    def _rows(self, file: Path) -> Iterator[Row]:
        if file.suffix in LINES:
            yield from self._lines(file)
            return
        if file.suffix in TEXT_SUFFIXES:
            rows = texts(file, self.unit)
        elif file.suffix == ".parquet":
            rows = parquet_rows(file, self.place)
        else:
            rows = read_rows(file)
        for row in rows if file.suffix == ".parquet" else itertools.islice(rows, self.place, None):
            self.place += 1
            yield row

    def _lines(self, file: Path) -> Iterator[Row]:
        with file.open("rb") as lines:
            lines.seek(self.place)
            number = None if self.place else 0  # line numbers are known only from the start of the file
            while line := lines.readline():
                begin, self.place = self.place, lines.tell()
                number = None if number is None else number + 1
                if line.strip():
                    where = f"{file}:{number}" if number is not None else f"{file}, byte {begin}"
                    yield where, parse_json(decode(line, where), where)


def open_files(files: Sequence[Path], unit: str) -> Opener:
    return lambda position: FileReader(files, unit, *(position or (0, 0)))


def texts(file: Path, unit: str) -> Iterator[Row]:
    """Documents of a plain text file, each as {"text": ...}."""
    if unit == "file":
        yield str(file), {"text": decode(file.read_bytes(), str(file))}
        return
    kept: list[str] = []
    begin = 1
    with file.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            line = decode(raw, f"{file}:{number}").rstrip("\r\n")
            if unit == "line" and line.strip():
                yield f"{file}:{number}", {"text": line}
            elif unit == "paragraph" and line.strip():
                begin = begin if kept else number
                kept.append(line)
            elif kept:
                yield f"{file}:{begin}", {"text": "\n".join(kept)}
                kept = []
    if kept:
        yield f"{file}:{begin}", {"text": "\n".join(kept)}


def parquet_rows(file: Path, start: int) -> Iterator[Row]:
    """Rows of a Parquet file from row `start` on, one row group at a time. Earlier row groups are not read."""
    import pyarrow
    import pyarrow.parquet

    try:
        parquet = pyarrow.parquet.ParquetFile(file)
        number = 0
        for group in range(parquet.num_row_groups):
            size = parquet.metadata.row_group(group).num_rows
            if number + size <= start:
                number += size
                continue
            for batch in parquet.iter_batches(batch_size=PARQUET_ROWS, row_groups=[group]):
                for row in batch.to_pylist():
                    number += 1
                    if number > start:
                        yield f"{file}, row {number}", row
    except (pyarrow.ArrowException, ValueError) as error:
        raise UserError(f"{file}: not a readable Parquet file ({' '.join(str(error).split())[:200]})") from None


class HubReader:
    """Rows of a split of a hub data set. A position is the number of a row, or the state of a stream."""

    def __init__(self, name: str, loaded: Any, position: Position | None):
        self.name, self.loaded, self.number = name, loaded, 0
        self.streams = hasattr(loaded, "load_state_dict")
        if self.streams and position is not None:
            self.number = position["row"]
            loaded.load_state_dict(position["state"])
        elif position is not None:
            self.number = position

    def __iter__(self) -> Iterator[Row]:
        rows = iter(self.loaded) if self.streams else (self.loaded[i] for i in range(self.number, len(self.loaded)))
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except Exception as error:  # many libraries have their own: the network, a broken shard
                text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                raise UserError(
                    f"{self.name}: reading failed after row {self.number} ({text}); go on later with --resume"
                ) from error
            self.number += 1
            yield f"{self.name} row {self.number}", row

    def position(self) -> Position:
        return {"row": self.number, "state": self.loaded.state_dict()} if self.streams else self.number


def open_hub(hub_id: str, subset: str | None, split: str, stream: bool) -> Opener:
    """An opener of a hub data set. It raises UserError if the data set cannot be loaded."""
    return lambda position: HubReader(
        f"{hub_id}, {split}", load_hub(hub_id, subset, split, stream, "corpora"), position
    )
