"""The targets of `zerolab audit TARGET`: a library, one of its variants, a TRL config file, or a function.

The variants of a library are named as the library names them.
"""

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zerolab.audit import targets
from zerolab.audit.peers import function
from zerolab.audit.peers.peer import HERE, Peer
from zerolab.errors import UserError
from zerolab.importing.trl_file import SUFFIXES, read_trl_file, whole_number


@dataclass(frozen=True)
class Variant:
    options: Mapping[str, Any]
    about: str
    unable: Mapping[str, str] = field(default_factory=dict)


SAME_CORRECTION = {"importance": "the correction does not depend on loss_type; see the defaults"}
TRL: dict[str, Variant] = {
    "defaults": Variant({}, "GRPOConfig as it comes: loss_type dapo, scale_rewards group"),
    "token_truncate": Variant(
        {"vllm_importance_sampling_mode": "token_truncate"}, "defaults with token-level truncated importance sampling"
    ),
    "mask_truncated": Variant(
        {"mask_truncated_completions": True}, "defaults with overlong filtering", SAME_CORRECTION
    ),
    "grpo": Variant({"loss_type": "grpo"}, "loss_type grpo", SAME_CORRECTION),
    "gspo": Variant(
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
        "the documented GSPO settings",
        SAME_CORRECTION,
    ),
    "dr_grpo": Variant({"loss_type": "dr_grpo"}, "loss_type dr_grpo alone", SAME_CORRECTION),
    "dr_grpo_unscaled": Variant(
        {"loss_type": "dr_grpo", "scale_rewards": "none"}, "loss_type dr_grpo with scale_rewards none", SAME_CORRECTION
    ),
    "bnpo": Variant({"loss_type": "bnpo"}, "loss_type bnpo", SAME_CORRECTION),
    "lite_ppo": Variant({"scale_rewards": "batch"}, "loss_type dapo with scale_rewards batch", SAME_CORRECTION),
    "cispo": Variant(
        {"loss_type": "cispo", "epsilon_high": 5.0}, "loss_type cispo, the recommended epsilon_high", SAME_CORRECTION
    ),
    "luspo": Variant(
        {"loss_type": "luspo", "importance_sampling_level": "sequence"},
        "the documented LUSPO settings",
        SAME_CORRECTION,
    ),
    "sapo": Variant({"loss_type": "sapo"}, "loss_type sapo", SAME_CORRECTION),
    "vespo": Variant(
        {"loss_type": "vespo"},
        "loss_type vespo",
        {"importance": "its correction is a part of the loss; not driven here"},
    ),
}

# Functions in verl.py and openrlhf.py.
ONE_PROCESS = {"ranks": "its engine was not run in several processes"}
NO_CUT = {"truncation": "the loss does not see which responses were cut off"}
VERL_LOSS = (
    ONE_PROCESS | NO_CUT | {"importance": "its rollout correction is computed outside the loss; not driven here"}
)
GIVEN = dict.fromkeys(
    ("pass-rate", "zero-variance"), "advantages are computed by its experience maker, not driven here"
)
CRITIC = dict.fromkeys(("pass-rate", "zero-variance"), "a value loss has no advantages")
RLHF_LOSS = ONE_PROCESS | NO_CUT | GIVEN
NO_WEIGHTS = {"importance": "no importance weights in this loss"}
VERL: dict[str, Variant] = {
    "token_mean": Variant({}, "the default loss_agg_mode, advantages divided by std", VERL_LOSS),
    "seq_mean_token_mean": Variant({}, "loss_agg_mode seq-mean-token-mean", VERL_LOSS),
    "seq_mean_token_sum": Variant({}, "loss_agg_mode seq-mean-token-sum", VERL_LOSS),
    "dr_grpo": Variant({}, "loss_agg_mode seq-mean-token-sum-norm, norm_adv_by_std_in_grpo false", VERL_LOSS),
    "gspo": Variant({}, "loss_mode gspo with seq-mean-token-mean", VERL_LOSS),
    "value_token_mean": Variant(
        {}, "PPO's value loss, default loss_agg_mode", ONE_PROCESS | NO_CUT | CRITIC | NO_WEIGHTS
    ),
}
OPENRLHF: dict[str, Variant] = {
    "token_mean": Variant({}, "the default loss_agg_mode", RLHF_LOSS | {"importance": "off by default"}),
    "seq_mean_token_mean": Variant(
        {}, "loss_agg_mode seq-mean-token-mean", RLHF_LOSS | {"importance": "off by default"}
    ),
    "gspo": Variant({}, "policy_loss_type gspo", RLHF_LOSS | {"importance": "off by default"}),
    "correction_token": Variant({}, "token_mean, is_correction_level token at its default [0.5, 5]", RLHF_LOSS),
    "correction_sequence": Variant({}, "token_mean, is_correction_level seq at its default [0.5, 5]", RLHF_LOSS),
    "value_token_mean": Variant(
        {}, "PPO's value loss, default loss_agg_mode", ONE_PROCESS | NO_CUT | CRITIC | NO_WEIGHTS
    ),
}

# Keys of a GRPOConfig that shape what is measured.
TRL_LOSS_KEYS = frozenset(
    {
        "loss_type",
        "scale_rewards",
        "multi_objective_aggregation",
        "importance_sampling_level",
        "epsilon",
        "epsilon_high",
        "delta",
        "mask_truncated_completions",
        "vllm_importance_sampling_correction",
        "vllm_importance_sampling_mode",
        "vllm_importance_sampling_clip_max",
        "vllm_importance_sampling_clip_min",
        "vllm_importance_sampling_cap",
        "sapo_temperature_pos",
        "sapo_temperature_neg",
        "vespo_k_pos",
        "vespo_lambda_pos",
        "vespo_k_neg",
        "vespo_lambda_neg",
    }
)
# Keys that change the gradient beside what is measured, and the value at which they do not.
TRL_BESIDE = {
    "beta": 0.0,
    "entropy_coef": 0.0,
    "use_adaptive_entropy": False,
    "top_entropy_quantile": 1.0,
    "num_iterations": 1,
    "off_policy_mask_threshold": None,
    "router_aux_loss_coef": None,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": None,
}


LIBRARIES: dict[str, Mapping[str, Variant]] = {
    "trl": targets.TRL,
    "verl": targets.VERL,
    "openrlhf": targets.OPENRLHF,
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
    options = {key: value for key, value in config.items() if key in targets.TRL_LOSS_KEYS}
    beside = [
        f"{key} = {config[key]}" for key, neutral in targets.TRL_BESIDE.items() if config.get(key, neutral) != neutral
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
