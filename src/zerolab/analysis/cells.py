"""Responses by what they were sampled with, and the counts by question that every interval is made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from zerolab.evaluation.responses import Response
from zerolab.evaluation.statistics import Interval, population_interval

SETTING = ("model", "template", "temperature")  # the columns of a Setting


class Setting(NamedTuple):
    """ "" and None where a file does not say."""

    model: str
    template: str
    temperature: float | None

    @property
    def label(self) -> str:
        parts = [self.model, self.template, "" if self.temperature is None else f"T={self.temperature:g}"]
        return " ".join(part for part in parts if part) or "responses"


@dataclass(frozen=True)
class Cell:
    """Responses under one setting."""

    setting: Setting
    responses: tuple[Response, ...]

    @property
    def question_N(self) -> np.ndarray:
        """[N] number of the question of each response, from 0 in order of appearance."""
        names: dict[tuple[str, str], int] = {}
        return np.array([names.setdefault((r.benchmark, r.question_id), len(names)) for r in self.responses])

    @property
    def samples_Q(self) -> np.ndarray:
        return np.bincount(self.question_N)

    def flags(self, of: Callable[[Response], bool]) -> np.ndarray:
        """[N] bool."""
        return np.array([of(r) for r in self.responses], bool)


def cells(responses: Sequence[Response]) -> list[Cell]:
    """One cell a setting, by model, template and temperature."""
    found: dict[Setting, list[Response]] = {}
    for response in responses:
        key = Setting(response.model, response.template, response.temperature)
        found.setdefault(key, []).append(response)
    order = sorted(found, key=lambda s: (s.model, s.template, -1.0 if s.temperature is None else s.temperature))
    return [Cell(setting, tuple(found[setting])) for setting in order]


class Rate(NamedTuple):
    """A mean over questions of the share of their responses, with its 95 % interval for a population of such questions.

    None where there is no response to take it of.
    """

    value: float | None
    interval: Interval | None
    responses: int


def rate(flags_N: np.ndarray, question_N: np.ndarray, chosen_N: np.ndarray | None = None) -> Rate:
    """Questions are the units: each counts alike, and the interval is that of as many draws of questions."""
    if chosen_N is not None:
        flags_N, question_N = flags_N[chosen_N], question_N[chosen_N]
    if not len(flags_N):
        return Rate(None, None, 0)
    _, question_N = np.unique(question_N, return_inverse=True)
    samples_Q = np.bincount(question_N)
    hits_Q = np.bincount(question_N, flags_N.astype(float))
    value = float((hits_Q / samples_Q).mean())
    return Rate(value, population_interval(hits_Q, samples_Q), len(flags_N))


def any_rate(flags_N: np.ndarray, question_N: np.ndarray) -> Rate:
    """Share of questions with at least one such response."""
    if not len(flags_N):
        return Rate(None, None, 0)
    hit_Q = (np.bincount(question_N, flags_N.astype(float)) > 0).astype(float)
    return Rate(float(hit_Q.mean()), population_interval(hit_Q, np.ones(len(hit_Q), int)), len(flags_N))


def solved(response: Response) -> bool:
    """Right in the template's own format, truncated or not: what `zerolab evaluate` counts."""
    return bool(response.grade and response.grade.correct)
