"""What a model that somebody else made must not do: name pickles, reach outside its folder, or load code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

from zerolab.errors import UserError

INDEX, ADAPTER = "model.safetensors.index.json", "adapter_config.json"
# Attention that is part of PyTorch and transformers. Any other name makes transformers look for a package or a kernel.
OWN_ATTENTION = {None, "eager", "sdpa", "flex_attention"}
OWN_EXPERTS = {None, "eager", "batched_mm", "grouped_mm"}
HUB_SECONDS = 10.0  # that the hub has to say whether it knows a model


def check_folder(path: str | Path, ask_hub: bool = True) -> Path | None:
    """The local folder, checked; None if `path` is a hub id. UserError if it is neither, or unknown to the hub."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} holds no config.json; is it a Hugging Face model folder?")
        return folder
    text = str(path)
    if isinstance(path, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1 or folder.exists():
        raise UserError(f"{path} is not a folder; give a model folder or a hub id such as Qwen/Qwen2.5-Math-1.5B")
    if ask_hub:
        check_hub(text)
    return None


def check_files(path: str) -> None:
    """Raises UserError unless config and weights of a folder or hub id are plain safetensors of that folder."""
    if (config := find_file(path, "config.json")) is not None:
        check_config(read_json(config), path)
    if (index := find_file(path, INDEX)) is not None:
        check_index(read_json(index), path)
    if find_file(path, ADAPTER) is not None:
        raise UserError(
            f"{path} holds {ADAPTER}, an adapter of another model: merge it into its model and save that, or give "
            "that model's folder"
        )


def check_config(config: Any, path: str) -> None:
    """Raises UserError for a config.json that asks for code or for weights of another kind."""
    for key, value in _fields(config):
        name = key.removeprefix("_").removesuffix("_internal")
        known = {"attn_implementation": OWN_ATTENTION, "experts_implementation": OWN_EXPERTS}.get(name)
        wanted = list(value.values()) if isinstance(value, dict) else [value]
        if known is not None and not all(isinstance(w, str | None) and w in known for w in wanted):
            raise UserError(
                f"config.json of {path} asks for {key} = {json.dumps(value)[:100]}, which may load code: remove that "
                "field"
            )
        if name in ("use_kernels", "kernel_config") and value:
            raise UserError(f"config.json of {path} asks for {key}, which may load code: remove that field")
        if name == "transformers_weights":
            _check_name(str(value).removesuffix(".index.json"), f"config.json of {path}")


def check_index(index: Any, path: str) -> None:
    """Raises UserError for an index that names a pickle, a file outside the folder, or one that is missing."""
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict):
        raise UserError(f"{INDEX} of {path} has no weight_map: copy or download it again")
    for name in sorted({str(name) for name in files.values()}):
        _check_name(name, f"{INDEX} of {path}")
        if Path(path).is_dir() and not (Path(path) / name).is_file():
            raise UserError(f"{INDEX} of {path} names {name}, which is not there: was the download complete?")


def _check_name(name: str, source: str) -> None:
    if name in ("", ".", "..") or any(c in name for c in "/\\:\0"):
        raise UserError(f"{source} names {name!r}, a file outside the folder, which is not read")
    if not name.endswith(".safetensors"):
        raise UserError(
            f"{source} names {name!r}, which is no safetensors file and is not read: convert it with "
            "model.save_pretrained"
        )


@lru_cache(maxsize=16)
def check_hub(path: str) -> None:
    """Asks the hub once, without retries, if it knows a model that is not in the local cache. UserError if not."""
    try:
        if constants.HF_HUB_OFFLINE or isinstance(try_to_load_from_cache(path, "config.json"), str):
            return
        HfApi().model_info(path, timeout=HUB_SECONDS)
    except GatedRepoError:
        return  # the download says what is missing
    except HFValidationError as error:
        raise UserError(f"{path} is neither a folder nor a hub id such as Qwen/Qwen2.5-Math-1.5B") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"there is no folder {path}, and the hub has no model of that name (or not for you): check model.path"
        ) from error
    except Exception as error:  # every HTTP client raises its own kinds
        raise UserError(
            f"cannot reach the hub for {path}, and it is neither a folder nor in the local cache: check the name, "
            "download it first, or give a folder"
        ) from error


def find_file(path: str, name: str) -> Path | None:
    """A file of a folder, or of a hub id (downloaded if need be); None if there is none or the hub is out of reach."""
    if Path(path).is_dir():
        return Path(path) / name if (Path(path) / name).is_file() else None
    from transformers.utils import cached_file

    found = cached_file(
        path, name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return Path(found) if found else None


def read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is no JSON: copy or download it again") from error


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """(key, value) of all fields, those of nested tables too."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key), inner
            yield from _fields(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _fields(inner)
