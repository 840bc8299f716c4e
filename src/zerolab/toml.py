"""Read a TOML file into a validated config. Every table of a recipe is frozen and refuses unknown keys.

A mistake in a file becomes one line that names the key and, if there is one, the nearest known key.
"""

import copy
import difflib
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from zerolab.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises UserError if it cannot be read or is no TOML."""
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); `zerolab recipe list` lists the shipped recipes"
        ) from None
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a very long number, very deep nesting
        raise UserError(f"{path}: not valid TOML ({error})") from None


BLOCK = re.compile(r"^```json\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The tables of a recipe: a TOML file, the resolved run.json of a run, or the model card of an exported one.

    Raises UserError if the file cannot be read or holds no recipe.
    """
    path = Path(path)
    if path.suffix not in (".json", ".md"):
        return read_toml(path)
    try:
        text = path.read_text(encoding="utf-8")
        block = BLOCK.search(text) if path.suffix == ".md" else None
        found = json.loads(block[1] if block else text)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no recipe: give a TOML file, a run.json, or the card that zerolab export wrote")
    return found


# Pairs of keys for the same setting. An override of one removes the other one from the recipe.
ALTERNATIVES = (
    ("model.path", "model.base"),
    ("model.tokenizer", "model.vocab_size"),
    ("questions.path", "questions.sources"),
    ("evaluation.questions.path", "evaluation.questions.sources"),
    ("corpora.path", "corpora.sources"),
)


