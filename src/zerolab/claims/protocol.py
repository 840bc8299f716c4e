"""What a claim is: an experiment whose cells, metric, statements and thresholds are fixed before any run.

A protocol module is a methods paragraph (its docstring) and one PROTOCOL. It says which cells to run, what a cell
measures, and which statements the measurements have to bear out. The verdict is computed from them by `verdict.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Scale = Literal["laptop", "gpu", "paper"]
INFINITY = float("inf")
SCALES: tuple[Scale, ...] = ("laptop", "gpu", "paper")
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
    """A part of the claim: `values` of the table, one for each independent replicate, have their mean in `region`.

    role: "claim" is what the paper says; "control" is what must hold for the experiment to mean what it says; "shown"
    is reported and decides nothing, and so is `net`. `level` is that of the interval: .95, or .90 for an equivalence
    (two one-sided tests at .05). `exact`: the values have no sampling error.
    """

    text: str
    values: Callable[[Sequence[Row]], Sequence[float]]
    region: tuple[float, float]
    role: Literal["claim", "control", "shown"] = "claim"
    level: float = 0.95
    exact: bool = False
    unit: str = ""
    net: Callable[[Sequence[Row]], Sequence[float]] | None = None  # the same number minus that of the matched control


@dataclass(frozen=True)
class Protocol:
    """See the module's docstring for the method; these are its fixed parts. One without cells has no laptop scale."""

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
    draw: Callable[[Sequence[Row], Path], None]
    base: Callable[[Factors], Any] = lambda factors: None  # PretrainConfig of the model that a cell starts from
    seeds: int = 5
    quick_seeds: int = 2
    version: str = "1"  # raised when the same cells would measure something else

    @property
    def on_a_laptop(self) -> bool:
        return bool(self.cells(self.plan()))

    def plan(self, seeds: int | None = None, quick: bool = False) -> Plan:
        return Plan(tuple(range(seeds or (self.quick_seeds if quick else self.seeds))), quick)

    def bases(self, plan: Plan) -> list[Any]:
        """The PretrainConfigs of the plan's cells, each once."""
        found = [base for cell in self.cells(plan) if (base := self.base(cell.factors)) is not None]
        return list({base.model_dump_json(): base for base in found}.values())


def chosen(table: Sequence[Row], **factors: Any) -> list[Row]:
    """The rows with these factors, in the order of their seeds."""
    rows = [row for row in table if all(row.get(name) == value for name, value in factors.items())]
    return sorted(rows, key=lambda row: (row.get("base", 0), row.get("seed", 0)))


def paired(table: Sequence[Row], number: str, first: Factors, second: Factors) -> list[float]:
    """first - second of a number, replicate by replicate (same seed, same base); unpaired replicates are left out."""
    sides = [{_replicate(row): float(row[number]) for row in chosen(table, **factors)} for factors in (first, second)]
    return [sides[0][key] - sides[1][key] for key in sides[0] if key in sides[1]]


def _replicate(row: Row) -> tuple[Any, ...]:
    return row.get("base"), row.get("seed")


def number(name: str, **factors: str | int | float) -> Callable[[Sequence[Row]], list[float]]:
    """What a statement takes from a table: a number of the cells with these factors, replicate by replicate."""
    return lambda table: [float(row[name]) for row in chosen(table, **factors)]


def difference(name: str, first: Factors, second: Factors) -> Callable[[Sequence[Row]], list[float]]:
    return lambda table: paired(table, name, first, second)


def window(values: Sequence[float]) -> tuple[float, float]:
    """Means over the start and the end of a run with one value for each step; NaN does not count."""
    from zerolab.rundir import step_windows, window_mean

    steps, windows = range(1, len(values) + 1), step_windows(len(values))
    return window_mean(steps, values, windows["start"]), window_mean(steps, values, windows["end"])
