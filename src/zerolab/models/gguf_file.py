"""Convert a GGUF file into a Hugging Face folder: weights dequantised to fp32, config and tokenizer from its metadata.

transformers dequantises; families that it cannot dequantise are refused in one line. The result is an ordinary model
folder, so nothing else in zerolab knows GGUF.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers.processors import Sequence, TemplateProcessing

from zerolab.errors import UserError
from zerolab.files import new_folder

ORIGIN_FILE = "zerolab_origin.json"  # in a converted folder: the file it was made from
MAGIC = b"GGUF"
CHUNK = 2**22  # bytes


def convert_gguf(file: Path, folder: Path, *, name: str = "", say: Callable[[str], None] = lambda text: None) -> None:
    """Write the model of a GGUF file as a Hugging Face folder, whole or not at all.

    Raises UserError if the file is damaged or no GGUF, if its family cannot be dequantised, if the extra `gguf` is
    missing, if the disk has no room, or if `folder` exists.
    """
    check_extra()
    if folder.exists():
        raise UserError(f"{folder} is already there: give another folder, or delete it")
    quantisation, parameters = read_quantisation(file)
    check_room(folder.parent, 4 * parameters, f"the fp32 weights of {file.name}")
    say(f"dequantising {file.name} ({parameters / 1e6:.1f}M parameters, {quantisation})")
    digest = sha256_of_file(file)
    try:
        with new_folder(folder) as partial:
            _dequantise(file, partial)
            origin = {"file": file.name, "sha256": digest, "quantisation": quantisation, "name": name}
            (partial / ORIGIN_FILE).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error}") from error


def _dequantise(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from zerolab.models.hf import export_model, quiet_transformers

    with quiet_transformers():
        try:
            model = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
        except OSError:
            raise
        except Exception as error:  # gguf, tokenizers and transformers raise kinds of their own
            line = " ".join(str(error).split())[:300]
            raise UserError(f"transformers cannot read the model in {file}: {line or type(error).__name__}") from error
    # The weights are plain now; with these they would be taken for quantised ones, and could not be saved.
    setattr(model, "hf_quantizer", None)  # noqa: B010  the class declares no such attribute
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    if _adds_bos(file):
        put_bos_first(tokenizer)
    export_model(model, tokenizer, folder)


def _adds_bos(file: Path) -> bool:
    """Whether the file says that a text begins with its BOS token."""
    from gguf import GGUFReader

    field = GGUFReader(str(file)).fields.get("tokenizer.ggml.add_bos_token")
    return field is not None and bool(field.contents())


def put_bos_first(tokenizer: Any) -> None:
    """Let the tokenizer put its BOS token before every text, unless it does already; transformers forgets that.

    Without the token Gemma 3 270M needs 5.6 nats per token of an encyclopedia's sentence, with it 2.3.
    """
    bos, number = tokenizer.bos_token, tokenizer.bos_token_id
    if number is None or tokenizer("a").input_ids[:1] == [number]:
        return
    backend = tokenizer.backend_tokenizer
    begin = TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B:1", special_tokens=[(bos, number)])
    kept = backend.post_processor
    merely_joins = kept is None or isinstance(kept, TemplateProcessing)
    backend.post_processor = begin if merely_joins else Sequence([kept, begin])


def check_extra() -> None:
    """Raises UserError if a package that reads GGUF files is missing."""
    missing = [package for package in ("gguf", "accelerate") if find_spec(package) is None]
    if missing:
        raise UserError(f'a GGUF file needs the package {" and ".join(missing)}: run pip install "zerolab[gguf]"')


def read_quantisation(file: Path) -> tuple[str, int]:
    """(the share of each tensor type in the parameters, the number of parameters), from the header of a file.

    Raises UserError if the file is missing, truncated or no GGUF.
    """
    from gguf import GGUFReader

    if not file.is_file():
        raise UserError(f"there is no file {file}")
    with file.open("rb") as start:
        if start.read(4) != MAGIC:
            raise UserError(f"{file} is no GGUF file: it does not begin with GGUF")
    try:
        tensors = GGUFReader(str(file)).tensors
        counts: Counter[str] = Counter()
        for tensor in tensors:
            if tensor.data_offset + tensor.n_bytes > file.stat().st_size:
                raise ValueError("it ends before its tensors do")
            counts[tensor.tensor_type.name] += int(tensor.n_elements)
    except Exception as error:  # the reader raises numpy's kinds for a file that ends too early
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{file} is a damaged or truncated GGUF file ({line}); download it again") from error
    total = sum(counts.values())
    return ", ".join(f"{kind} {n / total:.0%}" for kind, n in counts.most_common()), total


def sha256_of_file(file: Path) -> str:
    """The SHA-256 of a file of any size, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as data:
        while piece := data.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def check_room(folder: Path, size: int, what: str) -> None:
    """Raises UserError if the disk of a folder that may not exist yet has no room for `size` bytes."""
    place = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(place).free
    if free < size:
        raise UserError(f"{place} has {free / 2**20:.0f} MiB free, and {what} need {size / 2**20:.0f}: make room")
