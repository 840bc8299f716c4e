"""The verdict, computed from the data by the protocol's rule and never written by hand.

A statement says that a mean lies in a region. Its interval decides:

    inside the region           reproduced
    wholly outside              not reproduced
    across a border             underpowered: more seeds would tell

So an effect needs an interval beyond the smallest effect that counts, a null is called null when the interval excludes
such an effect, and an equivalence is two one-sided tests. A claim is as good as its weakest statement; a control that
fails takes the claim with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import special  # not scipy.stats, which takes a second to import

from zerolab.claims.protocol import Protocol, Row, Statement

Verdict = Literal["reproduced", "not reproduced", "underpowered", "needs hardware"]
FEWEST = 3  # replicates below which nothing is concluded


@dataclass(frozen=True)
class Finding:
    """A statement with its number. The interval is a t interval over replicates; NaN where there are too few."""

    text: str
    role: str
    estimate: float
    low: float
    high: float
    replicates: int
    region: tuple[float, float]
    unit: str
    verdict: Verdict
    net: tuple[float, float, float] | None = None  # of the matched control: mean and interval


def findings(protocol: Protocol, table: Sequence[Row]) -> list[Finding]:
    return [
        replace(judge(statement, statement.values(table)), net=net_of_control(statement, table))
        for statement in protocol.statements
    ]


def net_of_control(statement: Statement, table: Sequence[Row]) -> tuple[float, float, float] | None:
    """Mean and interval of a statement's number minus that of its matched control; None where it has none."""
    if statement.net is None:
        return None
    array = np.asarray(statement.net(table), float)
    array = array[np.isfinite(array)]
    return (float(array.mean()) if len(array) else float("nan"), *interval(array, statement.level, statement.exact))


def judge(statement: Statement, values: Sequence[float]) -> Finding:
    """Values that are not finite (nothing to measure) are left out and count as missing replicates."""
    array = np.asarray(values, float)
    array = array[np.isfinite(array)]
    estimate = float(array.mean()) if len(array) else float("nan")
    low, high = interval(array, statement.level, statement.exact)
    return Finding(
        text=statement.text,
        role=statement.role,
        estimate=estimate,
        low=low,
        high=high,
        replicates=len(array),
        region=statement.region,
        unit=statement.unit,
        verdict=_place(low, high, statement.region),
    )


def interval(values: np.ndarray, level: float, exact: bool = False) -> tuple[float, float]:
    """t interval of the mean. Replicates that agree exactly get no width from t, so then the sign test's rule holds: n
    equal values are enough at `level` from n = 6 (2^(1-n) < .05), below that nothing is concluded."""
    if exact and len(values):
        return float(values.min()), float(values.max())
    if len(values) < FEWEST:
        return float("nan"), float("nan")
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    if error == 0 and 2.0 ** (1 - len(values)) > 1 - level:
        return float("nan"), float("nan")
    half = float(special.stdtrit(len(values) - 1, (1 + level) / 2)) * error
    return mean - half, mean + half


def _place(low: float, high: float, region: tuple[float, float]) -> Verdict:
    if np.isnan(low):
        return "underpowered"
    if region[0] <= low and high <= region[1]:
        return "reproduced"
    if high < region[0] or low > region[1]:
        return "not reproduced"
    return "underpowered"


def overall(found: Sequence[Finding]) -> Verdict:
    """Of the statements that decide: not reproduced where one is, reproduced where all are, else underpowered."""
    deciding = [f.verdict for f in found if f.role != "shown"]
    if "not reproduced" in deciding:
        return "not reproduced"
    return "reproduced" if deciding and all(v == "reproduced" for v in deciding) else "underpowered"
