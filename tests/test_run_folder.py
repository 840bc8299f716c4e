"""The folder of a run: whose it is, what a resumed run may change, and what survives damage."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from command import refusal, run, settings, start, write_recipe
from test_train import assert_same_run, final_weights, wait_for_step
from zerolab.config import DemoConfig, RunConfig, TextRunConfig, load_run_config
from zerolab.errors import UserError
from zerolab.learner.checkpoint import latest_checkpoint, save_checkpoint
from zerolab.learner.checkpoint_files import checkpoints, newest_whole
from zerolab.models.fingerprint import sampled_digest
from zerolab.recipes import find_recipe
from zerolab.run_lock import RunLock, is_running
from zerolab.rundir import RunDirectory, git_revision, read_metrics
from zerolab.toml import apply_overrides, known_keys, on_resume

SHORT = settings("evaluation.every=0", "checkpoint.every=1", "checkpoint.keep=3", "steps=3")


@pytest.fixture
def model(model_folder: Path, tmp_path: Path) -> Path:
    """A copy, which a test may change."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


@pytest.fixture
def recipe(model: Path, tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "recipe.toml", model)


@pytest.fixture(scope="module")
def finished(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps with its three checkpoints, in a folder with its recipe."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = write_recipe(folder / "recipe.toml", model_folder)
    assert run("train", recipe, *SHORT, *settings(f"out={folder / 'run'}")) == 0
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of that run, which a test may damage."""
    return Path(shutil.copytree(finished / "run", tmp_path / "run"))


def resume(finished: Path, folder: Path, *more: str) -> list[Any]:
    arguments = ["train", finished / "recipe.toml", "--resume", *SHORT]
    return [*arguments, *settings(f"out={folder}", "steps=4", *more)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Whose folder it is


def test_overwrite_leaves_the_folder_of_a_model_as_it_is(
    recipe: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = contents(model)
    for out in (model, model.parent):
        line = refusal(capsys, "train", recipe, "--overwrite", *settings(f"out={out}"))
        assert "not the folder of a run" in line
    assert "config.json" in refusal(capsys, "train", recipe, *settings(f"out={model}"))
    assert contents(model) == before


def test_overwrite_refuses_a_run_that_holds_what_the_new_one_reads(
    copied: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    policy = copied / "checkpoints" / "step_000003"
    before = contents(copied)
    line = refusal(capsys, "train", recipe, "--overwrite", *settings(f"out={copied}", f"model.path={policy}"))
    assert "this run reads" in line
    questions = copied / "questions.jsonl"
    questions.write_text('{"problem": "1 + 1 = ?", "answer": "2"}\n')
    other = settings(f"out={copied}", f"questions={{path='{questions}'}}", "evaluation.every=0")
    assert "questions.jsonl" in refusal(capsys, "train", recipe, "--overwrite", *other)
    questions.unlink()
    assert contents(copied) == before


def test_overwrite_deletes_what_the_run_wrote_and_nothing_else(copied: Path, recipe: Path) -> None:
    backup = copied / "checkpoints" / "step_000002_backup"
    shutil.copytree(copied / "checkpoints" / "step_000002", backup)
    (copied / "notes.txt").write_text("mine")
    kept = contents(backup)
    arguments = settings(f"out={copied}", "steps=1", "evaluation.every=0", "seed=1")
    assert run("train", recipe, "--overwrite", *arguments) == 0
    assert contents(backup) == kept
    assert (copied / "notes.txt").read_text() == "mine"
    assert [row["step"] for row in read_metrics(copied)] == [1]
    assert [p.name for p in checkpoints(copied / "checkpoints")] == ["step_000001"]


def test_a_second_process_is_refused_until_the_first_one_dies(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "run"
    arguments = settings(f"out={folder}", "steps=100000", "evaluation.every=0", "checkpoint.every=1")
    first = start("train", recipe, *arguments)
    try:
        wait_for_step(folder, 2, first)
        for flags in ([], ["--resume"], ["--overwrite"]):
            line = refusal(capsys, "train", recipe, *flags, *arguments)
            assert f"process {first.pid} on" in line
        assert is_running(folder)
        first.send_signal(signal.SIGKILL)
    finally:
        first.kill()
        first.communicate()
    assert is_running(folder) is False
    steps = [row["step"] for row in read_metrics(folder)]
    assert steps == sorted(set(steps))
    done = latest_checkpoint(folder / "checkpoints")
    assert done is not None
    more = [*arguments, *settings(f"steps={int(done.name[5:]) + 1}")]
    assert run("train", recipe, "--resume", *more) == 0
    assert is_running(folder) is False


def test_a_lock_whose_file_was_deleted_by_its_owner_is_not_shared(tmp_path: Path) -> None:
    first, second = RunLock(tmp_path), RunLock(tmp_path)
    first.acquire()
    with pytest.raises(UserError, match="is in use by process"):
        second.acquire()
    second.release()
    assert first.held
    first.release(remove=True)
    second.acquire()
    assert is_running(tmp_path)


def test_a_forked_child_does_not_keep_the_lock_of_its_parent(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock.acquire()
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:  # lives until the pipe closes
        os.close(writes)
        os.read(reads, 1)
        os._exit(0)
    os.close(reads)
    try:
        lock.release()
        time.sleep(0.05)
        assert is_running(tmp_path) is False
    finally:
        os.close(writes)
        os.waitpid(child, 0)


# What a resumed run may change


@pytest.mark.parametrize(
    "change",
    [
        *("rollout.kv_gb=0.5", "learner.micro_batch_tokens=64", "learner.checkpointing=true", "learner.logits_mb=1"),
        *("learner.share_prompts=off", "rollout.sleep=true", "rollout.cuda_graphs=false", "model.device=cpu"),
    ],
)
def test_a_resumed_run_takes_other_memory_speed_and_place_and_says_that_bits_may_differ(
    change: str, finished: Path, copied: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(*resume(finished, copied, change)) == 0
    err = capsys.readouterr().err
    assert f"with another {change.split('=')[0]} the run is equal only up to rounding, no longer to the bit" in err
    assert read_metrics(copied)[-1]["step"] == 4


def test_what_changes_no_number_is_not_said(finished: Path, copied: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(*resume(finished, copied, "name=other", "rollout.check_weights=false", "checkpoint.keep=1")) == 0
    assert "to the bit" not in capsys.readouterr().err


@pytest.mark.parametrize("change", ["learner.lr=1", "seed=1", "rollout.max_new_tokens=3", "model.weights=bf16"])
def test_what_decides_the_numbers_stays(
    change: str, finished: Path, copied: Path, capsys: pytest.CaptureFixture
) -> None:
    before = contents(copied)
    key, more = change.split("=")[0], ["model.precision=bf16"] if "bf16" in change else []
    assert key in refusal(capsys, *resume(finished, copied, change, *more))
    assert contents(copied) == before


def test_every_mark_is_on_a_key_and_objectives_have_none() -> None:
    for config in (RunConfig, TextRunConfig):
        keys = known_keys(config)
        marked = {key: on_resume(config, key) for key in keys}
        assert marked["checkpoint.keep"] == "same"  # by its table
        assert marked["learner.logits_mb"] == "rounded"
        assert not any(mark for key, mark in marked.items() if key.startswith("objective"))
        assert marked["seed"] is None
    assert on_resume(RunConfig, "no.such.key") is None


# What survives damage


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip(path: Path) -> None:
    """Another byte in the middle, the same size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "truncated weights": lambda f: truncate(f / "model.safetensors"),
    "other weights": lambda f: flip(f / "model.safetensors"),
    "no optimizer": lambda f: (f / "optimizer.safetensors").unlink(),
    "bad loop.json": lambda f: (f / "loop.json").write_text("{"),
    "loop.json is a list": lambda f: (f / "loop.json").write_text("[]"),
    "bad learner.json": lambda f: (f / "learner.json").write_bytes(b"\xff\xfe"),
    "no list of files": lambda f: (f / "files.json").unlink(),
    "bad list of files": lambda f: (f / "files.json").write_text('{"loop.json": 3}'),
    "an empty folder": lambda f: [path.unlink() for path in f.rglob("*") if path.is_file()],
}


