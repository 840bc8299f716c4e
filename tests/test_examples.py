"""The examples run, and are as short as they are said to be."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tools import notebook

import zerolab
from test_docs import load_script
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.errors import UserError
from zerolab.models.hf import export_model
from zerolab.rundir import read_metrics

NOTEBOOK = Path(__file__).parent.parent / "examples" / "first_run.ipynb"
EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
RUNS = {"train": "api", "objective": "own-objective", "reward": "own-reward", "engine": "own-engine"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    export_model(tiny_model("qwen2"), tiny_tokenizer(), folder)
    return folder


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run_and_are_short(path: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load_script(path).main(str(model))
    folder = tmp_path / "runs" / f"{RUNS[path.stem]}-seed0"
    rows = read_metrics(folder)
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    if path.stem == "reward":
        assert all(row["reward/mean"] == pytest.approx(row["reward/brief"] + row["reward/correctness"]) for row in rows)
    if path.stem == "objective":
        assert json.loads((folder / "run.json").read_text())["objective"]["clip_high"] == 2.0
    assert code_lines(path) < 30


def test_an_own_engine_samples_what_the_learner_believes(model: Path, tmp_path: Path) -> None:
    plain = load_script(EXAMPLES[0].parent / "engine.py").Plain
    reward = tmp_path / "reward.py"
    reward.write_text("def first(completion_ids):\n    return [ids[0] % 7 for ids in completion_ids]\n")
    keys = {
        "model": {"path": str(model)},
        "questions": {"path": "synthetic:modular"},
        "rollout": {"questions_per_step": 2, "samples_per_question": 4, "max_new_tokens": 12, "temperature": 0.8},
        "reward": {"functions": [{"path": f"{reward}:first"}], "truncation": "keep"},
        "learner": {"lr": 1e-3},
    }
    out = str(tmp_path / "run")
    folder = zerolab.train({"steps": 2, "objective": "dr_grpo", "out": out, **keys}, engine=plain)
    for row in read_metrics(folder):  # also after new weights
        assert row["grad_norm"] > 0
        assert abs(row["mismatch/abs"]) < 1e-5


def code_lines(path: Path) -> int:
    """Lines with code: no blank ones, no docstrings, not the two that start the program."""
    text = path.read_text()
    docstrings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    return sum(bool(line.strip()) for i, line in enumerate(text.splitlines(), 1) if i not in docstrings) - 2


def test_train_can_be_called_whoever_imported_the_loop_first() -> None:
    assert callable(zerolab.train)
    loop = importlib.import_module("zerolab.train")
    assert callable(loop)
    assert loop is zerolab.train
    for call in (zerolab.train, loop, loop.train):
        with pytest.raises(UserError, match="config: key steps is missing"):
            call({})
    with pytest.raises(UserError, match="nowhere: no such file"):
        zerolab.train("nowhere")
    with pytest.raises(AttributeError):
        zerolab.trian  # noqa: B018


def test_importing_zerolab_and_asking_for_train_is_all_it_takes() -> None:
    code = "import zerolab, sys; assert 'torch' not in sys.modules; zerolab.train; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a base model of seconds instead of the real one; in a kernel, as Jupyter runs it."""
    pytest.importorskip("nbclient", reason="the extra [notebook] is not installed")
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "cache"))
    values = {"MODEL": "laptop/smoke-base", "QUESTIONS": "synthetic:modular", "TEMPLATE": {"name": "none"}}
    ran = notebook.execute(NOTEBOOK, tmp_path, {**values, "BUDGET": 16, "STEPS": 2})
    printed = [output_text(cell) for cell in ran.cells]
    assert sum("tokens, ended by itself" in text or "tokens, truncated" in text for text in printed) == 1
    assert any("template none:" in text and 'preset = "dr_grpo"' in text for text in printed)
    assert any("change by one step" in text for text in printed)
    (page,) = notebook.tagged(ran, notebook.LARGE)
    assert "srcdoc=" in page.outputs[0].data["text/html"]
    assert (tmp_path / "runs/notebook/drift/drift.png").exists()
    assert [row["step"] for row in read_metrics(tmp_path / "runs/notebook/run") if "reward/mean" in row] == [1, 2]


def output_text(cell: Any) -> str:
    """What a cell printed, and what it showed as text."""
    outputs = cell.get("outputs", ())
    return "".join(o.text if o.output_type == "stream" else o.data.get("text/plain", "") for o in outputs)
