"""Audits as text, as a record and as a figure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zerolab.audit.battery import Audit, summary

TITLES = {
    "length": "weight of a token, response of 32 / of 4",
    "scale": "the same, step of half as long responses / this",
    "pass-rate": "weight of a question, p = .01 / p = .5",
    "split": "largest change by micro-batches",
    "order": "largest change by shuffling",
    "ranks": "change by two ranks",
    "truncation": "weight of a cut-off response / a finished one",
    "zero-variance": "gradient of a group of equal rewards",
    "importance": "importance weight at 8192 / at 512 tokens",
}


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return "0" if abs(value) < 5e-5 else f"{value:.3f}" if value < 100 else f"{value:.3g}"


def render(audits: Sequence[Audit], console: Console) -> None:
    for one in audits:
        table = Table(title=f"{one.name} ({one.version})", title_justify="left", title_style="bold", padding=(0, 1))
        table.add_column("row", no_wrap=True)
        table.add_column("what", no_wrap=True)
        table.add_column("number", justify="right")
        table.add_column("verdict")
        for row in one.rows:
            colour = {True: "red", False: "green", None: "dim"}[row.biased]
            table.add_row(row.key, TITLES[row.key], number(row.value), Text(row.verdict, style=colour))
        console.print(table)
        console.print(f"{one.about}: {summary(one)}")
        console.print()


def record(audits: Sequence[Audit]) -> dict[str, Any]:
    """Everything, as JSON values."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "audits": [{**one.record(), "summary": summary(one)} for one in audits],
    }


def draw(path: Path, audits: Sequence[Audit]) -> None:
    """Left: weight of a token against response length, right: weight of a question against its pass rate."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from zerolab.audit.plot import merge

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    for axis, key in ((left, "length"), (right, "pass-rate")):
        curves: Mapping[str, Sequence[float]] = {
            one.name: list(one.row(key).curve.values()) for one in audits if one.row(key).curve
        }
        xs = next(([float(x) for x in one.row(key).curve] for one in audits if one.row(key).curve), [])
        for label, curve in merge(curves).items():
            axis.plot(xs, curve, marker="o" if key == "length" else None, linewidth=1.8, label=label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
        if curves:
            axis.legend(frameon=False, fontsize=8)
    left.set(xlabel="response length", ylabel="weight of a token / that at the shortest")
    right.set(xlabel="pass rate p", ylabel="weight of a question / its mean")
    figure.suptitle("What a token and a question count for; an unbiased loss is flat in both")
    figure.savefig(path, dpi=130)
    plt.close(figure)