@pytest.mark.parametrize("case", DAMAGE)
def test_resume_takes_the_newest_whole_checkpoint_and_says_which_it_skips(
    case: str, finished: Path, copied: Path, capsys: pytest.CaptureFixture
) -> None:
    before = final_weights(finished / "run")
    DAMAGE[case](copied / "checkpoints" / "step_000003")
    assert run(*resume(finished, copied, "steps=3")) == 0
    err = capsys.readouterr().err
    assert "checkpoint step_000003 is damaged" in err
    assert "Traceback" not in err
    assert [row["step"] for row in read_metrics(copied)] == [1, 2, 3]
    assert all(torch.equal(before[k], v) for k, v in final_weights(copied).items())  # step 3 anew, to the bit


def test_without_a_whole_checkpoint_resume_refuses_and_the_logs_stay(
    finished: Path, copied: Path, capsys: pytest.CaptureFixture
) -> None:
    for folder in checkpoints(copied / "checkpoints"):
        truncate(folder / "optimizer.safetensors")
    logs = {name: (copied / name).read_bytes() for name in ("metrics.jsonl", "transcripts.jsonl")}
    line = refusal(capsys, *resume(finished, copied)).splitlines()[-1]
    assert "no whole checkpoint" in line
    assert "step_000001" in line
    shutil.rmtree(copied / "checkpoints")
    assert "no checkpoint to go on from" in refusal(capsys, *resume(finished, copied))
    assert logs == {name: (copied / name).read_bytes() for name in logs}


