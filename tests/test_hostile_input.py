"""Bad input gives one line and never a traceback: long names, places that cannot be written, and two fuzzers."""

import json
import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click
import pytest
import typer

from command import refusal, run, settings, write_recipe
from docs_workspace import leaves
from report.run_folders import metric_row, write_run
from zerolab.cli import app
from zerolab.config import load_run_config
from zerolab.recipes import find_recipe

LONG = "x" * 5000
QUESTIONS = "".join(json.dumps({"question": f"{i}+1", "answer": str(i + 1)}) + "\n" for i in range(12))
RESPONSES = json.dumps({"problem": "1+1", "answer": "2", "response": r"\boxed{2}", "question_id": "q"}) + "\n"
ARGUMENTS, CONFIGS = 1000, 2000  # tries of the fuzzers
FUZZ_SECONDS = 60.0  # that one of them may take
LIMITED = {"--once": ["watch"], "--dry-run": ["train", "pretrain", "sweep", "claims run"]}
ENDLESS = {"demo": ["--recipe", "missing"], "doctor": []}  # verbs that would do their work whatever they are given
VERBS = dict(leaves(typer.main.get_command(app)))


@pytest.fixture
def workspace(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, questions, responses, a run, a recipe, and `file`, which is no folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "cache"))
    shutil.copytree(model_folder, tmp_path / "model")
    (tmp_path / "q.jsonl").write_text(QUESTIONS)
    (tmp_path / "r.jsonl").write_text(RESPONSES)
    (tmp_path / "file").write_text("")
    (tmp_path / "bytes.jsonl").write_bytes(bytes(range(256)))
    write_run(tmp_path / "run", [metric_row(1)])
    write_recipe(tmp_path / "recipe.toml", model_folder)
    return tmp_path


def named_parameters(verb: str) -> list[tuple[str, str]]:
    """(verb, option) for every text and path that a verb takes; "" stands for its arguments."""
    found = [("", p) if isinstance(p, click.Argument) else (p.opts[0], p) for p in VERBS[verb].params]
    return [(verb, option) for option, p in found if not getattr(p, "is_flag", False) and option != "--set"]


@pytest.mark.parametrize(("verb", "option"), [pair for verb in VERBS for pair in named_parameters(verb)])
def test_a_name_of_five_thousand_characters_is_no_traceback(
    verb: str, option: str, workspace: Path, capsys: pytest.CaptureFixture
) -> None:
    code = run(*verb.split(), *valid_arguments(verb, option), *([option, LONG] if option else []))
    out, err = capsys.readouterr()
    assert code in (0, 1, 2)
    assert "Traceback" not in out + err


def valid_arguments(verb: str, without: str) -> list[str]:
    """Arguments of a verb that are small, those that `without` names ("": the positional ones) as long names."""
    values = {
        **dict.fromkeys(("recipe", "a", "b"), "recipe.toml"),
        "run": "run",
        "runs": "run",
        "folder": "new",
        "model": "model",
        "questions": "q.jsonl",
        "file": "r.jsonl",
        "target": "r.jsonl",
        "targets": "r.jsonl",
        "training": "q.jsonl",
        "claim": "L1",
        "claims": "L1",
        "presets": "dr_grpo",
        "name": "none",
    }
    words = [flag for flag, verbs in LIMITED.items() if verb in verbs]
    words += ENDLESS.get(verb, [])
    if verb == "plan":
        words += ["--gpus", "1xH100"] if without != "--gpus" else []
    if verb in ("evaluate", "overlap"):
        words += ["--benchmarks", "q.jsonl"] if without != "--benchmarks" else []
    arguments = [LONG if not without else values[p.name] for p in VERBS[verb].params if isinstance(p, click.Argument)]
    if verb == "audit":
        arguments = [LONG]
    return [*words, *arguments]


