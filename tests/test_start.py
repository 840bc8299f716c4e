"""`zerolab start`: it measures every template, and it writes a recipe only if RL has something to learn from."""

import json
from pathlib import Path

import pytest

from command import refusal, run, settings
from tiny_models import tiny_model, tiny_tokenizer
from zerolab import start
from zerolab.config import load_run_config
from zerolab.data.templates import Template
from zerolab.datatypes import Grade, Question
from zerolab.models.hf import export_model
from zerolab.rollout.engine import Grader


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    export_model(tiny_model("qwen2"), tiny_tokenizer(), folder)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def grade_by(monkeypatch: pytest.MonkeyPatch, right_under: dict[str, int]) -> None:
    """Call a response right if its first character's code has this remainder by 2; None is right under other names."""

    def make(template: Template) -> Grader:
        remainder = right_under.get(template.name, -1)

        def grade(response: str, question: Question) -> Grade:
            right = bool(response) and ord(response[0]) % 2 == remainder
            return Grade(right, bool(response), "correct" if right else "wrong", response)

        return grade

    monkeypatch.setattr(start, "make_grader", make)


SMALL = ("--budget", "8", "--count", "6", "--samples", "4")


def test_a_model_that_is_never_right_gets_no_recipe_and_is_told_why(model: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("start", model, "synthetic:modular", "--templates", "none,qwen-math", *SMALL) == 1
    shown = capsys.readouterr().out
    assert "no template gives any reward: none of 48 responses is right" in shown
    assert "at most 13.8%" in shown  # Wilson's upper bound for 0 of 24
    assert list(Path().iterdir()) == []


def test_the_recipe_takes_the_template_with_mixed_groups_and_trains_as_it_is(
    model: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    grade_by(monkeypatch, {"qwen-math": 0})
    arguments = ("start", model, "synthetic:modular", "--templates", "none,qwen-math")
    assert run(*arguments, *SMALL, "--out", "new/mine.toml") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["template", "right", "in", "format", "truncated", "mixed", "tokens", "s/step"]
    assert lines[1].startswith("none")
    assert " 0%" in lines[1]
    config = load_run_config(Path("new/mine.toml"))
    assert (config.template.name, config.model.path) == ("qwen-math", str(model))
    assert config.questions.holdout > 0
    lines = Path("new/mine.toml").read_text().splitlines()
    chosen = [line for line in lines if line.startswith(('name = "q', "max_new"))]
    assert all("#" in line for line in chosen)
    small = settings("steps=1", "rollout.max_new_tokens=8", 'out="run"')
    assert run("train", "new/mine.toml", *small) == 0
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) >= 1


def test_questions_that_are_all_right_already_are_said_to_be(
    model: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Grade(True, True, "correct", "1")
    monkeypatch.setattr(start, "make_grader", lambda template: lambda response, question: right)
    assert run("start", model, "synthetic:modular", "--templates", "none", *SMALL) == 1
    assert "right already" in capsys.readouterr().out


def test_few_questions_are_all_trained_on(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grade_by(monkeypatch, {"none": 0})
    rows = [json.dumps({"problem": f"{i} + 1 = ?", "answer": str(i + 1)}) for i in range(8)]
    Path("few.jsonl").write_text("\n".join(rows))
    assert run("start", model, "few.jsonl", "--templates", "none", *SMALL) == 0
    config = load_run_config(Path("tiny-start.toml"))
    assert (config.questions.holdout, config.evaluation.every) == (0, 0)


def test_what_cannot_be_used_is_refused_in_one_line(model: Path, capsys: pytest.CaptureFixture) -> None:
    Path("there.toml").write_text("mine")
    for arguments, message in (
        (("synthetic:modular", "--out", "there.toml"), "already there"),
        (("math500",), "test benchmark"),
        (("synthetic:modular", "--templates", "chat"), "no chat template"),
        (("synthetic:modular", "--templates", "mine"), "unknown"),
        (("synthetic:modular", "--budget", "5000"), "lower --budget"),
        (("absent.jsonl",), "absent.jsonl"),
    ):
        assert message in refusal(capsys, "start", model, *arguments)
    assert Path("there.toml").read_text() == "mine"
    assert "cannot write" in refusal(capsys, "start", model, "synthetic:modular", "--out", "there.toml/new.toml")
    assert "model" in refusal(capsys, "start", "./absent", "synthetic:modular")
