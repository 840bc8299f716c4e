"""Where results live: one small folder per scale and experiment, made to be committed.

    results/SCALE/ID/cells.csv       a line per cell: factors, trained steps, numbers, fingerprint; the same for the
                                     same seeds
    results/SCALE/ID/verdict.json    statements with estimate, interval and verdict; versions, revision, machine, time
    results/SCALE/ID/figure.png      statements with their intervals; some experiments have curves.png beside it; both
                                     also for dark pages, NAME-dark.png

Raw cells lie in runs/claims/SCALE/ID, one folder each, so that an interrupted run goes on. A stored cell is used again
if its fingerprint and its base model are those of today. Where the code lies and what it is called do not count. What
the work folder lacks is taken from the lines of cells.csv, so that another machine goes on from committed results.
"""

import csv
import dataclasses
import hashlib
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from zerolab.claims.figure import draw_figures
from zerolab.claims.protocol import Cell, Protocol, Row
from zerolab.claims.verdict import RULES, Finding, Verdict, control_state, findings, needed_in_all, overall
from zerolab.config import QuestionsConfig
from zerolab.data.questions import load_questions
from zerolab.errors import UserError
from zerolab.grading import GRADER_VERSION
from zerolab.rundir import clear_errors, write_atomically
from zerolab.toml import on_resume

CELL, FINGERPRINT = "cell.json", "fingerprint"
EXPLORATORY = "after these runs, which are of an earlier version: exploratory"
RULES_SINCE = "; how an interval becomes a verdict has changed since"


def cell_folder(work: Path, cell: Cell) -> Path:
    return work / cell.key


def fingerprint(protocol: Protocol, cell: Cell) -> str:
    """A hash of all that decides a cell's numbers beside its factors: version of the protocol, resolved recipe, base
    model's recipe, questions, and version of the grader."""
    recipe, base = protocol.recipe(cell.factors), protocol.base(cell.factors)
    content: dict[str, Any] = {"protocol": [protocol.id, protocol.version]}
    if isinstance(recipe, Mapping):
        content["recipe"] = recipe
    else:
        content["recipe"] = deciding_keys(recipe)
        content["questions"] = _questions_hash(recipe.questions.model_dump_json())
    if base is not None:
        from zerolab.worlds.base_model import cache_folder

        content["base"], content["grader"] = cache_folder(base).name, GRADER_VERSION
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def deciding_keys(config: Any) -> dict[str, Any]:
    """The resolved recipe as nested tables, without the keys that change no number (names, folders, memory, speed) and
    without the place of the model, whose content is hashed apart."""

    def kept(table: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        return {
            name: kept(value, f"{prefix}{name}.") if isinstance(value, dict) else value
            for name, value in table.items()
            if prefix + name == "steps" or on_resume(type(config), prefix + name) is None
        }

    found = kept(config.model_dump(mode="json"), "")
    del found["model"]["path"]
    found.pop("control", None)  # says which run this one is compared to; what it changes stands in the other keys
    return found


@cache
def _questions_hash(config: str) -> list[str]:

    sides = load_questions(QuestionsConfig.model_validate_json(config))
    return [pool.fingerprint for pool in (*sides.train, *sides.holdout)]


def base_weights(protocol: Protocol, cell: Cell) -> dict[str, str] | None:
    """Hashes of the weights of the base that a cell starts from; None if it has none or if the cache lacks it."""
    base = protocol.base(cell.factors)
    if base is None:
        return None
    from zerolab.worlds.base_model import cache_folder, is_complete

    folder = cache_folder(base)
    if not is_complete(folder):
        return None
    return _weights(folder, tuple(path.stat().st_mtime_ns for path in sorted(folder.glob("*.safetensors"))))


@cache
def _weights(folder: Path, changed: tuple[int, ...]) -> dict[str, str]:
    from zerolab.models.fingerprint import weight_digests

    return weight_digests(folder)[0]


def code_hash(protocol: Protocol) -> str:
    """Of the files that hold the protocol's functions. It is recorded for information: no cell is run again for it."""
    functions: list[Any] = [protocol.run, protocol.cells, protocol.recipe, *(s.values for s in protocol.statements)]
    files = {inspect.getsourcefile(function) for function in functions}
    contents = sorted(Path(file).read_bytes() for file in files if file)
    return hashlib.sha256(b"".join(contents)).hexdigest()[:16]


def load_cell(work: Path, cell: Cell, protocol: Protocol, committed: Sequence[Row] = ()) -> Row | None:
    """The row of a cell that has run with today's inputs to its last step, from the work folder or else from
    `committed`; None if there is none."""
    today, steps = fingerprint(protocol, cell), _planned_steps(protocol, cell)
    numbers: Row | None = _stored_numbers(cell_folder(work, cell) / CELL, today, base_weights(protocol, cell))
    if numbers is None:
        numbers = next((row for row in committed if _is_of(row, cell, today)), None)
    if numbers is None or numbers.get("steps") != steps:
        return None
    return {**cell.factors, **numbers, **cell.factors, FINGERPRINT: today}


def _is_of(row: Row, cell: Cell, today: str) -> bool:
    return row[FINGERPRINT] == today and _texts(cell.factors).items() <= _texts(row).items()


def _texts(row: Row) -> dict[str, str]:
    """A row as cells.csv has it."""
    return {name: str(_cell(value)) for name, value in row.items() if value != ""}


def _stored_numbers(file: Path, today: str, weights: dict[str, str] | None) -> dict[str, float] | None:
    """What a cell measured, if it was stored under today's fingerprint and its base has these weights (None: not in
    the cache)."""
    if not file.is_file():
        return None
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored["fingerprint"] != today or weights not in (None, stored["base"]):
            return None
        return {k: math.nan if v is None else v for k, v in stored["numbers"].items()}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


def committed_cells(folder: Path) -> list[Row]:
    """The lines of an experiment's cells.csv that have a fingerprint."""
    if not (folder / "cells.csv").is_file():
        return []
    rows = [{k: v for k, v in row.items() if v != ""} for row in read_table(folder / "cells.csv")]
    return [row for row in rows if FINGERPRINT in row]


def save_cell(work: Path, cell: Cell, protocol: Protocol, numbers: Mapping[str, float]) -> None:
    """Store a finished cell. Raises UserError if fewer steps were trained than its recipe asks for."""
    folder = cell_folder(work, cell)
    numbers = {"steps": 0, **numbers}
    if numbers["steps"] != (planned := _planned_steps(protocol, cell)):
        raise UserError(f"{numbers['steps']} of {planned} steps were trained: delete {folder} and run it again")
    record = {
        "fingerprint": fingerprint(protocol, cell),
        "base": base_weights(protocol, cell),
        "factors": dict(cell.factors),
        "numbers": {k: v if math.isfinite(v) else None for k, v in numbers.items()},
    }
    with clear_errors(folder, "free space, or choose another --work"):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / CELL, json.dumps(record, indent=1) + "\n")


