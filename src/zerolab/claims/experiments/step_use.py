"""Does a policy use its own steps? Read from the transcripts of a run on chains of additions."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from zerolab.rl.bias_meter import mean_or_nan

AGAIN, BOX = " again:", "\\boxed{"
RESULT = re.compile(r" = (\d{1,9})")


def measure_step_use(folder: Path) -> dict[str, float]:
    """How much more often the policy derives again after a derivation with a wrong result than after one with the right
    result, at the start and at the end of the run; and how often derivations come out right."""
    from zerolab.rundir import TRANSCRIPTS, step_windows

    with (folder / TRANSCRIPTS).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    last = max(row["step"] for row in rows)
    windows = {
        name: [row for row in rows if first <= row["step"] <= to] for name, (first, to) in step_windows(last).items()
    }
    return {f"{name}_{when}": value for when, part in windows.items() for name, value in step_use(part).items()}


def step_use(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Of rows of a transcript. NaN where nothing was derived rightly, or wrongly."""
    went_on: dict[bool, list[bool]] = {True: [], False: []}
    for row in rows:
        for right, on in decisions(row["response"], row["answers"][0]):
            went_on[right].append(on)
    after_right, after_wrong = (mean_or_nan(went_on[right]) for right in (True, False))
    return {
        "step_use": after_wrong - after_right,
        "derived_right": mean_or_nan([r for r in went_on for _ in went_on[r]]),
    }


def decisions(response: str, answer: str) -> Iterator[tuple[bool, bool]]:
    """(whether its result is the answer, whether another one followed) of every derivation that was decided upon; one
    that the budget cut off was not."""
    parts = response.split(AGAIN)
    for number, part in enumerate(parts):
        results, goes_on = RESULT.findall(part), number < len(parts) - 1
        if results and (goes_on or BOX in part):
            yield results[-1] == answer, goes_on
