"""What the experiments on length have in common: numbers of a run, statements about them, and their figure."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zerolab.claims.protocol import INFINITY, Row, Statement, chosen, difference, number, paired, window
from zerolab.rl.bias_meter import mean_or_nan

ARMS = ("grpo", "grpo_length_fix", "grpo_std_fix", "dr_grpo")  # both biases, one each, none
GROWS, STAYS = 5.0, 2.0  # tokens: the smallest growth that counts as one, the largest that counts as none
UNTRAINED = "base"  # the arm with a learning rate of 0: samples of the base before training
ALIKE = 0.02  # accuracies that differ by less count as alike

SERIES = {  # number of a cell -> what it is a window of
    "correct": "length/correct",
    "incorrect": "length/incorrect",
    "accuracy": "accuracy",
    "truncated": "truncated",
    "tokens": "length/mean",
    "clipped_gradients": "grad_clipped",
    "normaliser_pressure": "bias/length_normaliser/incorrect",
}
AGAIN, BOX = " again:", "\\boxed{"
RESULT = re.compile(r" = (\d{1,9})")


def length_numbers(series: Mapping[str, Sequence[float]], trained: bool = True) -> dict[str, float]:
    """Start and end of every metric, growth of incorrect length from its own start, the gap to correct answers at the
    end, and tokens spent per correct answer at the end. If nothing was `trained`, start and end are the whole run."""
    numbers: dict[str, float] = {"steps": len(series["accuracy"])}
    for name, metric in SERIES.items():
        if metric in series:
            mean = mean_or_nan([value for value in series[metric] if np.isfinite(value)])
            numbers[f"{name}_start"], numbers[f"{name}_end"] = window(series[metric]) if trained else (mean, mean)
    numbers["growth"] = numbers["incorrect_end"] - numbers["incorrect_start"]
    numbers["gap_end"] = numbers["incorrect_end"] - numbers["correct_end"]
    accuracy = numbers["accuracy_end"]
    numbers["tokens_per_correct_end"] = numbers["tokens_end"] / accuracy if accuracy else float("nan")
    return numbers


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
    for place, part in enumerate(parts):
        results, goes_on = RESULT.findall(part), place < len(parts) - 1
        if results and (goes_on or BOX in part):
            yield results[-1] == answer, goes_on


GROWTH = {  # of every arm, by the claim
    "grpo": ("incorrect answers grow under GRPO", (GROWS, INFINITY)),
    "dr_grpo": ("they do not under Dr. GRPO", (-INFINITY, STAYS)),
    "grpo_std_fix": ("1/|o| alone makes them grow", (GROWS, INFINITY)),
    "grpo_length_fix": ("1/std alone does not", (-INFINITY, STAYS)),
}


def growth_over_base(arm: str, condition: str) -> Callable[[Sequence[Row]], list[float]]:
    """Length of incorrect answers at the end minus that of the base before training, from the same base and seed.

    Old tables have no arm UNTRAINED: there the first 10 rollouts of the arm itself stand for the base.
    """
    trained, base = ({"arm": name, "condition": condition} for name in (arm, UNTRAINED))

    def values(table: Sequence[Row]) -> list[float]:
        if chosen(table, **base):
            return paired(table, "incorrect_end", trained, base)
        return number("growth", **trained)(table)

    return values


def main_statements(condition: str, arms: Sequence[str] = ARMS) -> list[Statement]:
    """The claim at the reference condition: both biases and none, and each of the two alone where `arms` has it."""
    both, none = ({"arm": arm, "condition": condition} for arm in ("grpo", "dr_grpo"))
    tokens = "tokens"
    return [
        *(
            Statement(text, growth_over_base(arm, condition), region, unit=tokens, arm=arm)
            for arm, (text, region) in GROWTH.items()
            if arm in arms
        ),
        Statement(
            "length of incorrect answers at the end, GRPO minus Dr. GRPO",
            end_minus_end(condition),
            (GROWS, INFINITY),
            unit=tokens,
            primary=True,
        ),
        Statement(
            "GRPO ends with a wider gap between incorrect and correct answers",
            difference("gap_end", both, none),
            (GROWS, INFINITY),
            unit=tokens,
        ),
        Statement(
            "accuracy is alike at the end (GRPO minus Dr. GRPO)",
            difference("accuracy_end", both, none),
            (-ALIKE, ALIKE),
            role="shown",
            level=0.90,
        ),
        Statement(
            "GRPO spends more tokens per correct answer",
            difference("tokens_per_correct_end", both, none),
            (0.0, INFINITY),
            role="shown",
            unit=tokens,
        ),
    ]


def meter_statements(condition: str) -> list[Statement]:
    """What the bias meter shows beside the claim, and how often gradients were clipped."""

    def at_end(name: str, arm: str) -> Callable[[Sequence[Row]], list[float]]:
        return number(f"{name}_end", arm=arm, condition=condition)

    pressure, unit = "normaliser_pressure", "reward x tokens"
    return [
        Statement(
            "the bias meter: normaliser pressure on incorrect answers under GRPO",
            at_end(pressure, "grpo"),
            (0.0, INFINITY),
            role="check",
            unit=unit,
            arm="grpo",
        ),
        Statement(
            "the bias meter: none under Dr. GRPO",
            at_end(pressure, "dr_grpo"),
            (-1e-9, 1e-9),
            role="check",
            exact=True,
            unit=unit,
            arm="dr_grpo",
        ),
        Statement(
            "share of optimizer steps whose gradient was clipped, under GRPO",
            at_end("clipped_gradients", "grpo"),
            (0.0, 1.0),
            role="shown",
            share=True,
            arm="grpo",
        ),
        Statement(
            "the same under Dr. GRPO",
            at_end("clipped_gradients", "dr_grpo"),
            (0.0, 1.0),
            role="shown",
            share=True,
            arm="dr_grpo",
        ),
    ]


def holds_at(condition: str, text: str, replicate: Literal["", "seed"] = "") -> Statement:
    """End minus end, GRPO minus Dr. GRPO, at one level of one factor, all else as in the reference."""
    ends = end_minus_end(condition)
    return Statement(text, ends, (GROWS, INFINITY), role="shown", unit="tokens", replicate=replicate)


def vanishes_at(condition: str, text: str) -> Statement:
    return Statement(text, end_minus_end(condition), (-GROWS, GROWS), role="control", level=0.90, unit="tokens")


def end_minus_end(condition: str) -> Callable[[Sequence[Row]], list[float]]:
    """Length of incorrect answers at the end, GRPO minus Dr. GRPO, from the same base and seed."""
    return difference("incorrect_end", *({"arm": arm, "condition": condition} for arm in ("grpo", "dr_grpo")))
