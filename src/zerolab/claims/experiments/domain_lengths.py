r"""D3: does length grow with reward on a base raised on question-answer text, or does GRPO make it grow?

The question-answer bases of D2, whose speaker goes on after an answer with a geometric number of empty words (mean 3),
independent of truth. GRPO against Dr. GRPO, the same seeds, 160 rollouts of 16 questions x 8 (`laptop/columns`), budget
of 40 tokens, truncated responses earn nothing. The model sees its own columns when it goes on, so it may know by then
that an answer is wrong; nothing else ties length to truth. Measured are the mean length of all and of the incorrect
responses over the first 10 rollouts and over the last third (growth is their difference), and accuracy at the end on
200 held-out questions, 2 responses to each. Every replicate has a base of its own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zerolab.claims.experiments.column_models import framed_recipe, rebuilt
from zerolab.claims.experiments.domain_pretraining import RL, pretraining
from zerolab.claims.experiments.length_statements import length_numbers
from zerolab.claims.protocol import INFINITY, Cell, Factors, Plan, Protocol, Row, Statement, difference, number

if TYPE_CHECKING:
    from zerolab.config import PretrainConfig, RunConfig

ARMS = ("grpo", "dr_grpo")
GROWS, STAYS, ALIKE = 2.0, 1.0, 0.05  # tokens, of about 20; and accuracy
BOTH = ({"arm": "grpo"}, {"arm": "dr_grpo"})


def cells(plan: Plan) -> list[Cell]:
    return [Cell({"arm": arm, "seed": seed}, seconds=44) for arm in ARMS for seed in plan.seeds]


def base(factors: Factors) -> "PretrainConfig":
    return pretraining("qa", int(factors["seed"]))


def recipe(factors: Factors) -> "RunConfig":
    return framed_recipe(base(factors), "turns", int(factors["seed"]), *RL, f"objective.preset={factors['arm']}")


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    series, numbers = rebuilt(folder, recipe(factors), base(factors), "turns")
    found = length_numbers(series)
    return {**numbers, **found, "growth_all": found["tokens_end"] - found["tokens_start"]}


def early_gap(table: Sequence[Row]) -> list[float]:
    """Incorrect minus correct length at the start: the corpus puts no difference in."""
    starts = [number(f"{name}_start", arm="dr_grpo")(table) for name in ("incorrect", "correct")]
    return [incorrect - correct for incorrect, correct in zip(*starts, strict=True)]


TOKENS = "tokens"
PROTOCOL = Protocol(
    id="D3.columns",
    claim="D3",
    sentence="On question-answer text, length grows with reward under GRPO and not under Dr. GRPO, at like accuracy.",
    metric="length of incorrect answers and of all, mean of the last third of the rollouts minus mean of the first 10",
    test="t interval over bases; growth counts from 2 tokens of about 20, and up to 1 as none",
    refuted="growth under GRPO below 2 tokens, above 1 under Dr. GRPO, or accuracies more than 5 points apart",
    cells=cells,
    recipe=recipe,
    run=run,
    base=base,
    statements=(
        Statement("incorrect answers grow under GRPO", number("growth", arm="grpo"), (GROWS, INFINITY), unit=TOKENS),
        Statement("not under Dr. GRPO", number("growth", arm="dr_grpo"), (-INFINITY, STAYS), unit=TOKENS),
        Statement("growth under GRPO minus Dr. GRPO", difference("growth", *BOTH), (GROWS, INFINITY), unit=TOKENS),
        Statement("accuracy, GRPO minus Dr. GRPO", difference("strict_end", *BOTH), (-ALIKE, ALIKE), level=0.90),
        Statement("at the start, incorrect minus correct", early_gap, (-STAYS, STAYS), "control", 0.90, unit=TOKENS),
        Statement(
            "all responses, GRPO minus Dr. GRPO", difference("growth_all", *BOTH), (0, INFINITY), "shown", unit=TOKENS
        ),
        *(
            Statement(f"{arm}: {text}", number(name, arm=arm), region, "shown", unit=unit)
            for arm in ARMS
            for text, name, region, unit in (
                ("all responses grow", "growth_all", (GROWS, INFINITY), TOKENS),
                ("truncated at the end", "truncated_end", (0.0, 1.0), ""),
                ("accuracy after RL", "strict_end", (0.0, 1.0), ""),
            )
        ),
    ),
    label="designed",
    replicate="base",
)
