"""Two simulated nodes, each with an object store of its own: a run uses both, and outlives the loss of one."""

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray")

from cluster_runs import (  # noqa: E402
    OBJECT_STORE_BYTES,
    assert_consumed_once,
    recipe,
    see_tests,
    wait_for_step,
    without_timings,
    write_model,
)
from slow_engine import slow  # noqa: E402

from zerolab import train  # noqa: E402
from zerolab.report.progress import Progress  # noqa: E402

pytestmark = pytest.mark.scale
STEPS = 5


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A head with three CPUs, to which the driver is connected, and a node with one."""
    from ray.cluster_utils import Cluster

    see_tests()
    own = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, **own})
    cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_run_goes_on_when_a_node_is_lost(nodes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Learner (two CPUs) and one engine on the head, the other engine on the node that goes."""
    out = tmp_path / "run"
    alive: list[int] = []

    def lose() -> None:
        wait_for_step(out, 2)
        alive.append(sum(node["Alive"] for node in ray.nodes()))
        nodes.remove_node(nodes.worker_nodes.copy().pop(), allow_graceful=False)

    thread = threading.Thread(target=lose)
    thread.start()
    keys = f'cluster.address="{nodes.address}"', "cluster.engines=2", "cluster.cpus_per_rank=2", "threads=1"
    model = write_model(tmp_path / "model")
    config = recipe(model, out, STEPS, *keys, "evaluation.every=0", "cluster.transport=object_store")
    run = train(config, engine=partial(slow, 0.05), progress=Progress("test", 0, quiet=True))
    thread.join()
    assert alive == [2]
    assert_consumed_once(run, STEPS)
    assert all((row["mismatch/abs"] or 0) < 1e-5 for row in without_timings(run))
    assert capsys.readouterr().err.count("was lost") == 1