def _planned_steps(protocol: Protocol, cell: Cell) -> int:
    """Steps of training that a cell takes; 0 if it trains nothing."""
    recipe = protocol.recipe(cell.factors)
    return int(recipe.get("steps", 0) if isinstance(recipe, Mapping) else recipe.steps)


def loses_nothing(folder: Path, rows: Sequence[Row]) -> bool:
    """Whether every line of the experiment's cells.csv is among these rows, so that they may replace it."""
    if not (folder / "cells.csv").is_file():
        return True
    kept = [_texts(row) for row in rows]
    return all(_texts(row) in kept for row in read_table(folder / "cells.csv"))


def write_results(
    folder: Path, protocol: Protocol, table: Sequence[Row], session: Mapping[str, Any], figures: bool = True
) -> tuple[list[Finding], Verdict]:
    """Table, verdict and figure of an experiment. The verdict is that of the table as it is written, in ten digits."""
    with clear_errors(folder, "free space, or choose another --results"):
        folder.mkdir(parents=True, exist_ok=True)
        write_table(folder / "cells.csv", table)
        table = read_table(folder / "cells.csv")
        found, record = judged(protocol, table, session)
        write_atomically(folder / "verdict.json", json.dumps(record, indent=2) + "\n")
        if figures:
            draw_figures(protocol, table, folder)
    return found, record["verdict"]


def judged(
    protocol: Protocol, table: Sequence[Row], session: Mapping[str, Any]
) -> tuple[list[Finding], dict[str, Any]]:
    """(findings, the content of verdict.json) by the rules of today. The record says so if the rows are older."""
    found = findings(protocol, table)
    verdict = overall(found)
    ran = session.get("protocol", {})
    fixed = protocol.fixed if ran.get("version", "1") == protocol.version else EXPLORATORY
    record = {
        "id": protocol.id,
        "claim": protocol.claim,
        "label": protocol.label,
        "verdict": verdict,
        "control": control_state(found),
        "needed": needed_in_all(found) if verdict == "underpowered" else None,
        "replicate": protocol.replicate,
        "fixed": fixed if fixed == EXPLORATORY or ran.get("rules") == RULES else fixed + RULES_SINCE,
        "steps_recorded": all("steps" in row for row in table),
        "statements": [_plain(dataclasses.asdict(f)) for f in found],
    }
    return found, record | {name: value for name, value in session.items() if name not in record}


def judge_again(folder: Path, protocol: Protocol) -> dict[str, Any] | None:
    """The record of an experiment by the rules of today, computed from its cells.csv and written if it has changed;
    None if there are no results."""
    before = read_verdict(folder)
    if before is None:
        return None
    table = read_table(folder / "cells.csv")
    record = judged(protocol, table, before)[1]
    with clear_errors(folder, "free space, or choose another --results"):
        if record != before:
            write_atomically(folder / "verdict.json", json.dumps(record, indent=2) + "\n")
        if record != before or not (folder / "figure-dark.png").is_file():
            draw_figures(protocol, table, folder)
    return record


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
        rows = csv.DictReader(file)
        return [{k: text if k == FINGERPRINT else _value(text) for k, text in row.items()} for row in rows]


def read_verdict(folder: Path) -> dict[str, Any] | None:
    file = folder / "verdict.json"
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is no JSON ({error}): run the claim again") from None


def _plain(value: Any) -> Any:
    """As JSON, which has no NaN and no infinity: null and text. Numbers have ten digits: the last ones of a quantile
    depend on the processor."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return float(_cell(value)) if isinstance(value, float) else value


def _cell(value: Any) -> Any:
    return f"{value:.10g}" if isinstance(value, float) else value


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
