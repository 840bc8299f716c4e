"""The configurations of each library that an audit walks through, named as the library names them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
