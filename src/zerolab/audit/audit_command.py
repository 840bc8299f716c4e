"""`zerolab audit`: measure a loss that is not ours, and show the result as text, JSON and a figure."""

import difflib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zerolab.audit.checks import Audit, summary
from zerolab.errors import UserError
from zerolab.terminal import make_console

KEYS = ("length", "scale", "pass-rate", "split", "order", "ranks", "truncation", "zero-variance", "importance")


def run(target: str, json_file: Path | None, png: Path | None, fail_on: str, python: str | None) -> bool:
    """Audits a target. True when no row named in `fail_on` is biased.

    Raises UserError for a target that does not exist or cannot be run, for an unknown row, for one that could not be
    measured although `fail_on` names it, and for a file that cannot be written.
    """
    keys = rows(fail_on)
    for path in (json_file, png):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{path}: its folder does not exist; make it first")

    from zerolab.audit.targets import find

    peers = find(target, python)

    from rich.text import Text

    from zerolab.audit import audit_command, checks
    from zerolab.audit.certificate_table import WIDTH

    console = make_console(WIDTH)
    with console.status(Text(f"auditing {target}")):
        audits = checks.audit(peers)
    audit_command.render(audits, console)
    if json_file is not None:
        json_file.write_text(json.dumps(audit_command.record(audits), indent=2) + "\n", encoding="utf-8")
        console.print(f"wrote {json_file}")
    if png is not None:
        audit_command.draw(png, audits)
        console.print(f"wrote {png}")
    missing = [(a, key) for key in keys for a in audits if a.row(key).biased is None]
    if missing:
        a, key = missing[0]
        raise UserError(f"--fail-on {key}: {a.name} was {a.row(key).verdict}")
    lines = checks.biased(audits, keys)
    for line in lines:
        console.print(Text.assemble(("FAILED", "red"), f" {line}"))
    return not lines


def rows(text: str) -> list[str]:
    """The keys of a comma-separated list. Raises UserError for an unknown one."""
    keys = [key.strip() for key in text.split(",") if key.strip()]
    for key in keys:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose among {', '.join(KEYS)}"
            raise UserError(f"--fail-on {key}: no such row; {hint}")
    return keys


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

    from zerolab.audit.certificate_table import merge

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
