"""Accuracy against token budget, from responses that are there: each is cut where the budget would have ended it.

A response that fits keeps its grade; a longer one is graded on the text it had by then. Where that text ends is known
to the token at multiples of 64 tokens, if the file has `cuts`; otherwise characters are taken to be spread evenly over
the tokens. A model that knew its budget might have answered in time: this is a lower bound for such a one.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from zerolab.evaluation.grades import grade_responses
from zerolab.evaluation.intervals import Interval, weighted_interval
from zerolab.evaluation.responses import Response
from zerolab.evaluation.sampler import CUT_TOKENS
from zerolab.evaluation.score import Table, population_of

FEWEST = CUT_TOKENS


@dataclass(frozen=True)
class Point:
    """Averages over benchmarks, at one budget in tokens."""

    budget: int
    accuracy: float
    interval: Interval
    tokens: float  # spent on a response
    exact: float  # share of the cut responses whose cut is known to the token


def budgets(longest: int) -> list[int]:
    """64, 128, 256 .. and halfway between, up to the longest response: multiples of CUT_TOKENS, and the longest."""
    steps = [int(FEWEST * 2**i * f) for i in range(12) for f in (1, 1.5)]
    return sorted({b for b in steps if b < longest and b % CUT_TOKENS == 0} | {longest})


def cut(response: Response, budget: int) -> tuple[Response, bool]:
    """(the response as it would have been, whether the place is known to the token)."""
    tokens = response.tokens
    if tokens is None:
        raise ValueError(f"{response.key} has no length")
    if tokens <= budget:
        return response, True
    number = budget // CUT_TOKENS
    exact = budget % CUT_TOKENS == 0 and 0 < number <= len(response.cuts)
    end = response.cuts[number - 1] if exact else int(len(response.response) * budget / tokens)
    text = response.response[:end]
    return replace(response, response=text, tokens=budget, finish_reason="length", grade=None, lenient=None), exact


def frontier(tables: Sequence[Table], extractor: Mapping[str, str] | str) -> list[Point]:
    """One point a budget. `extractor` by template name, or one for all. Empty where lengths are not known."""
    responses = [r for table in tables for row in table.responses_QS for r in row]
    if not responses or any(r.tokens is None for r in responses):
        return []

    def mode(response: Response) -> str:
        return extractor if isinstance(extractor, str) else extractor.get(response.template, "boxed")

    points = []
    for budget in budgets(max(r.tokens or 0 for r in responses)):
        made = [cut(r, budget) for r in responses]
        shorter = [i for i, (r, _) in enumerate(made) if r.grade is None]
        graded = dict(zip(shorter, grade_responses([made[i][0] for i in shorter], mode), strict=True))
        now = [graded.get(i, r) for i, (r, _) in enumerate(made)]
        cuts_known = [made[i][1] for i in shorter]
        points.append(_point(budget, now, float(np.mean(cuts_known)) if cuts_known else 1.0))
    return points


def _point(budget: int, responses: Sequence[Response], exact: float) -> Point:
    by_name: dict[str, list[Response]] = {}
    for r in responses:
        by_name.setdefault(r.benchmark, []).append(r)
    cut_tables = [Table.of(name, rows) for name, rows in by_name.items()]
    accuracies = [float(np.nanmean(t.correct_QS, 1).mean()) for t in cut_tables]
    interval = weighted_interval(accuracies, [population_of(t) for t in cut_tables])
    tokens = float(np.mean([np.nanmean(t.tokens_QS, 1).mean() for t in cut_tables]))
    return Point(budget, float(np.mean(accuracies)), interval, tokens, exact)


def write_csv(path: Path, curves: Mapping[str, Sequence[Point]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "budget", "accuracy", "low", "high", "mean_tokens", "cut_exactly"])
        for name, points in curves.items():
            for p in points:
                writer.writerow([name, p.budget, p.accuracy, p.interval.low, p.interval.high, p.tokens, p.exact])


def draw(path: Path, curves: Mapping[str, Sequence[Point]]) -> None:
    """Left: accuracy against the budget. Right: accuracy against the tokens really spent."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True, sharey=True)
    for name, points in curves.items():
        accuracy = [100 * p.accuracy for p in points]
        for axis, x in zip(axes, ([p.budget for p in points], [p.tokens for p in points]), strict=True):
            (line,) = axis.plot(x, accuracy, marker="o", markersize=3, label=name)
            low, high = ([100 * p.interval[side] for p in points] for side in (0, 1))
            axis.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    for axis, label in zip(axes, ("token budget (responses cut there)", "mean tokens of a response"), strict=True):
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.set_xlabel(label)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("accuracy, %, mean over benchmarks")
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle("Accuracy against token budget; bands: 95 % for a population of such questions", fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)
