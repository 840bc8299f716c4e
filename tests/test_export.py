"""zerolab export: the folder loads as the model of the run, and the card says what was measured and starts it again."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from command import refusal, run, settings, write_recipe
from report.run_folders import metric_row, write_run
from test_train import assert_same_run
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.evaluation.intervals import population_interval
from zerolab.export import card, export, read_exported
from zerolab.models.hf import export_model, load_model, load_tokenizer
from zerolab.recipes import run_config
from zerolab.rundir import read_metrics

LOOKS = '{"checkpoint": "step_000002", "benchmark": "math500", "when": "today"}\n'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps with three checkpoints, evaluated at both ends."""
    folder = tmp_path_factory.mktemp("run")
    export_model(tiny_model("qwen2"), tiny_tokenizer(), folder / "model")
    recipe = write_recipe(folder / "recipe.toml", folder / "model", steps=3)
    changes = (
        "checkpoint.every=1",
        "checkpoint.keep=3",
        "evaluation.samples_per_question=4",
        "evaluation.temperature=1",
    )
    assert run("train", recipe, *settings(f"out={folder / 'run'}", *changes)) == 0
    (folder / "run" / "test_looks.jsonl").write_text(LOOKS)
    return folder / "run"


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    assert run("export", finished, folder) == 0
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run, which a test may damage."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_the_folder_is_the_model_of_the_checkpoint_and_nothing_of_its_training(finished: Path, exported: Path) -> None:
    checkpoint = finished / "checkpoints" / "step_000003"
    ids = torch.arange(12)[None]
    assert torch.equal(load_model(exported)(ids).logits, load_model(checkpoint)(ids).logits)
    assert load_tokenizer(exported).encode("1+2") == load_tokenizer(checkpoint).encode("1+2")
    names = {path.name for path in exported.iterdir()}
    assert not names & {"optimizer.safetensors", "learner.json", "loop.json", "files.json"}
    assert names - {"README.md"} <= {path.name for path in checkpoint.iterdir()}


def test_an_earlier_checkpoint_has_the_numbers_of_its_own_step(finished: Path, tmp_path: Path) -> None:
    export(finished, tmp_path / "early", 2, None, print)
    text = (tmp_path / "early" / "README.md").read_text()
    assert "| steps | 2 of 3 |" in text
    assert "step 3" not in text
    assert "* math500: step\\_000002 (this model)" in text or "* math500: step_000002 (this model)" in text
    early, whole = read_exported(finished, 2), read_exported(finished, None)
    assert [row["step"] for row in early.run.rows] == [0, 1, 2]
    assert len(whole.run.rows) == 4


def test_the_card_says_what_the_run_measured(finished: Path, exported: Path) -> None:
    last = read_metrics(finished)[-1]
    data = ModelCard.load(exported / "README.md").data  # parses and checks the metadata
    (result,) = data.eval_results
    assert result.metric_value == pytest.approx(last["eval/accuracy"], abs=1e-6)
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert {"zerolab", "grpo"} <= set(data.tags)
    text = (exported / "README.md").read_text()
    assert run_config(finished / "run.json").objective.formula() in text
    assert f"{last['eval/accuracy']:.3f} (" in text
    assert "the results are of one run, and another seed gives other results" in text
    assert "math500" in text
    assert "| torch | 2." in text


@pytest.mark.parametrize("samples", [1, 4])
def test_the_interval_of_the_card_is_that_of_the_responses(samples: int) -> None:
    """From a mean and its standard error alone, the same interval as from every response."""
    from zerolab.evaluation.intervals import population_interval_of

    correct_Q = np.random.default_rng(0).binomial(samples, 0.3, 40)
    rate_Q = correct_Q / samples
    error = float(rate_Q.std(ddof=1) / np.sqrt(40))
    found = population_interval_of(float(rate_Q.mean()), error, 40, 40 * samples)
    assert found == pytest.approx(population_interval(correct_Q, np.full(40, samples)), abs=1e-12)


def test_the_run_starts_again_from_its_card_to_the_bit(finished: Path, exported: Path, tmp_path: Path) -> None:
    config, again = run_config(finished / "run.json"), run_config(exported / "README.md")
    assert again == config.model_copy(update={"out": None})
    assert run("train", exported / "README.md", *settings(f"out={tmp_path / 'again'}")) == 0
    assert_same_run(finished, tmp_path / "again")


HOSTILE = "a|b <script>alert(1)</script> [c](https://d.e) ![f](g) `h` **i** # \u202e \x1b[31m ```"


