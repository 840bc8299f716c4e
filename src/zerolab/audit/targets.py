"""What `zerolab audit TARGET` may be: a library, one of its variants, a TRL config file, or a function."""

import difflib
import sys
from collections.abc import Mapping
from pathlib import Path

from zerolab.audit.peers import variants
from zerolab.audit.peers.peer import HERE, Peer
from zerolab.audit.peers.variants import Variant
from zerolab.errors import UserError
from zerolab.importing.trl_file import SUFFIXES, read_trl_file, whole_number

LIBRARIES: dict[str, Mapping[str, Variant]] = {
    "trl": variants.TRL,
    "verl": variants.VERL,
    "openrlhf": variants.OPENRLHF,
}
STEP = 32  # responses of the step that is measured


def find(target: str, python: str | None = None) -> list[Peer]:
    """The peers of a target. Raises UserError for one that does not exist."""
    library, _, name = target.partition(":")
    if library in LIBRARIES:
        return _library(library, name, python or sys.executable)
    if target.endswith(SUFFIXES):
        return [trl_config(Path(target), python or sys.executable)]
    if ":" in target:
        if python is not None:
            raise UserError("--python is for trl, verl and openrlhf; a function runs in this interpreter")
        return [_function(target)]
    near = difflib.get_close_matches(target, LIBRARIES, n=1)
    hint = f"did you mean {near[0]}?" if near else "give trl, verl, openrlhf, module:function or a TRL config file"
    raise UserError(f"{target} cannot be audited; {hint}")


def _library(library: str, name: str, python: str) -> list[Peer]:
    table = LIBRARIES[library]
    if name and name not in table:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(table)}"
        raise UserError(f"{library} has no variant {name}; {hint}")
    return [_variant(library, key, table[key], python) for key in table if not name or key == name]


def _variant(library: str, key: str, variant: Variant, python: str) -> Peer:
    name = f"{library}:{key}"
    if library == "trl":
        return Peer(name, "trl", variant.options, variant.about, variant.unable, python)
    options = {"target": str(HERE / f"{library}.py:{key}"), "package": library}
    whole_groups = 8 if "pass-rate" not in variant.unable else 1
    return Peer(name, "function", options, variant.about, variant.unable, python, smallest=whole_groups)


def trl_config(path: Path, python: str) -> Peer:
    """A file of GRPOConfig keys, as `trl grpo --config` reads it. Raises UserError for one that cannot be read."""
    config = read_trl_file(path)
    options = {key: value for key, value in config.items() if key in variants.TRL_LOSS_KEYS}
    beside = [
        f"{key} = {config[key]}" for key, neutral in variants.TRL_BESIDE.items() if config.get(key, neutral) != neutral
    ]
    size = whole_number(config, "per_device_train_batch_size", 8)
    per_micro_batch = 2 ** min(size.bit_length() - 1, STEP.bit_length() - 1)
    group = whole_number(config, "num_generations", 8)
    return Peer(
        name=path.name,
        module="trl",
        options=options | {"keys": sorted(config)},
        about="; ".join(
            [
                ", ".join(f"{key} = {value}" for key, value in options.items()) or "GRPOConfig's defaults",
                f"{per_micro_batch} responses per micro-batch",
                *([f"not audited: {', '.join(beside)}"] if beside else []),
            ]
        ),
        unable={} if config.get("use_vllm") else {"importance": "the file does not set use_vllm"},
        python=python,
        micro_batches=STEP // per_micro_batch,
        group_size=min(max(group, 2), 16),
    )


def _function(target: str) -> Peer:
    from zerolab.audit.peers import function

    try:
        asked = set(function.wanted(function.load(target)).values())
    except ValueError as error:
        raise UserError(" ".join(str(error).split())) from None
    unable = {"ranks": "a function runs in one process"}
    if "rewards" not in asked:
        reason = "a value loss has no advantages" if "values" in asked else "it is given advantages and computes none"
        unable |= {"pass-rate": reason, "zero-variance": reason}
    if "truncated" not in asked:
        unable["truncation"] = "it does not ask which responses were cut off"
    if "sampler_logprobs" not in asked:
        unable["importance"] = "it does not ask for the sampler's log-probabilities"
    name = target.rpartition("/")[2]
    whole_groups = 8 if {"rewards", "groups"} & asked else 1
    about = "value loss" if "values" in asked else "policy loss"
    return Peer(name, "function", {"target": target}, about, unable, smallest=whole_groups)