def test_a_run_that_went_back_keeps_a_whole_checkpoint_at_every_moment(tmp_path: Path) -> None:
    """The damaged newer ones do not push out what was written after going back."""
    for step in (2, 4, 6):
        save_checkpoint(tmp_path, step, lambda folder: None, {}, keep=3)
    for step in (4, 6):
        truncate(tmp_path / f"step_{step:06d}" / "loop.json")
    assert newest_whole(tmp_path).folder == tmp_path / "step_000002"
    save_checkpoint(tmp_path, 3, lambda folder: None, {}, keep=1)
    assert newest_whole(tmp_path).folder == tmp_path / "step_000003"


def test_a_folder_with_another_name_is_nobodys_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 2, lambda folder: None, {}, keep=1)
    for name in ("step_000002_backup", "step_9", "step_000009.partial", "best"):
        shutil.copytree(tmp_path / "step_000002", tmp_path / name)
    for step in (3, 1_000_000, 1_000_001):
        save_checkpoint(tmp_path, step, lambda folder: None, {}, keep=1)
    assert checkpoints(tmp_path) == [tmp_path / "step_1000001"]
    assert {"step_000002_backup", "step_9", "best"} <= {path.name for path in tmp_path.iterdir()}


def test_a_damaged_config_is_one_line_and_changes_nothing(
    finished: Path, copied: Path, capsys: pytest.CaptureFixture
) -> None:
    for content in (b"", b"{", b"[]", b"\xff\xfe"):
        (copied / "run.json").write_bytes(content)
        before = contents(copied)
        assert "run.json is damaged" in refusal(capsys, *resume(finished, copied))
        assert contents(copied) == before


def test_a_damaged_manifest_is_kept_beside_a_new_one(
    finished: Path, copied: Path, capsys: pytest.CaptureFixture
) -> None:
    (copied / "manifest.json").write_bytes(b"\xff{")
    assert run(*resume(finished, copied)) == 0
    assert "manifest.json is damaged" in capsys.readouterr().err
    assert (copied / "manifest.json.damaged").read_bytes() == b"\xff{"
    assert len(json.loads((copied / "manifest.json").read_text())["sessions"]) == 1


def test_logs_with_bytes_that_are_no_text_are_read_and_cut(finished: Path, copied: Path, tmp_path: Path) -> None:
    undamaged = Path(shutil.copytree(copied, tmp_path / "undamaged"))
    for name in ("metrics.jsonl", "transcripts.jsonl", "consumed.jsonl"):
        with (copied / name).open("ab") as file:
            file.write(b'\xff\xfe\n{"step": "x"}\n[1]\n{"step": 4, "cut')
    assert [row["step"] for row in read_metrics(copied)] == [1, 2, 3]
    for folder in (copied, undamaged):
        assert run(*resume(finished, folder)) == 0
    assert_same_run(copied, undamaged)


def test_a_step_without_numbers_is_not_lost_by_a_refused_second_start(recipe: Path, tmp_path: Path) -> None:
    """Whoever does not hold the lock cleans nothing up."""
    config = load_run_config(recipe, [f"out={tmp_path / 'run'}"])
    first, second = RunDirectory(config), RunDirectory(config)
    first.open()
    with pytest.raises(UserError, match="in use"):
        second.open()
    second.close()
    assert (tmp_path / "run" / "run.json").is_file()
    first.close()
    assert not (tmp_path / "run").exists()


# What the run reads


