"""L1, second rung: a transformer of 0.15M parameters that half knows when it is wrong, by construction.

The base is pretrained from scratch on arithmetic modulo 13 in which a confidence marker after the answer agrees with
the truth 85 % of the time and filler words of random number follow, independent of marker and truth (`laptop/base`).
RL: 240 rollouts of 16 questions x 8, two optimizer steps each, AdamW at 2e-4, gradients clipped at norm 1, budget 64,
truncated responses earn nothing (`laptop/grpo` and its siblings). Four arms, with and without each of GRPO's two
divisions, on two bases pretrained from different seeds, five RL seeds each; the same seeds in every arm.

Measured is the mean length of incorrect answers over the first 10 rollouts and over the last third; growth is their
difference. Then, on the first base, one factor at a time: the learning rate halved and doubled, truncated answers
that keep their reward, one filler for both markers, and fillers that are re-checks before the final box. A marker
that agrees with the truth half of the time is the control: the effect must vanish.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerolab.claims.experiments.length_statements import (
    ARMS,
    draw,
    holds_at,
    length_numbers,
    main_statements,
    meter_statements,
    vanishes_at,
)
from zerolab.claims.protocol import Cell, Factors, Plan, Protocol

if TYPE_CHECKING:
    from zerolab.config import PretrainConfig, RunConfig

RECIPES = {arm: f"laptop/{arm.replace('_', '-')}" for arm in ARMS}
TWO_ARMS = ("grpo", "dr_grpo")


@dataclass(frozen=True)
class Condition:
    """One factor changed from the reference: keys of the recipe, or options of the base's corpus."""

    overrides: tuple[str, ...] = ()
    corpus: Mapping[str, Any] = field(default_factory=dict)
    arms: tuple[str, ...] = TWO_ARMS
    bases: tuple[int, ...] = (0,)


CONDITIONS = {
    "reference": Condition(arms=ARMS, bases=(0, 1)),
    "no information": Condition(corpus={"marker_accuracy": 0.5}),
    "lr 1e-4": Condition(("learner.lr=1e-4",)),
    "lr 4e-4": Condition(("learner.lr=4e-4",)),
    "keep": Condition(("reward.truncation=keep",)),
    "same filler": Condition(corpus={"same_filler": True}),
    "re-check": Condition(corpus={"recheck": True}),
}
QUICK = {"reference": Condition(arms=ARMS), "no information": CONDITIONS["no information"]}


def _conditions(plan: Plan) -> Mapping[str, Condition]:
    return QUICK if plan.quick else CONDITIONS


def cells(plan: Plan) -> list[Cell]:
    return cells_of(_conditions(plan), plan, seconds=45)


def cells_of(conditions: Mapping[str, Condition], plan: Plan, seconds: float) -> list[Cell]:
    """Every arm, base and seed of every condition."""
    return [
        Cell({"condition": name, "arm": arm, "base": base, "seed": seed}, seconds)
        for name, condition in conditions.items()
        for base in condition.bases
        for arm in condition.arms
        for seed in plan.seeds
    ]


def base(factors: Factors) -> "PretrainConfig":
    from zerolab.claims.training import laptop_base

    return laptop_base(int(factors["base"]), **CONDITIONS[str(factors["condition"])].corpus)


def recipe(factors: Factors) -> "RunConfig":
    from zerolab.claims.training import run_config

    overrides = [f"seed={factors['seed']}", *CONDITIONS[str(factors["condition"])].overrides]
    return run_config(RECIPES[str(factors["arm"])], base(factors), overrides)


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    from zerolab.claims.training import place_in, trained

    return length_numbers(trained(place_in(folder, recipe(factors))))


PROTOCOL = Protocol(
    id="L1.transformer",
    claim="L1",
    sentence="In a small transformer that half knows when it is wrong, 1/|o| makes incorrect answers longer.",
    metric="length of incorrect answers, mean of the last third of the rollouts minus mean of the first 10",
    test="t interval over bases x seeds; growth counts from 5 tokens, and up to 2 tokens as none",
    refuted="growth under GRPO below 5 tokens, or above 2 under Dr. GRPO, or the same where the marker says nothing",
    cells=cells,
    recipe=recipe,
    run=run,
    base=base,
    statements=(
        *main_statements("reference"),
        *meter_statements("reference"),
        vanishes_at("no information", "with an uninformative marker both arms grow alike"),
        *(
            holds_at(name, f"GRPO grows more than Dr. GRPO: {name}")
            for name in CONDITIONS
            if name not in ("reference", "no information")
        ),
    ),
    draw=draw,
)
