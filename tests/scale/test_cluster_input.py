"""What cannot run in a cluster is said in one line, with exit code 2, and leaves no run directory."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray")

from cluster_runs import local_ray, write_model

from command import refusal, settings, write_recipe
from zerolab.cluster.launch import check_version
from zerolab.errors import UserError

pytestmark = pytest.mark.scale


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    return write_recipe(folder / "recipe.toml", write_model(folder / "model"))


def refused(capsys: pytest.CaptureFixture, file: Path, *keys: str) -> str:
    out = file.parent / "run"
    line = refusal(capsys, "train", file, *settings(f"out={out}", *keys))
    assert not out.exists()
    return line


def test_a_cluster_that_cannot_be_reached(file: Path, capsys: pytest.CaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"no Ray cluster answers at {address}" in refused(capsys, file, f"cluster.address={address}")
    assert "HOST:PORT" in refused(capsys, file, "cluster.address=here")
    assert "ray job submit" in refused(capsys, file, "cluster.address=ray://127.0.0.1:10001")


def test_a_port_where_something_else_listens(file: Path, capsys: pytest.CaptureFixture) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert f"what answers at {address} is no Ray cluster" in refused(capsys, file, f"cluster.address={address}")


def test_a_ray_that_is_too_old() -> None:
    check_version("2.60.0")
    with pytest.raises(UserError, match=r"2\.60 or newer"):
        check_version("2.9.3")


@pytest.fixture(scope="module")
def two_cpus() -> Iterator[None]:
    with local_ray(2):
        yield


@pytest.mark.usefixtures("two_cpus")
def test_a_cluster_that_is_too_small(file: Path, capsys: pytest.CaptureFixture) -> None:
    assert "has 2 CPUs, and 2 engines x 1 + 1 learner ranks x 1 need 3" in refused(capsys, file, "cluster.engines=2")
    line = refused(capsys, file, "cluster.gpus_per_engine=1")
    assert "has 0 GPUs, and 1 engines x 1" in line
    assert "cluster.gpus_per_*" in line


@pytest.mark.usefixtures("two_cpus")
def test_room_that_never_comes(file: Path, capsys: pytest.CaptureFixture) -> None:
    """Enough in all, but somebody else has it."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    others = placement_group([{"CPU": 1}, {"CPU": 1}])
    ray.get(others.ready(), timeout=30)
    line = refused(capsys, file, "cluster.placement_s=1")
    remove_placement_group(others)
    assert "no room" in line or "waiting for room" in line
