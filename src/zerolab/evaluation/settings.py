"""What an evaluation was: written before the first response, checked before it goes on, read by every table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from zerolab.errors import UserError

SETTINGS = "evaluation.json"
MAY_GROW = {"samples", "benchmarks", "until_width", "max_samples", "note"}


@dataclass(frozen=True)
class Settings:
    model: str
    template: str
    prompt: str  # the template's text
    stop: tuple[str, ...] = ()
    extractor: str = "boxed"
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_tokens: int = 0
    budget: int = 3000  # tokens
    seed: int = 0
    limit: int | None = None
    endpoint: str | None = None
    benchmarks: Mapping[str, int] | None = None  # name -> questions
    until_width: float | None = None  # percentage points
    max_samples: int = 64
    note: str | None = None  # what every table of it has to say

    def looks(self) -> list[int]:
        """Samples per question at each look: twice as many at each, `max_samples` at most. One look without a width."""
        if self.until_width is None:
            return [self.samples]
        found = [self.samples]
        while found[-1] < self.max_samples:
            found.append(min(2 * found[-1], self.max_samples))
        return found

    @property
    def fixed_level(self) -> float:
        """Level of the fixed-set interval at each look, so that all looks hold together at .95 (Bonferroni)."""
        return 1 - 0.05 / len(self.looks())


def save(settings: Settings, folder: Path) -> None:
    from zerolab.rundir import clear_errors, write_atomically

    with clear_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / SETTINGS, json.dumps(asdict(settings), indent=2) + "\n")


def load(folder: Path) -> Settings | None:
    """The settings of an evaluation's folder; None where there are none. UserError for a file that is none of ours."""
    file = folder / SETTINGS
    if not file.is_file():
        return None
    try:
        raw: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Settings)}
        return Settings(**{**{k: v for k, v in raw.items() if k in known}, "stop": tuple(raw.get("stop", ()))})
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is not the settings of an evaluation ({error}): use another --out") from error


def continued(old: Settings | None, new: Settings, folder: Path) -> Settings:
    """The settings to go on with. UserError where responses of both could not stand in one table."""
    if old is None:
        return new
    changed = [f.name for f in fields(Settings) if getattr(old, f.name) != getattr(new, f.name)]
    if fixed := [name for name in changed if name not in MAY_GROW]:
        before, now = (str(getattr(s, fixed[0]))[:60] for s in (old, new))
        raise UserError(
            f"{folder} was evaluated with {fixed[0]} {before!r}, not {now!r}: use the same, or another --out"
        )
    benchmarks = {**(old.benchmarks or {}), **(new.benchmarks or {})}
    return replace(new, benchmarks=benchmarks, note=new.note or old.note)


def missing(settings: Settings | None, name: str, responses: Sequence[Any], samples: int) -> int:
    """Responses of a benchmark that were asked for and are not there."""
    if settings is None or not settings.benchmarks or name not in settings.benchmarks:
        return 0
    return max(0, settings.benchmarks[name] * samples - len(responses))
