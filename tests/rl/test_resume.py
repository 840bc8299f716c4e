"""Objectives that need more than the rollout, as a user runs them: resumed runs equal uninterrupted ones to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from command import run, write_recipe
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.learner.checkpoint import latest_checkpoint
from zerolab.models.hf import export_model
from zerolab.rundir import read_metrics

# What is set, and a metric that it must leave.
OBJECTIVES = {
    "KL in the loss": (["objective=grpo_kl"], "kl/response"),
    "KL in the reward": (
        ["objective={preset='dr_grpo', kl=0.05, kl_estimator='k1', kl_place='reward'}"],
        "reward/kl",
    ),
    "mismatch": (
        [
            "objective={preset='dr_grpo', correction='sequence_mask', correction_cap=3}",
            *("learner.old_logprobs=learner", "model.precision=bf16"),
        ],
        "mismatch/removed/75-100",
    ),
    "fp16": (["objective=dr_grpo", "model.precision=fp16", "learner.fp32_head=true"], "scale/value"),
    "bf16 weights": (["objective=grpo_kl", "model.precision=bf16", "model.weights=bf16"], "kl/response"),
    "entropy": (["objective={preset='dr_grpo', entropy=0.01}"], "entropy"),
    "greedy baseline": (["objective=remax"], "reward/greedy"),
    "critic": (["objective=ppo", "critic.lr=3e-3", "learner.updates_per_rollout=2"], "critic/explained_variance"),
    "value head, KL in the reward": (
        [
            "objective={preset='ppo', gae_lambda=0.9, kl=0.05, kl_estimator='k1', kl_place='reward'}",
            *("critic.kind=head", "model.precision=bf16"),
        ],
        "critic/grad_norm",
    ),
}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_metrics(folder)]


@pytest.mark.parametrize("case", OBJECTIVES)
def test_a_resumed_run_equals_an_uninterrupted_one(case: str, tmp_path: Path) -> None:
    changes, metric = OBJECTIVES[case]
    export_model(tiny_model("qwen2"), tiny_tokenizer(), tmp_path / "model")
    recipe = write_recipe(tmp_path / "recipe.toml", tmp_path / "model")
    settings = [word for item in ["evaluation.every=0", "checkpoint.every=2", *changes] for word in ("--set", item)]
    whole, parts = (["--set", f"out={tmp_path / name}", *settings] for name in ("whole", "parts"))
    assert run("train", recipe, *whole, "--set", "steps=4") == 0
    assert run("train", recipe, *parts, "--set", "steps=2") == 0
    assert run("train", recipe, *parts, "--set", "steps=4", "--resume") == 0
    assert repr(rows(tmp_path / "whole")) == repr(rows(tmp_path / "parts"))  # NaN equals itself as text
    assert all(metric in row for row in rows(tmp_path / "whole"))
    left, right = (load_file(checkpoint(tmp_path / name) / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(left[name], right[name]) for name in left)


def checkpoint(folder: Path) -> Path:
    found = latest_checkpoint(folder / "checkpoints")
    assert found is not None
    return found
