"""Writing results: check early that a file can be written, name a problem in a few words, make a folder at once."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zerolab.errors import UserError

SHOWN_NAME = 200  # characters of a file's name in a message


def check_can_write(target: Path | None, option: str) -> None:
    """Raise UserError unless a file of this name can be written. Nothing is left behind; call it before any work.

    Args:
        target: the file; None is fine.
        option: the option with which a user gives another path, such as `--out`.
    """
    if target is None:
        return
    try:
        if target.is_dir():
            raise IsADirectoryError(0, "it is a folder", str(target))
        if target.exists():
            with target.open("ab"):
                return
        check_folder(target.parent)
    except OSError as error:
        raise UserError(f"cannot write {shorten(str(target))}: {error.strerror}; choose another {option}") from None


def check_folder(folder: Path) -> None:
    """Raise OSError unless a file can be written into a folder. If it does not exist, its nearest parent is checked."""
    while not folder.exists():
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`. It is renamed to `folder` if the block ends well, and deleted otherwise."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{folder.name}.partial-{secrets.token_hex(4)}")  # a name that is not in use
    partial.mkdir()
    try:
        yield partial
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def file_problem(error: OSError) -> str:
    """The file of an OSError and its reason, in a few words."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    return f"{shorten(name)}: {error.strerror}"


def shorten(name: str) -> str:
    """The name of a file, without its middle if it is long."""
    return name if len(name) <= SHOWN_NAME else f"{name[: SHOWN_NAME // 2]}...{name[-SHOWN_NAME // 2 :]}"
