"""Translate the keys of a TRL configuration into a recipe, with a note on each key.

The defaults are those of TRL 1.16. Keys that a file leaves out are written out, because zerolab's own defaults differ.
The loss becomes coordinates of an objective; its token weights are those that `zerolab audit` measured (docs/audit.md).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from zerolab.data.builtin import BUILT_IN
from zerolab.errors import UserError
from zerolab.importing.trl_file import IDLE, NO_COUNTERPART, number, whole_number
from zerolab.rl.objective import PRESETS

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


Kind = Literal["same", "close", "none", "idle", "unknown"]
IDLE_PREFIXES = ("vllm_", "hub_", "push_to_hub", "dataloader_")
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant", "constant_with_warmup": "constant"}


@dataclass(frozen=True)
class Note:
    """What became of a key: same, close (and why not the same), none (no counterpart), idle (changes no result)."""

    key: str
    value: Any
    kind: Kind
    target: str = ""  # key of the recipe
    why: str = ""


@dataclass
class Import:
    """A file being imported: its keys, the recipe so far by dotted key, the notes."""

    given: Mapping[str, Any]
    processes: int = 1
    rows: int | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def value(self, key: str, default: Any = None) -> Any:
        found = self.given.get(key, default)
        return default if found is None else found

    def put(self, target: str, value: Any) -> None:
        self.recipe[target] = value

    def note(self, key: str, kind: Kind, target: str = "", why: str = "") -> None:
        """Only keys that the file has are worth a note, and each gets one."""
        if key in self.given and all(note.key != key for note in self.notes):
            self.notes.append(Note(key, self.given[key], kind, target, why))


def import_trl(given: Mapping[str, Any], processes: int = 1, rows: int | None = None) -> Import:
    """The recipe of a TRL configuration. `processes` and `rows` of the data set are not in such a file.

    Raises UserError for values of the wrong kind.
    """
    work = Import(given, processes, rows)
    for part in (_model, _questions, _rollout, _reward, _objective, _learner, _run):
        part(work)
    for key, value in given.items():
        neutral, why = NO_COUNTERPART.get(key, (value, ""))
        if value not in (None, neutral):
            work.note(key, "none", why=why)
        elif key in NO_COUNTERPART or key in IDLE or key.startswith(IDLE_PREFIXES):
            work.note(key, "idle")
        else:
            work.note(key, "unknown", why="not known here as a key of TRL 1.16's GRPO: check its name")
    return work


def _model(work: Import) -> None:
    work.put("model.path", str(work.value("model_name_or_path", "FOLDER-OR-HUB-ID")))
    work.note("model_name_or_path", "same", "model.path")
    fp16 = bool(work.value("fp16", False))
    bf16 = bool(work.value("bf16", not fp16))  # TRL's own default
    work.put("model.precision", "bf16" if bf16 else "fp32")
    work.note("bf16", "same", "model.precision", "weights stay in fp32, the learner computes in bf16")
    if fp16:
        work.note("fp16", "none", "model.precision", "written as fp32")
    work.note("fp16", "same", "model.precision")
    if str(work.value("dtype", "float32")) in ("float32", "auto"):
        work.note("dtype", "same", "model.precision", "the learner's weights are in fp32")
    work.note("dtype", "close", "model.precision", "the learner's weights are in fp32 whatever the file says")


def _questions(work: Import) -> None:
    mixture = work.value("datasets", [])
    sources = [_source(entry) for entry in mixture if isinstance(entry, Mapping)] if isinstance(mixture, list) else []
    if sources:
        work.put("questions.sources", sources)
        work.note("datasets", "close", "questions.sources", "columns are found by name; fractions become weights")
    else:
        work.put("questions.path", str(work.value("dataset_name", "QUESTIONS.jsonl")))
        work.note("dataset_name", "close", "questions.path", "question and answer are found by the names of columns")
        if (subset := work.value("dataset_config")) is not None:
            work.put("questions.subset", str(subset))
        if (split := work.value("dataset_train_split", "train")) != "train":
            work.put("questions.split", str(split))
    work.note("dataset_config", "same", "questions.subset")
    work.note("dataset_train_split", "same", "questions.split")
    work.put("questions.order", "shuffle" if work.value("shuffle_dataset", True) else "sequential")
    work.note("shuffle_dataset", "same", "questions.order", "in zerolab's own random order")
    options = work.value("chat_template_kwargs", {})
    name = str(work.recipe["model.path"]).lower()
    chat = bool(options) or "instruct" in name or "chat" in name
    work.put("template.name", "chat" if chat else "none")
    if isinstance(options, Mapping) and options:
        work.put("template.chat_options", dict(options))
    work.note("chat_template_kwargs", "same", "template.chat_options")


def _source(entry: Mapping[str, Any]) -> dict[str, Any]:
    names = {"path": "path", "name": "subset", "split": "split", "fraction": "weight"}
    return {names[key]: value for key, value in entry.items() if key in names and value is not None}


def _rollout(work: Import) -> None:
    group = whole_number(work.given, "num_generations", 8)
    device, accumulation = (
        whole_number(work.given, key, default)
        for key, default in (("per_device_train_batch_size", 8), ("gradient_accumulation_steps", 1))
    )
    at_once = device * work.processes
    if work.value("generation_batch_size") is not None:
        responses = whole_number(work.given, "generation_batch_size", 0)
    else:
        responses = at_once * whole_number(
            {**work.given, "steps_per_generation": work.value("steps_per_generation", accumulation)},
            "steps_per_generation",
            accumulation,
        )
    if responses % group:
        raise UserError(
            f"{responses} responses of a rollout do not divide into groups of num_generations = {group}: give "
            "--processes, the number of devices TRL runs on"
        )
    updates = max(1, round(responses / (at_once * accumulation)))
    work.put("rollout.questions_per_step", responses // group)
    work.put("rollout.samples_per_question", group)
    work.put("learner.updates_per_rollout", updates)
    where = "rollout.questions_per_step, learner.updates_per_rollout"
    for key in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        work.note(key, "same", where, f"{responses} responses a rollout in {updates} steps, {work.processes} processes")
    for key in ("generation_batch_size", "steps_per_generation"):
        work.note(key, "same", where)
    work.note("num_generations", "same", "rollout.samples_per_question")
    work.put("rollout.max_new_tokens", whole_number(work.given, "max_completion_length", 512))
    work.note("max_completion_length", "same", "rollout.max_new_tokens")
    if work.value("max_prompt_length") is not None:
        work.put("rollout.max_prompt_tokens", whole_number(work.given, "max_prompt_length", 512))
        work.note("max_prompt_length", "close", "rollout.max_prompt_tokens", "longer prompts are dropped, not cut")
    work.put("rollout.temperature", number(work.given, "temperature", 1.0))
    work.note("temperature", "same", "rollout.temperature")


def _reward(work: Import) -> None:
    listed = work.value("reward_funcs", [])
    names = [listed] if isinstance(listed, str) else [str(name) for name in listed]
    weights = work.value("reward_weights", [1.0] * len(names))
    if not isinstance(weights, list) or len(weights) != len(names):
        weights = [1.0] * len(names)
        work.note("reward_weights", "none", why="the functions are not in the file: set the weights beside them")
    work.note("reward_weights", "same", "the weights of [reward]")
    work.put("reward.correctness", 0.0 if names else 1.0)
    functions: list[dict[str, Any]] = []
    for name, weight in zip(
        names, (number({"reward_weights": w}, "reward_weights", 1.0) for w in weights), strict=True
    ):
        if name == "accuracy_reward":
            work.put("reward.correctness", weight)
        elif name == "get_soft_overlong_punishment":
            options = {"max_completion_len": 1280, "soft_punish_cache": 256}  # what `trl grpo` uses
            functions.append({"path": f"trl.rewards:{name}", "weight": weight, "options": options})
        elif name in ("think_format_reward", "reasoning_accuracy_reward"):
            functions.append({"path": f"trl.rewards:{name}", "weight": weight, "completions": "messages"})
        else:
            module, _, function = name.rpartition(".")
            functions.append({"path": f"{module}:{function}", "weight": weight})
    if functions:
        work.put("reward.functions", functions)
    judged = "accuracy_reward becomes zerolab's grader on the answer that the template asks for; others run unchanged"
    work.note("reward_funcs", "close", "reward.correctness, reward.functions", judged)
    masked = bool(work.value("mask_truncated_completions", False))
    work.put("reward.truncation", "mask" if masked else "keep")
    why = "in TRL the mean of a group still counts them" if masked else ""
    work.note("mask_truncated_completions", "close" if masked else "same", "reward.truncation", why)


def _objective(work: Import) -> None:
    for name, value in objective(work).items():
        work.put(f"objective.{name}", value)


def _learner(work: Import) -> None:
    schedule = str(work.value("lr_scheduler_type", "linear"))
    work.put("learner.lr", number(work.given, "learning_rate", 1e-6))
    work.put("learner.schedule", SCHEDULES.get(schedule, "constant"))
    work.note("learning_rate", "same", "learner.lr")
    if schedule in SCHEDULES:
        work.note("lr_scheduler_type", "same", "learner.schedule")
    work.note("lr_scheduler_type", "none", "learner.schedule", "written as constant")
    work.put("learner.betas", [number(work.given, "adam_beta1", 0.9), number(work.given, "adam_beta2", 0.999)])
    work.put("learner.eps", number(work.given, "adam_epsilon", 1e-8))
    work.put("learner.weight_decay", number(work.given, "weight_decay", 0.0))
    work.put("learner.max_grad_norm", number(work.given, "max_grad_norm", 1.0))
    for key, target in (
        ("adam_beta1", "betas"),
        ("adam_beta2", "betas"),
        ("adam_epsilon", "eps"),
        ("weight_decay", "weight_decay"),
        ("max_grad_norm", "max_grad_norm"),
    ):
        work.note(key, "same", f"learner.{target}")
    if str(work.value("optim", "adamw_torch")).startswith("adamw_torch"):
        work.note("optim", "same", why="AdamW")
    work.note("optim", "none", why="zerolab has AdamW alone")


def _run(work: Import) -> None:
    updates = work.recipe["learner.updates_per_rollout"]
    iterations = whole_number(work.given, "num_iterations", 1)
    if iterations > 1:
        work.note("num_iterations", "none", why="zerolab goes over a rollout once; steps count rollouts all the same")
    work.note("num_iterations", "same")
    max_steps, epochs = number(work.given, "max_steps", -1), number(work.given, "num_train_epochs", 3.0)
    rows = work.rows or getattr(BUILT_IN.get(str(work.value("dataset_name"))), "rows", None)
    if max_steps > 0:
        work.put("steps", math.ceil(max_steps / (updates * iterations)))
        work.note("max_steps", "same", "steps", "rollouts, where TRL counts optimizer steps")
        work.note("num_train_epochs", "idle")
    elif rows:
        work.put("steps", max(1, math.ceil(epochs * rows / work.recipe["rollout.questions_per_step"])))
        work.note("num_train_epochs", "same", "steps", f"rollouts in {epochs:g} passes over {rows} questions")
    else:
        work.put("steps", 500)
        work.note(
            "num_train_epochs", "none", "steps", "the size of the data set is not known: 500 written; give --rows"
        )
    work.note("max_steps", "idle")
    _warmup(work, updates)
    work.put("seed", max(0, int(number(work.given, "seed", 42))))
    work.note("seed", "same", "seed", "the same number, other random draws")
    _housekeeping(work, updates * iterations)


def _warmup(work: Import, updates: int) -> None:
    """Steps, or where it is below 1 a share of all of them, as in transformers; and the older warmup_ratio."""
    steps = number(work.given, "warmup_steps", 0.0)
    share = steps if 0 < steps < 1 else number(work.given, "warmup_ratio", 0.0)
    warmup = math.ceil(share * work.recipe["steps"] * updates) if share and steps < 1 else int(steps)
    work.put("learner.warmup_steps", warmup)
    for key in ("warmup_steps", "warmup_ratio"):
        work.note(key, "same", "learner.warmup_steps")


def _housekeeping(work: Import, per_rollout: int) -> None:
    """Where the run goes, checkpoints, evaluation, trackers."""
    if work.value("output_dir") is not None:
        work.put("out", str(work.given["output_dir"]))
        work.note("output_dir", "same", "out")
    if work.value("run_name") is not None:
        work.put("name", str(work.given["run_name"]))
        work.note("run_name", "same", "name")
    if str(work.value("save_strategy", "steps")) == "steps":
        save = number(work.given, "save_steps", 500)
        work.put("checkpoint.every", max(1, round(save / per_rollout)) if save >= 1 else 50)
    work.note("save_steps", "same", "checkpoint.every", "in rollouts")
    if work.value("save_total_limit") is not None:
        work.put("checkpoint.keep", whole_number(work.given, "save_total_limit", 2))
        work.note("save_total_limit", "same", "checkpoint.keep")
    to = work.value("report_to", "none")
    known = [t for t in ([to] if isinstance(to, str) else to) if t in ("tensorboard", "wandb", "trackio")]
    if known:
        work.put("track.to", known)
        work.note("report_to", "same", "track")
    if str(work.value("eval_strategy", "no")) == "steps" and "questions.path" in work.recipe:
        every = number(work.given, "eval_steps", number(work.given, "logging_steps", 10))
        work.put("evaluation.every", max(1, round(every / per_rollout)) if every >= 1 else 50)
        work.put("evaluation.questions", _held_out(work))
        work.put("evaluation.temperature", work.recipe["rollout.temperature"])
        work.put("evaluation.samples_per_question", int(work.value("num_generations_eval", 1)))
        for key in ("eval_strategy", "eval_steps", "dataset_test_split", "num_generations_eval"):
            work.note(key, "close", "evaluation", "accuracy on at most evaluation.max_questions questions")


def _held_out(work: Import) -> dict[str, Any]:
    keys = {"path": work.recipe["questions.path"], "split": str(work.value("dataset_test_split", "test"))}
    return keys | ({"subset": work.recipe["questions.subset"]} if "questions.subset" in work.recipe else {})
