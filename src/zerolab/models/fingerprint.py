"""Hashes of a model's folder, which tell whether it still holds the same model."""

import hashlib
import json
from collections.abc import Iterable, Iterator
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


WHOLE_BYTES = 256 * 2**20  # weights up to this size are hashed whole
SAMPLE_BYTES = 4096  # of larger ones: at the beginning, the middle and the end of every tensor
LONGEST_HEADER = 100 * 2**20
WHOLE, SAMPLED = "SHA-256 of whole files", "SHA-256 of sizes, headers and three samples of every tensor"
DESCRIBES = (  # what is read of a folder beside its weights
    *("config.json", "generation_config.json", "tokenizer*.json", "tokenizer.model", "spiece.model", "vocab.*"),
    *("merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.*"),
)


def describing_files(folder: Path) -> dict[str, str]:
    """The SHA-256 of config, tokenizer and chat template, by file name."""
    files = sorted({path for pattern in DESCRIBES for path in folder.glob(pattern) if path.is_file()})
    return {path.name: digest for path, digest in sha256_of_all(files).items()}


def weight_digests(folder: Path) -> tuple[dict[str, str], str]:
    """(digest of every safetensors file by name, how it was made): of whole files or, beyond WHOLE_BYTES, samples."""
    files = sorted(folder.glob("*.safetensors"))
    if sum(path.stat().st_size for path in files) <= WHOLE_BYTES:
        return {path.name: digest for path, digest in sha256_of_all(files).items()}, WHOLE
    return {path.name: sampled_digest(path) for path in files}, SAMPLED


def sampled_digest(path: Path) -> str:
    """The SHA-256 of the size and the header of a safetensors file and of samples of every tensor; of the whole file
    if it has no such header."""
    digest = hashlib.sha256(str(path.stat().st_size).encode())
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, LONGEST_HEADER))
        try:
            tensors = sorted(_tensors(header))
        except (ValueError, TypeError, KeyError, RecursionError):
            return sha256_of(path)
        digest.update(header)
        for begin, end in tensors:
            for place in (begin, (begin + end) // 2, max(begin, end - SAMPLE_BYTES)):
                file.seek(8 + length + place)
                digest.update(file.read(min(SAMPLE_BYTES, end - place)))
    return digest.hexdigest()


def _tensors(header: bytes) -> Iterator[tuple[int, int]]:
    """Where every tensor begins and ends, in bytes after the header."""
    for name, entry in json.loads(header).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            yield int(begin), int(end)


def local_folder(path: str) -> Path | None:
    """The folder of a model that was just loaded, in the hub's cache if it came from there; None if there is none."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    from transformers.utils import cached_file

    try:
        found = cached_file(path, "config.json", local_files_only=True)
    except OSError:
        return None
    return Path(found).parent if found else None
