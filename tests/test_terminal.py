"""Nothing that comes from data acts on the terminal: one sink for every print, and an attack on every surface."""

import ast
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.live import Live
from rich.progress import Progress as RichProgress
from rich.progress import TextColumn

from command import run, settings
from report.run_folders import metric_row, write_run
from zerolab.report.progress import Progress
from zerolab.terminal import make_console, visible

SOURCE = Path(__file__).parent.parent / "src" / "zerolab"
# Whatever a terminal acts on: colours, its title, a bell, C1 codes, text direction; and what rich would read as markup.
EVIL = "\x1b[31mred\x1b]0;title\x07\x9b5m\u202e[/x]"
SHOWN = "\\x1b[31mred\\x1b]0;title\\x07\\x9b5m\\u202e[/x]"
Arguments = list[object]


def test_every_print_goes_through_the_one_sink() -> None:
    """terminal.py alone uses `print`, rich's Console and click's echo; the grader's worker speaks JSON to a pipe."""
    strays = []
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).as_posix() in ("terminal.py", "grading/sandbox_worker.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                stray = name in ("print", "Console", "rich.print", "sys.stdout.write", "sys.stderr.write")
                if stray or name.startswith(("typer.echo", "typer.secho", "click.")):
                    strays.append(f"{path.relative_to(SOURCE)}:{node.lineno}: {name}")
    assert not strays, strays


def test_visible_shows_control_and_direction_characters_and_keeps_the_rest() -> None:
    assert visible(EVIL) == SHOWN
    assert visible("plain é 数 \t\n") == "plain é 数 \t\n"
    assert visible("\udc80\x00\r") == "\\udc80\\x00\\x0d"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_console_escapes_texts_and_not_its_own_codes(terminal: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    out = io.StringIO()
    console = make_console(file=out, force_terminal=terminal, width=200, color_system="truecolor" if terminal else None)
    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL)
    table.add_row(Text(EVIL, style="green"))
    console.print(table, EVIL, Text(EVIL))
    console.rule(EVIL)
    with Live(table, console=console):
        pass
    with RichProgress(TextColumn("{task.description}", markup=False), console=console) as bar:
        bar.add_task(EVIL)
    text = out.getvalue()
    assert "\x1b[31m" not in text
    assert "\x1b]" not in text
    assert "\x9b" not in text
    assert "\u202e" not in text
    assert text.count("\\x1b[31mred") >= 8
    assert ("\x1b[32m" in text) == terminal  # the green that we asked for


def responses(folder: Path, name: str = "r.jsonl", **more: object) -> Path:
    row = {"problem": f"What {EVIL}?", "answer": "7", "response": f"\\boxed{{{EVIL}}}", "question_id": EVIL, **more}
    path = folder / name
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "question_id": "two", "response": "wait, 7"}) + "\n")
    return path


def columns(folder: Path, name: str = "r.jsonl") -> Path:
    return responses(folder, name, model=EVIL, benchmark=EVIL, template=EVIL)


def recipe(folder: Path, text: str) -> Path:
    path = folder / "evil.toml"
    path.write_text(text)
    return path


def grade_with_scores(folder: Path) -> Arguments:
    return ["grade", responses(folder, scores=[True])]


def compare_models(folder: Path) -> Arguments:
    return ["compare", columns(folder), responses(folder, "b.jsonl", benchmark=EVIL, model=f"b {EVIL}")]


def overlap_sets(folder: Path) -> Arguments:
    text = f"{EVIL} " + " ".join(f"word{i}" for i in range(20))
    names = (f"{EVIL.replace('/', '')}.jsonl", "bench.jsonl")
    for name in names:
        (folder / name).write_text(json.dumps({"question": text, "answer": "1"}) + "\n")
    return ["overlap", folder / names[0], "--benchmarks", folder / names[1]]


def plan_named(folder: Path) -> Arguments:
    return ["plan", "laptop/grpo", "--gpus", EVIL]


