"""L1, second rung: a transformer of 0.15M parameters that half knows when it is wrong, by construction.

The base is pretrained from scratch on arithmetic modulo 13 in which a confidence marker after the answer agrees with
the truth 85 % of the time and filler words of random number follow, independent of marker and truth (`laptop/base`).
RL: 240 rollouts of 16 questions x 8, two optimizer steps each, AdamW at 2e-4, gradients clipped at norm 1, budget 64,
truncated responses earn nothing (`laptop/grpo` and its siblings). Four arms, with and without each of GRPO's two
divisions, on five bases pretrained from different seeds, two RL seeds each; the same seeds in every arm. A fifth arm
has a learning rate of 0: 40 rollouts of the base before training.

Measured is the mean length of incorrect answers over the last third of the rollouts; growth is that minus the length
under the base. A marker that agrees with the truth half of the time is the control: the effect must vanish. Then, on
one base with five seeds, one factor at a time: the learning rate halved and doubled, truncated answers that keep their
reward, one filler for both markers, and fillers that are re-checks before the final box.

Version 1 had two bases with five seeds each and measured growth from the first 10 rollouts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerolab.claims.experiments.length_statements import (
    ARMS,
    UNTRAINED,
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
TWO_ARMS, BASE_STEPS = ("grpo", "dr_grpo"), 40


@dataclass(frozen=True)
class Condition:
    """One factor changed from the reference: keys of the recipe, or options of the base's corpus."""

    overrides: tuple[str, ...] = ()
    corpus: Mapping[str, Any] = field(default_factory=dict)
    arms: tuple[str, ...] = TWO_ARMS
    bases: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = ()  # those of the plan if empty


BASES = (2, 3, 4, 5, 6)  # version 1 had 0 and 1
REFERENCE = Condition(arms=(*ARMS, UNTRAINED), bases=BASES)
NO_INFORMATION = Condition(corpus={"marker_accuracy": 0.5}, bases=BASES)
ON_ONE_BASE = Condition(bases=BASES[:1], seeds=(0, 1, 2, 3, 4))
CONDITIONS = {
    "reference": REFERENCE,
    "no information": NO_INFORMATION,
    "lr 1e-4": replace(ON_ONE_BASE, overrides=("learner.lr=1e-4",)),
    "lr 4e-4": replace(ON_ONE_BASE, overrides=("learner.lr=4e-4",)),
    "keep": replace(ON_ONE_BASE, overrides=("reward.truncation=keep",)),
    "same filler": replace(ON_ONE_BASE, corpus={"same_filler": True}),
    "re-check": replace(ON_ONE_BASE, corpus={"recheck": True}),
}
QUICK = {
    "reference": replace(REFERENCE, arms=(*TWO_ARMS, UNTRAINED), bases=BASES[:1]),
    "no information": replace(NO_INFORMATION, bases=BASES[:1]),
}


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
        for seed in condition.seeds or plan.seeds
    ]


def base(factors: Factors) -> "PretrainConfig":
    from zerolab.claims.training import laptop_base

    return laptop_base(int(factors["base"]), **CONDITIONS[str(factors["condition"])].corpus)


def recipe(factors: Factors) -> "RunConfig":
    overrides = [f"seed={factors['seed']}", *CONDITIONS[str(factors["condition"])].overrides]
    return arm_config(str(factors["arm"]), base(factors), overrides)


def arm_config(arm: str, model: "PretrainConfig", overrides: Sequence[str]) -> "RunConfig":
    """The recipe of an arm; of UNTRAINED that of Dr. GRPO with a learning rate of 0 and few steps."""
    from zerolab.claims.training import run_config, untrained

    config = run_config(RECIPES["dr_grpo" if arm == UNTRAINED else arm], model, overrides)
    return untrained(config, BASE_STEPS) if arm == UNTRAINED else config


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    from zerolab.claims.training import place_in, trained

    series = trained(place_in(folder, recipe(factors)))
    return length_numbers(series, trained=factors["arm"] != UNTRAINED)


PROTOCOL = Protocol(
    id="L1.transformer",
    claim="L1",
    sentence="In a small transformer that half knows when it is wrong, 1/|o| makes incorrect answers longer.",
    metric="length of incorrect answers, mean of the last third of the rollouts minus that of the base before training",
    test="t interval over bases, each the mean of its seeds; growth counts from 5 tokens, and up to 2 tokens as none",
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
            holds_at(name, f"end, GRPO minus Dr. GRPO: {name}", "seed")
            for name in CONDITIONS
            if name not in ("reference", "no information")
        ),
    ),
    label="planted",
    replicate="base",
    seeds=2,
    version="2",
)