def change_weights(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 1.5
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def test_another_model_under_a_kl_reference_is_refused(
    recipe: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = [*SHORT, *settings(f"out={tmp_path / 'run'}", "objective=grpo_kl", "rollout.check_weights=false")]
    assert run("train", recipe, *arguments, "--set", "steps=1") == 0
    before = contents(tmp_path / "run")
    change_weights(model)
    line = refusal(capsys, "train", recipe, "--resume", *arguments)
    assert "other weights of the model" in line
    assert "model.safetensors" in line
    assert contents(tmp_path / "run") == {**before, "run.lock": contents(tmp_path / "run")["run.lock"]}


def test_other_weights_that_the_checkpoint_replaces_are_said(
    recipe: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = [*SHORT, *settings(f"out={tmp_path / 'run'}")]
    assert run("train", recipe, *arguments, "--set", "steps=1") == 0
    change_weights(model)
    assert run("train", recipe, "--resume", *arguments) == 0
    assert "weights of the model" in capsys.readouterr().err
    tokenizer = model / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    assert "tokenizer_config.json" in refusal(capsys, "train", recipe, "--resume", *arguments)


def test_the_manifest_says_how_every_input_was_hashed(finished: Path) -> None:
    inputs = json.loads((finished / "run" / "manifest.json").read_text())["inputs"]
    assert set(inputs) == {"config and tokenizer of the model", "weights of the model", "questions"}
    assert all(entry["how"] and entry["digests"] and entry["place"] for entry in inputs.values())


def test_samples_see_a_change_of_size_header_and_of_every_tensor(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tensors = {name: torch.arange(5000, dtype=torch.float32) for name in "abc"}
    save_file(tensors, file)
    seen = {sampled_digest(file)}
    for name in tensors:
        save_file({**tensors, name: tensors[name] * 2}, file)
        seen.add(sampled_digest(file))
    save_file({**tensors, "d": torch.zeros(1)}, file)
    seen.add(sampled_digest(file))
    save_file(tensors, file, metadata={"format": "pt"})
    seen.add(sampled_digest(file))
    assert len(seen) == 6
    file.write_bytes(b"no header")
    assert len(sampled_digest(file)) == 64


# Names and alternatives


@pytest.mark.parametrize(
    "name", ["../../x", "/tmp/x", "a/b", "a\\b", "a\x1b[31m", "a\nb", "..", ".", "", " ", "x" * 300]
)
def test_a_name_is_no_path(name: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    line = refusal(capsys, "train", recipe, *settings(f"name={json.dumps(name)}"))
    assert "name" in line
    with pytest.raises(ValueError, match="name"):
        DemoConfig(name=name, arms=("a", "b"))


def test_a_model_on_the_command_line_takes_the_place_of_the_recipes(model: Path) -> None:
    shipped = find_recipe("laptop/grpo")
    other = load_run_config(shipped, [f"model.path={model}", "model.precision=fp32"])
    assert (other.model.path, other.model.base) == (str(model), None)
    back = load_run_config(shipped, ["model.base=laptop/smoke-base"]).model
    assert (back.path, back.base) == (None, "laptop/smoke-base")
    with pytest.raises(UserError, match="exactly one"):
        load_run_config(shipped, ["model.path=a", "model.base=b"])
    raw = {"questions": {"sources": [{"path": "a"}], "holdout": 0.1}}
    assert apply_overrides(raw, ["questions.path=b"]) == {"questions": {"path": "b", "holdout": 0.1}}


def test_the_revision_is_that_of_a_checkout_which_tracks_the_package(tmp_path: Path) -> None:
    """An environment inside somebody's repository is no checkout."""
    package = tmp_path / "env" / "zerolab"
    package.mkdir(parents=True)
    (package / "train.py").write_text("")
    assert git_revision(package) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "notes"], check=True)
    assert git_revision(package) is None
    subprocess.run([*git, "add", "env"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "the package"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert git_revision(package) == commit
    (package / "train.py").write_text("changed")
    assert git_revision(package) == commit + "+"


# What `watch` says of it


def test_watch_knows_a_stopped_run_from_one_that_goes_on(
    finished: Path, copied: Path, capsys: pytest.CaptureFixture
) -> None:
    config = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps({**config, "steps": 20}))
    os.utime(copied / "metrics.jsonl")
    lock = RunLock(copied)
    lock.acquire()
    assert run("watch", copied, "--once") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "running"
    assert " left" in out
    lock.release()
    assert run("watch", copied, "--once") == 0
    out = capsys.readouterr().out
    assert "stopped after step 3 of 20: `zerolab train ... --resume`" in " ".join(out.split())
    assert "running" not in out
    assert " left" not in out
