"""Where results live: one small folder per scale and experiment, made to be committed.

    results/SCALE/ID/cells.csv       a line per cell: factors, numbers; the same for the same seeds
    results/SCALE/ID/verdict.json    statements with estimate, interval and verdict; versions, machine, time
    results/SCALE/ID/figure.png

Raw cells lie in runs/claims/SCALE/ID, one folder each, so that an interrupted run goes on.
"""

import csv
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zerolab.claims.protocol import Cell, Protocol, Row
from zerolab.claims.verdict import Finding, Verdict, findings, overall
from zerolab.errors import UserError
from zerolab.rundir import clear_errors, write_atomically

CELL = "cell.json"


def cell_folder(work: Path, cell: Cell) -> Path:
    return work / cell.key


def load_cell(work: Path, cell: Cell, protocol: Protocol) -> Row | None:
    """The row of a cell that has run under this version of the protocol; None where it has not."""
    file = cell_folder(work, cell) / CELL
    if not file.is_file():
        return None
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored["fingerprint"] != protocol.fingerprint():
            return None
        return {**cell.factors, **{k: math.nan if v is None else v for k, v in stored["numbers"].items()}}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


def save_cell(work: Path, cell: Cell, protocol: Protocol, numbers: Mapping[str, float]) -> None:
    folder = cell_folder(work, cell)
    finite = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
    record = {"fingerprint": protocol.fingerprint(), "factors": dict(cell.factors), "numbers": finite}
    with clear_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / CELL, json.dumps(record, indent=1) + "\n")


def write_results(
    folder: Path, protocol: Protocol, table: Sequence[Row], session: Mapping[str, Any]
) -> tuple[list[Finding], Verdict]:
    """Table, verdict and figure of an experiment."""
    found = findings(protocol, table)
    verdict = overall(found)
    with clear_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_table(folder / "cells.csv", table)
        record = {
            "id": protocol.id,
            "claim": protocol.claim,
            "verdict": verdict,
            "statements": [_plain(dataclasses.asdict(f)) for f in found],
            **session,
        }
        write_atomically(folder / "verdict.json", json.dumps(record, indent=2) + "\n")
        protocol.draw(table, folder / "figure.png")
    return found, verdict


def write_table(path: Path, table: Sequence[Row]) -> None:
    """Numbers to ten digits: enough to recompute every verdict."""
    names = list(dict.fromkeys(name for row in table for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_cell(row.get(name, "")) for name in names] for row in table)


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a table that `write_table` wrote. Raises UserError where there are none."""
    if not path.is_file():
        raise UserError(f"{path}: no results there; run the claim first")
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def read_verdict(folder: Path) -> dict[str, Any] | None:
    file = folder / "verdict.json"
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is no JSON ({error}): run the claim again") from None


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null and text."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def _cell(value: Any) -> Any:
    return f"{value:.10g}" if isinstance(value, float) else value


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
