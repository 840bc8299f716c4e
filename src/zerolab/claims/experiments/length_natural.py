"""L1, third rung: a transformer on a multi-step task in which no word says how sure anyone is.

The base (0.2M parameters, `laptop/chain-base`) is pretrained from scratch on chains of two or three additions and
subtractions modulo 10, worked out step by step in an order of the speaker's own, perhaps again and again; how often is
geometric and independent of all else, every further derivation repeats the first, and so does the box its result. A
fifth of the facts is guessed by everyone. So responses to one question differ in whether they had to guess, which
decides whether they are right nine times in ten or one time in ten and can only be seen in the steps; and going on
never pays. RL as in `laptop/grpo` and its siblings on fresh questions of the same endless family, so that hardly one is
seen twice: 100 rollouts of 8 questions x 8, two optimizer steps each, AdamW at 2e-4, budget 48, truncated responses
earn nothing. GRPO and Dr. GRPO share two bases and five RL seeds.

Measured is the mean length of incorrect answers over the first 10 rollouts and over the last third; growth is their
difference. Beside it stands whether the policy uses its own steps: how much more often it goes on after a derivation
with a wrong result than after one with the right result. In the condition "fresh" derivations keep the order of the
question, half of the speakers are careless, fewer facts are guessed, and everyone starts afresh: there going on can
mend what went wrong. Control: a fair coin in the place of the verdict, under which both arms must grow alike.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from zerolab.claims.experiments.length_statements import (
    holds_at,
    length_numbers,
    main_statements,
    measure_step_use,
    meter_statements,
    vanishes_at,
)
from zerolab.claims.experiments.length_transformer import RECIPES, TWO_ARMS, Condition, cells_of
from zerolab.claims.protocol import Cell, Factors, Plan, Protocol, Statement, measured, number

if TYPE_CHECKING:
    from zerolab.config import PretrainConfig, RunConfig

TASK = (
    *("questions={path='synthetic:chain'}", "rollout.questions_per_step=8", "rollout.max_new_tokens=48", "steps=100"),
    "transcripts_per_step=8",  # all groups: they are read for what the policy does after each derivation
)
FRESH = {"any_order": False, "stubborn": 0.0, "careless": 0.5, "unknown": 0.08}
CONDITIONS = {
    "reference": Condition(bases=(0, 1)),
    "fresh": Condition(corpus=FRESH),
    "coin": Condition(),
}
QUICK = {"reference": Condition()}


def _conditions(plan: Plan) -> Mapping[str, Condition]:
    return QUICK if plan.quick else CONDITIONS


def cells(plan: Plan) -> list[Cell]:
    return cells_of(_conditions(plan), plan, seconds=23)


def base(factors: Factors) -> "PretrainConfig":
    from zerolab.claims.training import laptop_base

    return laptop_base(int(factors["base"]), "laptop/chain-base", **CONDITIONS[str(factors["condition"])].corpus)


def recipe(factors: Factors) -> "RunConfig":
    from zerolab.claims.training import run_config
    from zerolab.recipes import controlled

    config = run_config(RECIPES[str(factors["arm"])], base(factors), [f"seed={factors['seed']}", *TASK])
    return controlled(config, "random-reward") if factors["condition"] == "coin" else config


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    from zerolab.claims.training import place_in, trained

    config = place_in(folder, recipe(factors))
    return {**length_numbers(trained(config)), **measure_step_use(config.folder)}


def _step_use(when: str, arm: str, text: str, condition: str = "reference") -> Statement:
    return Statement(
        text,
        number(f"step_use_{when}", arm=arm, condition=condition),
        (0.05, 1.0),
        role="shown",
        replicate="" if condition == "reference" else "seed",
    )


def _learns(arm: str, text: str, condition: str) -> Statement:
    """Without it a null says nothing of the arm."""

    gain = measured(lambda row: float(row["accuracy_end"]) - float(row["accuracy_start"]), arm=arm, condition=condition)
    return Statement(text, gain, (0.05, 1.0), role="shown", replicate="" if condition == "reference" else "seed")


PROTOCOL = Protocol(
    id="L1.natural",
    claim="L1",
    sentence="In a small transformer on a multi-step task without any marker, 1/|o| makes incorrect answers longer.",
    metric="length of incorrect answers, mean of the last third of the rollouts minus mean of the first 10",
    test="t interval over bases, each the mean of its seeds; growth counts from 5 tokens, and up to 2 tokens as none",
    refuted="growth under GRPO below 5 tokens, or above 2 under Dr. GRPO, or the same with a coin for a reward",
    cells=cells,
    recipe=recipe,
    run=run,
    base=base,
    statements=(
        *main_statements("reference", TWO_ARMS),
        *meter_statements("reference"),
        vanishes_at("coin", "with a coin for a reward both arms grow alike"),
        holds_at("fresh", "end, GRPO minus Dr. GRPO: fresh", "seed"),
        Statement(
            "truncated at the end under GRPO",
            number("truncated_end", arm="grpo", condition="reference"),
            (0.0, 0.02),
            role="shown",
            share=True,
        ),
        *(
            _learns(arm, f"gain in accuracy under {text}: {condition}", condition)
            for condition in ("reference", "fresh")
            for arm, text in (("grpo", "GRPO"), ("dr_grpo", "Dr. GRPO"))
        ),
        _step_use("start", "grpo", "goes on more often after a wrong result: at the start"),
        _step_use("end", "grpo", "at the end, under GRPO"),
        _step_use("end", "dr_grpo", "at the end, under Dr. GRPO"),
        _step_use("end", "grpo", "at the end, under GRPO: fresh", "fresh"),
        _step_use("end", "dr_grpo", "at the end, under Dr. GRPO: fresh", "fresh"),
    ),
    label="open",
    replicate="base",
    fixed="before the runs, but for growth from the base and the difference at the end, which came after them",
    quick_seeds=3,
)
