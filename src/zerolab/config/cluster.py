"""Where the processes of a run stand."""

from typing import Literal

from pydantic import Field

from zerolab.config.strict import Strict


class ClusterConfig(Strict):
    """Engines and learner ranks as processes of a Ray cluster."""

    address: str | None = Field(
        None,
        min_length=1,
        description="The Ray cluster: auto for the one of this machine, or HOST:PORT. By default a local one is "
        "started for the run.",
    )
    engines: int = Field(
        1, ge=1, le=4096, description="Sampling engines; the questions of a rollout are split over them."
    )
    learner_ranks: int = Field(1, ge=1, le=4096, description="Processes that share an optimizer step.")
    cpus_per_engine: int = Field(1, ge=0, description="CPUs of an engine; its threads too, where `threads` is 0.")
    cpus_per_rank: int = Field(1, ge=0, description="CPUs of a learner rank; its threads too, where `threads` is 0.")
    gpus_per_engine: float | None = Field(
        None, ge=0, description="GPUs of an engine, or a share of one; by default 1 where the cluster has any, else 0."
    )
    gpus_per_rank: float | None = Field(
        None,
        ge=0,
        description="GPUs of a learner rank, or a share of one; by default 1 where the cluster has any, else 0.",
    )
    placement_s: float = Field(600, gt=0, description="Seconds to wait for room, and for processes to be ready.")
    engine_deadline_s: float = Field(
        300, gt=0, description="An engine that gives no sign of progress for so many seconds is replaced."
    )
    learner_deadline_s: float = Field(
        3600, gt=0, description="A learner that takes longer than so many seconds for one call is restarted."
    )
    restarts: int = Field(
        3, ge=0, description="How often the learner is restarted from the same checkpoint before the run gives up."
    )
    transport: Literal["auto", "object_store"] = Field(
        "auto",
        description="How weights reach the engines. auto: shared memory on one host, Ray's object store between hosts.",
    )
