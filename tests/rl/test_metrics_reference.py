"""The reference of metrics has a unit and a meaning for every metric that a run logs."""

import json
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

import zerolab
from command import RECIPE
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.config import load_run_config
from zerolab.models.hf import export_model
from zerolab.rl.metrics import MEANINGS


@pytest.mark.parametrize("preset", ["grpo_kl", "ppo", "remax"])
def test_every_metric_of_a_run_has_a_meaning(preset: str, tmp_path: Path) -> None:
    export_model(tiny_model("qwen2"), tiny_tokenizer(), tmp_path / "model")
    (tmp_path / "recipe.toml").write_text(RECIPE.format(steps=1, model=tmp_path / "model"))
    changes = [f"objective.preset={preset}", f"out={tmp_path / 'run'}", "evaluation.every=1"]
    folder = zerolab.train(load_run_config(tmp_path / "recipe.toml", changes))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = {name for row in rows for name in row}
    unknown = [name for name in names if not any(fnmatchcase(name, known) for known, _, _ in MEANINGS)]
    assert not unknown
