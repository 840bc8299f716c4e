"""A cell counts only if its run reached the last step, and no worker outlives the process that started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from zerolab.claims.experiments import question_weight
from zerolab.claims.results import load_cell, save_cell
from zerolab.claims.training import laptop_base, place_in, run_config, trained
from zerolab.errors import Interrupted, UserError
from zerolab.report.progress import Progress
from zerolab.rundir import read_metrics
from zerolab.worlds.base_model import pretrain

# A pool with one worker that sleeps; it prints the worker's process id.
POOL = """
import os, sys, time
from zerolab.claims.runner import _pool
if __name__ == "__main__":
    with _pool(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 60).result()
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def config(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Four steps on a base model that was hardly pretrained."""
    monkeypatch.setenv("ZEROLAB_CACHE", str(cache))
    base = laptop_base(0, "laptop/smoke-base")
    base = base.model_copy(update={"steps": 2, "gate": base.gate.model_copy(update={"questions": 4})})
    pretrain(base)
    return place_in(tmp_path, run_config("laptop/smoke", base, ["steps=4", "rollout.max_new_tokens=8"]))


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Raise a real SIGTERM while the row of this step is shown."""
    row = Progress.row

    def stopping(self: Progress, step: int, *rest: Any) -> Any:
        if step == number:
            signal.raise_signal(signal.SIGTERM)
        return row(self, step, *rest)

    monkeypatch.setattr(Progress, "row", stopping)


def test_an_interrupted_cell_has_no_result_and_goes_on_where_it_stopped(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(Interrupted, match="stopped after step 2 of 4"):
            trained(config)
    assert [row["step"] for row in read_metrics(config.folder)] == [1, 2]
    assert {len(column) for column in trained(config).values()} == {4}


def test_a_run_that_lacks_a_step_is_no_result(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zerolab.rundir.read_metrics", lambda folder: [{"step": n} for n in (1, 2, 4)])
    with pytest.raises(UserError, match="3 of the 4 steps"):
        trained(config)


def test_a_worker_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().split(")")[1][:3]:
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError("the worker outlived its parent by ten seconds")


# An experiment of this test: three cells of so many steps on a base that was hardly pretrained. Its workers import it
# again, because they are spawned.
EXPERIMENT = """
import sys
from pathlib import Path
from zerolab.claims import ledger, runner
from zerolab.claims.protocol import Cell, Protocol
from zerolab.claims.experiments import question_weight
from zerolab.claims.results import load_cell, save_cell
from zerolab.claims.training import laptop_base, place_in, run_config, trained

def base(factors):
    found = laptop_base(0, "laptop/smoke-base")
    return found.model_copy(update={"steps": 2, "gate": found.gate.model_copy(update={"questions": 4})})

def recipe(factors):
    changes = [f"seed={factors['seed']}", "steps=5000", "rollout.max_new_tokens=8"]
    return run_config("laptop/smoke", base(factors), changes)

def run(factors, folder):
    return {"steps": len(trained(place_in(folder, recipe(factors)))["accuracy"])}

def cells(plan):
    return [Cell({"seed": seed}, 1) for seed in plan.seeds]

LONG = Protocol("X.long", "L1", "", "", "", "", cells, recipe, run, (), "open", "run", base=base, seeds=3)
ledger.protocols = lambda: (LONG,)
if __name__ == "__main__":
    from zerolab.cli import main
    sys.argv = ["zerolab", "claims", "run", "X.long", "--results", "results", "--work", "work"]
    main()
"""


def children(process: int) -> set[int]:
    """Ids of all processes below one, zombies left out."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process}


def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


@pytest.mark.parametrize("to", ["parent", "child"])
def test_a_signal_to_claims_run_ends_it_within_a_step_and_stores_nothing_unfinished(
    to: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "experiment.py"
    script.write_text(EXPERIMENT)
    monkeypatch.setenv("ZEROLAB_CACHE", str(cache))
    command = [sys.executable, str(script)]
    parent = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    work = tmp_path / "work" / "laptop" / "X.long"

    def training() -> list[Path]:
        return [rows for rows in work.glob("*/run/metrics.jsonl") if rows.stat().st_size]

    try:
        assert wait_for(training, 120), parent.poll()
        below = children(parent.pid)
        workers = {pid for pid in below if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}
        assert workers
        os.kill(parent.pid if to == "parent" else min(workers), signal.SIGTERM)
        said, _ = parent.communicate(timeout=60)
        assert wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in below), 10), "orphans"
    finally:
        parent.kill()
    assert parent.returncode == 130
    assert "interrupted: the same command goes on where it stopped" in said
    assert "Traceback" not in said
    assert not list(work.glob("*/cell.json"))
    assert not (tmp_path / "results" / "laptop" / "X.long").exists()
    assert list(work.glob("*/run/checkpoints/*/model.safetensors")), "a stopped cell goes on where it was"
    before = {rows: rows.stat().st_size for rows in training()}
    time.sleep(1)
    assert before == {rows: rows.stat().st_size for rows in training()}


def test_a_cell_that_lacks_steps_is_not_stored(tmp_path: Path) -> None:
    protocol = question_weight.PROTOCOL
    [cell] = [
        c for c in protocol.cells(protocol.plan(1)) if c.factors == {"kind": "measured", "arm": "grpo", "seed": 0}
    ]
    with pytest.raises(UserError, match="13 of 60 steps"):
        save_cell(tmp_path, cell, protocol, {"steps": 13, "low": 1.0, "middle": 1.0})
    assert load_cell(tmp_path, cell, protocol) is None
    save_cell(tmp_path, cell, protocol, {"steps": 60, "low": 1.0, "middle": 1.0})
    row = load_cell(tmp_path, cell, protocol)
    assert row is not None
    assert row["steps"] == 60
