"""Every command of every page runs as it is written, or the page says what it needs."""

import io
import sys
from collections import Counter
from pathlib import Path

import pytest
import typer

from command import run
from docs_workspace import NEEDS, Command, commands_of, help_examples, leaves, make_workspace
from zerolab.cli import app

ROOT = Path(__file__).parent.parent
# What was run once, by the versions of then; and the examples of --help, which run as such.
HISTORY = ("CHANGELOG.md", "lab_log.md", "commands.md")
PAGES = [p for p in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))) if p.name not in HISTORY]
COMMANDS = {page.name: list(dict.fromkeys(commands_of(page.read_text(encoding="utf-8")))) for page in PAGES}
# The example at the end of the help of every verb, and what some of them need.
HELP_NEEDS = {
    **dict.fromkeys(("demo", "evaluate"), "minutes"),
    "claims run": "hours",
    "sweep": "hours",
    "model fetch": "network",
    "start": "network",
    "drift": "network",
}
COMMANDS["--help"] = list(help_examples(HELP_NEEDS))
WITH_COMMANDS = [name for name, commands in COMMANDS.items() if commands]
EVERY = list(dict.fromkeys(command for commands in COMMANDS.values() for command in commands))
# A certificate starts two processes, which takes ten seconds: one runs here, the others beside what takes minutes.
CERTIFICATES = [command for command in EVERY if command.words[0] == "certify" and not command.needs]
SLOW = [command for command in EVERY if command.needs == ("minutes",)] + CERTIFICATES[1:]
DONE: set[tuple[str, ...]] = set()  # the same command on two pages runs once


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    make_workspace(folder)
    return folder


def result_of(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, cache: str = "cache") -> int:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ZEROLAB_CACHE", str(folder / cache))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is 3 + 4?\n"))
    return run(*command.words)


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_commands_of_a_page_run_as_written(
    page: str, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    failed = []
    for command in COMMANDS[page]:
        if not command.needs and command not in SLOW and command.words not in DONE:
            DONE.add(command.words)
            if code := result_of(command, workspace, monkeypatch):
                failed.append(f"{command.text}: exit code {code}: {capsys.readouterr().err[-300:]}")
    assert not failed, "\n".join([*failed, "mend it, or mark it in the page: [needs: network], GPU, minutes, ..."])


def test_needs_are_known_and_counted(capsys: pytest.CaptureFixture) -> None:
    unknown = [f"{c.text}: {need}" for c in EVERY for need in c.needs if need not in NEEDS]
    assert not unknown, unknown
    counts = Counter(", ".join(c.needs) or ("slow" if c in SLOW else "run here") for c in EVERY)
    with capsys.disabled():
        print(f"\n{len(EVERY)} commands in {len(WITH_COMMANDS)} pages:", dict(counts.most_common()))
    assert counts["run here"] > len(EVERY) / 2


def test_every_verb_has_an_example_of_itself() -> None:
    verbs = [verb for verb, _ in leaves(typer.main.get_command(app))]
    for verb, example in zip(verbs, COMMANDS["--help"], strict=True):
        assert example.words[: len(verb.split())] == tuple(verb.split())


@pytest.mark.slow
@pytest.mark.parametrize("command", SLOW, ids=lambda command: command.text)
def test_commands_of_minutes_run_as_written(
    command: Command, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in a folder of its own, since two pages may train the same recipe; all with one cache of bases."""
    make_workspace(tmp_path)
    assert result_of(command, tmp_path, monkeypatch, cache=str(workspace / "cache")) == 0
