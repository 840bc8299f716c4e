r"""D1: how wide a question set has to be depends on whether the template fits the base.

Additions of three digits, worked out column by column: a rule that a transformer of 0.14M parameters learns, so that
RL can rebuild it on questions that it never asked. Every replicate has a base of its own, pretrained for 450 steps on
documents in three frames: 98.6 % bare (question, columns, box), 0.4 % turns (User and Assistant), and 1 % in
an R1-like frame (an instruction, the same turns, <think>, the answer in tags). The speaker errs in one column of five.

RL: Dr. GRPO, 80 rollouts of 16 questions x 8 (`laptop/columns`), under each of the three templates on each of three
question sets: about 86 questions, about 260, and one of 810,000 in which hardly any comes twice. Measured is accuracy
at temperature 1 on 200 questions from the whole range that neither pretraining nor RL asks, 2 responses to each: strict
(the answer in its format) and lenient (a right answer anywhere), before and after, and of 100 of them in between.

What the base has seen is put in by construction, 1 % among it: the claim is about what RL then needs.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zerolab.claims.experiments.column_models import base_config, draw_curves, framed_recipe, rebuilt
from zerolab.claims.protocol import INFINITY, Cell, Factors, Plan, Protocol, Row, Statement, chosen

if TYPE_CHECKING:
    from zerolab.config import PretrainConfig, RunConfig

TEMPLATES = {"bare": "bare: 98.6 % of the base's text", "turns": "turns: 0.4 %", "r1-like": "R1-like: 1 %"}
SETS = {"narrow": 96, "medium": 288, "wide": None}  # questions before a tenth is held out
BIG, COUNTS = 0.2, 0.1  # differences in accuracy that count: of the template, of the question set
START, END = "strict_start", "strict_end"


def cells(plan: Plan) -> list[Cell]:
    templates = ("bare", "r1-like") if plan.quick else TEMPLATES
    sets = ("narrow", "wide") if plan.quick else SETS
    return [
        Cell({"template": template, "set": width, "seed": seed}, seconds=17)
        for template in templates
        for width in sets
        for seed in plan.seeds
    ]


def base(factors: Factors) -> "PretrainConfig":
    return base_config("columns", int(factors["seed"]), "columns", turns=0.004, r1=0.01)


def recipe(factors: Factors) -> "RunConfig":
    limit = SETS[str(factors["set"])]
    changes = [f"questions.limit={limit}"] if limit else []
    return framed_recipe(base(factors), str(factors["template"]), int(factors["seed"]), *changes)


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    series, numbers = rebuilt(folder, recipe(factors), base(factors), str(factors["template"]))
    return {**numbers, "training_end": sum(series["accuracy"][-10:]) / 10}


def cell(name: str, template: str, width: str) -> Callable[[Sequence[Row]], Any]:
    """A number of the cells of one template and one set, an array over seeds; NaN where one has not run."""

    def of(table: Sequence[Row]) -> np.ndarray:
        seeds = sorted({int(row["seed"]) for row in table})
        found = {row["seed"]: float(row[name]) for row in chosen(table, template=template, set=width)}
        return np.array([found.get(seed, np.nan) for seed in seeds])

    return of


def fall(measure: str) -> Callable[[Sequence[Row]], Any]:
    """Zero-step accuracy, matched minus mismatched template."""
    return lambda t: cell(f"{measure}_start", "bare", "wide")(t) - cell(f"{measure}_start", "r1-like", "wide")(t)


def widens(template: str) -> Callable[[Sequence[Row]], Any]:
    """Accuracy after RL on the wide set minus that on the narrow one."""
    return lambda t: cell(END, template, "wide")(t) - cell(END, template, "narrow")(t)


def best(table: Sequence[Row]) -> Any:
    return np.fmax.reduce([cell(START, template, "wide")(table) for template in TEMPLATES])


def over_best(table: Sequence[Row]) -> Any:
    """The mismatched template after RL on the wide set, minus the best template of the base without any RL."""
    return cell(END, "r1-like", "wide")(table) - best(table)


PROTOCOL = Protocol(
    id="D1.columns",
    claim="D1",
    sentence="A template that the base hardly knows costs its ability at first, and RL then needs a wide question set.",
    metric="strict accuracy on held-out questions of the whole range, before RL and after 80 rollouts",
    test="t interval over bases; differences of 20 points count for the template, of 10 for the question set",
    refuted="no fall of 20 points, no gain of 20 by RL on the wide set, a narrow set within 10 points of the wide one "
    "under the mismatched template, or more than 10 below it under the matched one",
    cells=cells,
    recipe=recipe,
    run=run,
    base=base,
    statements=(
        Statement("zero-step: matched minus mismatched template", fall("strict"), (BIG, INFINITY)),
        Statement(
            "mismatched, wide set: gain by RL",
            lambda t: cell(END, "r1-like", "wide")(t) - cell(START, "r1-like", "wide")(t),
            (BIG, INFINITY),
        ),
        Statement("mismatched: wide minus narrow set", widens("r1-like"), (COUNTS, INFINITY)),
        Statement("matched: wide minus narrow set", widens("bare"), (-COUNTS, COUNTS), level=0.90),
        Statement(
            "the wide set is worth more under the mismatched template",
            lambda t: widens("r1-like")(t) - widens("bare")(t),
            (COUNTS, INFINITY),
        ),
        Statement(
            "matched, wide set: gain by RL",
            lambda t: cell(END, "bare", "wide")(t) - cell(START, "bare", "wide")(t),
            (COUNTS, INFINITY),
            "control",
        ),
        Statement("zero-step: the same fall, lenient", fall("lenient"), (BIG, INFINITY), "shown"),
        Statement("zero-step accuracy of the best template", best, (0.0, 1.0), "shown", share=True),
        Statement("mismatched, wide set, after RL, minus that", over_best, (-COUNTS, INFINITY), "shown"),
        *(
            Statement(f"{template}: zero-step accuracy", cell(START, template, "wide"), (0, 1), "shown", share=True)
            for template in TEMPLATES
        ),
        *(
            Statement(f"{template}, {width}: after RL", cell(END, template, width), (0, 1), "shown", share=True)
            for template in TEMPLATES
            for width in SETS
        ),
    ),
    label="designed",
    replicate="base",
    draw=partial(draw_curves, panels="template", lines="set", titles=TEMPLATES),
)
