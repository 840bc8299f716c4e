"""The loop over engines and learner ranks in processes of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

from cluster_runs import assert_consumed_once, assert_same_run, local_ray, recipe, write_model  # noqa: E402

from zerolab import train  # noqa: E402
from zerolab.report.progress import Progress  # noqa: E402

pytestmark = pytest.mark.scale
QUIET = Progress("test", 0, quiet=True)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with local_ray():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def reference(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in one process."""
    return train(recipe(model, tmp_path_factory.mktemp("runs") / "local"), progress=QUIET)


def test_one_engine_and_one_rank_equal_one_process_to_the_bit(model: Path, reference: Path, tmp_path: Path) -> None:
    run = train(recipe(model, tmp_path / "ray", 4, "cluster.engines=1"), progress=QUIET)
    assert_same_run(reference, run)
    assert_consumed_once(run, 4)
