"""`zerolab import-trl`: the recipe of a TRL configuration to a file, and on the screen what differs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zerolab.config import RunConfig
from zerolab.errors import UserError
from zerolab.importing.trl_file import read_trl_file
from zerolab.importing.trl_recipe import Import, Note, import_trl
from zerolab.toml import parse, read_toml

PLACEHOLDERS = ("FOLDER-OR-HUB-ID", "QUESTIONS.jsonl")
HEADINGS = {
    "same": "the same",
    "close": "nearly the same",
    "none": "no counterpart",
    "unknown": "unknown",
    "idle": "of no effect on what is learned",
}


def run(path: Path, out: Path | None, processes: int, rows: int | None, overwrite: bool) -> str:
    """Writes the recipe beside the file, or to `out`; returns the report. Raises UserError on bad input."""
    if processes < 1 or (rows is not None and rows < 1):
        raise UserError("--processes and --rows count something: give a whole number of at least 1")
    work = import_trl(read_trl_file(path), processes, rows)
    target = out or path.with_suffix(".toml")
    if target.exists() and not overwrite:
        raise UserError(f"{target} is already there: choose another file with --out, or say --overwrite")
    text = f"# From {path.name} by `zerolab import-trl`. What differs: run it again with --overwrite.\n" + toml(
        work.recipe
    )
    parse(RunConfig, nested(work.recipe), f"the recipe of {path}")
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}; choose another file with --out") from None
    parse(RunConfig, read_toml(target), str(target))
    return report(work, target)


def report(work: Import, target: Path) -> str:
    """Every key of the file under what became of it, then what only the user can fill in."""
    lines = []
    for kind, heading in HEADINGS.items():
        notes = [note for note in work.notes if note.kind == kind]
        if kind == "idle" and notes:
            lines += [f"{heading}: {', '.join(sorted(note.key for note in notes))}", ""]
        elif notes:
            lines += [f"{heading}:", *(f"  {_line(note, work.recipe)}" for note in notes), ""]
    lines += ["to look at:", *(f"  {line}" for line in todo(work)), "", f"recipe: {target}"]
    return "\n".join(lines)


def _line(note: Note, recipe: Mapping[str, Any]) -> str:
    became = f" -> {note.target}" if note.target else ""
    if note.target in recipe:
        became += f" = {value(recipe[note.target])}"
    return f"{note.key} = {json.dumps(note.value, default=str)}{became}" + (f"  ({note.why})" if note.why else "")


def todo(work: Import) -> list[str]:
    """What a TRL file does not hold, or what TRL does otherwise without a key."""
    lines = [f"{key} = {found}: not in the file" for key, found in work.recipe.items() if found in PLACEHOLDERS]
    if "reward_funcs" not in work.given:
        lines.append("reward functions are not in the file: list yours under [[reward.functions]] (docs/rewards.md)")
    lines += [
        f"template.name = {work.recipe['template.name']}: TRL sends a prompt of text as it is, and puts a conversation "
        'under the chat template ("chat")',
        f"reward.truncation = {work.recipe['reward.truncation']}: TRL grades truncated responses as they are, the "
        "paper gives them 0",
        "keys that the file leaves out are written out with TRL's defaults, which differ from zerolab's",
    ]
    return lines


def nested(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Tables from dotted keys."""
    tables: dict[str, Any] = {}
    for key, found in recipe.items():
        table, _, name = key.rpartition(".")
        (tables.setdefault(table, {}) if table else tables)[name] = found
    return tables


def toml(recipe: Mapping[str, Any]) -> str:
    """The text of a recipe: top-level keys, then one table after the other."""
    tables = nested(recipe)
    lines = [f"{key} = {value(found)}" for key, found in tables.items() if not isinstance(found, dict)]
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]", *(f"{key} = {value(found)}" for key, found in table.items())]
    return "\n".join(lines) + "\n"


def value(found: Any) -> str:
    """A TOML value; what TOML has no type for becomes text."""
    if isinstance(found, bool) or found is None:
        return str(bool(found)).lower()
    if isinstance(found, int | float):
        return repr(found)
    if isinstance(found, list | tuple):
        return f"[{', '.join(map(value, found))}]"
    if isinstance(found, Mapping):
        return "{ " + ", ".join(f"{json.dumps(str(key))} = {value(item)}" for key, item in found.items()) + " }"
    return json.dumps(str(found), ensure_ascii=False).replace("\x7f", "\\u007f")
