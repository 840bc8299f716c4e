"""Folders of runs with chosen numbers and texts, for the tests of what reads them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zerolab.config import load_run_config
from zerolab.recipes import find_recipe


def write_run(
    folder: Path,
    rows: Iterable[Mapping[str, Any]] = (),
    responses: Iterable[Mapping[str, Any]] = (),
    recipe: str = "laptop/grpo",
    changes: Iterable[str] = (),
    name: str | None = None,
) -> Path:
    folder.mkdir(parents=True)
    config = json.loads(load_run_config(find_recipe(recipe), list(changes)).model_dump_json())
    (folder / "run.json").write_text(json.dumps({**config, **({"name": name} if name else {})}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "transcripts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in responses))
    return folder


def metric_row(step: int, length: float = 10.0, **more: Any) -> dict[str, Any]:
    return {
        "step": step,
        "reward/mean": 0.5,
        "accuracy": 0.5,
        "length/mean": length,
        "length/correct": length - 1,
        "length/incorrect": length + 1,
        "truncated": 0.0,
        "rollout/tokens": 100,
        **more,
    }


def response(step: int, text: str, sample: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "step": step,
        "group": 0,
        "question_id": "set:1",
        "question": "1 + 1 = ?",
        "answers": ["2"],
        "prompt": "1 + 1 = ?",
        "sample": sample,
        "response": text,
        "tokens": len(text),
        "finish_reason": "stop",
        "correct": False,
        "formatted": True,
        "reason": "wrong",
        "extracted": None,
        "reward": 0.0,
        "parts": {"correctness": 0.0},
        "enters": True,
        "version": 0,
        **more,
    }