def test_texts_of_a_run_are_shown_as_they_are(finished: Path) -> None:
    """Whatever stands in a run's files, the page has the elements of a plain one and no links."""
    plain = read_exported(finished, None)
    raw = plain.config.model_dump()
    raw["objective"]["name"] = HOSTILE
    raw["template"]["text"] = f"{{question}}\n```\n{HOSTILE}"
    raw["questions"]["sources"][0]["path"] = HOSTILE
    config = type(plain.config).model_validate({**raw, "name": HOSTILE.replace("/", "")[:60].replace("\u202e", "")})
    sessions = [{"python": HOSTILE, "versions": {HOSTILE: HOSTILE, "torch": "1"}, "platform": "x\n\n# y"}]
    warnings = [{"step": HOSTILE, "message": f"x\n\n* {HOSTILE}"}]
    plain = replace(plain, warnings=[{"step": 1, "message": "x"}])
    hostile = replace(
        plain, config=config, warnings=warnings, looks=[(HOSTILE, HOSTILE)], run=replace(plain.run, sessions=sessions)
    )
    text = card(hostile)
    assert tags(text) == tags(
        card(
            replace(
                plain,
                run=replace(
                    plain.run, sessions=[{"python": "3", "versions": {"a": "b", "torch": "1"}, "platform": "x"}]
                ),
            )
        )
    )
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert ModelCard(text).data.model_name == config.name
    block = text.rpartition("```json\n")[2].partition("\n```")[0]
    assert json.loads(block)["template"]["text"] == raw["template"]["text"]


def tags(text: str) -> list[str]:
    """Every element of the page and every piece of raw HTML, in order."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text.partition("\n---\n")[2])
    flat = [inner for token in tokens for inner in (token, *(token.children or ()))]
    return [token.content if "html" in token.type else token.type for token in flat if token.type != "text"]


def damaged(copied: Path) -> None:
    file = copied / "checkpoints" / "step_000003" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def test_bad_input_is_one_line_and_leaves_nothing(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "out"
    assert "no readable run.json" in refusal(capsys, "export", tmp_path, folder)
    assert "no checkpoint of step 9: there are those of 1, 2, 3" in refusal(
        capsys, "export", copied, folder, "--step", 9
    )
    assert "write OWNER/NAME" in refusal(capsys, "export", copied, folder, "--push", "a b")
    damaged(copied)
    assert "is damaged (model.safetensors has" in refusal(capsys, "export", copied, folder, "--step", 3)
    shutil.rmtree(copied / "checkpoints")
    assert "no whole checkpoint" in refusal(capsys, "export", copied, folder)
    assert not folder.exists()
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    assert "give a new folder" in refusal(capsys, "export", copied, folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    texts = write_run(tmp_path / "texts", [metric_row(1)])
    (texts / "run.json").write_text(json.dumps({"name": "a", "corpora": {}}))
    assert "is a run on texts" in refusal(capsys, "export", texts, tmp_path / "b")
    (tmp_path / "notes.md").write_text("no recipe here")
    assert "holds no recipe" in refusal(capsys, "train", tmp_path / "notes.md")


def test_a_folder_of_the_user_beside_the_new_one_stays(finished: Path, tmp_path: Path) -> None:
    kept = tmp_path / "out.partial" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("years of work")
    assert run("export", finished, tmp_path / "out") == 0
    assert kept.read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out", "out.partial"]


def test_the_folder_that_one_stands_in_is_refused(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "give a new folder" in refusal(capsys, "export", finished, ".")


def test_the_newest_whole_checkpoint_is_exported(copied: Path, tmp_path: Path) -> None:
    damaged(copied)
    assert run("export", copied, tmp_path / "out") == 0
    assert "| steps | 2 of 3 |" in (tmp_path / "out" / "README.md").read_text()


class Hub:
    """Stands for the hub, and remembers what it was asked."""

    calls: list[tuple[str, dict[str, Any]]]
    refuses = False

    def __init__(self) -> None:
        type(self).calls = []

    def create_repo(self, repository: str, **options: Any) -> None:
        if self.refuses:
            raise RuntimeError("401 Client Error.\n\nInvalid username or password.")
        self.calls.append((repository, options))

    def upload_folder(self, **options: Any) -> None:
        self.calls.append((options["repo_id"], options))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    monkeypatch.setattr("zerolab.export.HfApi", Hub)
    monkeypatch.setattr(ModelCard, "validate", lambda self, repo_type=None: None)
    yield Hub
    Hub.refuses = False


def test_a_push_is_private_and_a_refusal_keeps_the_folder(
    finished: Path, tmp_path: Path, hub: type[Hub], capsys: pytest.CaptureFixture
) -> None:
    assert run("export", finished, tmp_path / "a", "--push", "me/model") == 0
    (created, options), (uploaded, what) = hub.calls
    assert (created, uploaded, options["private"]) == ("me/model", "me/model", True)
    assert what["folder_path"] == tmp_path / "a"
    hub.refuses = True
    line = refusal_of_push(capsys, "export", finished, tmp_path / "b", "--push", "me/model")
    assert "401 Client Error. Invalid username or password." in line
    assert (tmp_path / "b" / "README.md").exists()


def refusal_of_push(capsys: pytest.CaptureFixture, *arguments: Any) -> str:
    capsys.readouterr()
    assert run(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_files_of_this_machine_are_named(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("export", finished, tmp_path / "a") == 0
    assert f"the card names files that exist only on this machine: {finished.parent / 'model'}" in (
        capsys.readouterr().out
    )
    assert "| base | model |" in (tmp_path / "a" / "README.md").read_text()
