"""Causal language models in the Hugging Face format: read, checked, written back.

Weights come from safetensors files alone, and no code of a model repository is ever run. What the learner needs of a
family is that logits = lm_head(last hidden state). `load_model` proves it on a probe and refuses the families that
do more (soft-capping, logit scaling) or that see the future. The generation config of an exported model is reduced
to what transformers agrees to write.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import cached_file, logging

from zerolab.errors import UserError
from zerolab.models.context import rotary_limit
from zerolab.models.model_safety import check_files, check_folder

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

# These fields decide which of the others are valid, so they are tried before them.
MODES = ("do_sample", "num_beams", "return_dict_in_generate")


def repair_generation_config(generation: GenerationConfig) -> None:
    """Unsets the fields, in place, because of which transformers refuses to write this config, and warns of them.

    `temperature` without `do_sample` is one: `generate` ignores it, vLLM does not, and `save_pretrained` raises.
    """
    if _is_valid(generation):
        return
    wanted: dict[str, Any] = generation.to_diff_dict()
    repaired = type(generation)()
    unset: list[str] = []
    for name in sorted(wanted, key=lambda name: name not in MODES):
        default = getattr(repaired, name, None)
        setattr(repaired, name, wanted[name])
        if not _is_valid(repaired):
            setattr(repaired, name, default)
            unset.append(name)
    generation.__dict__.update(repaired.__dict__)
    warnings.warn(
        f"generation_config.json of the model has {' and '.join(sorted(unset))}, which transformers refuses to write "
        "with its other fields: exported models leave that out",
        stacklevel=2,
    )


def _is_valid(generation: GenerationConfig) -> bool:
    try:
        generation.validate(strict=True)
    except Exception:  # a field of a wrong type raises whatever its comparison raises
        return False
    return True


TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
PROBE_TOKENS = 6


def pick_device(name: str) -> torch.device:
    """The device of `model.device`: cpu, cuda[:N] or auto, a GPU if there is one. Raises UserError if absent."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise UserError(f"model.device {name!r} is no device for a run: use cpu, cuda or auto")
    device, gpus = torch.device(name), torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= gpus:
        seen = f"{gpus} GPU{'s' * (gpus > 1)}" if gpus else "no GPU"
        raise UserError(f"model.device is {name}, but PyTorch sees {seen}: use cpu or auto, or see `zerolab doctor`")
    return device


def load_model(
    path: str | Path, *, dtype: torch.dtype | str = torch.float32, device: torch.device | str = "cpu"
) -> PreTrainedModel:
    """The causal LM in a folder or under a hub id, in eval mode, checked to be usable by the learner.

    Raises UserError for a missing folder, no config, no safetensors weights, weights that do not fill the model,
    an unknown architecture, an unreachable hub, and a family whose logits are not lm_head(hidden state).
    """
    folder = check_folder(path)
    if folder is not None and not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder} holds no *.safetensors weights{_other_weights(folder)}")
    with quiet_transformers():
        check_files(str(folder or path))
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(folder or path),
                dtype=as_dtype(dtype),
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except SafetensorError as error:
            raise UserError(f"the weights of {path} are damaged ({error}); copy or download them again") from error
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise UserError(_explain(path, error)) from error
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"the weights of {path} lack {len(missing)} tensors of its architecture, among them {missing[0]}; "
            "config.json and weights do not belong together"
        )
    model.to(device).eval()
    check_finite(model, str(path))
    probe(model, str(path))
    warn_of_rotary_limit(model.config, str(path))
    return model


def warn_of_rotary_limit(config: Any, name: str) -> None:
    """Says once if a model is used up to a part of its context only."""
    limit, named = rotary_limit(config), getattr(config.get_text_config(), "max_position_embeddings", 0)
    if limit is not None and limit < named:
        warnings.warn(
            f"{name} is used up to {limit} of its {named} tokens of context, because its rotary embeddings change "
            "beyond them",
            stacklevel=3,
        )


