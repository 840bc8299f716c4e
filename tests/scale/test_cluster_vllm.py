"""vLLM in an actor: the same run, sampled by another engine in another process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray")
pytest.importorskip("vllm")

from cluster_runs import assert_consumed_once, local_ray, recipe, without_timings, write_model

from zerolab import train
from zerolab.report.progress import Progress

pytestmark = pytest.mark.scale


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with local_ray():
        yield


def test_vllm_samples_in_an_actor_from_the_weights_that_it_is_sent(tmp_path: Path) -> None:
    """After every update the probe compares its log-probabilities with the learner's."""
    model = write_model(tmp_path / "model", "qwen3", head_dim=32)  # a width that vLLM has on a CPU
    keys = "rollout.engine=vllm", "rollout.kv_gb=0.02", "cluster.engines=1", "reward.random=0.5", "evaluation.every=0"
    run = train(recipe(model, tmp_path / "run", 3, *keys), progress=Progress("test", 0, quiet=True))
    assert_consumed_once(run, 3)
    rows = without_timings(run)
    assert [row["version"] for row in rows] == [2, 4, 6]
    assert max(row["mismatch/probe"] for row in rows) < 1e-4
    assert max(row["mismatch/abs"] for row in rows) < 1e-4
