"""B2: base models already explore, before any RL.

The bases of B1, each under the form in which it has seen answers. 8 responses to each of 150 questions at
temperatures .4, .7, 1.0 and 1.3; pass@8 is unbiased and strict (the answer has to stand in a box). A quarter of the
questions is never answered right in the corpus, so pass@8 stays well below 1. Above 0 means that RL has something to
reinforce: at least .05, and more than a single try brings. Replicates are bases, five seeds of each kind.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from zerolab.claims.experiments.base_models import HOME, KINDS, TEMPERATURES, base, responses, sampling
from zerolab.claims.protocol import Cell, Factors, Plan, Protocol, Row, Statement, measured, number


def cells(plan: Plan) -> list[Cell]:
    return [Cell({"kind": kind, "seed": seed}, seconds=20) for kind in KINDS for seed in plan.seeds]


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    from zerolab.analysis.exploration import exploration

    found = exploration(responses(factors, [HOME[str(factors["kind"])]], TEMPERATURES), ks=(1, 8))
    return {f"pass{row.k}_T{row.setting.temperature:g}": row.value for row in found}


def over_one_try(kind: str) -> Callable[[Sequence[Row]], list[float]]:
    return measured(lambda row: float(row["pass8_T1"]) - float(row["pass1_T1"]), kind=kind)


PROTOCOL = Protocol(
    id="B2.exploration",
    claim="B2",
    sentence="Bases solve questions at pass@8 before any RL, at every temperature.",
    metric="unbiased pass@8, strict format",
    test="t interval over five bases of each kind",
    refuted="pass@8 of .05 or less at temperature 1 in either kind",
    cells=cells,
    recipe=sampling(*HOME.values(), *TEMPERATURES),
    run=run,
    base=base,
    statements=(
        *(
            Statement(f"{kind}: pass@8 at temperature 1", number("pass8_T1", kind=kind), (0.05, 1.0), share=True)
            for kind in KINDS
        ),
        *(Statement(f"{kind}: pass@8 minus pass@1", over_one_try(kind), (0.05, 1.0), "control") for kind in KINDS),
        *(
            Statement(
                f"{kind}: pass@8 at temperature {t:g}",
                number(f"pass8_T{t:g}", kind=kind),
                (0.05, 1.0),
                "shown",
                share=True,
            )
            for kind in KINDS
            for t in TEMPERATURES
            if t != 1.0
        ),
    ),
    label="planted",
    replicate="base",
)
