"""Who may know whom. Read from the source of every module, so that imports inside functions count too."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.shape import broken_rules, measure

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "zerolab"
FILES = sorted(SOURCE.rglob("*.py"))

# From the ground up. A package (a folder or a file of src/zerolab) imports from packages of lower layers only.
LAYERS = (
    ("errors", "datatypes", "phrases", "terminal"),
    ("grading", "toml", "track", "run_lock", "files"),
    ("data", "rl"),
    ("config",),
    ("models", "importing"),
    ("rollout", "learner", "inputs"),
    ("rundir", "audit", "cluster"),
    ("recipes", "processes"),
    ("evaluation",),
    ("report",),
    ("worlds", "export"),
    ("build", "analysis", "plan", "document_streams", "doctor", "loop", "sweep"),
    ("train", "pretrain", "sample", "demo", "start", "drift"),
    ("claims",),
    ("cli",),
)
# Libraries that only these packages may import.
IMPORTERS = {
    "ray": {"cluster"},
    "vllm": {"rollout"},
    "trl": {"audit", "claims"},
    "matplotlib": {"report", "audit", "analysis", "evaluation", "claims", "drift"},
    "wandb": {"track"},
    "trackio": {"track"},
}
# Imports stand at the top of a file. Inside functions stand imports of command modules, of libraries that are not on
# every machine or take long to load, and those of these modules, for these reasons.
LATE_LIBRARIES = {
    *("ray", "vllm", "trl", "peft", "gguf", "openai", "wandb", "trackio", "reasoning_gym"),
    *("torch", "transformers", "matplotlib", "datasets", "pyarrow", "sympy"),
}
LATE_MODULES = {
    "__init__.py": "import zerolab loads nothing",
    "claims/experiments": "claims list reads every protocol without torch",
    "claims/results.py": "the same",
    "claims/runner.py": "the same",
    "claims/training.py": "the same",
    "cluster/launch.py": "what it imports needs Ray",
    "evaluation/samplers.py": "compare and overlap read response files without torch",
    "grading/comparison.py": "confirm needs sympy, which most answers do not",
    "grading/sandbox_worker.py": "a worker starts without sympy and reasoning-gym",
    "models/gguf_file.py": "plan and --dry-run read the header of a GGUF file without torch",
}
# What untrusted text must never reach.
CALLS = {"eval", "exec", "compile", "__import__"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}

LAYER = {package: number for number, packages in enumerate(LAYERS) for package in packages}


def package_of(path: Path) -> str:
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


def forbidden_imports(package: str, tree: ast.AST) -> list[str]:
    """Imports that this package may not have."""
    found = []
    for name in imports(tree):
        library, *rest = name.split(".")
        if library in IMPORTERS and package not in IMPORTERS[library]:
            found.append(name)
        if library == "zerolab" and rest and rest[0] != package:
            lower = LAYER.get(rest[0], len(LAYERS)) < LAYER[package]
            if not lower:
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


def late_imports(name: str, tree: ast.AST) -> list[str]:
    """Imports inside functions of a module that should stand at its top."""
    if name.startswith("cli/") or name.endswith("command.py") or {name, name.rpartition("/")[0]} & LATE_MODULES.keys():
        return []
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    found = {module for function in functions for module in imports(function)}
    return sorted(module for module in found if module.split(".")[0] not in LATE_LIBRARIES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_stand_at_the_top(path: Path) -> None:
    assert late_imports(path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))) == []


def test_the_rule_of_late_imports_can_be_broken() -> None:
    late = ast.parse("def f():\n    from zerolab.errors import UserError\n    import torch")
    assert late_imports("rl/loss.py", late) == ["zerolab.errors"]
    assert late_imports("rl/command.py", late) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_knows_only_what_lies_below_it(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = package_of(path)
    if package in ("__init__", "__main__"):
        assert set(imports(tree)) <= {"zerolab.cli", "zerolab.train", "typing"}
        return
    assert package in LAYER, f"{package} has no layer: give it one in LAYERS"
    assert forbidden_imports(package, tree) == []
    assert "vllm" not in {name.split(".")[0] for name in imports(tree)} or path.name.startswith("vllm_")
    assert dangers(tree) == []


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("rl", "from zerolab.rollout.engine import Engine"),
        ("rollout", "def f():\n    from zerolab.learner import learner"),
        ("datatypes", "from zerolab import config"),
        ("learner", "import ray"),
        ("train", "import vllm.entrypoints"),
        ("data", "import zerolab.cli"),
    ],
)
def test_the_rule_of_layers_can_be_broken(package: str, line: str) -> None:
    assert forbidden_imports(package, ast.parse(line))


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
        "model.eval()\nimport re\nre.compile('a')\nf(trust_remote_code=False)\nfrom zerolab.datatypes import G"
    )
    assert forbidden_imports("rl", tree) == dangers(tree) == []


def test_importing_zerolab_needs_nothing_heavy() -> None:
    code = (
        "import sys, zerolab; print([m for m in ('torch', 'ray', 'vllm', 'transformers', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_contributing_shows_the_same_layers() -> None:
    table = re.findall(r"^\| (\d+) \| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    shown = {int(number): set(re.findall(r"`([a-z_]+)`", packages)) for number, packages in table}
    assert shown == {number: set(packages) for number, packages in enumerate(LAYERS)}


def test_the_shape_of_the_package_keeps_its_rules() -> None:
    """No shared or shadowing names, no cycles, no private words. tools/shape.py prints the places."""
    assert broken_rules(measure()) == []


def test_files_fit_in_the_head() -> None:
    """About 400 lines a file, 60 a function."""
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 440, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 66, f"{path}: {node.name}"
