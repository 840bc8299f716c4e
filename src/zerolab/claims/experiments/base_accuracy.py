"""B4: self-reflection does not mean accuracy.

Bases of the two kinds of B1, ten of each from seeds that no earlier experiment used, each under the form in which it
has seen answers. 8 responses at temperature 1 to each of 150 questions. Measured is the accuracy of responses that hold
a keyword of the paper's list minus that of other responses to the same question (Mantel-Haenszel within questions, so
that difficulty cannot confound it). It is measured twice: leniently (the last number, wherever it stands), and on the
responses with a box alone. Strict accuracy of all responses is shown beside them: an answer without a box never
reflects in these corpora, so that strict accuracy takes a missing box for a lack of reflection. Version 1 was misled by
that, on bases from seeds 0 to 4.

In the corpus an answer after reflection is as likely right as any, so no difference was put in; what a model makes of
that is measured. The paper's claim is a difference of about 0 or below, here below 5 points, for each kind of base on
its own. The control asks that enough responses reflect for the difference to be measured at all.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from zerolab.claims.experiments.base_models import HOME, KINDS, base, responses, sampling
from zerolab.claims.protocol import Cell, Factors, Plan, Protocol, Statement, number

FIRST_SEED = 5  # version 1 had seeds 0 to 4
NO_BETTER = (-1.0, 0.05)
MEASURES = {"lenient": "lenient", "formatted": "responses with a box"}


def cells(plan: Plan) -> list[Cell]:
    return [Cell({"kind": kind, "seed": FIRST_SEED + seed}, seconds=8) for kind in KINDS for seed in plan.seeds]


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    from zerolab.analysis.rates import solved, within_difference
    from zerolab.phrases import find_phrases

    found = responses(factors, [HOME[str(factors["kind"])]])
    reflects = {id(r): bool(find_phrases(r.response, "paper")) for r in found}
    boxed = [r for r in found if r.grade and r.grade.formatted]
    measures = {
        "lenient": (found, [bool(r.lenient and r.lenient.correct) for r in found]),
        "formatted": (boxed, [solved(r) for r in boxed]),
        "strict": (found, [solved(r) for r in found]),
    }
    numbers = {"reflects": sum(reflects.values()) / len(found)}
    for name, (kept, correct) in measures.items():
        questions = np.array([r.question_id for r in kept])
        difference = within_difference(questions, [reflects[id(r)] for r in kept], correct).difference
        numbers[f"within_{name}"] = float("nan") if difference is None else difference
    return numbers


PROTOCOL = Protocol(
    id="B4.accuracy",
    claim="B4",
    sentence="Responses that reflect are right no more often than others to the same question.",
    metric="accuracy of reflecting minus other responses within questions, lenient and with a box",
    test="t interval over ten bases of each kind",
    refuted="reflecting responses more than 5 points better within questions",
    cells=cells,
    recipe=sampling(*HOME.values()),
    run=run,
    base=base,
    statements=(
        *(
            Statement(f"{kind}: reflecting minus others, {text}", number(f"within_{name}", kind=kind), NO_BETTER)
            for kind in KINDS
            for name, text in MEASURES.items()
        ),
        *(
            Statement(
                f"{kind}: responses that reflect", number("reflects", kind=kind), (0.03, 0.97), "control", share=True
            )
            for kind in KINDS
        ),
        *(
            Statement(f"{kind}: the same by strict accuracy", number("within_strict", kind=kind), NO_BETTER, "shown")
            for kind in KINDS
        ),
    ),
    label="open",
    replicate="base",
    seeds=10,
    version="2",
)
