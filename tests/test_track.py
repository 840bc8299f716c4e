"""Trackers: what they are told, that a resumed run is one run to them, and that their failures cost nothing."""

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from command import refusal, run, settings, write_recipe
from tiny_models import tiny_model, tiny_tokenizer
from zerolab import track
from zerolab.models.hf import export_model
from zerolab.rundir import read_metrics
from zerolab.track import Trackers

# Two sessions of one run, the second from a checkpoint of step 2; in a process of its own, since trackio looks for its
# folder when it is imported.
SESSIONS = """
import sys
from pathlib import Path
from zerolab.track import Trackers
for first in (1, 3):
    trackers = Trackers(sys.argv[2:], Path(sys.argv[1]), "project", "name", {"learner": {"lr": 0.5}})
    for step in range(first, first + 3):
        trackers.log(step, {"step": step, "length/mean": step + 10.625, "nothing": None, "flag": True})
    trackers.close()
"""


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [name for name in track.SERVICES if importlib.util.find_spec(name)]
    if len(names) < len(track.SERVICES):
        pytest.skip("an extra of tensorboard, wandb, trackio is not installed")
    folder = tmp_path_factory.mktemp("tracked")
    environment = {**os.environ, "WANDB_MODE": "offline", "TRACKIO_DIR": str(folder / "trackio"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SESSIONS, str(folder), *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "stopped tracking" not in done.stderr
    return folder


def test_tensorboard_has_every_step_once(tracked: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tracked / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["length/mean"]
    assert [(e.step, e.value) for e in events.Scalars("length/mean")] == [(s, s + 10.625) for s in range(1, 6)]


def test_wandb_offline_holds_one_run_with_all_numbers(tracked: Path) -> None:
    (identity,) = json.loads((tracked / "track.json").read_text()).values()
    files = sorted((tracked / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    assert {file.name for file in files} == {f"run-{identity}.wandb"}
    stored = b"".join(file.read_bytes() for file in files)
    assert all(str(step + 10.625).encode() in stored for step in range(1, 6))
    assert b"nothing" not in stored


def test_trackio_holds_one_run_in_its_local_folder(tracked: Path) -> None:
    rows = sqlite3.connect(tracked / "trackio" / "project.db").execute("select run_id, step, metrics from metrics")
    found = [(identity, step, json.loads(metrics)) for identity, step, metrics in rows]
    assert len({identity for identity, _, _ in found}) == 1
    assert {step: metrics for _, step, metrics in found} == {s: {"length/mean": s + 10.625} for s in range(1, 6)}


class Recorder:
    """A tracker that keeps what it is told; or fails, at its start or at a step."""

    told: ClassVar[list[tuple[str, int, dict[str, float]]]] = []
    ended: ClassVar[list[str]] = []
    fails_at: ClassVar[int | None] = None

    def __init__(self, tracked: track.TrackedRun, first_step: int):
        if self.fails_at == 0:
            raise RuntimeError("no key,\nno service")
        self.id = tracked.id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if step == self.fails_at:
            raise OSError("disk full")
        self.told.append((self.id, step, dict(values)))

    def close(self) -> None:
        self.ended.append(self.id)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    fresh: Any = type("Fresh", (Recorder,), {"told": [], "ended": [], "fails_at": None})
    monkeypatch.setattr(track, "SERVICES", {"tensorboard": fresh})
    monkeypatch.setattr("zerolab.track.SERVICES", {"tensorboard": fresh})
    return fresh


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    export_model(tiny_model("qwen2"), tiny_tokenizer(), folder)
    return write_recipe(folder / "recipe.toml", folder, steps=2)


def test_a_run_tells_its_trackers_what_it_logs_and_goes_on_as_the_same_run(
    recorder: type[Recorder], recipe: Path, tmp_path: Path
) -> None:
    chosen = settings(f"out='{tmp_path / 'run'}'", "track=['tensorboard']")
    assert run("train", recipe, *chosen) == 0
    assert run("train", recipe, "--resume", *chosen, *settings("steps=3")) == 0
    assert len({identity for identity, _, _ in recorder.told}) == 1
    assert len(recorder.ended) == 2
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [step for _, step, _ in recorder.told] == [0, 1, 2, 3]
    for row, (_, _, values) in zip(rows, recorder.told, strict=True):
        assert values == {k: v for k, v in row.items() if k != "step" and v is not None}


@pytest.mark.parametrize(("fails_at", "told"), [(0, []), (2, [1])])
def test_a_tracker_that_fails_is_one_line_and_costs_nothing(
    fails_at: int, told: list[int], recorder: type[Recorder], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    recorder.fails_at = fails_at
    trackers = Trackers(["tensorboard"], tmp_path, "project", "name", {})
    for step in (1, 2, 3):
        trackers.log(step, {"step": step, "loss": 1.0})
    trackers.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("zerolab: tensorboard stopped tracking (")
    assert line.endswith("; the run goes on without it")
    assert [step for _, step, _ in recorder.told] == told
    assert recorder.ended == []


def test_a_missing_extra_is_said_before_the_run(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = refusal(capsys, "train", recipe, *settings(f"out='{tmp_path / 'run'}'", "track=['wandb']"))
    assert "pip install 'zerolab[wandb]'" in line
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused(recipe: Path, capsys: pytest.CaptureFixture) -> None:
    line = refusal(capsys, "train", recipe, *settings("track=['mlflow']"))
    assert "track.to" in line
    assert "tensorboard" in line


def test_no_tracker_leaves_no_trace(tmp_path: Path) -> None:
    trackers = Trackers([], tmp_path, "project", "name", {})
    trackers.log(1, {"step": 1})
    trackers.close()
    assert list(tmp_path.iterdir()) == []
