"""Pretraining on texts as a user runs it: it learns, survives a kill to the bit, and RL goes on from its model."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from command import refusal, run, settings, start, write_recipe
from test_train import final_weights, wait_for_step, without_timings
from zerolab.pretrain import pretrain
from zerolab.rundir import read_metrics

RECIPE = """
name = "texts"
steps = {steps}
tokens_per_step = 300
context = 64
threads = 1
[model]
path = "{model}"
[corpora]
holdout = 0.2
shuffle_buffer = 7
[[corpora.sources]]
path = "{texts}"
[[corpora.sources]]
path = "synthetic:arithmetic"
weight = 0.5
[learner]
lr = 1e-3
schedule = "wsd"
[evaluation]
every = 4
max_documents = 3
[checkpoint]
every = 3
"""


@pytest.fixture
def recipe(model_folder: Path, tmp_path: Path) -> Path:
    rows = [{"problem": f"What is {i} + {i}?", "solution": f"It is the sum of both, so {2 * i}"} for i in range(25)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return write(tmp_path, model_folder)


def write(folder: Path, model: Path, steps: int = 8) -> Path:
    (folder / "recipe.toml").write_text(RECIPE.format(steps=steps, model=model, texts=folder / "texts.jsonl"))
    return folder / "recipe.toml"


def assert_same_run(a: Path, b: Path) -> None:
    assert without_timings(a) == without_timings(b)
    exported = tuple(load_file(folder / "model" / "model.safetensors") for folder in (a, b))
    for left, right in ((final_weights(a), final_weights(b)), exported):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_run_learns_and_leaves_all_that_is_needed_to_trust_it(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run("pretrain", recipe, *settings(f"out={folder}", "steps=30", "evaluation.every=15")) == 0
    rows = read_metrics(folder)
    assert [row["step"] for row in rows] == list(range(31))
    assert [row["step"] for row in rows if "eval/loss" in row] == [0, 15, 30]
    assert rows[-1]["loss"] < rows[1]["loss"] - 1
    assert rows[-1]["eval/loss/texts"] < rows[0]["eval/loss/texts"] - 1
    assert rows[-1]["mix/texts"] == pytest.approx(2 / 3, abs=0.01)
    assert rows[-1]["tokens/seen"] == sum(row["tokens/step"] for row in rows[1:])
    config = json.loads((folder / "run.json").read_text())
    assert config["corpora"]["sources"][1]["weight"] == 0.5
    assert json.loads((folder / "manifest.json").read_text())["sessions"][0]["seed"] == 0


def test_rl_goes_on_from_the_exported_model(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "run"
    assert run("pretrain", recipe, *settings(f"out={folder}", "steps=2", "evaluation.every=0")) == 0
    model = Path(capsys.readouterr().out.strip())
    assert model == folder / "model"
    assert all(torch.equal(v, final_weights(folder)[k]) for k, v in load_file(model / "model.safetensors").items())
    assert AutoModelForCausalLM.from_pretrained(model).config.model_type == "qwen2"
    rl = write_recipe(tmp_path / "rl.toml", model, steps=1)
    assert run("train", rl, "--dry-run") == 0
    assert run("train", rl, *settings(f"out={tmp_path / 'rl'}", "evaluation.every=0")) == 0


def test_kill_9_and_resume_equals_no_interruption_to_the_bit(recipe: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run("pretrain", recipe, *settings(f"out={whole}")) == 0
    process = start("pretrain", recipe, *settings(f"out={killed}"))
    wait_for_step(killed, 4, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run("pretrain", recipe, "--resume", *settings(f"out={killed}")) == 0
    assert_same_run(whole, killed)


def test_ctrl_c_saves_and_resume_goes_on(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zerolab import pretrain

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    changes = ["checkpoint.every=0", "evaluation.every=0"]
    assert run("pretrain", recipe, *settings(f"out={whole}", *changes)) == 0
    step = pretrain.train_step

    def interrupted(made: Any, number: int) -> Any:
        if number == 5:
            signal.raise_signal(signal.SIGINT)
        return step(made, number)

    monkeypatch.setattr(pretrain, "train_step", interrupted)
    assert run("pretrain", recipe, *settings(f"out={stopped}", *changes)) == 130
    assert [row["step"] for row in read_metrics(stopped)] == [1, 2, 3, 4, 5]
    monkeypatch.setattr(pretrain, "train_step", step)
    assert run("pretrain", recipe, "--resume", *settings(f"out={stopped}", *changes)) == 0
    assert_same_run(whole, stopped)


def test_accuracy_is_measured_by_the_evaluator_under_the_weights_of_the_moment(recipe: Path, tmp_path: Path) -> None:
    """Trained on nothing but one answer, the model comes to give it."""
    (tmp_path / "texts.jsonl").write_text('{"problem": "3 + 4 = ?", "solution": "so 7"}\n' * 8)
    (tmp_path / "q.jsonl").write_text('{"problem": "3 + 4 = ?", "answer": "7"}\n')
    changes = [
        *(f"out={tmp_path / 'run'}", "steps=25", "learner.lr=5e-3", "evaluation.every=25", "corpora.holdout=0"),
        f"evaluation.questions.path='{tmp_path / 'q.jsonl'}'",
        f"corpora.sources=[{{path='{tmp_path / 'texts.jsonl'}', loss='answer'}}]",
        *("evaluation.max_new_tokens=8", "evaluation.template.name=own", "evaluation.template.extractor=last-number"),
    ]
    text = 'evaluation.template.text="{question}\\n"'
    assert run("pretrain", recipe, *settings(*changes, text)) == 0
    rows = read_metrics(tmp_path / "run")
    assert [row["eval/accuracy"] for row in rows if "eval/accuracy" in row] == [0.0, 1.0]


def test_a_fresh_model_has_a_tokenizer_of_its_texts_and_python_gets_its_folder(recipe: Path, tmp_path: Path) -> None:
    from zerolab.models.hf import load_model, load_tokenizer

    folder = pretrain(
        {
            "steps": 3,
            "tokens_per_step": 200,
            "threads": 1,
            "out": str(tmp_path / "run"),
            "architecture": {"hidden_size": 16, "heads": 2, "layers": 1, "intermediate_size": 16, "context": 32},
            "model": {"vocab_size": 300},
            "corpora": {"path": str(tmp_path / "texts.jsonl")},
        }
    )
    tokenizer = load_tokenizer(folder)
    assert load_model(folder).config.vocab_size == len(tokenizer) <= 300
    assert len(tokenizer("What is")["input_ids"]) < 7  # merges were learned


def test_a_laptop_base_goes_on_from_its_weights_with_its_own_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a rate of next to nothing the result is the base."""
    from zerolab.worlds.base_model import base_model

    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "cache"))
    base = tmp_path / "base.toml"
    base.write_text(
        "steps = 2\ndocuments_per_step = 4\n[corpus]\nname = 'arithmetic'\n[gate]\nresponses = 1\nmax_new_tokens = 1"
    )
    folder = pretrain(
        {
            "steps": 2,
            "tokens_per_step": 100,
            "threads": 1,
            "out": str(tmp_path / "run"),
            "model": {"base": str(base)},
            "corpora": {"path": "synthetic:arithmetic"},
            "learner": {"lr": 1e-9},
            "evaluation": {"every": 1, "max_documents": 2},
        }
    )
    before, after = (load_file(f / "model.safetensors") for f in (base_model(str(base)), folder))
    assert all(torch.allclose(before[name], after[name], atol=1e-7) for name in before)
    assert not all(torch.equal(before[name], after[name]) for name in before)
    assert len({row["eval/loss"] for row in read_metrics(tmp_path / "run")}) > 1  # it did step


