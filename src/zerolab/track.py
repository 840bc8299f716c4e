"""Send the metrics of a run to TensorBoard, W&B or trackio.

A tracker starts with the first line of a run. It is dropped after its first failure, and the run goes on without it.
The package of a tracker is imported when the tracker starts.
"""

import importlib.util
import json
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from zerolab.errors import UserError
from zerolab.terminal import echo


class Service(Protocol):
    """A tracking service."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class TrackedRun:
    """The facts about a run that a tracker gets. The id is the same in all sessions of the run."""

    folder: Path
    project: str
    name: str
    id: str
    config: Mapping[str, Any]


class TensorBoard:
    """Event files in the run's folder. If a resumed run logs a step again, the new values replace the old ones."""

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
    """A W&B run in the run's folder. A missing API key is an error; WANDB_MODE=offline needs no key."""

    def __init__(self, run: TrackedRun, first_step: int):
        os.environ.setdefault("WANDB_SILENT", "true")  # no banners, and no prompt during a run
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
        # A separate axis, because W&B's own step cannot repeat, and a resumed run may repeat steps.
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({**values, "step": step})

    def close(self) -> None:
        self.run.finish()


class Trackio:
    """A trackio run, local (TRACKIO_DIR) unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL is set."""

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


ID_FILE = "track.json"  # in the run's folder, so that a resumed run has the same id


def check_installed(names: Sequence[str]) -> None:
    """Raise UserError for a tracker that is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"track names {name}, which is not installed: pip install 'zerolab[{name}]', or take it out of track"
            )


class Trackers:
    """The trackers of a run. If a tracker fails, it is dropped with one line on stderr, and the run goes on."""

    def __init__(self, names: Sequence[str], folder: Path, project: str, name: str, config: Mapping[str, Any]):
        self.names, self.folder, self.project, self.name, self.config = names, folder, project, name, config
        self.services: dict[str, Service] | None = None

    def log(self, step: int, record: Mapping[str, Any]) -> None:
        """Send every finite number of a line of metrics.jsonl to all trackers."""
        if not self.names:
            return
        if self.services is None:
            self.services = self._start(step)
        values = {k: float(v) for k, v in record.items() if k != "step" and _is_number(v)}
        for name in list(self.services):
            self._try(name, lambda service: service.log(step, values))

    def close(self) -> None:
        for name in list(self.services or {}):
            self._try(name, lambda service: service.close())
        self.services = {}

    def _start(self, step: int) -> dict[str, Service]:
        run = TrackedRun(self.folder, self.project, self.name, self._id(), self.config)
        started = {}
        for name in self.names:
            try:
                started[name] = SERVICES[name](run, step)
            except Exception as error:
                warn(name, error)
        return started

    def _try(self, name: str, action: Any) -> None:
        assert self.services is not None
        try:
            action(self.services[name])
        except Exception as error:
            del self.services[name]
            warn(name, error)

    def _id(self) -> str:
        file = self.folder / ID_FILE
        try:
            found = json.loads(file.read_text())["id"]
        except (OSError, ValueError, KeyError, TypeError):
            found = uuid.uuid4().hex[:12]
            file.write_text(json.dumps({"id": found}) + "\n")
        return str(found)


def warn(name: str, error: Exception) -> None:
    reason = " ".join(str(error).split()) or type(error).__name__
    echo(f"zerolab: {name} stopped tracking ({reason[:200]}); the run goes on without it", error=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
