"""`zerolab overlap`: what of the benchmarks stands in training sets."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zerolab.analysis.contamination import CONTAINED, Overlap, overlap
from zerolab.analysis.result_table import Table, show
from zerolab.data.builtin import BUILT_IN
from zerolab.data.readers import READERS, Row, hub_rows, read_rows
from zerolab.datatypes import Question
from zerolab.errors import UserError
from zerolab.evaluation.benchmarks import benchmark_names, load_benchmarks
from zerolab.rundir import clear_errors, write_atomically
from zerolab.terminal import echo

SHOWN_MATCHES = 8
SHOWN_CHARS = 60


def run(training: Sequence[str], benchmarks: str, data_dir: str | None, ngram: int, out: Path | None) -> None:
    """Compares every training set with every benchmark; prints a table and the fullest matches; writes all of them into
    `out`. Raises UserError on bad input."""
    if ngram < 1:
        raise UserError(f"--ngram {ngram} is no number of words: set it to 1 or more")
    asked = load_benchmarks(benchmark_names(benchmarks), data_dir)
    summary, listed = [], []
    for path, name in zip(training, short_names(training), strict=True):
        numbers, texts = _texts_of(path, data_dir)
        for benchmark, questions in asked.items():
            found = overlap([question.text for question in questions], texts, ngram)
            summary.append((name, len(set(numbers)), benchmark, found))
            listed += _matches(name, numbers, benchmark, questions, found)
    tables = [summary_table(summary, ngram), _fullest(listed)]
    show([table for table in tables if table.rows])
    if out is not None:
        _write(out, tables[0], listed)


def _texts_of(name: str, data_dir: str | None) -> tuple[list[int], list[str]]:
    """(row of each text, texts): every column of text is one, conversations turn by turn."""
    numbers, texts = [], []
    for number, (_, row) in enumerate(training_rows(name, data_dir), 1):
        for text in strings(row):
            numbers.append(number)
            texts.append(text)
    if not texts:
        raise UserError(f"{name} holds no text")
    return numbers, texts


def training_rows(name: str, data_dir: str | None) -> Iterator[Row]:
    """Rows of a file, a built-in set (NAME in the data folder first) or a hub data set. Unlike questions they need no
    answer: any training text can be looked through."""
    path = Path(name).expanduser()
    local = (
        [Path(data_dir).expanduser() / f"{name}{suffix}" for suffix in READERS] if data_dir and "/" not in name else []
    )
    for file in (*local, path):
        if file.is_file():
            return read_rows(file)
    if name in BUILT_IN:
        return hub_rows(BUILT_IN[name].hub_id, BUILT_IN[name].subset, BUILT_IN[name].split)
    if path.suffix in READERS or path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"{name}: no such training file ({', '.join(READERS)}), built-in name or hub id")
    return hub_rows(name, None, "train")


def strings(value: Any, depth: int = 4) -> Iterator[str]:
    """Every text in a row, however it is nested (to a few levels)."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping) and depth:
        for inner in value.values():
            yield from strings(inner, depth - 1)
    elif isinstance(value, list | tuple) and depth:
        for inner in value:
            yield from strings(inner, depth - 1)


def short_names(paths: Sequence[str]) -> list[str]:
    """A file's name without folder and ending, where no other has it."""
    stems = [Path(path).stem if Path(path).suffix in READERS else path for path in paths]
    return [stem if stems.count(stem) == 1 else path for stem, path in zip(stems, paths, strict=True)]


Listed = tuple[str, int, str, str, float, bool, str, str]
LISTED = ("training set", "row", "benchmark", "question", "share", "copied", "shared words", "question text")


def _matches(
    name: str, numbers: Sequence[int], benchmark: str, questions: Sequence[Question], found: Overlap
) -> list[Listed]:
    return [
        (
            name,
            numbers[match.text],
            benchmark,
            questions[match.question].id,
            match.coverage,
            match.question in found.exact,
            match.shared,
            questions[match.question].text,
        )
        for match in found.matches
    ]


def summary_table(rows: Sequence[tuple[str, int, str, Overlap]], ngram: int) -> Table:
    columns = ("training set", "rows", "benchmark", "questions", "touched", "contained", "copied", "share contained")
    cells = tuple(
        (name, count, benchmark, o.questions, o.touched, o.contained, len(o.exact), o.contained / o.questions)
        for name, count, benchmark, o in rows
    )
    note = (
        f"touched: shares at least one run of {ngram} words; contained: at least {CONTAINED:.0%} of its runs stand in "
        "the training set; copied: a training text has the same words and no others"
    )
    return Table("overlap", "Benchmarks in training sets", columns, cells, note)


def _fullest(listed: Sequence[Listed]) -> Table:
    """The fullest matches of every pair of training set and benchmark."""
    shown: dict[tuple[str, str], list[Listed]] = {}
    for row in listed:
        shown.setdefault((row[0], row[2]), []).append(row)
    each = max(1, SHOWN_MATCHES // max(1, len(shown)))
    rows = tuple((*row[:6], row[6][:SHOWN_CHARS]) for group in shown.values() for row in group[:each])
    note = f"{len(rows)} of {len(listed)}; overlap_matches.csv of --out has them all"
    return Table("fullest", "Fullest matches", LISTED[:7], rows, note)


def _write(out: Path, table: Table, listed: Sequence[Listed]) -> None:
    import json

    with clear_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        table.write_csv(out)
        with (out / "overlap_matches.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(LISTED)
            writer.writerows(listed)
        write_atomically(
            out / "overlap.json", json.dumps({"note": table.note, "rows": table.records()}, indent=1) + "\n"
        )
    echo(f"{out}: overlap.csv, overlap.json, overlap_matches.csv ({len(listed)} matches)")
