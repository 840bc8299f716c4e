"""R1: the minimalist recipe reaches the table's row, net of its control.

Qwen2.5-Math-7B under Dr. GRPO on MATH levels 3 to 5 with the Qwen-Math template, 128 questions x 8 responses a step,
290 steps, 3 seeds (`paper/qwen2.5-math-7b`); beside every run its random-reward control from the same seed. There is no
laptop scale: the claim is about this model. Only the last checkpoint is evaluated, greedily, at 3000 tokens, on the
five benchmarks; the measure is the unweighted mean of the five accuracies, and a seed is a replicate.

The paper reports 51.4 from one run, over 38.2 for the base under its best template. A random reward alone is known to
raise Qwen2.5-Math on MATH500 by about 21 points (arXiv 2506.10947), so what counts is the gain net of the control.
"""

from collections.abc import Mapping
from pathlib import Path

from zerolab.claims.protocol import INFINITY, Cell, Factors, Plan, Protocol, Statement, difference, number
from zerolab.errors import UserError

REPORTED, WITHIN = 0.514, 0.03
RECIPE, CONTROL, BASE = ({"reward": name} for name in ("verdict", "random-reward", "none"))


def cells(plan: Plan) -> list[Cell]:
    return []


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    raise UserError("R1 has no laptop scale: `zerolab claims run R1 --scale paper` has its commands")


PROTOCOL = Protocol(
    id="R1.minimalist",
    claim="R1",
    sentence="Dr. GRPO on MATH levels 3 to 5 makes Qwen2.5-Math-7B the best of its size, with 27 hours on 8 A100.",
    metric="mean accuracy on the five benchmarks, greedy, last checkpoint",
    test="t interval over 3 seeds; net of control: paired by seed",
    refuted="no gain over the random-reward control, or a mean more than 3 points from the paper's 51.4",
    cells=cells,
    recipe=lambda factors: {},
    run=run,
    statements=(
        Statement("mean of five benchmarks", number("mean", **RECIPE), (REPORTED - WITHIN, REPORTED + WITHIN)),
        Statement("gain net of the random-reward control", difference("mean", RECIPE, CONTROL), (0.0, INFINITY)),
        Statement(
            "gain over the base under its best template", difference("mean", RECIPE, BASE), (0.0, INFINITY), "control"
        ),
    ),
    label="open",
    replicate="run",
    seeds=3,
)
