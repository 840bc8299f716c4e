"""L1, first rung: the smallest policy in which the length bias can act.

Five parameters, trained by the production advantages and token weights (`confidence_policy.py`): after its answer the
policy sees a signal that agrees with the truth with probability .8, and stops after every token with a probability of
its own for each signal. Four arms, with and without each of GRPO's divisions (1/|o| and 1/std), share seeds and
uniform random numbers. 1500 rollouts of 32 questions x 8 responses, budget 64, Adam at .01; truncated responses earn
nothing. A fifth arm has a learning rate of 0: 100 rollouts of the policy before training.

Measured is the mean length of incorrect answers over the last third of the rollouts; growth is that minus the length
before training. Then one factor at a time: the signal's accuracy (dose and response; at .5 the signal says nothing and
the effect must vanish), the learning rate, the size of a group at equal rollouts, 8 optimizer steps per rollout, and
truncated answers that keep their reward. A reward that is a fair coin is the control of the whole apparatus.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from zerolab.claims.experiments.length_statements import (
    ARMS,
    UNTRAINED,
    holds_at,
    length_numbers,
    main_statements,
    vanishes_at,
)
from zerolab.claims.protocol import INFINITY, Cell, Factors, Plan, Protocol, Row, Statement, chosen
from zerolab.worlds.confidence_policy import Setting, simulate

STEPS, STEPS_OF_8_UPDATES, BASE_STEPS = 1500, 400, 100
CONDITIONS: dict[str, Setting] = {
    "reference": Setting(),
    "signal .5": Setting(signal_accuracy=0.5),
    "signal .6": Setting(signal_accuracy=0.6),
    "signal .7": Setting(signal_accuracy=0.7),
    "signal .9": Setting(signal_accuracy=0.9),
    "lr .003": Setting(lr=0.003),
    "lr .03": Setting(lr=0.03),
    "G 2": Setting(questions=128, samples=2),
    "G 32": Setting(questions=8, samples=32),
    "8 updates": Setting(updates=8),
    "keep": Setting(truncation="keep"),
    "coin": Setting(reward="coin", truncation="keep"),
}
DOSES = {"signal .5": 0.5, "signal .6": 0.6, "signal .7": 0.7, "reference": 0.8, "signal .9": 0.9}


QUICK = (*DOSES, "coin")


def cells(plan: Plan) -> list[Cell]:
    """Four arms and the base before training at the reference, GRPO and Dr. GRPO beside it."""
    return [
        Cell({"condition": condition, "arm": arm, "seed": seed}, seconds=2.5)
        for condition in (QUICK if plan.quick else CONDITIONS)
        for arm in ((*ARMS, UNTRAINED) if condition == "reference" else ("grpo", "dr_grpo"))
        for seed in plan.seeds
    ]


def recipe(factors: Factors) -> Mapping[str, object]:
    steps, setting = plan_of(factors)
    # Without settings that are None, so that a setting added later does not make old cells stale.
    settings = {name: value for name, value in asdict(setting).items() if value is not None}
    return {"steps": steps, **settings}


def plan_of(factors: Factors) -> tuple[int, Setting]:
    """Rollouts and setting of a cell."""
    setting = CONDITIONS[str(factors["condition"])]
    if factors["arm"] == UNTRAINED:
        return BASE_STEPS, replace(setting, lr=0.0)
    return (STEPS if setting.updates == 1 else STEPS_OF_8_UPDATES), setting


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    steps, setting = plan_of(factors)
    trains = factors["arm"] != UNTRAINED
    arm = str(factors["arm"]) if trains else "dr_grpo"
    rows = list(simulate(arm, seed=int(factors["seed"]), steps=steps, setting=setting))
    solved = np.array([row.accuracy for row in rows])
    correct, incorrect = (
        np.array([getattr(row, f"length_{kind}") for row in rows]) for kind in ("correct", "incorrect")
    )
    return length_numbers(
        {
            "length/correct": correct.tolist(),
            "length/incorrect": incorrect.tolist(),
            "length/mean": (np.nan_to_num(correct) * solved + np.nan_to_num(incorrect) * (1 - solved)).tolist(),
            "accuracy": solved.tolist(),
            "truncated": [row.truncated for row in rows],
        },
        trains,
    )


def dose_response(table: Sequence[Row]) -> list[float]:
    """Seed by seed: slope of the end length under GRPO minus that under Dr. GRPO against the signal's accuracy."""
    slopes = []
    for seed in dict.fromkeys(row["seed"] for row in table):
        pairs = []
        for condition, dose in DOSES.items():
            arms = [chosen(table, condition=condition, seed=seed, arm=arm) for arm in ("grpo", "dr_grpo")]
            if all(arms):
                pairs.append((dose, float(arms[0][0]["incorrect_end"]) - float(arms[1][0]["incorrect_end"])))
        if len(pairs) == len(DOSES):
            doses, growths = np.array(pairs).T
            slopes.append(float(np.polyfit(doses, growths, 1)[0]))
    return slopes


PROTOCOL = Protocol(
    id="L1.policy",
    claim="L1",
    sentence="In a policy of five parameters that half knows when it is wrong, 1/|o| makes incorrect answers longer.",
    metric="length of incorrect answers, mean of the last third of the rollouts minus that before training",
    test="t interval over seeds; growth counts from 5 tokens, and up to 2 tokens as none",
    refuted="growth under GRPO below 5 tokens, or above 2 under Dr. GRPO, or the same where the signal says nothing",
    cells=cells,
    recipe=recipe,
    run=run,
    statements=(
        *main_statements("reference"),
        Statement(
            "the better the signal, the longer GRPO's incorrect answers",
            dose_response,
            (10.0, INFINITY),
            unit="tokens per unit of signal accuracy",
        ),
        vanishes_at("signal .5", "without information in the signal both arms grow alike"),
        vanishes_at("coin", "with a coin for a reward both arms grow alike"),
        *(
            holds_at(name, f"end, GRPO minus Dr. GRPO: {name}")
            for name in CONDITIONS
            if name not in ("reference", "signal .5", "coin")
        ),
    ),
    label="planted",
    replicate="seed",
    fixed="before the first runs; growth from the base before training came after them, so it is exploratory",
    seeds=8,
    quick_seeds=3,
)
