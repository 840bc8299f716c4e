"""Which checkpoints of a run were shown a test benchmark. The best of several is chosen on the test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from zerolab.config.benchmark_guard import benchmark_of, forced_note
from zerolab.errors import UserError
from zerolab.rundir import CONFIG, TEST_LOOKS, read_object


def run_of(folder: Path) -> Path | None:
    """The run that a checkpoint belongs to; None for any other folder."""
    place = folder.resolve()
    return place.parents[1] if place.parent.name == "checkpoints" and (place.parents[1] / CONFIG).is_file() else None


def note_of(folder: Path) -> str | None:
    """What a checkpoint's run has to say of its evaluation while it trained."""
    run = run_of(folder)
    if run is None:
        return None
    config = read_object(run / CONFIG)
    return None if config is None else forced_note(config)


def look(folder: Path, benchmarks: Sequence[str], forced: bool) -> str | None:
    """Writes down that this checkpoint is shown these benchmarks; what its tables have to say, if anything.

    Raises UserError where another checkpoint of the run was shown one of them and this is not `forced`.
    """
    run = run_of(folder)
    tests = [name for name in benchmarks if benchmark_of(name)]
    if run is None or not tests:
        return None
    looks = _read(run / TEST_LOOKS)
    others = sorted({step for step, name in looks if name in tests and step != folder.name})
    if others and not forced:
        raise UserError(
            f"{', '.join(others)} of {run.name} saw a test benchmark before, and the best of several checkpoints is "
            "chosen on the test: choose by held-out questions (eval/accuracy); --several-checkpoints goes on, and the "
            "tables say so"
        )
    new = [name for name in tests if (folder.name, name) not in looks]
    with (run / TEST_LOOKS).open("a", encoding="utf-8") as file:
        for name in new:
            when = datetime.now(UTC).isoformat(timespec="seconds")
            file.write(json.dumps({"checkpoint": folder.name, "benchmark": name, "when": when}) + "\n")
    if not others:
        return None
    return f"one of {len(others) + 1} checkpoints of {run.name} that were shown a test benchmark: no choice among them"


def _read(file: Path) -> set[tuple[str, str]]:
    """(checkpoint, benchmark) pairs; a broken line counts as none."""
    found = set()
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else ():
        try:
            row = json.loads(line)
            found.add((str(row["checkpoint"]), str(row["benchmark"])))
        except (ValueError, KeyError, TypeError):
            continue
    return found