def load_config(path: str | Path) -> Any:
    """The config of the model in a folder or under a hub id. Raises UserError where there is none."""
    folder = check_folder(path)
    with quiet_transformers():
        try:
            check_files(str(folder or path))
            return AutoConfig.from_pretrained(str(folder or path), trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(_explain(path, error)) from error


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id. Raises UserError where there is none or it has no end-of-sequence token."""
    folder = check_folder(path)
    # Without this check transformers makes an empty tokenizer up from config.json alone.
    if folder is not None and not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise UserError(
            f"{folder} holds no tokenizer ({', '.join(TOKENIZER_FILES[:3])}); copy the tokenizer's files there"
        )
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder or path), trust_remote_code=False)
            tokenizer = _as_the_file_says(tokenizer, str(folder or path))
        except Exception as error:  # the tokenizers library raises plain Exception for a damaged file
            raise UserError(_explain(path, error, what="tokenizer")) from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of {path} names no eos_token; add it to tokenizer_config.json")
    return tokenizer


def _as_the_file_says(tokenizer: Any, path: str) -> Any:
    """`tokenizer`, or the one that tokenizer.json describes where AutoTokenizer put another in its place.

    For some model types (qwen2 among them) it keeps the vocabulary alone and splits text by the family's own rule.
    """
    file = cached_file(path, "tokenizer.json", _raise_exceptions_for_missing_entries=False)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if file is None or backend is None:
        return tokenizer
    # trim_offsets changes positions in the text, never the ids.
    written, loaded = (
        json.loads(re.sub(r'"trim_offsets": ?(true|false)', '"trim_offsets":true', text))
        for text in (Path(file).read_text(encoding="utf-8"), backend.to_str())
    )
    if all(written.get(part) == loaded.get(part) for part in ("normalizer", "pre_tokenizer")):
        return tokenizer
    warnings.warn(
        f"the tokenizer of {path} is read as its tokenizer.json says; AutoTokenizer splits text differently "
        f"for this model type ({type(tokenizer).__name__})",
        stacklevel=3,
    )
    return PreTrainedTokenizerFast.from_pretrained(path)


def eos_token_ids(model: nn.Module, tokenizer: Any) -> tuple[int, ...]:
    """Every id that ends a response, from the generation config, the config and the tokenizer, in rising order."""
    ids: set[int] = set()
    for source in (getattr(model, "generation_config", None), getattr(model, "config", None), tokenizer):
        value = getattr(source, "eos_token_id", None)
        ids.update([value] if isinstance(value, int) else value or ())
    return tuple(sorted(ids))


def export_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Writes a Hugging Face folder that AutoModelForCausalLM and AutoTokenizer load, with these weights or its own.

    The generation config gets the end and padding tokens, so that `generate` stops where the engine stops.
    Raises UserError where the folder cannot be written.
    """
    _name_end_tokens(model, tokenizer)
    try:
        with quiet_transformers():
            model.save_pretrained(str(folder), state_dict=weights)
            tokenizer.save_pretrained(str(folder))
    except OSError as error:
        raise UserError(f"cannot write the model to {folder}: {error}") from error


def describe_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path, dtype: torch.dtype
) -> None:
    """What `export_model` writes beside the weights, which are there already, in this dtype."""
    _name_end_tokens(model, tokenizer)
    model.config.architectures, model.config.dtype = [type(model).__name__], dtype
    try:
        write_description(model.config, model.generation_config, tokenizer, folder)
    except OSError as error:
        raise UserError(f"cannot write the model to {folder}: {error}") from error


def write_description(
    config: Any, generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase, folder: str | Path
) -> None:
    """Writes config, generation config and tokenizer. Raises what transformers raises."""
    with quiet_transformers():
        config.save_pretrained(str(folder))
        if generation is not None:
            generation.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))


