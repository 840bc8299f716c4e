"""L1, the map: when does dividing by the length make incorrect answers longer, and when shorter?

The policy of L1.policy (`worlds/confidence_policy.py`) with a style: before its answer it chooses to be brief or to
ramble. Four things vary, each by itself. The accuracy of the signal after the answer: at .5 nothing inside a response
predicts its reward. The association: logits by which brief answers are more often right than rambling ones, so that
length goes with the outcome although the policy knows nothing of itself. What length earns: the probability that a
token after a wrong answer mends it. And whether a right answer that the budget cuts off keeps its reward.

1/|o| alone (grpo_std_fix) against a constant divisor (dr_grpo), four seeds, same uniform random numbers in both arms;
1000 rollouts of 32 questions x 8 responses, budget 64, Adam at .01. Measured is the mean length of incorrect answers
over the last third of the rollouts. Growth is that minus the exact expected length before training. In the control
every response earns a fair coin.

The probe needs no training: the exact derivative of the length of incorrect answers before the first step, along each
arm's expected gradient scaled to norm 1, 1/|o| minus constant. Registered is how well it orders the conditions by the
paired difference at the end (Spearman's rank correlation). The probe along the gradient's signs, Adam's first step, is
shown beside it.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from zerolab.claims.experiments.map_conditions import (
    COIN,
    CONDITIONS,
    CONSTANT,
    CORNERS,
    DIVIDED,
    LONGER,
    NONE,
    PAYS,
    STRONG,
    TRUNCATIONS,
    condition,
    draw,
    ends,
    growth,
    opposite_growth,
    rank_correlation,
    setting_of,
    sign_agreement,
)
from zerolab.claims.protocol import INFINITY, Cell, Factors, Plan, Protocol, Statement
from zerolab.worlds.confidence_policy import drift_of_incorrect_length, enumerate_responses, expected_step, simulate

STEPS = 1000


def cells(plan: Plan) -> list[Cell]:
    return [
        Cell({**where, "arm": arm, "seed": seed}, seconds=2.5)
        for where in (*(CORNERS if plan.quick else CONDITIONS), COIN)
        for arm in (DIVIDED, CONSTANT)
        for seed in plan.seeds
    ]


def recipe(factors: Factors) -> Mapping[str, object]:
    return {"steps": STEPS, **asdict(setting_of(factors))}


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    setting, arm = setting_of(factors), str(factors["arm"])
    rows = list(simulate(arm, seed=int(factors["seed"]), steps=STEPS, setting=setting))[-STEPS // 3 :]
    step = expected_step(arm, setting)
    norm = float(np.linalg.norm(step)) or 1.0
    return {
        "steps": STEPS,
        "incorrect_before": enumerate_responses(setting.parameters(), setting).incorrect_length(),
        "incorrect_end": float(np.nanmean([row.length_incorrect for row in rows])),
        "accuracy_end": float(np.mean([row.accuracy for row in rows])),
        "truncated_end": float(np.mean([row.truncated for row in rows])),
        "drift": drift_of_incorrect_length(step / norm, setting),
        "drift_sign": drift_of_incorrect_length(np.sign(step), setting),
    }


def _differs(text: str, where: Factors, region: tuple[float, float], primary: bool = False) -> Statement:
    text = f"{text}, truncated earn {'their reward' if where['truncation'] == 'keep' else 'nothing'}"
    return Statement(text, ends(where), region, unit="tokens", primary=primary)


def _registered(truncation: str) -> list[Statement]:
    """The predictions under one rule of truncation: a style alone, a signal alone, and length that pays."""
    pays = condition(0.7, NONE, PAYS, truncation)
    rule = "their reward" if truncation == "keep" else "nothing"
    return [
        _differs("style alone (signal .5): 1/|o| shortens", condition(0.5, STRONG, 0.0, truncation), (-INFINITY, 0.0)),
        *(
            _differs(f"signal {s} alone: 1/|o| lengthens", condition(s, NONE, 0.0, truncation), (LONGER, INFINITY))
            for s in (0.7, 0.9)
        ),
        _differs("signal 0.7, length pays: 1/|o| brakes", pays, (-INFINITY, 0.0)),
        Statement(
            f"signal 0.7, length pays: the constant lengthens, truncated earn {rule}",
            growth(pays, CONSTANT),
            (LONGER, INFINITY),
            unit="tokens",
            arm=CONSTANT,
        ),
    ]


PROTOCOL = Protocol(
    id="L1.map",
    claim="L1",
    sentence="1/|o| lengthens incorrect answers if the policy senses them; style, or length that pays, turns it round.",
    metric="length of incorrect answers, mean of the last third of the rollouts, 1/|o| minus constant divisor",
    test="t interval over seeds at a condition; Spearman over conditions; 5 tokens count as longer",
    refuted="any registered sign absent; a rank correlation of probe and outcome below .8",
    cells=cells,
    recipe=recipe,
    run=run,
    statements=(
        Statement(
            "the probe before training orders the conditions: Spearman",
            rank_correlation("drift"),
            (0.8, INFINITY),
            primary=True,
        ),
        *(statement for truncation in TRUNCATIONS for statement in _registered(truncation)),
        Statement(
            "a coin for a reward: 1/|o| minus constant",
            ends(COIN),
            (-LONGER, LONGER),
            role="control",
            level=0.90,
            unit="tokens",
        ),
        Statement(
            "the probe along the gradient's signs: Spearman",
            rank_correlation("drift_sign"),
            (-INFINITY, INFINITY),
            role="shown",
        ),
        Statement("the probe has the sign of differences above 5", sign_agreement, (0, 1), role="shown", share=True),
        Statement("1/|o| shortens, the constant lengthens: conditions", opposite_growth, (0, INFINITY), role="shown"),
    ),
    label="designed",
    replicate="seed",
    draw=draw,
    seeds=4,
    quick_seeds=3,
)
