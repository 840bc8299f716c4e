"""What a claim is: an experiment whose cells, metric, statements and thresholds are fixed before any run.

A protocol module is a methods paragraph (its docstring) and one PROTOCOL. It says which cells to run, what a cell
measures, and which statements the measurements have to bear out. The verdict is computed from them by `verdict.py`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zerolab.rundir import step_windows, window_mean

Scale = Literal["laptop", "gpu", "paper"]
INFINITY = float("inf")
FEWEST, FEWEST_BASES = 3, 5
SCALES: tuple[Scale, ...] = ("laptop", "gpu", "paper")
Label = Literal["planted", "designed", "algebra", "open"]
LABELS: dict[Label, str] = {
    "open": "nothing in the set-up decides the outcome",
    "designed": "the world was built so that it can happen",
    "planted": "the effect was put into the base model: the experiment shows that it is found",
    "algebra": "an identity: the experiment checks the code",
}
Role = Literal["claim", "control", "check", "shown"]
Replicate = Literal["base", "seed", "run", "measurement"]
Factors = Mapping[str, str | int | float]
Row = Mapping[str, Any]  # the factors of a cell and the numbers that it measured


@dataclass(frozen=True)
class Plan:
    """How much is run: the seeds of every arm, and whether only the cells of a quick look are wanted."""

    seeds: tuple[int, ...]
    quick: bool = False


@dataclass(frozen=True)
class Cell:
    """One run. Its factors are all that distinguishes it; the same factors give the same numbers."""

    factors: Factors
    seconds: float  # of one core, expected

    @property
    def key(self) -> str:
        return ",".join(f"{name}={value}" for name, value in self.factors.items())


@dataclass(frozen=True)
class Statement:
    """A part of the claim: `values` of the table, one for each unit of replication, have their mean in `region`.

    role: "claim" is what the paper says; "control" is what must hold for the experiment to mean what it says; "check"
    is an identity that tests the code; "shown" is reported, has no verdict and decides nothing, and so is `net`.
    `level` is that of the interval: .95, or .90 for an equivalence (two one-sided tests at .05). `exact`: the values
    have no sampling error. `share`: they are shares of something, so that the interval stays within 0 and 1. `arm`: the
    objective whose runs are measured, which decides the colour in figures.
    """

    text: str
    values: Callable[[Sequence[Row]], Sequence[float]]
    region: tuple[float, float]
    role: Role = "claim"
    level: float = 0.95
    exact: bool = False
    unit: str = ""
    share: bool = False
    arm: str = ""
    replicate: Literal["", "seed"] = ""  # "seed": on one base, whose seeds are the replicates; else the protocol's
    primary: bool = False  # the one that tables show; the first claim if none is marked
    net: Callable[[Sequence[Row]], Sequence[float]] | None = None  # the same number minus that of the matched control


@dataclass(frozen=True)
class Protocol:
    """See the module's docstring for the method; these are its fixed parts. One without cells has no laptop scale.

    `replicate` names what is drawn anew for every value of a statement: a claim about tiny transformers needs
    independent bases, with the seeds of a base averaged; a claim about one named model has its runs.
    """

    id: str  # e.g. "L1.policy"
    claim: str  # id of the paper's claim
    sentence: str
    metric: str
    test: str
    refuted: str  # what would count as refuted
    cells: Callable[[Plan], list[Cell]]
    recipe: Callable[[Factors], Any]  # what a cell runs: a RunConfig if it trains, else a mapping of its settings
    run: Callable[[Factors, Path], Mapping[str, float]]  # in a process of its own; the folder is the cell's
    statements: tuple[Statement, ...]
    label: Label
    replicate: Replicate
    draw: Callable[[Sequence[Row], Path], None] | None = None  # a figure of curves beside that of the statements
    fixed: str = "before the runs"  # when regions, metrics and seeds were fixed
    base: Callable[[Factors], Any] = lambda factors: None  # PretrainConfig of the model that a cell starts from
    seeds: int = 5
    quick_seeds: int = 2
    version: str = "1"  # raised when the same cells would measure something else

    @property
    def primary(self) -> Statement:
        """The statement that stands for the experiment in short tables."""
        deciding = [s for s in self.statements if s.role in ("claim", "check")]
        return next((s for s in deciding if s.primary), deciding[0])

    @property
    def fewest(self) -> int:
        """Units of replication below which nothing is concluded."""
        return FEWEST_BASES if self.replicate == "base" else FEWEST

    @property
    def on_a_laptop(self) -> bool:
        return bool(self.cells(self.plan()))

    def plan(self, seeds: int | None = None, quick: bool = False) -> Plan:
        return Plan(tuple(range(seeds or (self.quick_seeds if quick else self.seeds))), quick)

    def bases(self, cells: Sequence[Cell]) -> list[Any]:
        """The PretrainConfigs of these cells, each once."""
        found = [base for cell in cells if (base := self.base(cell.factors)) is not None]
        return list({base.model_dump_json(): base for base in found}.values())


def chosen(table: Sequence[Row], **factors: Any) -> list[Row]:
    """The rows with these factors, in the order of their seeds."""
    rows = [row for row in table if all(row.get(name) == value for name, value in factors.items())]
    return sorted(rows, key=lambda row: (row.get("base", 0), row.get("seed", 0)))


def paired(table: Sequence[Row], number: str, first: Factors, second: Factors) -> list[float]:
    """first - second of a number, from pairs of runs with the same seed and base; unpaired runs are left out."""
    sides = [{_pair(row): row for row in chosen(table, **factors)} for factors in (first, second)]
    pairs = [(sides[0][key], sides[1][key]) for key in sides[0] if key in sides[1]]
    return by_base([row for row, _ in pairs], [_float(a, number) - _float(b, number) for a, b in pairs])


def _float(row: Row, name: str) -> float:
    """NaN if the row lacks the column, as those of an earlier version of the protocol may."""
    return float(row.get(name, math.nan))


def _pair(row: Row) -> tuple[Any, ...]:
    return row.get("base"), row.get("seed")


def by_base(rows: Sequence[Row], values: Sequence[float]) -> list[float]:
    """Values of rows, averaged over the seeds of every base; of a table without a column `base`, every row's own."""
    if not rows or "base" not in rows[0]:
        return list(values)
    groups: dict[Any, list[float]] = {}
    for row, value in zip(rows, values, strict=True):
        groups.setdefault(row["base"], []).extend([value] if math.isfinite(value) else [])
    return [math.fsum(group) / len(group) if group else math.nan for group in groups.values()]


def runs_apart(table: Sequence[Row]) -> list[Row]:
    """The same rows with every run as a replicate of its own, for statements about one base."""
    return [{**{k: v for k, v in row.items() if k != "base"}, "seed": _pair(row)} for row in table]


def measured(of: Callable[[Row], float], **factors: str | int | float) -> Callable[[Sequence[Row]], list[float]]:
    """What a statement takes from a table: a number of every cell with these factors, unit by unit."""

    def values(table: Sequence[Row]) -> list[float]:
        rows = chosen(table, **factors)
        return by_base(rows, [of(row) for row in rows])

    return values


def number(name: str, **factors: str | int | float) -> Callable[[Sequence[Row]], list[float]]:
    """The same for a column of the table."""
    return measured(lambda row: _float(row, name), **factors)


def difference(name: str, first: Factors, second: Factors) -> Callable[[Sequence[Row]], list[float]]:
    return lambda table: paired(table, name, first, second)


def window(values: Sequence[float]) -> tuple[float, float]:
    """Means over the start and the end of a run with one value for each step; NaN does not count."""
    steps, windows = range(1, len(values) + 1), step_windows(len(values))
    return window_mean(steps, values, windows["start"]), window_mean(steps, values, windows["end"])
