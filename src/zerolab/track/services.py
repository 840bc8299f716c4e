"""Each tracker as two verbs: log a step's numbers, close. Their packages are imported when a tracker starts."""

import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Service(Protocol):
    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run. The id stays the same over all sessions of the run."""

    folder: Path
    project: str
    name: str
    id: str
    config: Mapping[str, Any]


class TensorBoard:
    """Event files in the run's folder; steps that are logged again replace what later events said of them."""

    def __init__(self, run: TrackedRun, first_step: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=first_step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Wandb:
    """A W&B run in the run's folder. A missing key is an error and no question; WANDB_MODE=offline needs none."""

    def __init__(self, run: TrackedRun, first_step: int):
        os.environ.setdefault("WANDB_SILENT", "true")  # neither banners nor a prompt in the midst of a run
        import wandb

        self.run = wandb.init(
            project=run.project,
            name=run.name,
            id=run.id,
            dir=str(run.folder),
            config=dict(run.config),
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),
        )
        # Steps are an axis of their own, since W&B's takes no step twice and a resumed run may repeat some.
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({**values, "step": step})

    def close(self) -> None:
        self.run.finish()


class Trackio:
    """A trackio run, local (TRACKIO_DIR) unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL say where else."""

    def __init__(self, run: TrackedRun, first_step: int):
        import trackio

        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            self.run = trackio.init(
                project=run.project,
                name=f"{run.name}-{run.id}",  # trackio finds a run again by its name
                config=dict(run.config),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        import trackio

        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            trackio.finish()


SERVICES: Mapping[str, type] = {"tensorboard": TensorBoard, "wandb": Wandb, "trackio": Trackio}
