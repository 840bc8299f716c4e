"""The command line as a user meets it: in this process, or in one of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from zerolab import cli

NOTHING: Mapping[str, str] = {}
# A small run on a synthetic family; fill in steps and model.
RECIPE = """
name = "test"
steps = {steps}
threads = 1
[model]
path = "{model}"
[questions]
path = "synthetic:modular"
holdout = 0.2
[template]
name = "own"
text = "{{question}} a"
stop = ["b"]
extractor = "last-number"
[rollout]
questions_per_step = 4
samples_per_question = 4
max_new_tokens = 12
[reward]
format = 1.0
[objective]
preset = "grpo"
[learner]
lr = 1e-3
updates_per_rollout = 2
[evaluation]
every = 3
max_questions = 4
[checkpoint]
every = 2
"""


def write_recipe(path: Path, model: Path, steps: int = 8) -> Path:
    path.write_text(RECIPE.format(steps=steps, model=model))
    return path


def run(*arguments: Any) -> int:
    """The command line in this process; its exit code."""
    old, sys.argv = sys.argv, ["zerolab", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = old
    return 0


def start(*arguments: Any, environment: Mapping[str, str] = NOTHING, **kwargs: Any) -> subprocess.Popen:
    """The command line in a process of its own, one thread, no network."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
    command = [sys.executable, "-m", "zerolab", *map(str, arguments)]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **kwargs}
    return subprocess.Popen(command, env=environment, **options)


def refusal(capsys: pytest.CaptureFixture, *arguments: Any) -> str:
    """The one line on stderr with which the command line refuses bad input; fails on anything but that and code 2."""
    capsys.readouterr()
    code = run(*arguments)
    out, err = capsys.readouterr()
    assert code == 2, (code, out, err)
    assert err.startswith("zerolab: "), err
    assert err.endswith("\n"), err
    assert len(err.splitlines()) == 1, err
    assert "Traceback" not in err + out
    return err.strip()


def settings(*overrides: str) -> list[str]:
    """--set words for KEY=VALUE texts."""
    return [word for item in overrides for word in ("--set", item)]
