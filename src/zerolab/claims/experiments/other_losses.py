"""T2: losses that are in use have, or had, a length bias.

The audit (`zerolab audit`) hands responses of chosen lengths, rewards and groups to a library's own loss code and
reads the coefficient of every token from the gradient. Measured here, on the TRL that is installed and driven through
its public trainer: the weight of a token in a response of 32 tokens over one of 4, for the losses that take a mean
over each response; the largest change of the coefficients over ways of cutting a step, for the one that normalises
over the micro-batch; and, as the control, the loss that takes neither. verl and OpenRLHF need interpreters of their
own: their measured tables stand in docs/audit.md. TRL has no PPO any more, so the paper's `masked_mean(dim=-1)` is
measured where it still is a setting, and on zerolab's own `ppo_response_mean` by `zerolab certify`.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from zerolab.claims.protocol import Cell, Factors, Plan, Protocol, Row, Statement, number
from zerolab.errors import UserError

VARIANTS = ("grpo", "gspo", "sapo", "bnpo", "dr_grpo", "dr_grpo_unscaled")
ROWS = ("length", "split", "pass-rate")


def cells(plan: Plan) -> list[Cell]:
    return [Cell({"library": "trl", "loss": variant}, seconds=20) for variant in VARIANTS]


def recipe(factors: Factors) -> Mapping[str, str]:
    """The library's version is what its losses depend on."""
    try:
        return {"trl": metadata.version("trl")}
    except metadata.PackageNotFoundError:
        return {}


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    try:
        import trl  # noqa: F401
    except ImportError:
        raise UserError("TRL is not installed: pip install 'zerolab[audit]'") from None
    from zerolab.audit import checks
    from zerolab.audit.targets import find

    [audit] = checks.audit(find(f"trl:{factors['loss']}", None))
    return {name: float("nan") if (v := audit.row(name).value) is None else float(v) for name in ROWS}


def measured(loss: str, row: str) -> Callable[[Sequence[Row]], list[float]]:
    return number(row, loss=loss)


BIASED = (0.0, 0.5)
PROTOCOL = Protocol(
    id="T2.trl",
    claim="T2",
    sentence="Losses that are in use weigh a token by one over the length of its response, or by its micro-batch.",
    metric="coefficient of a token, response of 32 tokens over response of 4; largest change over cuts of a step",
    test="exact: one deterministic measurement of the installed library",
    refuted="a weight of 1 where a mean over each response is documented, or one gradient for any micro-batch",
    cells=cells,
    recipe=recipe,
    run=run,
    statements=(
        *(
            Statement(f"trl:{loss}: a mean over each response", measured(loss, "length"), BIASED, exact=True)
            for loss in ("grpo", "gspo", "sapo")
        ),
        Statement("trl:bnpo: depends on the cut", measured("bnpo", "split"), (0.05, float("inf")), exact=True),
        Statement(
            "trl:dr_grpo, scale_rewards none: no length bias",
            measured("dr_grpo_unscaled", "length"),
            (0.999, 1.001),
            "control",
            exact=True,
        ),
        Statement(
            "trl:dr_grpo alone keeps the division by std (p = .01 over p = .5)",
            measured("dr_grpo", "pass-rate"),
            (1.2, float("inf")),
            "shown",
            exact=True,
        ),
    ),
    label="algebra",
    replicate="measurement",
    seeds=1,
    quick_seeds=1,
)