def apply_overrides(raw: dict[str, Any], overrides: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """A copy of `raw` with overrides such as `a.b=c` applied. c is read as TOML, or as text if it is no TOML.

    A key of ALTERNATIVES replaces the other key of its pair. If both are overridden, both are kept. Raises UserError
    for an override that is not KEY=VALUE.
    """
    raw = copy.deepcopy(raw)
    for key in {item.partition("=")[0].strip() for item in overrides}:
        for pair in ALTERNATIVES:
            if key in pair:
                _remove(raw, pair[1 - pair.index(key)])
    for item in overrides:
        key, equals, value = item.partition("=")
        *parents, last = key.strip().split(".")
        if not equals or not all((*parents, last)):
            raise UserError(f"--set {item}: expected KEY=VALUE, for example --set learner.lr=1e-4")
        table = raw
        for name in parents:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise UserError(f"--set {item}: {name} is a value, not a table")
        table[last] = _toml_value(value.strip())
    return raw


def _remove(raw: dict[str, Any], key: str) -> None:
    """Remove a dotted key, if it is there."""
    *parents, last = key.split(".")
    table: Any = raw
    for name in parents:
        table = table.get(name) if isinstance(table, dict) else None
    if isinstance(table, dict):
        table.pop(last, None)


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def parse(model: type[Model], raw: dict[str, Any], origin: str) -> Model:
    """Validate `raw`. Raises UserError with all problems in one line that starts with `origin`."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = [_explain(model, problem) for problem in error.errors()]
        raise UserError(f"{origin}: " + "; ".join(dict.fromkeys(problems))) from None


def _explain(model: type[BaseModel], problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = _nearest_key(model, problem["loc"])
        return f"unknown key {where}" + (f" (did you mean {near}?)" if near else "")
    if problem["type"] == "missing":
        return f"key {where} is missing"
    if problem["type"] == "value_error":
        message = str(problem["ctx"]["error"])
        return message if "." in message.split()[0] or not where else f"{where}: {message}"
    given = f"{problem['input']!r:.60}"
    if problem["type"] in ("model_type", "model_attributes_type"):
        return f"{where or 'a recipe'} is a table of keys, not {given}{_as_table(model, problem)}"
    if problem["type"] in ("tuple_type", "list_type"):
        return f"{where} is a list, not {given}: put it in square brackets"
    return f"{where}: {problem['msg'].lower()} (got {problem['input']!r:.200})"


def _as_table(model: type[BaseModel], problem: Any) -> str:
    """How to write a path that was given instead of a table; "" if the value is not a path."""
    kind: type[BaseModel] | None = model
    for part in problem["loc"]:
        if kind is not None and isinstance(part, str):
            kind = table_class(kind.model_fields[part].annotation) if part in kind.model_fields else None
    keys = {*(kind.model_fields if kind else ()), *getattr(getattr(kind, "shorthand", None), "model_fields", ())}
    if "path" not in keys or not isinstance(problem["input"], str):
        return ""
    given = json.dumps(problem["input"], ensure_ascii=False)
    return f": write {{path = {given:.200}}} in TOML, {{'path': {given:.200}}} in Python"


def _nearest_key(model: type[BaseModel], loc: tuple[int | str, ...]) -> str | None:
    """The known key nearest to an unknown one, or None.

    It is a key with the same name in another table, else one with a similar name in the same table, else one with a
    similar name in another table.
    """
    *parents, last = map(str, loc)
    here: type[BaseModel] | None = model
    for part in loc[:-1]:
        here = here if isinstance(part, int) or here is None else table_class(here.model_fields[part].annotation)
    known = {key: key.rsplit(".", 1)[-1] for key in known_keys(model)}
    if same := next((key for key, name in known.items() if name == last), None):
        return same
    neighbours = [key.rsplit(".", 1)[-1] for key in known_keys(here, deep=False)] if here else []
    if close := difflib.get_close_matches(last, neighbours, n=1):
        return ".".join([*parents, close[0]])
    close = difflib.get_close_matches(last, known.values(), n=1, cutoff=0.75)
    return next((key for key, name in known.items() if name in close), None)


def table_class(annotation: Any) -> type[BaseModel] | None:
    """The config class in an annotation, such as `X`, `X | None` or `tuple[X, ...]`."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def known_keys(model: type[BaseModel], prefix: str = "", deep: bool = True) -> list[str]:
    """Every dotted key of a config class. The keys of its `shorthand` class can be set directly in its table."""
    shorthand: type[BaseModel] | None = getattr(model, "shorthand", None)
    keys = [prefix + name for name in shorthand.model_fields] if shorthand else []
    for name, info in model.model_fields.items():
        keys.append(prefix + name)
        kind = table_class(info.annotation)
        if kind and deep and kind is not shorthand:
            keys += known_keys(kind, f"{prefix}{name}.")
    return keys


LARGEST = 2**63 - 1  # tensors and files allow no larger number
LONGEST_NAME = 200  # bytes; a folder's name has at most 255, and the seed is appended

# Marks of fields that a resumed run may change.
SAME: dict[str, Any] = {"resume": "same"}  # the numbers of the run do not change
ROUNDED: dict[str, Any] = {"resume": "rounded"}  # the numbers are equal up to rounding, not to the bit


class Strict(BaseModel):
    """The base class of all configs: frozen, without unknown keys, infinities and integers over 64 bits."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _fits_64_bits(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ValueError("a whole number must be less than 2^63")
        return value


def refuse(*cases: tuple[object, str]) -> None:
    """Raise ValueError with the message of the first case that is true. For validators of configs.

    A message names the key and the remedy; `parse` shows it as one line.
    """
    for wrong, message in cases:
        if wrong:
            raise ValueError(message)


def on_resume(model: type[BaseModel], key: str) -> Literal["same", "rounded"] | None:
    """The resume mark of a dotted key, or of a table around it; None if a resumed run may not change the key."""
    here: type[BaseModel] | None = model
    for part in key.split("."):
        info = here.model_fields.get(part) if here else None
        if info is None:
            return None
        if isinstance(info.json_schema_extra, dict) and (mark := info.json_schema_extra.get("resume")):
            return "same" if mark == "same" else "rounded"
        here = table_class(info.annotation)
    return None


def as_value_error(check: Callable[..., Any], *arguments: Any) -> None:
    """Run a check that raises UserError in a validator, which must raise ValueError."""
    try:
        check(*arguments)
    except UserError as error:
        raise ValueError(str(error)) from None


def _check_name(name: str) -> str:
    """The name. Raises ValueError if it cannot be part of a folder's name."""
    if not name.strip() or set(name) & set("/\\") or not name.isprintable() or name.strip(".") == "":
        raise ValueError(
            f"{name!r} is no name: write letters, digits and signs that a folder's name may have, without / and \\ "
            "(the key `out` takes a path)"
        )
    if len(name.encode(errors="replace")) > LONGEST_NAME:
        raise ValueError(f"a name of {len(name.encode(errors='replace'))} bytes is too long: {LONGEST_NAME} at most")
    return name


Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Name = Annotated[str, AfterValidator(_check_name)]
