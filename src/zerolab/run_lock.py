"""One process per run folder: a lock that the kernel releases when its owner dies."""

import fcntl
import os
import socket
import time
import warnings
from contextlib import suppress
from pathlib import Path

from zerolab.errors import UserError

LOCK = "run.lock"  # in the run's folder; it stays there, and means nothing unless a process holds it
WAIT_SECONDS = 1.0  # `watch` holds the lock for an instant when it looks


class RunLock:
    """The right to write into a run's folder, for one process at a time."""

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
        if not _is_at(self.file, handle):  # its last owner deleted the file meanwhile
            os.close(handle)
            return False
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        _handles.add(handle)
        self._handle, self.held = handle, True
        return True

    def release(self, remove: bool = False) -> None:
        """Give the lock back, and `remove` its file. Does nothing if this object does not hold it."""
        if remove and self.held:
            self.file.unlink(missing_ok=True)
        if self._handle is not None:
            _handles.discard(self._handle)
            os.close(self._handle)
        self._handle, self.held = None, False


def check_free(folder: Path) -> None:
    """Raises UserError if a process works in the folder now."""
    if is_running(folder):
        raise UserError(_busy(folder))


def is_running(folder: Path) -> bool | None:
    """Whether a process holds the lock of this run; None if the folder has no lock file, or no locks work there."""
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
    """A forked child shares the lock and would keep it after the death of its parent."""
    for handle in _handles:
        os.close(handle)
    _handles.clear()


os.register_at_fork(after_in_child=_close_in_child)
