"""Documents are true at this commit: written by the code where they can be, checked against it elsewhere."""

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tools import reference

from zerolab.cli import app
from zerolab.config import CorpusSource, DemoConfig, PretrainConfig, QuestionSource, RunConfig, TextRunConfig
from zerolab.errors import UserError
from zerolab.recipes import find_recipe
from zerolab.rl.objective import PRESETS
from zerolab.toml import known_keys, parse

ROOT = Path(__file__).parent.parent
KEYS = {key for model in (RunConfig, PretrainConfig, TextRunConfig, DemoConfig) for key in known_keys(model)}
VALUES = {key for key in KEYS if not any(other.startswith(f"{key}.") for other in KEYS)}  # tables left out
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def load_script(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("path", "text"), reference.pages(ROOT / "docs").items(), ids=lambda x: getattr(x, "name", ""))
def test_what_the_code_writes_is_up_to_date(path: Path, text: str) -> None:
    assert path.read_text(encoding="utf-8") == text, "run `make docs`"


def test_the_reference_gives_every_key_a_meaning() -> None:
    page = reference.config_page()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert all(line.split("|")[-2].strip() for line in rows.values())
    for key in VALUES:
        shown = key.removeprefix("evaluation.") if key.startswith("evaluation.questions.") else key
        table, _, name = shown.partition(".")
        source = {"questions": QuestionSource, "corpora": CorpusSource}.get(table)
        if source and name in source.model_fields:  # its shorthand
            shown = f"{table}.sources.{name}"
        assert shown in rows or name == "sources", key


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_page_begins_with_whom_it_is_for_and_a_command(page: Path) -> None:
    head = page.read_text(encoding="utf-8").partition("\n## ")[0]
    assert "For whoever" in head or "For a reader" in head
    assert re.search(r"(?m)^(    )?(zerolab|make|python|git) |`(zerolab|make) \w+", head)


def test_readme_is_read_in_a_minute() -> None:
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") <= 120


def test_every_preset_has_its_verdict() -> None:
    text = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
    section = text.split("## What the gradient is on-policy")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(PRESETS)


def test_a_page_without_its_markers_is_refused() -> None:
    assert reference.between("a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb", "x", "new\n").split("\n")[2] == "new"
    with pytest.raises(UserError, match="x:begin"):
        reference.between("nothing here", "x", "new")


NUMBER = re.compile(r"[-+]?\d+\.\d*")


def test_the_walkthrough_prints_what_it_says() -> None:
    """Word for word; numbers with a decimal point may differ in the last digit shown on another processor."""
    page = (ROOT / "docs" / "walkthrough.md").read_text(encoding="utf-8")
    again = load_script(ROOT / "docs" / "walkthrough.py").render(page)
    assert NUMBER.sub("#", again) == NUMBER.sub("#", page), "run `make docs`"
    written, measured = ([float(n) for n in NUMBER.findall(text)] for text in (page, again))
    assert measured == pytest.approx(written, abs=0.02)


def test_the_step_of_the_walkthrough_does_what_its_text_says() -> None:
    page = (ROOT / "docs" / "walkthrough.md").read_text(encoding="utf-8")
    moves = re.findall(r"response \d: advantage (\S+), change of log pi (\S+)", page)
    assert len(moves) == 8
    assert all(float(advantage) * float(change) > 0 for advantage, change in moves)
    assert page.count(": True") == 4  # three micro-batches on-policy, one gradient that no cut changes
    assert "version of the engine 1" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)|<img src=\"([^\"]+)\"", text):
        link = target[0] or target[1]
        if not link.startswith(("http://", "https://")):
            assert (page.parent / link).exists(), link


FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def commands(text: str) -> Iterator[list[str]]:
    """Every `zerolab ...` in code: spans of text and lines of blocks."""
    lines = [line for language, block in FENCE.findall(text) if not language for line in block.splitlines()]
    rest = FENCE.sub("", text)
    lines += [line for line in rest.splitlines() if line.startswith("    ")] + re.findall(r"`([^`\n]+)`", rest)
    for line in lines:
        if line.strip().startswith(("zerolab ", ".venv/bin/zerolab ")):
            yield shlex.split(re.split(r"\s{2,}", line.strip())[0], comments=True)[1:]


def leaf(words: list[str]) -> tuple[Any, list[str]]:
    """The command that these words call, and the words left for it."""
    command = typer.main.get_command(app)
    while words and not words[0].startswith("--") and hasattr(command, "commands"):
        assert words[0] in command.commands, f"no verb {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_exist_with_their_options_and_recipes(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        command, rest = leaf(words)
        options = {option for p in command.params for option in (*p.opts, *p.secondary_opts)} | {"--help"}
        for word in rest:
            if word.startswith("--"):
                assert word.split("=")[0] in options, f"{words}: no option {word}"
            elif word.startswith(("laptop/", "paper/", "recipes/")):
                find_recipe(word)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_recipes_in_documents_resolve(page: Path) -> None:
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "toml":
            raw = tomllib.loads(block)
            if "corpora" in raw:
                parse(TextRunConfig, raw, page.name)
            else:
                assert parse(RunConfig, raw, page.name).objective.formula()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_make_targets_and_paths_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"[`\n]make ([a-z]+)", text)) <= targets
    for path in re.findall(r"`((?:src/zerolab|docs|tests|recipes|benchmarks|examples)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_keys_and_metrics_in_a_document_exist(page: Path) -> None:
    """`reward.truncation`, `mismatch/abs`: names in code spans that look like a key or a metric."""
    text = page.read_text(encoding="utf-8")
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "zerolab").rglob("*.py"))
    keys = {*KEYS, "objective.preset"}
    tables = {key.split(".")[0] for key in keys if "." in key}
    files = (".py", ".md", ".jsonl", ".json", ".toml", ".png", ".txt", ".")
    for span in re.findall(r"`([a-z_]+\.[a-z_.]+)(?: = [^`]*)?`", text):
        if span.split(".")[0] in tables and not span.endswith(files) and page.name != "config.md":
            assert span in keys, span
    for span in re.findall(r"`((?:mismatch|eval|grader)/[a-z_0-9]+)`", text):
        assert f'"{span}"' in source, span


def test_the_five_lines_of_the_readme_train_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from command import run, settings
    from tiny_models import tiny_model, tiny_tokenizer
    from zerolab.models.hf import export_model
    from zerolab.rundir import read_metrics

    (block,) = [block for language, block in FENCE.findall((ROOT / "README.md").read_text()) if language == "toml"]
    assert len(block.splitlines()) == 5
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(block)
    Path("questions.jsonl").write_text('{"question": "What is 17 + 25?", "answer": "42"}\n')
    export_model(tiny_model("qwen2"), tiny_tokenizer(), tmp_path / "folder" / "or" / "hub-id")
    small = ["steps=1", "rollout.questions_per_step=2", "rollout.samples_per_question=2", "rollout.max_new_tokens=4"]
    assert run("train", "mine.toml", *settings(*small)) == 0
    assert len(read_metrics(Path("runs/mine"))) == 1
