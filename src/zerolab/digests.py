"""Hashes of files."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

THREADS = 4  # hashing waits for the disk half of the time


def sha256_of(path: Path) -> str:
    """The SHA-256 of a whole file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_all(paths: Iterable[Path]) -> dict[Path, str]:
    """The SHA-256 of every file."""
    files = list(paths)
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(files, pool.map(sha256_of, files), strict=True))
