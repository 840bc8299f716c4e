"""The trackers of a run: started with its first line, told of every line, and let go at the first failure."""

import importlib.util
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zerolab.errors import UserError
from zerolab.terminal import echo
from zerolab.track.services import SERVICES, Service, TrackedRun

ID_FILE = "track.json"  # in the run's folder, so that a resumed run is the same one to its trackers


def check_installed(names: Sequence[str]) -> None:
    """Raises UserError for a tracker whose extra is missing."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"track names {name}, which is not installed: pip install 'zerolab[{name}]', or take it out of track"
            )


class Trackers:
    """A failure of a tracker is one line on stderr and the end of that tracker, never of the run."""

    def __init__(self, names: Sequence[str], folder: Path, project: str, name: str, config: Mapping[str, Any]):
        self.names, self.folder, self.project, self.name, self.config = names, folder, project, name, config
        self.services: dict[str, Service] | None = None

    def log(self, step: int, record: Mapping[str, Any]) -> None:
        """Tells all of them every finite number of a line of metrics.jsonl."""
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
