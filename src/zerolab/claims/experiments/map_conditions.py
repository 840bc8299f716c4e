"""The conditions of L1.map, numbers over all of them, and its figure."""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from zerolab.claims.protocol import Factors, Row, chosen, difference, measured
from zerolab.worlds.confidence_policy import Setting, Style

DIVIDED, CONSTANT = "grpo_std_fix", "dr_grpo"
SIGNALS, ASSOCIATIONS, MENDINGS, TRUNCATIONS = (
    (0.5, 0.6, 0.7, 0.9),
    (0.0, 1.5, 3.0),
    (0.0, 0.01, 0.03),
    ("zero", "keep"),
)
NONE, STRONG, PAYS = ASSOCIATIONS[0], ASSOCIATIONS[-1], MENDINGS[-1]
LONGER = 5.0  # tokens that count as longer
DRAWS = 2000  # of the bootstrap over conditions


def condition(signal: float, association: float, mending: float, truncation: str, reward: str = "verdict") -> Factors:
    """The factors of one condition."""
    return {
        "signal": signal,
        "association": association,
        "mending": mending,
        "truncation": truncation,
        "reward": reward,
    }


CONDITIONS = [condition(*levels) for levels in product(SIGNALS, ASSOCIATIONS, MENDINGS, TRUNCATIONS)]
CORNERS = [
    *(condition(signal, association, 0.0, "zero") for signal, association in ((0.5, NONE), (0.5, STRONG), (0.9, NONE))),
    condition(0.7, NONE, PAYS, "zero"),
]
COIN = condition(0.9, STRONG, 0.0, "keep", "coin")


def setting_of(factors: Factors) -> Setting:
    return Setting(
        signal_accuracy=float(factors["signal"]),
        style=Style(float(factors["association"])),
        mending=float(factors["mending"]),
        truncation="keep" if factors["truncation"] == "keep" else "zero",
        reward="coin" if factors["reward"] == "coin" else "verdict",
    )


def ends(where: Factors) -> Callable[[Sequence[Row]], list[float]]:
    """Length of incorrect answers at the end, 1/|o| minus constant, seed by seed."""
    return difference("incorrect_end", {**where, "arm": DIVIDED}, {**where, "arm": CONSTANT})


def growth(where: Factors, arm: str) -> Callable[[Sequence[Row]], list[float]]:
    return measured(lambda row: float(row["incorrect_end"]) - float(row["incorrect_before"]), **where, arm=arm)


def paired_conditions(table: Sequence[Row], drift: str, seeds: Sequence[Any]) -> np.ndarray:
    """[conditions, 2]: drift and end difference, 1/|o| minus constant, over the conditions that were run."""
    found = []
    for where in CONDITIONS:
        arms = [[row for row in chosen(table, **where, arm=arm) if row["seed"] in seeds] for arm in (DIVIDED, CONSTANT)]
        if all(arms):
            means = [[np.mean([row[name] for row in rows]) for name in (drift, "incorrect_end")] for rows in arms]
            found.append(np.array(means[0]) - np.array(means[1]))
    return np.array(found)


def rank_correlation(drift: str) -> Callable[[Sequence[Row]], list[float]]:
    """Seed by seed: how well the probe orders the conditions by what training did."""

    def values(table: Sequence[Row]) -> list[float]:
        from scipy.stats import spearmanr

        pairs = (paired_conditions(table, drift, [seed]) for seed in dict.fromkeys(row["seed"] for row in table))
        return [float(spearmanr(*points.T).statistic) for points in pairs if len(points) > 2]

    return values


def sign_agreement(table: Sequence[Row]) -> list[float]:
    """Seed by seed: of the conditions that end more than LONGER tokens apart, the share whose sign the probe has."""
    shares = []
    for seed in dict.fromkeys(row["seed"] for row in table):
        points = paired_conditions(table, "drift", [seed])
        apart = points[np.abs(points[:, 1]) > LONGER] if len(points) else points
        if len(apart):
            shares.append(float(np.mean(np.sign(apart[:, 0]) == np.sign(apart[:, 1]))))
    return shares


