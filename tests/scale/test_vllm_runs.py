"""ShardedModel runs with vLLM as the engine: training, resuming, evaluation, and a lost update that stops the run."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import run, settings, write_recipe
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.models.hf import export_model
from zerolab.rundir import read_metrics

pytestmark = pytest.mark.scale

VLLM = (
    "rollout.engine=vllm",
    "rollout.kv_gb=0.02",
    "rollout.sleep=true",
    "evaluation.every=2",
    "reward.random=0.5",  # so that an untrained model has something to learn from
)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    export_model(tiny_model("qwen3", head_dim=32), tiny_tokenizer(), tmp_path / "model")
    return str(write_recipe(tmp_path / "recipe.toml", tmp_path / "model", steps=4))


def columns(folder: str, *names: str) -> dict[str, list[Any]]:
    rows = [row for row in read_metrics(Path(folder)) if row["step"]]
    return {name: [row[name] for row in rows] for name in names}


def test_a_run_cut_in_two_equals_one_that_was_not(recipe: str) -> None:
    """Engine and learner agree after every update; the resumed half samples what the whole run sampled."""
    assert run("train", recipe, *settings(*VLLM, "out=whole")) == 0
    whole = columns("whole", "mismatch/probe", "version", "length/mean", "reward/mean", "grad_norm")
    assert whole["version"] == [2, 4, 6, 8]
    assert run("train", recipe, *settings(*VLLM, "out=cut")) == 0
    shutil.rmtree(max(Path("cut/checkpoints").iterdir()))
    assert run("train", recipe, *settings(*VLLM, "out=cut"), "--resume") == 0
    for folder in ("whole", "cut"):
        found = columns(folder, *whole)
        assert max(found.pop("mismatch/probe")) < 1e-4
        for name, values in found.items():
            assert values == pytest.approx(whole[name], rel=1e-3, abs=1e-6), (folder, name)


def test_an_update_that_vllm_lost_stops_the_run(
    recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from zerolab.rollout.vllm_engine import VllmEngine

    def lost(engine: Any, version: int, tensors: Any) -> None:
        engine.version = version

    monkeypatch.setattr(VllmEngine, "update_weights", lost)
    assert run("train", recipe, *settings(*VLLM)) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "does not sample from the new weights" in last


def test_evaluation_through_vllm_agrees_with_the_torch_engine(recipe: str, tmp_path: Path) -> None:
    """Greedy: the same responses, but for near ties."""
    (tmp_path / "q.jsonl").write_text("".join(f'{{"question": "{i} + 1?", "answer": "{i + 1}"}}\n' for i in range(20)))
    texts = {}
    for engine in ("vllm", "torch"):
        asked = ("--benchmarks", "q.jsonl", "--budget", "24", "--kv-gb", "0.02", "--out", engine, "--engine", engine)
        assert run("evaluate", "model", *asked) == 0
        (file,) = Path(engine).glob("**/*.jsonl")
        texts[engine] = {row["question_id"]: row["response"] for row in map(json.loads, file.read_text().splitlines())}
    assert texts["vllm"].keys() == texts["torch"].keys()
    assert np.mean([texts["vllm"][k] == texts["torch"][k] for k in texts["vllm"]]) >= 0.9
