"""A sweep: which runs it plans, how it goes on, what it says at the end, and that it leaves no process behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from command import refusal, run, settings, write_recipe
from tiny_models import tiny_model, tiny_tokenizer
from zerolab import sweep as sweep_module
from zerolab.models.hf import export_model
from zerolab.processes import Job
from zerolab.rundir import read_metrics
from zerolab.sweep import SweepOptions, parse_seeds, plan_runs, split_values


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    export_model(tiny_model("qwen2"), tiny_tokenizer(), tmp_path / "model")
    return write_recipe(tmp_path / "recipe.toml", tmp_path / "model", steps=2)


def test_commas_in_quotes_and_brackets_belong_to_a_value() -> None:
    assert split_values("grpo, dr_grpo") == ["grpo", "dr_grpo"]
    assert split_values('{a=[1, 2], b="x,y"}, {a=[3]}') == ['{a=[1, 2], b="x,y"}', "{a=[3]}"]
    assert split_values("'a,b'") == ["'a,b'"]


def test_seeds_are_ranges_and_numbers() -> None:
    assert parse_seeds("0-2,7, 9") == [0, 1, 2, 7, 9]


def test_every_combination_runs_under_every_seed_in_a_folder_of_its_own(recipe: Path, tmp_path: Path) -> None:
    grid = ("objective=grpo,dr_grpo", "learner.lr=1e-3,1e-4", "rollout.max_new_tokens=8")
    runs = plan_runs(recipe, SweepOptions(str(recipe), "0-2", grid, tmp_path / "out"))
    configs = [run.config for run in runs]
    assert len({(c.objective.name, c.learner.lr, c.seed) for c in configs}) == len(configs) == 2 * 2 * 3
    assert len({c.folder for c in configs}) == len(configs)
    assert {c.rollout.max_new_tokens for c in configs} == {8}
    assert {c.threads for c in configs} == {1}
    assert [c.seed for c in configs[:4]] == [0] * 4
    assert configs[0].folder == tmp_path / "out" / "grpo-lr-1e-3-seed0"


BAD = {
    "a seed that is no number": (["--seeds", "a"], "--seeds a: expected seeds such as 0-4"),
    "a seed twice": (["--seeds", "0-2,1"], "a seed is there twice"),
    "a range backwards": (["--seeds", "4-0"], "expected seeds"),
    "a value twice": (settings("learner.lr=1e-3,1e-3"), "a value is there twice"),
    "one value in two spellings": (settings("learner.lr=1e-3,0.001"), "the same settings"),
    "a key twice": (settings("learner.lr=1,2", "learner.lr=3,4"), "learner.lr=A,B,C"),
    "an empty value": (settings("learner.lr=1e-3,"), "expected KEY=VALUE"),
    "the seed as a key": (settings("seed=1,2"), "--seeds"),
    "one wrong value among good ones": (settings("objective=grpo,dr_grop"), "did you mean dr_grpo?"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sweeps_start_nothing(case: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words, said = BAD[case]
    assert said in refusal(capsys, "sweep", recipe, "--out", tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def run_here(jobs: Sequence[Job], parallel: int, keep_going: bool = False) -> Iterator[None]:
    """The jobs one after the other in this process."""
    for job in jobs:
        started.append((job.name, job.arguments[2]))
        job.process = subprocess.Popen(["false" if run(*job.arguments) else "true"])
        job.process.wait()
        job.log.write_text("its last line\n")
        yield


started: list[tuple[str, str]] = []  # (name, flag) of the jobs since the list was cleared


def test_the_same_command_finishes_what_is_missing_and_reports_with_intervals(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sweep_module, "run_all", run_here)
    monkeypatch.setattr(sweep_module, "REFRESH_SECONDS", 0)
    out = tmp_path / "out"
    command = ["sweep", recipe, "--out", out, *settings("objective=grpo,dr_grpo", "evaluation.every=0")]
    started.clear()
    assert run(*command, "--seeds", "0-1") == 0
    assert len(started) == 4
    untouched = (out / "grpo-seed0" / "metrics.jsonl").stat()
    (out / "dr_grpo-seed1" / "checkpoints" / "step_000002").rename(tmp_path / "lost")
    started.clear()
    assert run(*command, "--seeds", "0-2") == 0
    assert {name for name, _ in started} == {"dr_grpo seed 1", "grpo seed 2", "dr_grpo seed 2"}
    assert (out / "grpo-seed0" / "metrics.jsonl").stat() == untouched
    assert len(read_metrics(out / "dr_grpo-seed1")) == 2
    printed = capsys.readouterr().out
    assert "mean and 95 % interval over seeds" in printed
    assert "minus grpo, seed by seed" in printed
    assert (out / "curves.png").exists()
    text = (out / "report.html").read_text()
    assert '"first":{"heads"' in text
    assert str(out / "report.html") in printed


def test_other_settings_in_the_same_folder_are_refused_and_a_failure_leaves_the_others_alone(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sweep_module, "run_all", run_here)
    monkeypatch.setattr(sweep_module, "REFRESH_SECONDS", 0)
    out = tmp_path / "out"
    (out / "dr_grpo-seed0").mkdir(parents=True)
    (out / "dr_grpo-seed0" / "notes.txt").write_text("no run")
    command = ["sweep", recipe, "--out", out, "--seeds", "0"]
    arms = settings("objective=grpo,dr_grpo")
    assert run(*command, *arms) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert "1 of 2 runs failed: dr_grpo seed 0 ended with code 1: its last line" in err
    assert (out / "report.html").exists()
    assert len(read_metrics(out / "grpo-seed0")) == 3
    line = refusal(capsys, *command, *arms, *settings("learner.lr=5e-4"))
    assert "was started with another learner.lr" in line


PARENT = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background leaves it ignored
from zerolab.processes import Job, run_all
folder = Path(sys.argv[1])
sys.executable = str(folder / "python")  # sleeps, whatever it is asked
jobs = [Job(f"job {i}", [], folder / f"{i}.log") for i in range(2)]
try:
    for _ in run_all(jobs, 2):
        (folder / "ids.part").write_text(" ".join(str(job.process.pid) for job in jobs))
        (folder / "ids.part").rename(folder / "ids")
        time.sleep(0.05)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_parent_ends_its_children(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "python").chmod(0o755)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "ids").exists():
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = [int(word) for word in (tmp_path / "ids").read_text().split()]
    time.sleep(0.5)
    assert all(Path(f"/proc/{child}").exists() for child in children) or not Path("/proc").exists()
    os.kill(parent.pid, number)
    assert parent.wait(timeout=30) == 130
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


@pytest.mark.slow
def test_a_real_sweep_is_interrupted_and_goes_on(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["sweep", str(recipe), "--out", str(out), "--seeds", "0-1", *settings("objective=grpo,dr_grpo", "steps=30")]
    command = [sys.executable, "-m", "zerolab", *words]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(len(file.read_bytes().splitlines()) > 4 for file in out.glob("*/metrics.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    assert "nothing is lost" in first.communicate(timeout=90)[0]
    assert first.returncode == 130
    subprocess.run(command, check=True)
    for folder in out.glob("*-seed?"):
        assert [row["step"] for row in read_metrics(folder) if row["step"]] == list(range(1, 31))
        assert json.loads((folder / "run.json").read_text())["steps"] == 30
