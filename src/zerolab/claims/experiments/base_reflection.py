"""B3: self-reflection is there before RL, and grows with temperature.

The bases of B1, each under the form in which it has seen answers; in the corpus a fifth of the boxed answers give a
first answer, say "Let me check again:" and answer anew, as likely right as anyone. 8 responses to each of 150
questions at temperatures .4, .7, 1.0 and 1.3. Measured are the share of responses that hold a keyword of the paper's
list and its slope against temperature. Replicates are bases.

That some documents reflect is built into the corpus. What is tested is that pretraining alone brings it out in
responses, and that it grows with temperature. At laptop scale there is no judge: the keyword detector alone decides.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from zerolab.claims.experiments.base_models import HOME, KINDS, TEMPERATURES, base, responses, sampling
from zerolab.claims.protocol import Cell, Factors, Plan, Protocol, Row, Statement, measured, number


def cells(plan: Plan) -> list[Cell]:
    return [Cell({"kind": kind, "seed": seed}, seconds=20) for kind in KINDS for seed in plan.seeds]


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    from zerolab.analysis.reflection import reflection

    found = reflection(responses(factors, [HOME[str(factors["kind"])]], TEMPERATURES))
    numbers = {f"reflects_T{row.setting.temperature:g}": float(row.per_response.value or 0.0) for row in found}
    [at_one] = [row.accuracy.difference for row in found if row.setting.temperature == 1.0]
    return {**numbers, "within_difference": float("nan") if at_one is None else at_one}


def slope(kind: str) -> Callable[[Sequence[Row]], list[float]]:
    """Of the share against temperature, base by base."""

    def of(row: Row) -> float:
        shares = np.array([float(row[f"reflects_T{t:g}"]) for t in TEMPERATURES])
        return float(np.polyfit(np.array(TEMPERATURES), shares, 1)[0])

    return measured(of, kind=kind)


PROTOCOL = Protocol(
    id="B3.reflection",
    claim="B3",
    sentence="Responses of bases reflect on themselves before any RL, more so at higher temperature.",
    metric="share of responses with a keyword of the paper, and its slope against temperature",
    test="t interval over five bases of each kind",
    refuted="fewer than 1 % of responses at temperature 1, or a share that falls with temperature",
    cells=cells,
    recipe=sampling(*HOME.values(), *TEMPERATURES),
    run=run,
    base=base,
    statements=(
        *(
            Statement(f"{kind}: reflects at temperature 1", number("reflects_T1", kind=kind), (0.01, 1.0), share=True)
            for kind in KINDS
        ),
        *(Statement(f"{kind}: growth of the share with temperature", slope(kind), (0.0, 1.0)) for kind in KINDS),
        *(
            Statement(
                f"{kind}: no more than half of the responses",
                number("reflects_T1", kind=kind),
                (0.0, 0.5),
                "control",
                share=True,
            )
            for kind in KINDS
        ),
    ),
    label="planted",
    replicate="base",
)
