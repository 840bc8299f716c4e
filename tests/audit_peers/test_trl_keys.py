"""The importer of TRL configurations against the installed TRL: its defaults, and every key that it has."""

import dataclasses
from typing import Any

import pytest

from zerolab.config import RunConfig
from zerolab.importing.command import nested
from zerolab.importing.trl_recipe import import_trl
from zerolab.rl.objective import PRESETS

pytestmark = pytest.mark.audit


def imported(**keys: Any) -> RunConfig:
    return RunConfig.model_validate(nested(import_trl(keys).recipe))


def test_what_a_file_leaves_out_is_trls_default() -> None:
    trl = pytest.importorskip("trl")
    theirs, ours = trl.GRPOConfig(output_dir="x", bf16=False, use_cpu=True, max_steps=100), imported(max_steps=100)
    learner = ours.learner
    assert (learner.lr, *learner.betas) == (theirs.learning_rate, theirs.adam_beta1, theirs.adam_beta2)
    assert (learner.eps, learner.weight_decay) == (theirs.adam_epsilon, theirs.weight_decay)
    assert (learner.max_grad_norm, learner.schedule) == (theirs.max_grad_norm, theirs.lr_scheduler_type.value)
    assert learner.updates_per_rollout == theirs.steps_per_generation / theirs.gradient_accumulation_steps
    rollout = ours.rollout
    assert rollout.questions_per_step * rollout.samples_per_question == theirs.generation_batch_size
    assert rollout.samples_per_question == theirs.num_generations
    assert (rollout.max_new_tokens, rollout.temperature) == (theirs.max_completion_length, theirs.temperature)
    assert (ours.seed, ours.steps, ours.reward.truncation) == (theirs.seed, 100, "keep")
    assert (theirs.loss_type, theirs.scale_rewards, theirs.beta, theirs.entropy_coef) == ("dapo", "group", 0, 0)
    assert ours.objective.model_dump() == PRESETS["dapo"].model_dump() | {
        "name": "trl-dapo", "clip_high": theirs.epsilon, "std_epsilon": 1e-4,
    }  # fmt: skip


def test_every_key_of_trl_is_known() -> None:
    trl = pytest.importorskip("trl")
    from trl.scripts.grpo import GRPOScriptArguments

    for kind in (trl.GRPOConfig, trl.ModelConfig, GRPOScriptArguments):
        fields = {f.name: f.default for f in dataclasses.fields(kind)}
        plain = {
            key: default for key, default in fields.items() if isinstance(default, str | int | float | bool | None)
        }
        given = {**dict.fromkeys(fields), **plain} | ({"max_steps": 10} if "max_steps" in fields else {})
        notes = import_trl(given).notes
        assert {note.key for note in notes} == set(given)
        assert [note.key for note in notes if note.kind == "unknown"] == []
