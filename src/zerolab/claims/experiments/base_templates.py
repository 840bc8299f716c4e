"""T1: a base that was raised on bare questions and answers is best with no template at all.

The bases of B1, under every template: none, a conversation, and an instruction that is in neither corpus. 8 responses
at temperature 1 to each of 150 questions; strict accuracy asks for the answer in a box, lenient accuracy takes the
last number wherever it stands, so that failing the format is told apart from failing the question. The best template
is chosen on half of the questions and read on the other half, so that the choice does not flatter it. Replicates are
bases.

Which form a base has seen answers in is put in by construction; the claim is that the zero-step baseline has to be
read under the best template, and by how much the others fall short.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from zerolab.claims.experiments.base_models import HOME, KINDS, TEMPLATES, base, responses, sampling
from zerolab.claims.protocol import Cell, Factors, Plan, Protocol, Row, Statement, chosen, number


def cells(plan: Plan) -> list[Cell]:
    return [Cell({"kind": kind, "seed": seed}, seconds=15) for kind in KINDS for seed in plan.seeds]


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    from zerolab.analysis.exploration import grid

    found = responses(factors, list(TEMPLATES))
    names = sorted({r.question_id for r in found})
    halves = [set(names[::2]), set(names[1::2])]
    choosing, reading = ([r for r in found if r.question_id in half] for half in halves)
    best = next(row.setting.template for row in grid(choosing) if row.best)
    numbers: dict[str, float] = {"best_is_home": float(best == HOME[str(factors["kind"])])}
    for row in grid(reading):
        numbers[f"strict_{row.setting.template}"] = float(row.strict.value or 0.0)
        numbers[f"lenient_{row.setting.template}"] = float(row.lenient.value or 0.0)
    return numbers


def lead(kind: str, measure: str) -> Callable[[Sequence[Row]], list[float]]:
    """Accuracy under the home form minus that under the better of the other templates."""
    home = HOME[kind]

    def of(table: Sequence[Row]) -> list[float]:
        others = [f"{measure}_{template}" for template in TEMPLATES if template != home]
        rows = chosen(table, kind=kind)
        return [float(row[f"{measure}_{home}"]) - max(float(row[name]) for name in others) for row in rows]

    return of


PROTOCOL = Protocol(
    id="T1.templates",
    claim="T1",
    sentence="A base raised on bare questions and answers is best with no template at all.",
    metric="strict accuracy with no template minus the better of the other templates",
    test="t interval over five bases of each kind",
    refuted="a lead of no template below 5 points in textbook bases",
    cells=cells,
    recipe=sampling(*TEMPLATES),
    run=run,
    base=base,
    statements=(
        Statement("textbook: lead of no template, strict", lead("textbook", "strict"), (0.05, 1.0)),
        Statement("web: lead of the conversation, strict", lead("web", "strict"), (0.05, 1.0), "control"),
        Statement("textbook: lead of no template, lenient", lead("textbook", "lenient"), (0.0, 1.0), "shown"),
        Statement(
            "textbook: strict accuracy with no template",
            number("strict_none", kind="textbook"),
            (0.0, 1.0),
            "shown",
            share=True,
        ),
        Statement(
            "web: strict accuracy with no template", number("strict_none", kind="web"), (0, 1), "shown", share=True
        ),
    ),
    label="planted",
    replicate="base",
)
