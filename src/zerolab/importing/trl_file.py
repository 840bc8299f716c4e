"""Configuration files of TRL: keys of GRPOConfig, or of the `trl grpo` command line, in YAML or JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zerolab.errors import UserError

SUFFIXES = (".yaml", ".yml", ".json")


def read_trl_file(path: Path) -> dict[str, Any]:
    """Its keys and values. Raises UserError for a file that cannot be read or holds something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or 'not a text file'}; give a file") from None
    try:
        if path.suffix == ".json":
            found = json.loads(text)
        else:
            import yaml

            found = yaml.safe_load(text)
    except Exception as error:  # YAML's errors are many
        raise UserError(f"{path}: not {path.suffix[1:].upper()}: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError(f"{path}: has to hold keys of GRPOConfig and their values")
    return found


def whole_number(config: Mapping[str, Any], key: str, default: int) -> int:
    """The value of a key that counts something. Raises UserError for anything below 1."""
    value = default if config.get(key) is None else config[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{key} = {value!r}: give a whole number of at least 1")
    return value


def number(config: Mapping[str, Any], key: str, default: float) -> float:
    """The value of a key that measures something. YAML reads 1e-6 as text, so that counts too."""
    value = default if config.get(key) is None else config[key]
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{key} = {value!r}: give a number") from None
