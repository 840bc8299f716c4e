"""Test benchmarks are for the end: refused in training and for choosing a checkpoint; forced, it is written down."""

import json
from pathlib import Path
from typing import Any

import pytest

from command import refusal, run, settings, write_recipe
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.config import load_run_config
from zerolab.data.question_config import benchmark_of, forced_note
from zerolab.models.hf import export_model


@pytest.mark.parametrize(
    ("path", "split", "name"),
    [
        ("aime24", None, "aime24"),
        ("data/math500.jsonl", None, "math500"),
        ("/x/gsm8k_test.csv", None, "gsm8k_test"),
        ("openai/gsm8k", "test", "gsm8k_test"),
        ("openai/gsm8k", "train", None),
        ("lkevinzc/math-eval", "amc", "amc"),
        ("lkevinzc/math-eval", None, "aime24"),
        ("HuggingFaceH4/MATH-500", "test", "math500-h4"),
        ("nlile/hendrycks-MATH-benchmark", "test", "math500"),
        ("nlile/hendrycks-MATH-benchmark", "train", None),
        ("math12k", None, None),
        ("synthetic:modular", None, None),
        ("dev.jsonl", None, None),
    ],
)
def test_a_benchmark_is_known_by_name_file_and_hub_id(path: str, split: str | None, name: str | None) -> None:
    assert benchmark_of(path, split) == name


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    export_model(tiny_model("qwen2"), tiny_tokenizer(), tmp_path / "model")
    rows = [json.dumps({"problem": f"{i} + 1?", "answer": str(i + 1)}) for i in range(40)]
    (tmp_path / "aime24.jsonl").write_text("\n".join(rows))
    return write_recipe(tmp_path / "recipe.toml", tmp_path / "model", steps=2)


@pytest.mark.parametrize("key", ["evaluation.questions={{path='{0}'}}", "questions={{path='{0}', holdout=0.2}}"])
def test_a_run_may_not_look_at_the_test(key: str, recipe: Path, capsys: pytest.CaptureFixture) -> None:
    override = key.format(recipe.parent / "aime24.jsonl")
    line = refusal(capsys, "train", recipe, *settings(f"out={recipe.parent / 'run'}", override))
    for word in ("test benchmark (aime24)", "questions.holdout", "evaluation.allow_test_questions = true"):
        assert word in line
    load_run_config(recipe, [override, "evaluation.every=0"])  # without an evaluation nothing is chosen by it


def test_a_run_that_was_forced_says_so_in_every_table(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    forced = [f"evaluation.questions={{path='{tmp_path / 'aime24.jsonl'}'}}", "evaluation.allow_test_questions=true"]
    assert run("train", recipe, *settings(f"out={out}", "checkpoint.every=1", *forced)) == 0
    config = json.loads((out / "run.json").read_text())
    assert config["evaluation"]["allow_test_questions"] is True
    note = forced_note(config)
    assert note is not None
    assert "test benchmark while it trained (aime24)" in note
    folder = evaluate(out, tmp_path, "dev")
    assert note in " ".join(capsys.readouterr().out.split())
    assert json.loads((folder / "results.json").read_text())["settings"]["note"] == note
    assert run("evaluate", folder) == 0
    assert note in " ".join(capsys.readouterr().out.split())
    assert run("compare", folder, folder, "--out", tmp_path / "compare") == 0
    assert note in " ".join(capsys.readouterr().out.split())
    assert run("report", out, "--out", tmp_path / "report.html") == 0
    assert "test benchmark while it trained (aime24)" in (tmp_path / "report.html").read_text()


def evaluate(model: Path, tmp_path: Path, benchmark: str, *more: Any, code: int = 0) -> Path:
    if benchmark == "dev":
        (tmp_path / "dev.jsonl").write_text((tmp_path / "aime24.jsonl").read_text())
    folder = tmp_path / f"evaluated-{model.name}-{benchmark}"
    file = tmp_path / f"{benchmark}.jsonl"
    assert run("evaluate", model, "--benchmarks", file, "--budget", 5, "--limit", 3, "--out", folder, *more) == code
    return folder


def test_the_best_checkpoint_is_not_chosen_on_the_test(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    assert run("train", recipe, *settings(f"out={out}", "checkpoint.every=1", "evaluation.every=1")) == 0
    assert forced_note(json.loads((out / "run.json").read_text())) is None
    first, last = (out / "checkpoints" / f"step_00000{step}" for step in (1, 2))
    for step in (first, last):
        evaluate(step, tmp_path, "dev")  # held-out questions may be asked as often as one likes
    evaluate(out, tmp_path, "aime24")  # the run's newest checkpoint
    evaluate(last, tmp_path, "aime24")  # the same one again
    capsys.readouterr()
    line = refusal(capsys, "evaluate", first, "--benchmarks", tmp_path / "aime24.jsonl", "--out", tmp_path / "x")
    assert "step_000002 of run saw a test benchmark before" in line
    assert "--several-checkpoints" in line
    assert not (tmp_path / "x").exists()
    folder = evaluate(first, tmp_path, "aime24", "--several-checkpoints")
    assert "one of 2 checkpoints of run" in capsys.readouterr().out
    assert "one of 2 checkpoints" in json.loads((folder / "evaluation.json").read_text())["note"]
