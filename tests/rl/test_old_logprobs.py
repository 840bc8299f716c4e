"""Where log pi_old comes from, as a user sets it: three sources, which agree where they must."""

from pathlib import Path
from typing import Any

import pytest

from command import run, settings, write_recipe
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.models.hf import export_model
from zerolab.rundir import read_metrics

SOURCES = ("engine", "learner", "detach")


def rows(tmp_path: Path, source: str, *changes: str) -> list[dict[str, Any]]:
    export_model(tiny_model("qwen2"), tiny_tokenizer(), tmp_path / "model")
    recipe = write_recipe(tmp_path / "recipe.toml", tmp_path / "model")
    fixed = ("evaluation.every=0", "checkpoint.every=0", "objective=dr_grpo")
    words = (*fixed, f"learner.old_logprobs={source}", *changes)
    assert run("train", recipe, *settings(*words, f"out={tmp_path / source}")) == 0
    return read_metrics(tmp_path / source)


def test_on_policy_the_three_sources_give_the_same_step(tmp_path: Path) -> None:
    found = {s: rows(tmp_path, s, "steps=1", "learner.updates_per_rollout=1")[0] for s in SOURCES}
    for source in SOURCES:
        assert found[source]["clip_fraction"] == 0
        assert found[source]["grad_norm"] == pytest.approx(found["engine"]["grad_norm"], rel=1e-4)
    assert 0 < found["engine"]["mismatch/abs"] < 1e-4  # engine against learner
    assert found["learner"]["mismatch/abs"] < 1e-6  # the learner against itself: two passes over the same weights


def test_off_policy_the_ratio_is_taken_to_the_rollout_and_is_clipped(tmp_path: Path) -> None:
    """Four updates at a large rate: both sources that have a pi_old clip; what is clipped is nearly the same."""
    changes = ("steps=1", "learner.updates_per_rollout=4", "learner.lr=2e-2")
    found = {s: rows(tmp_path, s, *changes)[0] for s in ("engine", "learner")}
    assert found["engine"]["clip_fraction"] > 0.01
    assert found["learner"]["clip_fraction"] == pytest.approx(found["engine"]["clip_fraction"], abs=0.02)
