"""B4: self-reflection does not mean accuracy. The method is that of B3 (`base_reflection.py`): its cells, read for the
accuracy of reflecting minus other responses to the same question.

In the corpus an answer after reflection is as likely right as any, so no difference was put in; what a model makes of
that is measured. The paper's claim is a difference of about 0 or below, here below 5 points, for each kind of base on
its own. The control asks that enough responses reflect for the difference to be measured at all. Replicates are bases,
five of each kind.
"""

from zerolab.claims.experiments.base_models import KINDS
from zerolab.claims.experiments.base_reflection import COMMON
from zerolab.claims.protocol import Protocol, Statement, number

PROTOCOL = Protocol(
    id="B4.accuracy",
    claim="B4",
    sentence="Responses that reflect are right no more often than others to the same question.",
    refuted="reflecting responses more than 5 points better within questions",
    statements=(
        *(
            Statement(f"{kind}: reflecting minus others", number("within_difference", kind=kind), (-1.0, 0.05))
            for kind in KINDS
        ),
        Statement("responses that reflect", number("reflects_T1"), (0.03, 0.97), "control", share=True),
        Statement("both kinds together", number("within_difference"), (-1.0, 0.05), "shown"),
    ),
    label="open",
    **COMMON,  # type: ignore[arg-type]
)