# What each verb writes; "file" is a file, so nothing can lie below it, "run" is a folder, where a file is asked for.
OUTPUTS: dict[str, tuple[object, ...]] = {
    "train": ("train", "recipe.toml", *settings("out=file/below")),
    "sweep": ("sweep", "recipe.toml", "--seeds", "0-1", "--out", "file/below"),
    "demo": ("demo", "--out", "file/below"),
    "plan": ("plan", "laptop/grpo", "--gpus", "1xH100", "--json", "file/below"),
    "plan, a folder": ("plan", "laptop/grpo", "--gpus", "1xH100", "--json", "run"),
    "certify, JSON": ("certify", "dr_grpo", "--json", "run"),
    "certify, figure": ("certify", "dr_grpo", "--png", "file/below"),
    "audit": ("audit", "trl", "--json", "run"),
    "grade": ("grade", "r.jsonl", "--out", "file/below"),
    "evaluate": ("evaluate", "r.jsonl", "--out", "file/below"),
    "compare": ("compare", "r.jsonl", "b.jsonl", "--out", "file/below"),
    "analyze": ("analyze", "r.jsonl", "--out", "file/below"),
    "overlap": ("overlap", "q.jsonl", "--benchmarks", "q.jsonl", "--out", "file/below"),
    "start": ("start", "model", "q.jsonl", "--out", "file/below"),
    "drift": ("drift", "model", "--questions", "q.jsonl", "--out", "file/below"),
    "report": ("report", "run", "--out", "file/below"),
    "report, figures": ("report", "run", "--figures", "file/below"),
    "export": ("export", "run", "file/below"),
    "import-trl": ("import-trl", "trl.json", "--out", "file/below"),
    "model import": ("model", "import", "bytes.jsonl", "file/below"),
    "claims report": ("claims", "report", "--out", "file/below"),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_a_place_that_cannot_be_written_is_refused_in_one_line(
    case: str, workspace: Path, capsys: pytest.CaptureFixture
) -> None:
    (workspace / "trl.json").write_text('{"loss_type": "grpo"}')
    (workspace / "b.jsonl").write_text(RESPONSES)
    before = sorted(workspace.iterdir())
    refusal(capsys, *OUTPUTS[case])
    left = sorted(path for path in workspace.iterdir() if path.name != "cache")
    assert left == before


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """A write names no file."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zerolab.recipes.header", full)
    assert refusal(capsys, "recipe", "list") == "zerolab: cannot write: No space left on device"
    monkeypatch.setattr("zerolab.recipes.header", lambda path: Path("/nowhere/\x1b[31m").read_bytes())
    assert refusal(capsys, "recipe", "list").endswith("cannot use /nowhere/\\x1b[31m: No such file or directory")


# Words that a shell can pass on, few of which a verb can mean.
WORDS = (
    *("", " ", "-", "--", "=", "a=b", "[", "{", "'", '"', "\\", "*", "%s", "{0}", "$HOME", "\n", "\t", "\x1b[31m"),
    *(".", "..", "/", "~", "~nobody", "model", "run", "q.jsonl", "r.jsonl", "file", "bytes.jsonl", "missing"),
    *("/dev/null", "/dev/full", "/proc/self/mem", "/etc/passwd", "file/below", "recipe.toml", "none.toml", "x.json"),
    *("-1", "0", "1", "2", "1.5", "nan", "inf", "-inf", "1e400", "9" * 30, "0x10", "1_0", "١", "true", "null"),
    *(
        "x" * 300,
        "é" * 200,
        "\u202e",
        "\udcff",
        "a\udcffb",
        "😀",
        "laptop/grpo",
        "synthetic:modular",
        "synthetic:",
        "hf:",
    ),
    *(
        "org/name",
        "../..",
        "a/b/c",
        "http://",
        "http://127.0.0.1:9/v1",
        "0-4",
        "4-0",
        "0,0",
        "grpo,dr_grpo",
        ":",
        "a:b",
    ),
)
TOML_VALUES = (
    *(
        "",
        "[]",
        "{}",
        "[[]]",
        "{a=1}",
        "''",
        "'x'",
        "true",
        "nan",
        "inf",
        "-inf",
        "-1",
        "0",
        "1",
        "2",
        "1e-30",
        "1e300",
    ),
    *("9" * 30, "9223372036854775807", "-9223372036854775808", "65537", "1.5", "1979-05-27", "07:32:00", "[1,'a']"),
    *("'" + "x" * 300 + "'", '"\\u0000"', '"\\u001b"', '"a\\nb"', "'../x'", "'/'", "'~'", "'model'", "'q.jsonl'"),
    *("'synthetic:modular'", "'{question}'", "'{'", "'%'", "[{path='q.jsonl'}]", "{path='model'}", "'cuda'", "'cpu:1'"),
)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def found_wrong(words: Sequence[str], capsys: pytest.CaptureFixture) -> str:
    """The problem of a command; "" if it was refused in one line or did its work."""
    try:
        with deadline(FUZZ_SECONDS):
            code = run(*words)
    except Exception as error:  # a traceback for the user
        return f"{type(error).__name__}: {error}"
    finally:
        out, err = capsys.readouterr()
    if code not in (0, 1, 2):
        return f"exit code {code}"
    if any(ord(c) < 32 and c not in "\n\t\r" for c in out + err):
        return "a control character reached the terminal"
    return "a traceback" if "Traceback" in out + err else ""


def problems_of(commands: Sequence[list[str]], kind: str, capsys: pytest.CaptureFixture) -> list[str]:
    """What is wrong with the commands that were neither done nor refused in one line. Prints the rate."""
    started = time.perf_counter()
    wrong = [f"{words}: {problem}" for words in commands if (problem := found_wrong(words, capsys))]
    rate = len(commands) / (time.perf_counter() - started)
    with capsys.disabled():
        print(f"\n{len(commands):,} {kind}, {rate:,.1f} per second, {len(wrong)} not refused in one line")
    return wrong


NEVER_DRAWN = ("--all", "--push", "--dry-run", "--endpoint", "--resume")


def random_command(draw: random.Random) -> list[str]:
    """A verb with some of its options and arguments, of which about half have a word that fits."""
    verb = draw.choice(sorted(VERBS))
    words = [*verb.split(), *(flag for flag, verbs in LIMITED.items() if verb in verbs), *ENDLESS.get(verb, [])]
    for parameter in VERBS[verb].params:
        if isinstance(parameter, click.Argument):
            words.append(draw.choice(WORDS))
        elif draw.random() < 0.25 and parameter.opts[0] not in NEVER_DRAWN:
            words.append(draw.choice(parameter.opts))
            words += [] if getattr(parameter, "is_flag", False) else [draw.choice(WORDS)]
    return words


def config_keys(table: dict[str, Any], above: str = "") -> Iterator[str]:
    for key, value in table.items():
        yield above + key
        if isinstance(value, dict):
            yield from config_keys(value, f"{above}{key}.")


def random_settings(draw: random.Random, keys: Sequence[str]) -> list[str]:
    """A dry run with up to three keys set to values of which few are meant."""
    chosen = [f"{draw.choice(keys)}={draw.choice(TOML_VALUES)}" for _ in range(draw.randint(1, 3))]
    return ["train", "recipe.toml", "--dry-run", *settings(*chosen)]


def test_a_few_commands_of_the_fuzzers(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    draw, keys = random.Random(0), all_keys()
    assert problems_of([random_settings(draw, keys) for _ in range(40)], "configs", capsys) == []


def all_keys() -> list[str]:
    config = load_run_config(find_recipe("laptop/grpo"), ["lora.rank=2", "cluster.engines=1"])
    return list(config_keys(json.loads(config.model_dump_json())))


@pytest.mark.slow
def test_random_arguments_are_refused_in_one_line(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    draw = random.Random(1)
    assert problems_of([random_command(draw) for _ in range(ARGUMENTS)], "command lines", capsys) == []


@pytest.mark.slow
def test_random_configs_are_refused_in_one_line(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    draw, keys = random.Random(2), all_keys()
    assert problems_of([random_settings(draw, keys) for _ in range(CONFIGS)], "configs", capsys) == []