def test_a_laptop_base_and_a_run_on_texts_are_told_apart(recipe: Path, capsys: pytest.CaptureFixture) -> None:
    assert "--overwrite" in refusal(capsys, "pretrain", recipe, "--force")
    assert "--force" in refusal(capsys, "pretrain", "laptop/smoke-base", "--resume")
    line = refusal(capsys, "train", "laptop/smoke", *settings(f"model.base='{recipe}'", "out=/nowhere/run"))
    assert "set model.path" in line


BAD = {
    "no start": ("model={}", ["model.path, model.base", "architecture"]),
    "no tokenizer": ("model={}|architecture={}", ["model.tokenizer", "model.vocab_size"]),
    "nothing held out": ("corpora={path='x.jsonl'}", ["corpora.holdout"]),
    "beyond the model's context": ("context=999", ["999", "256 tokens"]),
    "a decay without its schedule": ("learner={decay_share=0.1}", ["decay_share", "wsd"]),
    "a test benchmark": ("evaluation.questions.path=aime24|evaluation.max_new_tokens=9", ["aime24", "allow_test"]),
    "questions without a budget": ("evaluation.questions.path=synthetic:modular", ["evaluation.max_new_tokens"]),
    "a template without a question": ("corpora={path='x.jsonl', template='x'}", ["corpora.template", "{question}"]),
    "no option of a file": ("corpora={path='x.jsonl', options={a=1}}", ["corpora.options", "synthetic:CORPUS"]),
    "misspelt key": ("corpora.holdot=0.1", ["holdot", "did you mean corpora.holdout"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_are_one_clear_line(case: str, recipe: Path, capsys: pytest.CaptureFixture) -> None:
    changes, words = BAD[case]
    line = refusal(capsys, "pretrain", recipe, *settings(f"out={recipe.parent / 'run'}", *changes.split("|")))
    for word in words:
        assert word in line
    assert not (recipe.parent / "run").exists()


def test_the_time_of_a_dry_run_is_that_of_the_last_pretraining_run_here(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "cache"))
    assert run("pretrain", recipe, "--dry-run") == 0
    assert "time: unknown" in capsys.readouterr().out
    assert run("pretrain", recipe, *settings(f"out={tmp_path / 'run'}", "steps=3")) == 0
    assert run("pretrain", recipe, "--dry-run") == 0
    assert "for 8 steps of" in capsys.readouterr().out


def test_a_dry_run_says_tokens_steps_and_memory(recipe: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("pretrain", recipe, "--dry-run") == 0
    out = capsys.readouterr().out
    _, end = json.JSONDecoder().raw_decode(out)
    found = {" ".join(line.split()[:-1]): line.split()[-1] for line in out[end:].split("\n") if line.split()}
    assert found["tokens in all"] == "2,400"
    assert found["of synthetic:arithmetic"] == "800"
    assert "sum, without activations" in out
