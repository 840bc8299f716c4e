"""A cell counts only if its run reached the last step, and no worker outlives the process that started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from zerolab.claims.training import laptop_base, run_config, trained
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


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Four steps on a base model that was hardly pretrained."""
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "cache"))
    base = laptop_base(0, "laptop/smoke-base")
    base = base.model_copy(update={"steps": 2, "gate": base.gate.model_copy(update={"questions": 4})})
    pretrain(base)
    return run_config("laptop/smoke", tmp_path, base, ["steps=4", "rollout.max_new_tokens=8"])


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
