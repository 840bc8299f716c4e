"""The loss of a TRL configuration as coordinates of an objective; token weights as `zerolab audit` measured them."""

from typing import TYPE_CHECKING, Any

from zerolab.importing.trl_file import number
from zerolab.rl.objective import PRESETS

if TYPE_CHECKING:
    from zerolab.importing.trl import Import

AGGREGATION = {
    "grpo": "response_mean",
    "bnpo": "token_mean",
    "dapo": "token_mean",
    "cispo": "token_mean",
    "dr_grpo": "constant",
    "luspo": "constant",
}
WHY_CLOSE = {
    "bnpo": "TRL's mean is over a micro-batch, this one over the whole step",
    "luspo": "TRL's loss is max_completion_length times as large; with Adam that acts through gradient clipping alone",
}
SCALES = {"group": "group_std", "batch": "batch_std", "none": "none"}
MODES = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")


def objective(work: "Import") -> dict[str, Any]:
    """A preset and the coordinates that differ from it; also sets learner.old_logprobs where a correction needs it.

    The preset is one without a standard deviation, because a recipe can set a coordinate and cannot unset one.
    """
    loss = str(work.value("loss_type", "dapo"))
    row: dict[str, Any] = {"name": f"trl-{loss}", "baseline": "group_mean"}
    row |= _scale(work) | _ratio(work, loss)
    row["aggregation"] = AGGREGATION.get(loss, "token_mean")
    if loss not in AGGREGATION:
        work.note("loss_type", "none", "objective", "written as dapo without it: no such surrogate here")
    work.note("loss_type", "close" if loss in WHY_CLOSE else "same", "objective.aggregation", WHY_CLOSE.get(loss, ""))
    row["entropy"] = max(0.0, number(work.given, "entropy_coef", 0.0))
    why = "a mean over tokens in TRL, under the token weights of the loss here" if row["entropy"] else ""
    work.note("entropy_coef", "close" if why else "same", "objective.entropy", why)
    beta = number(work.given, "beta", 0.0)
    row |= {"kl": beta, "kl_estimator": "k3", "kl_place": "loss"} if beta else {"kl": 0.0}
    weighted = "TRL multiplies k3 by the ratio unless use_bias_correction_kl is false" if beta else ""
    work.note("beta", "close" if weighted else "same", "objective.kl", weighted)
    work.note("use_bias_correction_kl", "none" if weighted else "idle", why="k3 is used as it is")
    row |= _correction(work)
    preset = "reinforce" if row["clip"] == "cispo" else "dr_grpo"
    base = PRESETS[preset].model_dump()
    return {"preset": preset, **{key: found for key, found in row.items() if base[key] != found}}


def _scale(work: "Import") -> dict[str, Any]:
    given = work.value("scale_rewards", "group")
    names = {True: "group", False: "none"}
    scale = SCALES.get(names.get(given, str(given).lower()) if isinstance(given, bool) else str(given).lower())
    work.note("scale_rewards", "same" if scale else "none", "objective.scale")
    scale = scale or "group_std"
    return {"scale": scale} | ({} if scale == "none" else {"std_ddof": 1, "std_epsilon": 1e-4})


def _ratio(work: "Import", loss: str) -> dict[str, Any]:
    low = number(work.given, "epsilon", 0.2)
    high = number(work.given, "epsilon_high", low)
    if loss == "cispo":
        work.note("epsilon", "idle", why="cispo has an upper bound alone")
        why = "a bound below 1 on the ratio: written as 1" if high <= 1 else "TRL bounds the ratio itself by it"
        work.note("epsilon_high", "none" if high <= 1 else "same", "objective.clip_high", why)
        work.note("importance_sampling_level", "same", "objective.ratio")
        return {"ratio": "token", "clip": "cispo", "clip_high": max(high - 1, 1e-6)}
    work.note("epsilon", "same", "objective.clip_low")
    work.note("epsilon_high", "same", "objective.clip_high")
    sequence = str(work.value("importance_sampling_level", "token")) == "sequence"
    work.note("importance_sampling_level", "same", "objective.ratio")
    return {"ratio": "sequence" if sequence else "token", "clip": "ppo", "clip_low": low, "clip_high": high}


def _correction(work: "Import") -> dict[str, Any]:
    """TRL corrects for vLLM's log-probabilities, where it samples with vLLM."""
    acts = bool(work.value("use_vllm", False)) and bool(work.value("vllm_importance_sampling_correction", True))
    why = "zerolab samples with its own engine; TRL's correction for the sampler is written out"
    work.note("use_vllm", "close" if acts else "idle", "objective.correction", why)
    mode = str(work.value("vllm_importance_sampling_mode", "sequence_mask"))
    cap = number(
        work.given, "vllm_importance_sampling_clip_max", number(work.given, "vllm_importance_sampling_cap", 3.0)
    )
    keys = ("vllm_importance_sampling_correction", "vllm_importance_sampling_mode", "vllm_importance_sampling_clip_max")
    if not acts or mode not in MODES:
        for key in (*keys, "vllm_importance_sampling_cap"):
            work.note(key, "idle" if not acts else "none", why="no such correction here" if acts else "")
        return {"correction": "none"}
    for key in (*keys, "vllm_importance_sampling_cap"):
        work.note(key, "same", "objective.correction", "weights of zerolab's own engine against the learner")
    work.put("learner.old_logprobs", "learner")
    return {"correction": mode, "correction_cap": max(cap, 1.0)}
