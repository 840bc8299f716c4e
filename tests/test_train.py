"""The loop as a user runs it: a recipe in, a run directory out, and nothing lost on the way."""

import json
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from command import run, settings, start, write_recipe
from zerolab.errors import LearnerLost
from zerolab.learner.checkpoint import latest_checkpoint
from zerolab.learner.learner import Learner
from zerolab.rundir import read_metrics


@pytest.fixture
def recipe(model_folder: Path, tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "recipe.toml", model_folder)


def wait_for_step(folder: Path, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "metrics.jsonl").exists() and any(r["step"] >= step for r in read_metrics(folder)):
            return
        time.sleep(0.002)
    raise AssertionError(f"step {step} never came: {process.communicate()[0]}")


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = latest_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    return load_file(checkpoint / "model.safetensors")


def without_timings(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_metrics(folder)]


def assert_same_run(a: Path, b: Path) -> None:
    assert without_timings(a) == without_timings(b)
    assert (a / "transcripts.jsonl").read_text() == (b / "transcripts.jsonl").read_text()
    left, right = final_weights(a), final_weights(b)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_run_leaves_all_that_is_needed_to_trust_it(recipe: Path, tmp_path: Path) -> None:
    assert run("train", recipe, "--set", f"out={tmp_path / 'run'}") == 0
    folder = tmp_path / "run"
    rows = read_metrics(folder)
    assert [row["step"] for row in rows] == list(range(9))
    assert [row["step"] for row in rows if "eval/accuracy" in row] == [0, 3, 6, 8]
    last = rows[-1]
    for name in (
        *("reward/mean", "reward/correctness", "reward/format", "accuracy", "formatted", "length/mean"),
        *("length/correct", "length/incorrect", "truncated", "zero_variance_groups", "entropy", "coverage"),
        *("clip_fraction", "grad_norm", "grad_clipped", "mismatch/abs", "mismatch/k3"),
        *("time/wait_s", "time/sample_tokens_per_s", "time/learn_tokens_per_s", "learned/entropy", "learned/nll"),
    ):
        assert name in last
    assert last["time/sample_tokens_per_s"] == pytest.approx(last["rollout/tokens"] / last["time/sample_s"])
    assert last["version"] == 16  # two optimizer steps per rollout
    assert abs(last["mismatch/abs"]) < 1e-5
    config = json.loads((folder / "run.json").read_text())
    assert config["objective"]["clip_high"] == 0.2  # every coordinate is written out
    session = json.loads((folder / "manifest.json").read_text())["sessions"][0]
    assert session["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    transcripts = [json.loads(line) for line in (folder / "transcripts.jsonl").read_text().splitlines()]
    assert {row["step"] for row in transcripts} == set(range(1, 9))
    assert all(row["reward"] == pytest.approx(sum(row["parts"].values())) for row in transcripts)
    assert {(row["group"], row["sample"]) for row in transcripts} == {(g, i) for g in range(4) for i in range(4)}
    stopped = [row for row in transcripts if "b" in row["response"]]
    assert stopped
    assert all(row["finish_reason"] == "stop" and "b" in row["response"][-4:] for row in stopped)  # "abcd" is a token


def test_the_policy_is_a_normal_hugging_face_folder(recipe: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run("train", recipe, "--set", f"out={tmp_path / 'run'}", "--set", "steps=1")
    folder = latest_checkpoint(tmp_path / "run" / "checkpoints")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("3 + 4 = ? a", return_tensors="pt")
    assert model.generate(**prompt, max_new_tokens=3, do_sample=False).shape[1] <= prompt["input_ids"].shape[1] + 3


def test_kill_9_and_resume_equals_no_interruption_to_the_bit(recipe: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run("train", recipe, "--set", f"out={whole}") == 0
    for step in (3, 5):  # between two checkpoints, twice
        resume = ["--resume"] if killed.exists() else []
        process = start("train", recipe, "--set", f"out={killed}", *resume)
        wait_for_step(killed, step, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "rew')  # a line cut short by the kill
    assert run("train", recipe, "--set", f"out={killed}", "--resume") == 0
    assert_same_run(whole, killed)
    assert len(json.loads((killed / "manifest.json").read_text())["sessions"]) == 3


def test_ctrl_c_saves_and_resume_goes_on(recipe: Path, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run("train", recipe, "--set", f"out={whole}", "--set", "checkpoint.every=0") == 0
    process = start("train", recipe, "--set", f"out={stopped}", "--set", "checkpoint.every=0")
    wait_for_step(stopped, 2, process)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert "continue with --resume" in output
    assert 2 <= len(read_metrics(stopped)) - 1 < 8
    assert run("train", recipe, "--set", f"out={stopped}", "--resume", "--set", "checkpoint.every=0") == 0
    assert_same_run(whole, stopped)


@pytest.mark.parametrize(
    "keys", [("rollout.sleep=true",), ("lora.rank=4", "lora.offload=true")], ids=["sleep", "offload"]
)
def test_a_run_goes_on_to_the_bit_if_the_learner_is_lost_while_the_engine_sleeps(
    keys: tuple[str, ...], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine wakes, the learner's base is back in host memory, and the last checkpoint is published."""
    if "lora.rank=4" in keys:
        pytest.importorskip("peft")
    common = ["train", recipe, *settings("evaluation.every=0", "steps=5", *keys)]
    assert run(*common, *settings(f"out={tmp_path / 'whole'}")) == 0
    forward_backward, lost = Learner.forward_backward, []

    def losing(learner: Learner, *arguments: Any) -> Any:
        if learner.version == 7 and not lost:  # in step 4; the checkpoint is of step 2
            lost.append(learner.version)
            raise LearnerLost("its process died")
        return forward_backward(learner, *arguments)

    monkeypatch.setattr(Learner, "forward_backward", losing)
    assert run(*common, *settings(f"out={tmp_path / 'lost'}")) == 0
    assert lost
    assert_same_run(tmp_path / "whole", tmp_path / "lost")


def test_a_full_disk_stops_with_one_line_and_leaves_the_last_checkpoint(recipe: Path, tmp_path: Path) -> None:
    """A file size limit stands for the full disk: the third checkpoint cannot be written."""
    folder = tmp_path / "run"
    assert run("train", recipe, "--set", f"out={folder}", "--set", "steps=4") == 0
    before = final_weights(folder)
    limit = (100_000, 100_000)  # bytes: room for the log, none for weights
    process = start(
        *("train", recipe, "--set", f"out={folder}", "--resume"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    output = process.communicate(timeout=120)[0].strip()
    assert process.returncode == 2, output
    assert output.splitlines()[-1].startswith("zerolab: cannot write")
    assert "step_000004" in output.splitlines()[-1]
    assert "Traceback" not in output
    assert all(torch.equal(before[k], v) for k, v in final_weights(folder).items())
    assert run("train", recipe, "--set", f"out={folder}", "--resume") == 0
    assert read_metrics(folder)[-1]["step"] == 8


def test_a_diverged_policy_stops_with_one_line(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    settings = ["learner.lr=1e30", "checkpoint.every=1", "evaluation.every=0"]
    arguments = [word for item in settings for word in ("--set", item)]
    assert run("train", recipe, "--set", f"out={tmp_path / 'run'}", *arguments) == 2
    assert "finite" in capsys.readouterr().err.splitlines()[-1]


def test_an_unwritable_folder_is_one_line(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert run("train", recipe, "--set", f"out={tmp_path / 'file' / 'run'}") == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_run_is_never_overwritten_or_mixed_by_accident(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "run"
    short = ["--set", f"out={folder}", "--set", "steps=2"]
    assert run("train", recipe, *short) == 0
    kept = (folder / "metrics.jsonl").read_text()
    assert run("train", recipe, *short) == 2
    assert run("train", recipe, *short, "--resume", "--set", "learner.lr=1") == 2
    errors = capsys.readouterr().err
    assert "--resume" in errors
    assert "learner.lr" in errors
    assert (folder / "metrics.jsonl").read_text() == kept
    assert run("train", recipe, *short, "--overwrite", "--set", "seed=1") == 0
    assert (folder / "metrics.jsonl").read_text() != kept


def test_reward_goes_up(recipe: Path, tmp_path: Path) -> None:
    """A policy that is paid for finishing with a number in its response learns to do so."""
    settings = ["steps=40", "learner.lr=3e-3", "rollout.questions_per_step=8", "evaluation.every=0"]
    arguments = [word for item in settings for word in ("--set", item)]
    assert run("train", recipe, "--set", f"out={tmp_path / 'run'}", *arguments, "--set", "checkpoint.every=0") == 0
    rewards = [row["reward/mean"] for row in read_metrics(tmp_path / "run")]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.4


def test_training_on_the_real_gsm8k_questions(shared: Path, model_folder: Path, recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(
        f"""
        steps = 2
        [model]
        path = "{model_folder}"
        [questions]
        path = "{shared / "train" / "gsm_8k.jsonl"}"
        [rollout]
        questions_per_step = 2
        samples_per_question = 2
        max_new_tokens = 8
        max_prompt_tokens = 150
        [objective]
        preset = "dr_grpo"
        """
    )
    assert run("train", recipe, "--set", f"out={tmp_path / 'run'}") == 0
    rows = read_metrics(tmp_path / "run")
    assert len(rows) == 2
    assert rows[-1]["rollout/dropped_prompts"] > 0  # this tokenizer spells words out: most questions are too long
