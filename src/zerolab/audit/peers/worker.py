"""Asks one peer file all its jobs. Runs in the peer's interpreter: standard library only."""

import gc
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def answer(peer: Any, options: dict[str, Any], cases: Mapping[str, Any]) -> dict[str, Any]:
    """{"version", "cases": {name: coefficients}}, or {"refused": why}."""
    try:
        return {
            "version": peer.version(options),
            "cases": {name: peer.measure(options, case) for name, case in cases.items()},
        }
    except ModuleNotFoundError as error:
        return {"refused": missing(error)}
    except ValueError as error:
        return {"refused": " ".join(str(error).split())}


def missing(error: ModuleNotFoundError) -> str:
    return f"{error} under {sys.executable}; install it there or give --python PATH"


def load(path: str) -> Any:
    """A peer file under a name that hides no package."""
    spec = importlib.util.spec_from_file_location("zerolab_peer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    try:
        peer = load(job["module"])
    except ModuleNotFoundError as error:
        found = [{"refused": missing(error)}] * len(job["jobs"])
    else:
        gc.freeze()  # trainers collect garbage every time they start, which takes longer than the rest of a case
        found = [answer(peer, **one) for one in job["jobs"]]
    if os.environ.get("RANK", "0") == "0":
        partial = folder / "partial.json"
        partial.write_text(json.dumps(found), encoding="utf-8")
        partial.rename(folder / "answer.json")


if __name__ == "__main__":
    main(Path(sys.argv[-1]))