def opposite_growth(table: Sequence[Row]) -> list[float]:
    """Seed by seed: the number of conditions in which 1/|o| shortens below the base and the constant lengthens."""
    seeds = list(dict.fromkeys(row["seed"] for row in table))
    found = []
    for seed in seeds:
        rows = [row for row in table if row["seed"] == seed]
        changes = [(growth(c, DIVIDED)(rows), growth(c, CONSTANT)(rows)) for c in CONDITIONS]
        found.append(float(sum(d[0] < -LONGER and k[0] > LONGER for d, k in changes if d and k)))
    return found


def bootstrap_correlation(points: np.ndarray) -> tuple[float, float, float]:
    """Spearman over conditions, with the percentile interval of a bootstrap over them."""
    from scipy.stats import spearmanr

    random = np.random.default_rng(0)
    draws = [spearmanr(*points[random.integers(len(points), size=len(points))].T).statistic for _ in range(DRAWS)]
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return float(spearmanr(*points.T).statistic), float(low), float(high)


def draw(table: Sequence[Row], path: Path) -> None:
    """Draw heat maps of the end differences, one for each mending and truncation, and the probe against them."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(12.6, 5.6), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(2.1, 1))
    left, right = halves
    axes = left.subplots(len(TRUNCATIONS), len(MENDINGS), sharex=True, sharey=True)
    values = {tuple(w.values()): np.mean(found) for w in CONDITIONS if (found := ends(w)(table))}
    bound = max(map(abs, values.values()), default=1.0)
    for (row, truncation), (column, mending) in product(enumerate(TRUNCATIONS), enumerate(MENDINGS)):
        grid = np.array(
            [
                [values.get(tuple(condition(s, a, mending, truncation).values()), np.nan) for s in SIGNALS]
                for a in ASSOCIATIONS
            ]
        )
        axis = axes[row, column]
        axis.imshow(grid, cmap="RdBu_r", vmin=-bound, vmax=bound, origin="lower", aspect="auto")
        for (i, j), value in np.ndenumerate(grid):
            ink = "white" if abs(value) > 0.55 * bound else "black"
            axis.text(
                j, i, "" if np.isnan(value) else f"{value:+.0f}", ha="center", va="center", color=ink, fontsize=10
            )
        axis.set_xticks(range(len(SIGNALS)), [f"{s:g}" for s in SIGNALS])
        axis.set_yticks(range(len(ASSOCIATIONS)), [f"{a:g}" for a in ASSOCIATIONS])
        if row == 0:
            axis.set_title("length earns nothing" if not mending else f"a token mends {mending:.0%}", fontsize=10)
        if column == 0:
            axis.set_ylabel(f"truncated: {truncation}\nassociation (logits)")
        if row == len(TRUNCATIONS) - 1:
            axis.set_xlabel("accuracy of the signal")
    left.suptitle("Incorrect answers at the end, 1/|o| minus constant divisor (tokens)", fontsize=11, weight="bold")
    _draw_probe(right, table)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def _draw_probe(figure: Any, table: Sequence[Row]) -> None:
    points = paired_conditions(table, "drift", list({row["seed"] for row in table}))
    axis = figure.subplots()
    axis.plot(*points.T, "o", markersize=4, alpha=0.7)
    axis.axhline(0, linewidth=0.6, color="gray")
    axis.axvline(0, linewidth=0.6, color="gray")
    axis.set_xlabel("probe before training: tokens per unit of step")
    axis.set_ylabel("difference at the end (tokens)")
    estimate, low, high = bootstrap_correlation(points) if len(points) > 2 else (np.nan,) * 3
    title = f"Spearman {estimate:.2f} [{low:.2f}, {high:.2f}]"
    figure.suptitle(title, fontsize=11, weight="bold")
