"""A run folder as a report reads it: config, sessions, metrics. A line that a kill cut short is left out."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerolab.errors import UserError
from zerolab.rundir import CONFIG, MANIFEST, METRICS, TRANSCRIPTS, read_object

Row = Mapping[str, Any]


@dataclass(frozen=True)
class ReportRun:
    """One run. `rows` are the lines of metrics.jsonl in order of step, the last one of a step."""

    folder: Path
    config: Mapping[str, Any]
    sessions: Sequence[Mapping[str, Any]]
    rows: Sequence[Row]

    @property
    def seed(self) -> Any:
        return self.config.get("seed")

    @property
    def steps(self) -> int:
        """Steps that the config asks for."""
        return _whole(self.config.get("steps"))

    @property
    def done(self) -> int:
        """Last step that was logged."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def budget(self) -> int:
        """Generation budget in tokens, 0 where the config does not say."""
        rollout = self.config.get("rollout")
        return _whole(rollout.get("max_new_tokens")) if isinstance(rollout, dict) else 0

    def transcripts(self) -> Iterator[dict[str, Any]]:
        """Rows of transcripts.jsonl, one response each."""
        yield from json_lines(self.folder / TRANSCRIPTS)


def read_run(folder: Path) -> ReportRun:
    """The run in a folder. Raises UserError where there is none; metrics may still be missing."""
    config = read_object(folder / CONFIG)
    if config is None:
        older = "; older versions called it config.json: rename that one" if (folder / MANIFEST).exists() else ""
        raise UserError(
            f"{folder} holds no readable {CONFIG}: give the folder of a run, such as runs/NAME-seed0{older}"
        )
    sessions = (read_object(folder / MANIFEST) or {}).get("sessions")
    found = {r["step"]: r for r in json_lines(folder / METRICS) if _is_step(r.get("step"))}
    return ReportRun(
        folder=folder,
        config=config,
        sessions=[s for s in sessions if isinstance(s, dict)] if isinstance(sessions, list) else [],
        rows=[found[step] for step in sorted(found)],
    )


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file; lines that are none are skipped, a missing file has none."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row


def numbers(row: Row) -> dict[str, float]:
    """The finite numbers of a row."""
    return {k: float(v) for k, v in row.items() if is_number(v)}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _is_step(value: Any) -> bool:
    return is_number(value) and value >= 0 and value == int(value)


def _whole(value: Any) -> int:
    return int(value) if is_number(value) else 0
