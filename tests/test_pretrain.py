"""Pretraining of laptop base models: it learns, is cached, survives a kill, and says when a gate is missed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from zerolab.config import PretrainConfig
from zerolab.learner.checkpoint import latest_checkpoint
from zerolab.recipes import find_recipe, load
from zerolab.run_lock import RunLock
from zerolab.worlds import base_model as module
from zerolab.worlds.base_model import cache_folder, pretrain

SETTINGS = ["steps=30", "optimizer.warmup_steps=3"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def small(*settings: str) -> PretrainConfig:
    return load(find_recipe("laptop/smoke-base"), [*SETTINGS, *settings])


def test_the_loss_falls_and_the_folder_is_whole() -> None:
    folder = pretrain(small("gate.accuracy=[0.9, 1.0]"))
    curve = [json.loads(line) for line in (folder / "pretrain.jsonl").read_text().splitlines()]
    assert curve[-1]["loss"] < 0.7 * curve[0]["loss"]
    gate = json.loads((folder / "gate.json").read_text())
    assert gate["missed"] == [f"accuracy is {gate['accuracy']:.3f}, outside 0.9 .. 1.0"]
    assert json.loads((folder / "recipe.json").read_text())["steps"] == 30
    assert list(folder.parent.iterdir()) == [folder]  # nothing half done is left


def test_the_cache_is_used_and_its_key_is_the_content(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pretrain(small())
    monkeypatch.setattr(module, "make_learner", lambda *_: pytest.fail("trained again"))
    assert pretrain(small()) == folder
    assert cache_folder(small("gate.accuracy=[0.1, 0.2]")) == folder  # the gate changes no weight
    assert cache_folder(small("seed=1")) != folder
    assert cache_folder(small("corpus.options.marker_accuracy=0.5")) != folder


def test_a_killed_pretraining_goes_on_to_the_same_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = load_file(pretrain(small()) / "model.safetensors")
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "second"))
    script = (
        "import sys; from zerolab.worlds import base_model as m; from zerolab.recipes import find_recipe, load; "
        "m.CHECKPOINT_EVERY = 5; m.pretrain(load(find_recipe('laptop/smoke-base'), sys.argv[1:]))"
    )
    process = subprocess.Popen([sys.executable, "-c", script, *SETTINGS], env={**os.environ, "OMP_NUM_THREADS": "1"})
    work = cache_folder(small()).with_name(cache_folder(small()).name + ".work")
    while latest_checkpoint(work / "checkpoints") is None and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert latest_checkpoint(work / "checkpoints") is not None
    resumed = load_file(pretrain(small()) / "model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_base_that_another_process_makes_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The lock is another's until the base is there; then nothing is trained and no working folder is left."""
    config = small()
    folder = cache_folder(config)
    work = folder.with_name(folder.name + ".work")
    work.mkdir(parents=True)
    other = RunLock(work)
    other.acquire()

    def finish(seconds: float) -> None:  # what the other process does while this one sleeps
        folder.mkdir()
        (folder / "gate.json").write_text("{}")
        shutil.rmtree(work)
        other.release()

    def train_again(*_: object) -> None:
        raise AssertionError("the base was made twice")

    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=finish))
    monkeypatch.setattr("zerolab.run_lock.WAIT_SECONDS", 0.0)
    monkeypatch.setattr(module, "_make", train_again)
    assert pretrain(config) == folder
    assert "another process makes this base model; waiting for it" in capsys.readouterr().err
    assert not work.exists()
