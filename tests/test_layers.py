"""Who may know whom. Read from the source of every module, so that imports inside functions count too."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "zerolab"
FILES = sorted(SOURCE.rglob("*.py"))

# From the ground up. A room (a folder or a file of src/zerolab) imports from rooms of lower floors only.
FLOORS = (
    ("errors", "types", "signals", "phrases", "cores", "terminal"),
    ("toml", "track", "digests", "run_lock"),
    ("config", "data", "grading", "rl"),
    ("models",),
    ("rollout", "learner"),
    ("vllm", "inputs"),
    ("rundir", "report", "evaluation"),
    ("recipes", "controls", "importing"),
    ("pretrain", "audit", "cluster"),
    ("build", "analysis", "plan"),
    ("train", "continual"),
    ("claims", "reference", "sample"),
    ("demo",),
    ("doctor", "listings"),
    ("cli",),
)
# Neighbours on a floor that know each other, and why.
NEIGHBOURS = {
    ("reference", "claims"): "docs/results.md holds the ledger's table",
    ("config", "rl"): "an objective is a part of a run's config",
    ("config", "data"): "templates and synthetic families are checked when the config loads",
    ("data", "config"): "questions and templates are made from their tables of the config",
    ("rl", "config"): "rewards are made from their table of the config",
    ("data", "grading"): "the gold of a worked solution is its last box",
    ("report", "rundir"): "a report reads the folders of runs",
    ("grading", "data"): "Countdown's verifier lives beside its questions",
    ("evaluation", "rundir"): "what an evaluation keeps is written whole or not at all, with the facts of its session",
}
# Packages that only these rooms may import.
ROOMS = {
    "ray": {"cluster"},
    "vllm": {"vllm"},
    "trl": {"audit", "claims"},
    "matplotlib": {"report", "audit", "analysis", "evaluation", "claims"},
    "wandb": {"track"},
    "trackio": {"track"},
}
# What untrusted text must never reach.
CALLS = {"eval", "exec", "compile", "__import__"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}

FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all imported modules, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            module = str(node.module)
            yield from ([f"zerolab.{alias.name}" for alias in node.names] if module == "zerolab" else [module])


def strangers(room: str, tree: ast.AST) -> list[str]:
    """Imports that this room may not have."""
    found = []
    for name in imports(tree):
        package, *rest = name.split(".")
        if package in ROOMS and room not in ROOMS[package]:
            found.append(name)
        if package == "zerolab" and rest and rest[0] != room:
            lower = FLOOR.get(rest[0], len(FLOORS)) < FLOOR[room]
            if not lower and (room, rest[0]) not in NEIGHBOURS:
                found.append(name)
    return found


def dangers(tree: ast.AST) -> list[str]:
    """Ways to run text or data as code."""
    found = [name for name in imports(tree) if name.split(".")[0] in PICKLES]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in CALLS or name in {"torch.load", "yaml.load", "os.system"}:
            found.append(name)
        for keyword in node.keywords:
            allowed = {"trust_remote_code": False, "shell": False, "allow_pickle": False}
            if keyword.arg in allowed and ast.unparse(keyword.value) != "False":
                found.append(f"{name}({keyword.arg}={ast.unparse(keyword.value)})")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_knows_only_what_lies_below_it(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    room = room_of(path)
    if room in ("__init__", "__main__"):
        assert set(imports(tree)) <= {"zerolab.cli", "zerolab.train", "typing"}
        return
    assert room in FLOOR, f"{room} has no floor: give it one in FLOORS"
    assert strangers(room, tree) == []
    assert dangers(tree) == []


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("rl", "from zerolab.rollout.engine import Engine"),
        ("rollout", "def f():\n    from zerolab.learner import learner"),
        ("types", "from zerolab import config"),
        ("learner", "import ray"),
        ("train", "import vllm.entrypoints"),
        ("data", "import zerolab.cli"),
    ],
)
def test_the_rule_of_layers_can_be_broken(room: str, line: str) -> None:
    assert strangers(room, ast.parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "eval('1')",
        "exec(text)",
        "import pickle",
        "torch.load(path)",
        "from_pretrained(path, trust_remote_code=True)",
        "from_pretrained(path, trust_remote_code=flag)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_rule_of_safety_can_be_broken(line: str) -> None:
    assert dangers(ast.parse(line))


def test_the_rules_leave_harmless_lines_alone() -> None:
    tree = ast.parse(
        "model.eval()\nimport re\nre.compile('a')\nf(trust_remote_code=False)\nfrom zerolab.types import G"
    )
    assert strangers("rl", tree) == dangers(tree) == []


def test_importing_zerolab_needs_nothing_heavy() -> None:
    code = (
        "import sys, zerolab; print([m for m in ('torch', 'ray', 'vllm', 'transformers', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_contributing_shows_the_same_floors() -> None:
    table = re.findall(r"^\| (\d+) \| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    shown = {int(number): set(re.findall(r"`([a-z_]+)`", rooms)) for number, rooms in table}
    assert shown == {number: set(rooms) for number, rooms in enumerate(FLOORS)}


def test_files_fit_in_the_head() -> None:
    """About 400 lines a file, 60 a function."""
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 440, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 66, f"{path}: {node.name}"
