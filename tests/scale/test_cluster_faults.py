"""What a run survives. Every test kills or stops a real process, and nothing is learned from twice or never."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("ray")

from cluster_runs import (
    assert_consumed_once,
    assert_same_run,
    descendants,
    local_ray,
    marked,
    recipe,
    wait_for_step,
    write_model,
)
from slow_engine import slow, struck

from command import start, write_recipe
from zerolab import train
from zerolab.report.progress import Progress

pytestmark = pytest.mark.scale
QUIET = Progress("test", 0, quiet=True)
STEPS = 5


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with local_ray():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def reference(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe(model, tmp_path_factory.mktemp("runs") / "local", STEPS), progress=QUIET)


def test_an_engine_killed_half_way_is_replaced(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = partial(struck, tmp_path, signal.SIGKILL, 30)
    run = train(recipe(model, tmp_path / "run", STEPS, "cluster.engines=2"), engine=engine, progress=QUIET)
    assert (tmp_path / "struck").exists()
    assert_consumed_once(run, STEPS)
    said = capsys.readouterr().err
    assert "was lost (its process died); another one takes its place" in said


def test_a_hung_engine_is_noticed_by_its_deadline(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = partial(struck, tmp_path, signal.SIGSTOP, 30)
    config = recipe(model, tmp_path / "run", STEPS, "cluster.engines=1", "cluster.engine_deadline_s=3")
    run = train(config, engine=engine, progress=QUIET)
    assert_consumed_once(run, STEPS)
    assert "it made no progress for 3 s" in capsys.readouterr().err
    stopped = int((tmp_path / "struck").read_text())
    assert not Path(f"/proc/{stopped}/cmdline").exists() or not Path(f"/proc/{stopped}/cmdline").read_bytes()


@pytest.mark.parametrize("keys", [(), ("rollout.sleep=true",)], ids=["awake", "sleep"])
def test_a_dead_learner_starts_again_from_the_last_checkpoint(
    model: Path, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: tuple[str, ...]
) -> None:
    """And what comes of it equals the run that nothing happened to, also if the engine slept when the learner died."""
    out = tmp_path / "run"
    killed: list[int] = []

    def kill() -> None:
        wait_for_step(out, 3)
        [pid] = descendants(os.getpid(), "ray::RankActor")
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    run = train(recipe(model, out, STEPS, "cluster.engines=1", *keys), engine=partial(slow, 0.05), progress=QUIET)
    thread.join()
    assert killed
    assert_consumed_once(run, STEPS)
    assert_same_run(reference, run)
    said = capsys.readouterr().err
    assert "the learner was lost (its process died) and starts again from the last checkpoint" in said


def test_a_killed_driver_resumes_and_leaves_no_process(model: Path, reference: Path, tmp_path: Path) -> None:
    mark = f"zerolab-test-{os.getpid()}-{time.time_ns()}"
    out = tmp_path / "run"
    file = tmp_path / "recipe.toml"
    write_recipe(file, model, STEPS)
    driver = start(
        *("train", file, "--set", f"out={out}", "--set", "cluster.engines=1"),
        environment={"ZEROLAB_TEST_MARK": mark, "RAY_ADDRESS": ""},
    )
    try:
        wait_for_step(out, 3, driver)
        assert len(marked(mark)) > 3  # the driver, Ray's own and ours
        driver.kill()
        driver.wait(30)
        assert gone(lambda: [title for title in titles(mark) if "Actor" in title], 60) == []
        run = train(recipe(model, out, STEPS, "cluster.engines=1"), resume=True, progress=QUIET)
        assert_consumed_once(run, STEPS)
        assert_same_run(reference, run)
        # Agents of Ray report their raylet's death to a head that is dead too: they give up after a minute.
        assert gone(lambda: titles(mark), 150) == []
    finally:
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)


def titles(mark: str) -> list[str]:
    return [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip() for pid in marked(mark)]


def gone(living: Callable[[], list[str]], seconds: float) -> list[str]:
    """What still lives after so many seconds at most."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError):  # it ended between two looks
            if not living():
                return []
        time.sleep(0.2)
    return living()
