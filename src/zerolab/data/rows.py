"""Rows of a question file or a hub data set, with the place of each for error messages."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zerolab.errors import UserError

Row = tuple[str, Any]  # where it stands ("file.jsonl:17"), what stands there
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
    """Rows of one split of a hub data set, from the local cache where it is there."""
    for number, row in enumerate(load_hub(hub_id, subset, split)):
        yield f"{hub_id}, {split} row {number}", row


def load_hub(hub_id: str, subset: str | None, split: str, stream: bool = False, table: str = "questions") -> Any:
    """One split of a hub data set, on disk or as a stream. `table` of the config is named where it is not reached."""
    import datasets

    try:
        return datasets.load_dataset(hub_id, subset, split=split, streaming=stream)
    except ConnectionError as error:
        raise UserError(
            f"cannot reach the hub for {hub_id}: give a local file, or set {table}.data_dir to a folder that has it "
            f"({_line(error)})"
        ) from error
    except Exception as error:  # of many libraries: a missing data set, subset or split, a script, a broken file
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
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, nesting without end
        raise UserError(f"{place}: not readable JSON ({_line(error)})") from None


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
