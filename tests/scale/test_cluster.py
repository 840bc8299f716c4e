"""The loop over engines and learner ranks in processes of their own."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from cluster_runs import (
    assert_consumed_once,
    assert_same_run,
    consumed,
    local_ray,
    recipe,
    without_timings,
    write_model,
)
from slow_engine import slow

from engine_contract import CHECKS, Subject
from tiny_models import EOS, tiny_model, tiny_tokenizer
from zerolab import train
from zerolab.errors import UserError
from zerolab.report.progress import Progress

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


def test_two_engines_and_two_ranks_begin_with_the_same_numbers(model: Path, tmp_path: Path) -> None:
    """The first step: same responses, log-probabilities and gradient within what another order of sums changes.

    The second: both engines have the weights of both ranks, which came through the object store.
    """
    own = "learner.updates_per_rollout=1", "evaluation.every=0"
    local = train(recipe(model, tmp_path / "local", 2, *own), progress=QUIET)
    spread = "cluster.engines=2", "cluster.learner_ranks=2", "cluster.transport=object_store"
    run = train(recipe(model, tmp_path / "ray", 2, *own, *spread), progress=QUIET)
    assert_consumed_once(run, 2)
    (here, _), (there, second) = without_timings(local), without_timings(run)
    assert there["mismatch/abs"] < 1e-5
    assert second["mismatch/abs"] < 1e-5
    for name in (
        "reward/mean",
        "length/mean",
        "loss",
        "learned/nll",
        "learned/entropy",
        "entropy",
        "grad_norm",
        "coverage",
    ):
        assert there[name] == pytest.approx(here[name], rel=1e-4, abs=1e-6), name


def test_adapters_over_two_ranks_begin_with_the_same_numbers_and_reach_the_engine(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    own = "lora.rank=4", "learner.updates_per_rollout=1", "learner.lr=1e-2", "evaluation.every=0"
    local = train(recipe(model, tmp_path / "local", 1, *own), progress=QUIET)
    run = train(recipe(model, tmp_path / "ray", 4, *own, "cluster.learner_ranks=2"), progress=QUIET)
    (here,), (there, *later) = without_timings(local), without_timings(run)
    for name in (
        "reward/mean",
        "length/mean",
        "loss",
        "learned/nll",
        "learned/entropy",
        "entropy",
        "grad_norm",
        "coverage",
        "mismatch/abs",
    ):
        assert there[name] == pytest.approx(here[name], rel=1e-4, abs=1e-6), name
    learned = [row["mismatch/abs"] for row in later if row["learned_tokens"]]
    assert learned
    assert max(learned) < 1e-5


def test_sampling_ahead_overlaps_and_is_never_staler_than_asked(model: Path, tmp_path: Path) -> None:
    ahead = "rollout.max_staleness=1", "cluster.engines=2", "evaluation.every=0", 'learner.old_logprobs="learner"'
    correction = 'objective.correction="token_truncate"', "objective.correction_cap=2.0"
    config = recipe(model, tmp_path / "ray", 6, *ahead, *correction)
    run = train(config, engine=partial(slow, 0.01), progress=QUIET)
    assert_consumed_once(run, 6)
    rows = without_timings(run)
    assert max(row["rollout/staleness_max"] for row in rows) == 1
    assert sum(row["rollout/carried_over"] for row in rows) > 0  # responses that went on under new weights
    for row in consumed(run):
        current = 2 * (row["step"] - 1)  # two optimizer steps each
        assert min(row["oldest"]) >= current - 2
        assert max(row["newest"]) <= current
    assert all(row["mismatch/abs"] is not None for row in rows)


class Kept:
    """An engine that several checks use one after the other: `close` leaves it open."""

    def __init__(self, engine: Any):
        self.engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def close(self) -> None:
        self.engine.sleep()


@pytest.fixture(scope="module")
def workers_started(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two engines, slow enough that a check finds them busy, and a learner."""
    from zerolab.build import build
    from zerolab.config import RunConfig

    config = RunConfig.model_validate(recipe(model, tmp_path_factory.mktemp("run"), 1, "cluster.engines=2"))
    run = build(config, partial(slow, 0.006))
    yield run
    run.close()


@pytest.fixture(scope="module")
def subject(workers_started: Any) -> Subject:
    from zerolab.models.hf import named_weights

    engine = workers_started.stream.engine
    ours, other = (tiny_model("qwen2", seed=seed) for seed in (0, 1))

    def make() -> Any:
        engine.wake()
        engine.update_weights(0, named_weights(ours))
        return Kept(engine)

    return Subject(make, ours, other, tiny_tokenizer(), EOS)


def test_a_checkpoint_of_another_model_is_refused(workers_started: Any, tmp_path: Path) -> None:
    """In the words of the learner, which goes on as it was."""
    with pytest.raises(UserError, match="another"):
        workers_started.learner.load(write_model(tmp_path / "other", "llama"))
    assert workers_started.learner.version == 0


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check: str, subject: Subject) -> None:
    CHECKS[check](subject)
