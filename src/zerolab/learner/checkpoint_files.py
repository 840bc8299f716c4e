"""The folders of a run's checkpoints, and the check of their files.

A checkpoint lists its files with size and SHA-256 in FILES, which is written last. A checkpoint is whole if every
listed file is there with the same content. Files that are not listed are ignored.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

from zerolab.models.fingerprint import sha256_of_all

STATE_FILE, FILES = "loop.json", "files.json"
PARTIAL = ".partial"  # suffix of a folder that is being written
NAME = re.compile(r"step_\d{6,}")  # any other folder, such as step_000002_backup, is the user's


class Found(NamedTuple):
    """The newest whole checkpoint, and why each newer one was skipped."""

    folder: Path | None
    skipped: list[str]


def folder_of(root: Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return root / f"step_{step:06d}"


def step_of(folder: Path) -> int:
    """The step of a checkpoint's folder."""
    return int(folder.name.removeprefix("step_"))


def checkpoints(root: Path) -> list[Path]:
    """The folders named as checkpoints, oldest first, whole or not."""
    if not root.is_dir():
        return []
    return sorted((p for p in root.iterdir() if NAME.fullmatch(p.name) and p.is_dir()), key=step_of)


def newest_whole(root: Path) -> Found:
    """Find the newest whole checkpoint. Reads all files of the checkpoints that it tries."""
    skipped: list[str] = []
    for folder in reversed(checkpoints(root)):
        reason = damage(folder)
        if reason is None:
            return Found(folder, skipped)
        skipped.append(f"{folder.name} is damaged ({reason})")
    return Found(None, skipped)


def latest_checkpoint(root: Path) -> Path | None:
    """The newest whole checkpoint."""
    return newest_whole(root).folder


def list_files(folder: Path) -> None:
    """Write FILES for all files in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILES)
    digests = sha256_of_all(files)
    listed = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": digests[path]} for path in files
    }
    (folder / FILES).write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")


def damage(folder: Path) -> str | None:
    """The first defect of a checkpoint, in a few words; None if it is whole."""
    try:
        listed = json.loads((folder / FILES).read_text(encoding="utf-8"))
        expected = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in listed.items()}
    except FileNotFoundError:
        return f"{FILES} is missing"
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return f"{FILES} cannot be read"
    if STATE_FILE not in expected:
        return f"{FILES} does not list {STATE_FILE}"
    for name, (size, _) in expected.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
    try:
        found = sha256_of_all(folder / name for name in expected)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    changed = [name for name, (_, digest) in expected.items() if found[folder / name] != digest]
    return f"{changed[0]} has other content than was written" if changed else None
