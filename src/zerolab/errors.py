"""Exceptions that several packages use, and the check that a result can be written."""

import os
import tempfile
from pathlib import Path

SHOWN_NAME = 200  # characters of a file's name in a message


class UserError(Exception):
    """Bad input. The message is one line that says what is wrong and what to do; the CLI prints it and exits with 2."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a run after a whole step, and a checkpoint was saved.

    It is a KeyboardInterrupt, so that a handler of Exception does not catch it. The CLI exits with 130.
    """


class LearnerLost(Exception):
    """The learner's processes died and their state is lost. A new learner is ready to load the last checkpoint."""


def file_problem(error: OSError) -> str:
    """What is wrong with which file, in a few words."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    return f"{shorten(name)}: {error.strerror}"


def shorten(name: str) -> str:
    """The name of a file, without its middle if it is long."""
    return name if len(name) <= SHOWN_NAME else f"{name[: SHOWN_NAME // 2]}...{name[-SHOWN_NAME // 2 :]}"


def check_can_write(target: Path | None, option: str) -> None:
    """Raise UserError unless a file of this name can be written. Nothing is left behind; call it before any work.

    Args:
        target: the file; None is fine.
        option: what names another place, such as `--out`.
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
    """Raise OSError unless files can be written into a folder, or into one of this name that is yet to be made."""
    while not folder.exists():
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass
