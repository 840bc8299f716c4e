"""Read TRL configuration files (GRPOConfig or `trl grpo`, YAML or JSON), and list the keys without a counterpart.

Some of these keys have a value at which they do nothing. The others have no effect on what is learned.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from zerolab.errors import UserError

SUFFIXES = (".yaml", ".yml", ".json")


def read_trl_file(path: Path) -> dict[str, Any]:
    """Its keys and values. Raises UserError for a file that cannot be read or holds something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or 'not a text file'}; give a file") from None
    try:
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except Exception as error:  # YAML's errors are many
        raise UserError(f"{path}: not {path.suffix[1:].upper()}: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError(f"{path}: has to hold keys of GRPOConfig and their values")
    return found


def whole_number(config: Mapping[str, Any], key: str, default: int) -> int:
    """The value of a key that counts something. Raises UserError for anything below 1."""
    value = default if config.get(key) is None else config[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{key} = {value!r}: give a whole number of at least 1")
    return value


def number(config: Mapping[str, Any], key: str, default: float) -> float:
    """The value of a key that measures something. YAML reads 1e-6 as text, so that counts too."""
    value = default if config.get(key) is None else config[key]
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{key} = {value!r}: give a number") from None


_SAMPLING = "training samples from the policy itself: a restricted distribution is refused"
_LORA = "not imported: zerolab trains the weights that the recipe says"
_ONE = "zerolab has no such term"

NO_COUNTERPART: dict[str, tuple[Any, str]] = {
    "top_p": (1.0, _SAMPLING),
    "top_k": (0, _SAMPLING),
    "min_p": (None, _SAMPLING),
    "repetition_penalty": (1.0, _SAMPLING),
    "generation_kwargs": (None, _SAMPLING),
    "delta": (None, "zerolab has no bound on the ratio beside the clip"),
    "top_entropy_quantile": (1.0, "zerolab masks no tokens by their entropy"),
    "use_adaptive_entropy": (False, "the entropy bonus is constant"),
    "off_policy_mask_threshold": (None, _ONE),
    "router_aux_loss_coef": (None, _ONE),
    "multi_objective_aggregation": ("sum_then_normalize", "rewards are summed, then centred"),
    "vllm_importance_sampling_clip_min": (None, "weights have no lower bound"),
    "sync_ref_model": (False, "the reference is the initial policy, all along"),
    "reward_model_name_or_path": (None, "no reward models: the grader and functions of yours"),
    "model_revision": ("main", "give a folder that holds the revision"),
    "trust_remote_code": (False, "zerolab runs no code of a model repository"),
    "use_peft": (False, _LORA),
    "load_in_8bit": (False, "weights are in fp32 or bf16"),
    "load_in_4bit": (False, "weights are in fp32 or bf16"),
    "dataset_streaming": (False, "the whole split is read"),
    "max_tool_calling_iterations": (None, "no tools"),
    "cast_lm_head_to_fp32": (False, "model.precision decides"),
    "model_init_kwargs": (None, "models are loaded as they are"),
    "resume_from_checkpoint": (None, "use --resume"),
    "deepspeed": (None, "one process"),
    "fsdp": (None, "one process"),
    "neftune_noise_alpha": (None, _ONE),
    "label_smoothing_factor": (0.0, _ONE),
    "eval_strategy": ("no", "evaluation is set under [evaluation]"),
    "report_to": ("none", "not a tracker of zerolab"),
}

IDLE_KEYS = """
accelerator_config adam_args attn_implementation auto_find_batch_size average_tokens_across_devices batch_eval_metrics
bf16_full_eval bnb_4bit_quant_storage bnb_4bit_quant_type cache_implementation data_seed dataset_test_split
ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb ddp_find_unused_parameters ddp_static_graph ddp_timeout debug
disable_dropout disable_tqdm do_eval do_predict do_train ds3_gather_for_generation enable_jit_checkpoint
entropy_coef_delta entropy_coef_max entropy_coef_min entropy_target env eval_accumulation_steps eval_delay
eval_do_concat_batches eval_on_start eval_steps eval_use_gather_object fp16_full_eval fsdp_config full_determinism
gradient_checkpointing gradient_checkpointing_kwargs greater_is_better ignore_bias_buffers ignore_data_skip
include_for_metrics include_num_input_tokens_seen label_names length_column_name liger_kernel_config
load_best_model_at_end local_rank log_completions log_completions_hub_repo log_level log_level_replica log_multimodal
log_on_each_node log_unique_prompts logging_dir logging_first_step logging_nan_inf_filter logging_steps
logging_strategy lora_alpha lora_dropout lora_modules_to_save lora_r lora_target_modules lora_target_parameters
lora_task_type lr_scheduler_kwargs max_concurrent_trackers max_prompt_length metric_for_best_model no_cuda
num_completions_to_print num_generations_eval optim_args optim_target_modules output_dir overwrite_output_dir
pad_to_multiple_of parallelism_config past_index per_device_eval_batch_size prediction_loss_only project
ref_model_mixup_alpha ref_model_sync_steps remove_unused_columns restore_callback_states_from_checkpoint run_name
sapo_temperature_neg sapo_temperature_pos save_on_each_node save_only_model save_safetensors save_steps save_strategy
save_total_limit skip_memory_metrics streaming test_split_size tf32 torch_compile torch_compile_backend
torch_compile_mode torch_empty_cache_steps torchdynamo tpu_metrics_debug tpu_num_cores trackio_bucket_id
trackio_space_id trackio_static_space_id train_sampling_strategy transformers_continuous_batching_config
use_bnb_nested_quant use_cache use_cpu use_dora use_ipex use_legacy_prediction_loop use_liger_kernel use_mps_device
use_rslora use_transformers_continuous_batching use_transformers_paged vespo_k_neg vespo_k_pos vespo_lambda_neg
vespo_lambda_pos warmup_ratio
"""
IDLE = frozenset(IDLE_KEYS.split())
