"""C0, the control of all training claims: a reward that says nothing teaches nothing, if training is on-policy.

The transformer base of L1 under Dr. GRPO and under GRPO with one optimizer step per rollout and log pi_old detached,
so that every ratio is 1 and nothing is clipped. Every response earns a fair coin, independent of its text and of its
truncation (`--control random-reward`). 120 rollouts, otherwise as `laptop/dr-grpo`. Accuracy is still judged by the
grader; its gain is the mean of the last third minus that of the first 10 rollouts. A separate arm lets truncated
responses earn nothing, which pays for being short (`--control random-reward-truncated`), and one has the true reward,
for scale.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from zerolab.claims.experiments.length_statements import length_numbers
from zerolab.claims.protocol import INFINITY, Cell, Factors, Plan, Protocol, Statement, difference, number

if TYPE_CHECKING:
    from zerolab.config import PretrainConfig, RunConfig

REWARDS = ("verdict", "random-reward", "random-reward-truncated")
ON_POLICY = ("learner.updates_per_rollout=1", "learner.old_logprobs=detach", "steps=120")
RECIPES = {"dr_grpo": "laptop/dr-grpo", "grpo": "laptop/grpo"}
MARGIN = 0.03


def cells(plan: Plan) -> list[Cell]:
    return [
        Cell({"arm": arm, "reward": reward, "seed": seed}, seconds=28)
        for arm in RECIPES
        for reward in REWARDS
        for seed in plan.seeds
    ]


def base(factors: Factors) -> "PretrainConfig":
    from zerolab.claims.training import laptop_base

    return laptop_base(0)


def recipe(factors: Factors) -> "RunConfig":
    from zerolab.claims.training import run_config
    from zerolab.recipes import controlled

    config = run_config(RECIPES[str(factors["arm"])], base(factors), [f"seed={factors['seed']}", *ON_POLICY])
    return config if factors["reward"] == "verdict" else controlled(config, str(factors["reward"]))


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    from zerolab.claims.training import place_in, trained

    numbers = length_numbers(trained(place_in(folder, recipe(factors))))
    return {**numbers, "gain": numbers["accuracy_end"] - numbers["accuracy_start"]}


PROTOCOL = Protocol(
    id="C0.random",
    claim="C0",
    sentence="A random reward, strictly on-policy, teaches nothing.",
    metric="accuracy by the grader, mean of the last third of the rollouts minus mean of the first 10",
    test="two one-sided tests over seeds: gains within 3 points count as none",
    refuted="a gain beyond 3 points under a random reward, or none under the true one",
    cells=cells,
    recipe=recipe,
    run=run,
    base=base,
    statements=(
        *(
            Statement(
                f"{arm}: a random reward gains nothing",
                number("gain", arm=arm, reward="random-reward"),
                (-MARGIN, MARGIN),
                level=0.90,
            )
            for arm in RECIPES
        ),
        *(
            Statement(
                f"{arm}: the true reward does",
                number("gain", arm=arm, reward="verdict"),
                (2 * MARGIN, INFINITY),
                role="control",
                net=difference("gain", {"arm": arm, "reward": "verdict"}, {"arm": arm, "reward": "random-reward"}),
            )
            for arm in RECIPES
        ),
        *(
            Statement(
                f"{arm}: random, but truncated responses earn nothing: gain in accuracy",
                number("gain", arm=arm, reward="random-reward-truncated"),
                (-MARGIN, MARGIN),
                role="shown",
                level=0.90,
            )
            for arm in RECIPES
        ),
    ),
    label="open",
    replicate="seed",
)
