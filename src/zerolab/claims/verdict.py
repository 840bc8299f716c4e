"""The verdict, computed from the data by the protocol's rule and never written by hand.

A statement says that a mean over units of replication lies in a region. Its interval decides:

    inside the region           reproduced
    wholly outside              not reproduced
    across a border             underpowered, if MOST units or fewer would decide; else: the metric cannot tell

So an effect needs an interval beyond the smallest effect that counts, a null is called null when the interval excludes
such an effect, and an equivalence is two one-sided tests. A claim is as good as its weakest statement. If a control
fails, the experiment says nothing about the claim.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from zerolab.claims.protocol import FEWEST, Protocol, Replicate, Role, Row, Statement, runs_apart
from zerolab.evaluation.intervals import t_interval, t_interval_of

Place = Literal["inside", "outside", "underpowered", "metric cannot tell"]
Verdict = Literal[
    "reproduced",
    "not reproduced",
    "underpowered",
    "metric cannot tell",
    "control failed (inconclusive)",
    "check passed",
    "check failed",
]
WORDS = {  # what a statement of this role is said to be by the place of its interval
    "claim": {"inside": "reproduced", "outside": "not reproduced"},
    "control": {"inside": "passed", "outside": "failed"},
    "check": {"inside": "passed", "outside": "failed"},
}
TONES = {  # how a verdict is coloured
    "good": ("reproduced", "passed", "check passed"),
    "bad": ("not reproduced", "failed", "check failed"),
    "unsure": ("underpowered", "metric cannot tell", "control failed (inconclusive)", "undecided"),
}
RULES = 2  # raised when the same table gets another verdict
MOST = 50  # units of replication that an experiment could reasonably have


@dataclass(frozen=True)
class Finding:
    """A statement with its number. The interval is NaN if there are too few units. A shown statement has no verdict."""

    text: str
    role: Role
    estimate: float
    low: float
    high: float
    replicates: int
    region: tuple[float, float]
    unit: str
    verdict: str
    replicate: Replicate = "run"
    needed: int | None = None  # units that would decide, if it is underpowered
    net: tuple[float, float, float] | None = None  # of the matched control: mean and interval


def findings(protocol: Protocol, table: Sequence[Row]) -> list[Finding]:
    return [_finding(protocol, statement, table) for statement in protocol.statements]


def _finding(protocol: Protocol, statement: Statement, table: Sequence[Row]) -> Finding:
    apart = statement.replicate == "seed"
    found = judge(statement, values_of(statement, table), FEWEST if apart else protocol.fewest)
    net = net_of_control(statement, runs_apart(table) if apart else table)
    return replace(found, replicate="seed" if apart else protocol.replicate, net=net)


def values_of(statement: Statement, table: Sequence[Row]) -> list[float]:
    """A statement's number for every unit of replication."""
    return list(statement.values(runs_apart(table) if statement.replicate == "seed" else table))


def net_of_control(statement: Statement, table: Sequence[Row]) -> tuple[float, float, float] | None:
    """Mean and interval of a statement's number minus that of its matched control; None if it has none."""
    if statement.net is None:
        return None
    array = _finite(statement.net(table))
    return (_mean(array), *interval(array, statement.level, statement.exact))


def judge(statement: Statement, values: Sequence[float], fewest: int = FEWEST) -> Finding:
    """Values that are not finite (nothing to measure) are left out and count as missing replicates."""
    array = _finite(values)
    low, high = interval(array, statement.level, statement.exact, share=statement.share)
    place = _place(low, high, statement.region) if len(array) >= fewest or statement.exact else "underpowered"
    needed = units_needed(array, statement, fewest) if place == "underpowered" else None
    place = "metric cannot tell" if place == "underpowered" and needed is None else place
    return Finding(
        text=statement.text,
        role=statement.role,
        estimate=_mean(array),
        low=low,
        high=high,
        replicates=len(array),
        region=statement.region,
        unit=statement.unit,
        verdict="" if statement.role == "shown" else WORDS[statement.role].get(place, place),
        needed=None if statement.role == "shown" else needed,
    )


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, float)
    return array[np.isfinite(array)]


def _mean(array: np.ndarray) -> float:
    return float(array.mean()) if len(array) else math.nan


def interval(values: np.ndarray, level: float, exact: bool = False, share: bool = False) -> tuple[float, float]:
    """t interval of the mean over units; the range of the values if they are exact."""
    return (float(values.min()), float(values.max())) if exact and len(values) else t_interval(values, level, share)


def units_needed(values: np.ndarray, statement: Statement, fewest: int) -> int | None:
    """Units with which the interval would lie on one side of every border, if mean and spread stayed as they are; None
    if MOST would not do. With fewer than two values, or without any spread, the least that is judged at all."""
    if statement.exact:
        return None if len(values) else 1
    mean, spread = _mean(values), float(values.std(ddof=1)) if len(values) > 1 else 0.0
    if spread == 0:
        alike = 1 + math.ceil(-math.log2(1 - statement.level))  # the sign test's rule for values that agree exactly
        return max(fewest, alike) if len(values) > 1 else fewest
    for count in range(max(fewest, len(values) + 1), MOST + 1):
        low, high = t_interval_of(mean, spread, count, statement.level, statement.share)
        if _place(low, high, statement.region) != "underpowered":
            return count
    return None


def _place(low: float, high: float, region: tuple[float, float]) -> Place:
    if np.isnan(low):
        return "underpowered"
    if region[0] <= low and high <= region[1]:
        return "inside"
    return "outside" if high < region[0] or low > region[1] else "underpowered"


def tone(verdict: str) -> str:
    """ "good", "bad" or "unsure"; "muted" for what is no verdict."""
    return next((name for name, verdicts in TONES.items() if verdict in verdicts), "muted")


def control_state(found: Sequence[Finding]) -> str:
    """Of controls and checks together: passed, failed or undecided; "" if there are none."""
    states = [f.verdict for f in found if f.role in ("control", "check")]
    if not states:
        return ""
    return "failed" if "failed" in states else "passed" if set(states) == {"passed"} else "undecided"


def overall(found: Sequence[Finding]) -> Verdict:
    """A failed check or control comes first: nothing is concluded then. Else the claim is not reproduced if one of its
    statements is not, and reproduced if all are and the controls passed. Checks alone only check the code."""
    claims, guards = ([f for f in found if f.role in roles] for roles in (("claim",), ("control", "check")))
    if any(f.verdict == "failed" and f.role == "check" for f in guards):
        return "check failed"
    if any(f.verdict == "failed" for f in guards):
        return "control failed (inconclusive)"
    undecided = {f.verdict for f in (*claims, *guards)} & {"underpowered", "metric cannot tell"}
    controlled = all(f.verdict == "passed" for f in guards)
    if controlled and any(f.verdict == "not reproduced" for f in claims):
        return "not reproduced"
    if not undecided and claims:
        return "reproduced"
    if not undecided and guards:
        return "check passed"
    return "metric cannot tell" if undecided == {"metric cannot tell"} else "underpowered"


def needed_in_all(found: Sequence[Finding]) -> int | None:
    """Units of replication that would decide all statements that are underpowered; None if there are none."""
    return max((f.needed for f in found if f.needed is not None), default=None)
