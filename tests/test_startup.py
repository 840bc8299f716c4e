"""A verb that needs no model starts without torch, which alone takes longer to import than such a verb to run."""

import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import sys
from zerolab import cli
sys.argv = ["zerolab", *sys.argv[1:]]
try:
    cli.main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = ("torch", "transformers", "scipy.stats", "matplotlib", "ray")
print("loaded:", *(name for name in heavy if name in sys.modules))
"""
GRADED = '{"problem": "1 + 1 = ?", "answer": "1/2", "response": "It is \\\\boxed{\\\\frac{1}{2}}."}\n'


@pytest.mark.parametrize(
    ("words", "loaded"),
    [
        ("--help", ""),
        ("recipe list", ""),
        ("claims list", ""),
        ("grade responses.jsonl", ""),
        ("compare responses.jsonl responses.jsonl", "scipy.stats"),
        ("plan paper/qwen2.5-math-7b --gpus 8xA100-80", ""),
        ("train paper/qwen2.5-math-7b --dry-run", ""),
        ("train laptop/smollm2-grpo --dry-run", ""),
        # The size of a laptop base depends on the vocabulary of its corpus, whose tokenizer is made.
        ("plan laptop/grpo --gpus 1xH100", "transformers"),
        ("train laptop/grpo --dry-run", "transformers"),
    ],
)
def test_a_verb_without_a_model_starts_without_torch(words: str, loaded: str, tmp_path: Path) -> None:
    (tmp_path / "responses.jsonl").write_text(GRADED, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words.split()], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].removeprefix("loaded:").strip() == loaded
