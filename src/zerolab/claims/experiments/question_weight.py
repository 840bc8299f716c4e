"""L2: dividing by the standard deviation weighs questions by their difficulty.

The weight of a question is the slope of its advantages on its centred rewards. With 0/1 rewards and G responses its
mean over groups is an exact function of the pass rate p: the sum over the number of solved siblings of a binomial
times the gap between the advantages of a right and of a wrong answer. The production advantages give it without
sampling. Compared are p = .01 and p = .5 for G = 2, 8, 16 and 64.

Then it is measured in training: 60 rollouts of the transformer of L1 (`laptop/grpo`, `laptop/dr-grpo`; G = 8), whose
bias meter logs the mean weight of mixed questions by the share of their responses that was solved. The lowest fifth
(1 of 8) is set against the middle one (4 of 8); the exact slopes of these groups are sqrt(8) and sqrt(3.5).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zerolab.claims.protocol import INFINITY, Cell, Factors, Plan, Protocol, Row, Statement, chosen

if TYPE_CHECKING:
    from zerolab.config import PretrainConfig, RunConfig

ARMS = ("grpo", "dr_grpo")
SIZES = (2, 8, 16, 64)
ROLLOUTS = 60
FIFTHS = {"low": "00-20", "middle": "40-60"}  # of the solved share of a group
PASS_RATES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def cells(plan: Plan) -> list[Cell]:
    exact = [
        Cell({"kind": "exact", "arm": arm, "size": size, "p": p}, seconds=0.1)
        for arm in ARMS
        for size in SIZES
        for p in PASS_RATES
    ]
    measured = [Cell({"kind": "measured", "arm": arm, "seed": seed}, seconds=15) for arm in ARMS for seed in plan.seeds]
    return exact + measured


def base(factors: Factors) -> "PretrainConfig | None":
    from zerolab.claims.training import laptop_base

    return laptop_base(0) if factors["kind"] == "measured" else None


def recipe(factors: Factors) -> "Mapping[str, object] | RunConfig":
    from zerolab.claims.training import laptop_base, run_config

    if factors["kind"] == "exact":
        return {}
    name = f"laptop/{str(factors['arm']).replace('_', '-')}"
    return run_config(name, laptop_base(0), [f"seed={factors['seed']}", f"steps={ROLLOUTS}"])


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    if factors["kind"] == "exact":
        return {"weight": exact_weight(str(factors["arm"]), int(factors["size"]), float(factors["p"]))}
    from zerolab.claims.training import finite_mean, place_in, trained

    metrics = trained(place_in(folder, recipe(factors)))  # type: ignore[arg-type]  # a run, as the kind says
    means = {name: finite_mean(metrics[f"bias/question_weight/{fifth}"]) for name, fifth in FIFTHS.items()}
    return {"steps": ROLLOUTS, **means}


def exact_weight(arm: str, size: int, p: float) -> float:
    """c(p) in E[gradient of a question] = c(p) grad p: E over solved siblings of A(right) - A(wrong)."""
    from scipy import stats

    from zerolab.rl.advantage import advantages
    from zerolab.rl.objective import PRESETS

    def advantage(solved: int, right: bool) -> float:
        rewards_G = np.array([1.0] * solved + [0.0] * (size - solved))
        return float(advantages(rewards_G, PRESETS[arm])[0 if right else -1])

    gaps = [advantage(k + 1, True) - advantage(k, False) for k in range(size)]
    return float(stats.binom.pmf(np.arange(size), size - 1, p) @ gaps)


def ratio(arm: str, size: int) -> Callable[[Sequence[Row]], list[float]]:
    """Exact weight at p = .01 over that at p = .5."""

    def values(table: Sequence[Row]) -> list[float]:
        rare, half = (chosen(table, kind="exact", arm=arm, size=size, p=p) for p in (0.01, 0.5))
        return [float(rare[0]["weight"]) / float(half[0]["weight"])] if rare and half else []

    return values


def measured_ratio(arm: str) -> Callable[[Sequence[Row]], list[float]]:
    return lambda table: [float(r["low"]) / float(r["middle"]) for r in chosen(table, kind="measured", arm=arm)]


def draw(table: Sequence[Row], path: Path) -> None:
    """Question weight against pass rate, exact, a line for every group size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, constrained_layout=True)
    for axis, arm in zip(axes, ARMS, strict=True):
        for size in SIZES:
            rows = chosen(table, kind="exact", arm=arm, size=size)
            points = sorted((float(r["p"]), float(r["weight"])) for r in rows)
            axis.plot(*zip(*points, strict=True), marker=".", label=f"G = {size}")
        axis.set(title=arm, xlabel="pass rate p", ylim=(0, None))
        axis.legend(frameon=False)
    axes[0].set_ylabel("weight of a question")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def exact(arm: str, size: int, text: str, region: tuple[float, float]) -> Statement:
    return Statement(text, ratio(arm, size), region, "check", exact=True, arm=arm)


def in_training(arm: str, text: str, region: tuple[float, float]) -> Statement:
    return Statement(text, measured_ratio(arm), region, "check", exact=True, arm=arm)


RARE_OVER_HALF = "weight at p = .01 over p = .5"
NEAR_SQRT = (float(np.sqrt(8 / 3.5)) - 0.01, float(np.sqrt(8 / 3.5)) + 0.01)

PROTOCOL = Protocol(
    id="L2.weight",
    claim="L2",
    sentence="Dividing by the standard deviation weighs questions by their difficulty.",
    metric="weight of a question at p = .01 over p = .5; in training, at 1 of 8 solved over 4 of 8",
    test="exact for the expectation; t interval over seeds for the measured ratio",
    refuted="a ratio of 1 under GRPO at G = 8 or more, or any other than 1 under Dr. GRPO",
    cells=cells,
    recipe=recipe,
    run=run,
    base=base,
    statements=(
        *(exact("grpo", size, f"GRPO, G = {size}: {RARE_OVER_HALF}", (1.2, INFINITY)) for size in SIZES[1:]),
        exact("grpo", 2, f"GRPO, G = 2: {RARE_OVER_HALF}", (1 - 1e-6, 1 + 1e-6)),
        *(exact("dr_grpo", size, f"Dr. GRPO, G = {size}", (1 - 1e-9, 1 + 1e-9)) for size in SIZES),
        in_training("grpo", "GRPO in training, against sqrt(8 / 3.5)", NEAR_SQRT),
        in_training("dr_grpo", "Dr. GRPO in training", (1 - 1e-6, 1 + 1e-6)),
    ),
    label="algebra",
    replicate="seed",
    draw=draw,
    quick_seeds=3,
)
