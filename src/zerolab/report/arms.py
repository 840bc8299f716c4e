"""Read run folders for a report, and group runs that differ only by their seed into arms.

An arm is named by the keys that set it apart. A line that a kill cut short is left out.
"""

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


# What does not change what a run learns.
ASIDE = ("name", "out", "seed", "threads", "checkpoint", "transcripts_per_step", "track", "control")
NAME_KEYS = 3  # more differing keys than these, and the runs' own names are the shorter label
LONGEST = 24


@dataclass(frozen=True)
class Arm:
    label: str
    runs: Sequence[ReportRun]


@dataclass(frozen=True)
class Difference:
    """A key of the config and its value in every arm, as text."""

    key: str
    values: Sequence[str]


def group_arms(runs: Sequence[ReportRun]) -> list[Arm]:
    """Arms in the order in which they first appear, each with a label of its own."""
    found: dict[str, list[ReportRun]] = {}
    for run in runs:
        found.setdefault(json.dumps(essence(run), sort_keys=True), []).append(run)
    groups = list(found.values())
    return [Arm(label, members) for label, members in zip(_labels(groups), groups, strict=True)]


def differences(arms: Sequence[Arm]) -> list[Difference]:
    """The keys in which the arms differ."""
    return _differences([arm.runs for arm in arms])


def essence(run: ReportRun) -> dict[str, Any]:
    """Config by dotted key, without what does not change what is learned."""
    return {k: v for k, v in flatten(run.config).items() if k.split(".")[0] not in ASIDE}


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and their values."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _differences(groups: Sequence[Sequence[ReportRun]]) -> list[Difference]:
    tables = [essence(runs[0]) for runs in groups]
    keys = sorted({key for table in tables for key in table})
    shown = [Difference(key, [as_text(table.get(key)) for table in tables]) for key in keys]
    return [d for d in shown if len(set(d.values)) > 1]


def name_of(run: ReportRun) -> str:
    """The name of a run; one that was given none is called by its folder."""
    name = run.config.get("name")
    return run.folder.name if name in (None, "run") else as_text(name)


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _labels(groups: Sequence[Sequence[ReportRun]]) -> list[str]:
    names = [name_of(runs[0]) for runs in groups]
    if len(groups) == 1:
        return [short(names[0])]
    found = _differences(groups)
    by_key = {d.key: d.values for d in found}
    presets = by_key.get("objective.name")
    if presets is not None:  # the preset says what its coordinates are
        found = [d for d in found if d.key == "objective.name" or not d.key.startswith("objective.")]
    labels = [", ".join(_word(d, number) for d in found) for number in range(len(groups))]
    if len(found) > NAME_KEYS or len(set(labels)) < len(labels):
        labels = names
    labels = [short(label) for label in labels]
    return [label if labels.count(label) == 1 else f"{label} ({i + 1})" for i, label in enumerate(labels)]


def _word(difference: Difference, number: int) -> str:
    value = difference.values[number]
    return value if difference.key == "objective.name" else f"{difference.key.split('.')[-1]} {value}"


def short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 2 * LONGEST else text[: 2 * LONGEST - 1] + "…"
