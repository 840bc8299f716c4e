"""A lock of a run's folder, so that one process at a time writes to it. The kernel releases it if the owner dies."""

import fcntl
import os
import socket
import time
import warnings
from contextlib import suppress
from pathlib import Path

from zerolab.errors import UserError

LOCK = "run.lock"  # file in the run's folder; it stays there, and locks nothing unless a process holds it
WAIT_SECONDS = 1.0  # longer than `zerolab watch` holds the lock when it checks it


class RunLock:
    """The lock of a run's folder. The process that holds it may write to the folder."""

    def __init__(self, folder: Path):
        self.folder, self.file = folder, folder / LOCK
        self.held = False
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises UserError if another process holds it, OSError if the folder cannot be written."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.held and not self._try():
            if time.monotonic() > deadline:
                raise UserError(_busy(self.folder))
            time.sleep(WAIT_SECONDS / 20)

    def _try(self) -> bool:
        handle = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError as error:  # some network file systems have no locks
            os.close(handle)
            self.file.unlink(missing_ok=True)
            warnings.warn(
                f"{self.folder} cannot be locked ({error.strerror}): start no second process on it", stacklevel=4
            )
            self.held = True
            return True
        if not _is_at(self.file, handle):  # the last owner has deleted the file since it was opened
            os.close(handle)
            return False
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        _handles.add(handle)
        self._handle, self.held = handle, True
        return True

    def release(self, remove: bool = False) -> None:
        """Release the lock, and delete its file if `remove`. Does nothing if this object does not hold the lock."""
        if remove and self.held:
            self.file.unlink(missing_ok=True)
        if self._handle is not None:
            _handles.discard(self._handle)
            os.close(self._handle)
        self._handle, self.held = None, False


def check_free(folder: Path) -> None:
    """Raise UserError if a process holds the lock of the folder."""
    if is_running(folder):
        raise UserError(_busy(folder))


def is_running(folder: Path) -> bool | None:
    """Whether a process holds the lock of this run; None if there is no lock file, or no locks work in the folder."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)
    return False


def _is_at(file: Path, handle: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _busy(folder: Path) -> str:
    owner = ""
    with suppress(OSError):
        owner = (folder / LOCK).read_text(errors="replace").strip()
    return f"{folder} is in use by {owner or 'another process'}: wait until it ends, or set another `out`"


_handles: set[int] = set()


def _close_in_child() -> None:
    """Close the lock in a forked child, which would otherwise keep it after the parent has died."""
    for handle in _handles:
        os.close(handle)
    _handles.clear()


os.register_at_fork(after_in_child=_close_in_child)