def count_parameters(config: Any) -> int:
    """Parameters of the causal LM of this config; nothing is allocated."""
    with quiet_transformers(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return sum(parameter.numel() for parameter in model.parameters())


def _name_end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    generation = model.generation_config
    if generation is None:
        return
    repair_generation_config(generation)
    ids = eos_token_ids(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    generation.eos_token_id = ids[0] if len(ids) == 1 else list(ids) or None
    generation.pad_token_id = pad if generation.pad_token_id is None else generation.pad_token_id
    generation.bos_token_id = tokenizer.bos_token_id if generation.bos_token_id is None else generation.bos_token_id


def named_weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """(Hugging Face name, detached tensor) of every weight; a tied lm_head.weight is listed under both its names."""
    for name, tensor in model.state_dict().items():
        yield name, tensor.detach()


def hidden_states(
    model: PreTrainedModel, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None
) -> torch.Tensor:
    """Last hidden state after the final norm: [..., S] token ids to [..., S, hidden]. Right padding needs no mask."""
    return model.get_decoder()(input_ids=input_ids, position_ids=position_ids, use_cache=False).last_hidden_state


def lm_head(model: PreTrainedModel) -> nn.Module:
    """The module that maps hidden states to logits."""
    return model.get_output_embeddings()


@torch.no_grad()
def probe(model: PreTrainedModel, name: str) -> None:
    """Checks on two short rows that logits = lm_head(hidden_states) exactly and that no position sees a later token.

    A hook puts large known numbers in the place of the head's output: soft-capping and scaling show at any weights.
    """
    head = lm_head(model)
    if head is None:
        raise UserError(f"{name}: {type(model).__name__} has no output embedding; only plain causal LMs are supported")
    device, vocab = next(model.parameters()).device, model.config.vocab_size
    ids_BS = torch.arange(2 * PROBE_TOKENS, device=device).view(2, -1) % vocab
    ids_BS[1, :-1] = ids_BS[0, :-1]
    ids_BS[1, -1] = (ids_BS[0, -1] + 1) % vocab
    seen: list[torch.Tensor] = []

    def replace(_module: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
        seen.append(args[0])
        return torch.linspace(-100, 100, out.numel(), device=out.device).view_as(out).to(out.dtype)

    handle = head.register_forward_hook(replace)
    try:
        logits = model(input_ids=ids_BS, use_cache=False).logits
        expected = replace(head, (ids_BS,), logits)
        hidden = hidden_states(model, ids_BS)
    finally:
        handle.remove()
    if not torch.isfinite(hidden).all():
        raise UserError(f"{name}: its hidden states are NaN or infinite: the weights are damaged, or diverged")
    if not torch.equal(logits.float(), expected.float()) or not torch.equal(seen[0], hidden):
        raise UserError(
            f"{name}: {type(model).__name__} computes its logits by more than lm_head(hidden state), not supported"
        )
    drift = (hidden[0, :-1] - hidden[1, :-1]).abs().max().item()
    if drift > 0.05 * hidden.abs().max().item():
        raise UserError(f"{name}: {type(model).__name__} is not causal (a later token changes earlier states)")


@torch.no_grad()
def probe_packing(model: PreTrainedModel) -> None:
    """Checks that two documents in one row, positions anew with each, do not see one another."""
    device, vocab = next(model.parameters()).device, model.config.get_text_config().vocab_size
    ids_BS = torch.arange(2 * PROBE_TOKENS, device=device).view(1, -1) % vocab
    positions_BS = torch.arange(PROBE_TOKENS, device=device).repeat(2)[None]
    second = hidden_states(model, ids_BS, positions_BS)[:, PROBE_TOKENS:].float()
    drift = (second - hidden_states(model, ids_BS[:, PROBE_TOKENS:]).float()).abs().max().item()
    if drift > 0.02 * second.abs().max().item():
        raise UserError(
            f'{type(model).__name__} sees across the border of two documents in one row: set learner.packing to "off"'
        )


def check_finite(model: nn.Module, path: str) -> None:
    """Raises UserError if a weight is NaN or infinite, and names the tensor."""
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        low, high = torch.aminmax(tensor)  # NaN if there is one
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise UserError(
                f"the weights of {path} hold NaN or infinity (in {name}): the training that made them diverged, or "
                "the file is damaged"
            )


def as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """torch.bfloat16 from "bfloat16" or itself. Raises UserError for anything that is no floating dtype."""
    value = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(value, torch.dtype) or not value.is_floating_point:
        raise UserError(f"unknown dtype {dtype!r}; use float32 or bfloat16")
    return value


def _other_weights(folder: Path) -> str:
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        return ", only pickled ones, which are not read; convert them with model.save_pretrained"
    return "; was the download complete?"


def _explain(path: str | Path, error: Exception, what: str = "model") -> str:
    """One line out of the many that transformers writes."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text or "custom code" in text:
        return (
            f"{path} needs code of its own repository, which zerolab never runs; use a family built into transformers"
        )
    if "does not recognize this architecture" in text or "Unrecognized configuration class" in text:
        return f"{path}: not a causal LM that this transformers knows; see model_type in config.json"
    if "couldn't connect" in text or "offline" in text.lower():
        return f"cannot reach the hub for {path} and it is not in the local cache; download it first or give a folder"
    if "mismatched" in text:
        return f"the weights of {path} have other shapes than its config.json says; they do not belong together"
    return f"cannot load the {what} of {path}: {text[:200]}"


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars or loading reports of transformers: what matters is raised as one line."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
