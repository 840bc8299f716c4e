"""Runs in a Ray cluster: tiny models, one local Ray, and what a run has consumed."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from command import RECIPE
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.errors import UserError
from zerolab.learner.checkpoint import latest_checkpoint
from zerolab.models.hf import export_model
from zerolab.rundir import read_metrics
from zerolab.toml import apply_overrides

OBJECT_STORE_BYTES = 100 * 2**20


def see_tests() -> None:
    """Processes of Ray import engines of these folders, and run as zerolab asks Ray to."""
    import zerolab.cluster  # noqa: F401

    here = Path(__file__).parent
    known = os.environ.get("PYTHONPATH", "")
    if str(here) not in known.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parent), known])


@contextmanager
def local_ray(cpus: int = 4) -> Iterator[None]:
    """One Ray for the tests of a module; runs find that this process is connected already."""
    import ray

    from zerolab.cluster.launch import _keep_quiet

    see_tests()
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(num_cpus=cpus, object_store_memory=OBJECT_STORE_BYTES, **options)
    _keep_quiet()
    try:
        yield
    finally:
        ray.shutdown()


def write_model(folder: Path, family: str = "qwen2", **changes: Any) -> Path:
    export_model(tiny_model(family, **changes), tiny_tokenizer(), folder)
    return folder


def recipe(model: Path, out: Path, steps: int = 4, *overrides: str) -> dict[str, Any]:
    """The keys of a small run with overrides in the form of --set."""
    import tomllib

    raw = tomllib.loads(RECIPE.format(steps=steps, model=model))
    return apply_overrides(raw, [f"out={out}", *overrides])


def without_timings(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_metrics(folder)]


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = latest_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    return load_file(checkpoint / "model.safetensors")


def assert_same_run(a: Path, b: Path) -> None:
    """To the bit, timings aside."""
    assert without_timings(a) == without_timings(b)
    for name in ("transcripts.jsonl", "consumed.jsonl"):
        assert (a / name).read_text() == (b / name).read_text()
    left, right = final_weights(a), final_weights(b)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def consumed(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "consumed.jsonl").read_text().splitlines()]


def assert_consumed_once(folder: Path, steps: int, questions: int = 4) -> None:
    """Every step is there once, and every draw in one step, none left out."""
    rows = consumed(folder)
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    assert [draw for row in rows for draw in row["draws"]] == list(range(steps * questions))
    assert {row["samples"] for row in rows} == {4}
    assert [row["step"] for row in read_metrics(folder) if row["step"]] == list(range(1, steps + 1))


def wait_for_step(folder: Path, step: int, process: Any = None) -> None:
    """Until metrics.jsonl has the step; a minute and a half at most."""
    end = time.monotonic() + 90
    while time.monotonic() < end and (process is None or process.poll() is None):
        with suppress(OSError, UserError):
            if any(row["step"] >= step for row in read_metrics(folder)):
                return
        time.sleep(0.01)
    raise AssertionError(f"step {step} never came: {process.communicate()[0] if process else folder}")


def _processes() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def descendants(ancestor: int, name: str) -> list[int]:
    """Processes of this title that descend from `ancestor`."""
    parents, found = {}, []
    for pid in _processes():
        with suppress(OSError, IndexError):
            parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(name.encode()):
                found.append(pid)

    def descends(pid: int) -> bool:
        while pid in parents and pid != ancestor:
            pid = parents[pid]
        return pid == ancestor

    return [pid for pid in found if descends(pid)]


def marked(mark: str) -> list[int]:
    """Living processes whose environment has the mark."""
    found = []
    for pid in _processes():
        with suppress(OSError):
            if mark.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
    return found
