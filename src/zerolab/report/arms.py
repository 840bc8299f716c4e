"""Runs that differ in nothing but the seed are one arm, and an arm is named by what sets it apart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zerolab.report.runs import ReportRun

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


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _labels(groups: Sequence[Sequence[ReportRun]]) -> list[str]:
    names = [as_text(runs[0].config.get("name", runs[0].folder.name)) for runs in groups]
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