def dry_run_named(folder: Path) -> Arguments:
    return ["train", "laptop/grpo", "--dry-run", *settings(f"template.name='{EVIL}'", "template.text='{question}'")]


def import_yaml(folder: Path) -> Arguments:
    path = folder / "trl.json"
    path.write_text(json.dumps({"loss_type": "grpo", "model_name_or_path": EVIL, EVIL: 3}))
    return ["import-trl", path]


SURFACES: dict[str, Callable[[Path], Arguments]] = {
    "question ids and answers in a summary": grade_with_scores,
    "an unknown option": lambda folder: ["grade", f"--{EVIL}"],
    "an unknown verb": lambda folder: [EVIL],
    "a file name that is missing": lambda folder: ["grade", folder / EVIL.replace("/", "")],
    "a file name that is there": lambda folder: ["grade", responses(folder, EVIL.replace("/", "") + ".jsonl")],
    "model and benchmark columns of an evaluation": lambda folder: ["evaluate", columns(folder)],
    "model and benchmark columns of a comparison": compare_models,
    "model and template columns of an analysis": lambda folder: ["analyze", columns(folder), "--out", folder / "out"],
    "rows of an overlap": overlap_sets,
    "a run's name, followed": lambda folder: ["watch", "--once", write_run(folder / "r", [metric_row(1)], name=EVIL)],
    "a run folder's name": lambda folder: ["report", write_run(folder / EVIL.replace("/", ""), [metric_row(1)])],
    "a key of a recipe": lambda folder: ["train", recipe(folder, f"{json.dumps(EVIL)} = 1\n")],
    "a value of a recipe": lambda folder: ["train", recipe(folder, f"steps = {json.dumps(EVIL)}\n")],
    "a recipe shown": lambda folder: ["recipe", "show", recipe(folder, "# \u202e\x9b5m\n")],
    "a difference of recipes": lambda folder: [
        "recipe",
        "diff",
        "laptop/grpo",
        recipe_with_name(folder),
    ],
    "a dry run": dry_run_named,
    "a device that is unknown": plan_named,
    "a configuration of TRL": import_yaml,
    "a preset that is unknown": lambda folder: ["certify", EVIL],
    "a target of an audit": lambda folder: ["audit", EVIL],
    "a claim that is unknown": lambda folder: ["claims", "show", EVIL],
    "a set of questions": lambda folder: ["sample", "nowhere", "--questions", EVIL],
    "an endpoint": lambda folder: ["evaluate", "m", "--endpoint", EVIL, "--benchmarks", columns(folder)],
}


def recipe_with_name(folder: Path) -> Path:
    from zerolab.recipes import find_recipe

    text = find_recipe("laptop/grpo").read_text()
    return recipe(folder, text.replace('name = "', f'name = "{json.dumps(EVIL)[1:-1]}', 1))


@pytest.mark.parametrize("surface", SURFACES)
def test_no_surface_passes_an_escape_on(
    surface: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(*SURFACES[surface](tmp_path))
    out, err = capsys.readouterr()
    text = out + err
    bad = {c for c in text if c not in "\n\t" and visible(c) != c}
    assert not bad, text
    assert "x1b" in text or "u202e" in text, f"the attack did not reach this surface: {text}"


def test_progress_lines_show_names_and_messages(capsys: pytest.CaptureFixture) -> None:
    with Progress(EVIL, 1) as shown:
        shown.row(1, {"loss": 1.0})
        shown.message(EVIL)
    text = capsys.readouterr().err
    assert "\x1b" not in text
    assert text.count(SHOWN) == 3


def test_a_traceback_is_escaped_too(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    run("recipe", "list")
    error = RuntimeError(EVIL)
    sys.excepthook(RuntimeError, error, None)
    text = capsys.readouterr().err
    assert SHOWN in text
    assert "\x1b" not in text
