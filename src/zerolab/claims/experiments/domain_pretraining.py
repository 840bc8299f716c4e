r"""D2: how high RL comes depends on the text that the base was pretrained on.

Four kinds of base work out additions of three digits (0.14M parameters, 900 steps of 64 documents). The first 300 steps
read the same letters in all of them, copied; the last 600 read more of these (plain), letters mirrored (other: another
domain), derivations that nobody asked for (domain, as FineMath) or questions with worked answers (qa, as NuminaMath).
Every corpus has as many tokens, and in all of them 15 documents in 100 are the same: conversations with their answer
in a box, the only exposure to the form in which RL asks. The speaker errs in one column of five, in all of this text.

RL is the same for all: Dr. GRPO, 160 rollouts of 16 questions x 8 (`laptop/columns`) in that form, on questions drawn
from 810,000. The ceiling is accuracy at the end, at temperature 1, on 200 questions that neither pretraining nor RL
asks, 2 responses to each. Every replicate has its own bases; the four of a replicate share their conversations.

What the texts teach is put in by construction. A ceiling is one of this many steps, not of RL as such.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from zerolab.claims.experiments.column_models import base_config, draw_curves, framed_recipe, rebuilt
from zerolab.claims.protocol import INFINITY, Cell, Factors, Plan, Protocol, Row, Statement, difference, number

if TYPE_CHECKING:
    from zerolab.config import PretrainConfig, RunConfig

TEXTS = ("plain", "other", "domain", "qa")
HIGHER, ALIKE = 0.05, 0.10  # in accuracy
RL = ("steps=160", "rollout.max_new_tokens=40")


def cells(plan: Plan) -> list[Cell]:
    return [Cell({"text": text, "seed": seed}, seconds=38) for text in TEXTS for seed in plan.seeds]


def pretraining(text: str, seed: int) -> "PretrainConfig":
    options = {"text": text, "first_steps": 300, "framed": 0.15, "rambling": 3.0}
    return base_config(f"columns-{text}", seed, "staged-columns", 900, **options)


def base(factors: Factors) -> "PretrainConfig":
    return pretraining(str(factors["text"]), int(factors["seed"]))


def recipe(factors: Factors) -> "RunConfig":
    return framed_recipe(base(factors), "turns", int(factors["seed"]), *RL)


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    return rebuilt(folder, recipe(factors), base(factors), "turns")[1]


def higher(first: str, second: str) -> Callable[[Sequence[Row]], list[float]]:
    return difference("strict_end", {"text": first}, {"text": second})


def gain(text: str) -> Callable[[Sequence[Row]], list[float]]:
    sides = [number(f"strict_{side}", text=text) for side in ("end", "start")]
    return lambda table: [end - start for end, start in zip(*(side(table) for side in sides), strict=True)]


PROTOCOL = Protocol(
    id="D2.columns",
    claim="D2",
    sentence="After the same RL, plain text comes last, domain text higher, question-answer text highest.",
    metric="strict accuracy on held-out questions after 160 rollouts",
    test="t interval over replicates; differences from 5 points count",
    refuted="domain text within 5 points of plain text or below, or question-answer text of domain text",
    cells=cells,
    recipe=recipe,
    run=run,
    base=base,
    statements=(
        Statement("after RL: domain minus plain", higher("domain", "plain"), (HIGHER, INFINITY)),
        Statement("after RL: question-answer minus domain", higher("qa", "domain"), (HIGHER, INFINITY)),
        Statement("after RL: another domain minus plain", higher("other", "plain"), (-ALIKE, ALIKE), "control", 0.90),
        Statement("after RL: question-answer minus plain", higher("qa", "plain"), (HIGHER, INFINITY), "shown"),
        *(Statement(f"{t}: zero-step", number("strict_start", text=t), (0, 1), "shown", share=True) for t in TEXTS),
        *(
            Statement(f"{t}: zero-step, formatted", number("formatted_start", text=t), (0, 1), "shown", share=True)
            for t in TEXTS
        ),
        *(Statement(f"{t}: after RL", number("strict_end", text=t), (0, 1), "shown", share=True) for t in TEXTS),
        *(Statement(f"{t}: gain by RL", gain(t), (HIGHER, INFINITY), "shown") for t in TEXTS),
    ),
    label="designed",
    replicate="base",
    draw=partial(draw_curves, lines="text"),
)
