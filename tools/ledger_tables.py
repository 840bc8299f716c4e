"""The ledger in Markdown: README.md has a few experiments, docs/results.md all of them with a figure for every claim,
and docs/claims/CLAIM.md every statement."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zerolab.claims.ledger import CLAIMS, find, protocols
from zerolab.claims.protocol import Protocol, chosen, paired, runs_apart
from zerolab.claims.report import (
    HEADS,
    heads,
    measured,
    method,
    need_of,
    open_first,
    provenance,
    standing,
    statement_cells,
    summary_cells,
)
from zerolab.claims.results import read_table, read_verdict
from zerolab.claims.verdict import interval

MOST = 8  # rows in the README
NOTE = "Written by `make docs` from `results/`; do not edit."


def headlines(results: Path) -> str:
    """At most MOST experiments that ran, open ones first; a name leads to its claim's page."""
    ran = [p for p in open_first() if read_verdict(results / "laptop" / p.id)]
    return _table(HEADS, [_linked(p, results, "docs/claims") for p in ran[:MOST]])


def ledger(results: Path) -> str:
    """Every experiment in a row, open ones first, then a figure for every claim."""
    lines = [_table(HEADS, [_linked(p, results, "claims") for p in open_first()])]
    for claim, sentence in CLAIMS.items():
        drawn = (p for p in open_first() if p.claim == claim)
        shown = next((p for p in drawn if (results / "laptop" / p.id / "figure.png").is_file()), None)
        if shown:
            lines += [f"\n### {claim}: {sentence}\n\n", picture(shown, "figure", "../")]
            lines.append(f"\n[Every statement of {claim}](claims/{claim}.md)\n")
    return "".join(lines)


def claim_pages(results: Path) -> dict[str, str]:
    """Name -> text of docs/claims/NAME: every statement of a claim's experiments, and what larger scales take."""
    return {f"{claim}.md": _page(claim, sentence, results) for claim, sentence in CLAIMS.items()}


def _page(claim: str, sentence: str, results: Path) -> str:
    parts = [f"# {claim}: {sentence}\n\n{NOTE} [claims.md](../claims.md) explains labels, roles and verdicts;\n"]
    parts.append("[results.md](../results.md) has the other claims.\n")
    for protocol in find(claim) if any(p.claim == claim for p in protocols()) else ():
        parts += ["\n", _experiment(protocol, results)]
    larger = [f"{scale} scale: {need_of(claim, scale)}" for scale in ("gpu", "paper")]
    parts.append(f"\n## Beyond the laptop\n\n`zerolab claims run {claim} --scale gpu` prints the commands. ")
    parts.append(f"{'; '.join(larger)}.\n")
    return "".join(parts)


def _experiment(protocol: Protocol, results: Path) -> str:
    folder = results / "laptop" / protocol.id
    record = read_verdict(folder)
    if record is None:
        return f"## {protocol.id}: not run\n\n{protocol.sentence} {method(protocol)}\n"
    net = any(s.get("net") for s in measured(record))
    rows = [(*statement_cells(s, net), s["verdict"]) for s in measured(record)]
    names = [name for name in ("figure", "curves") if (folder / f"{name}.png").is_file()]
    return "\n".join(
        [
            f"## {protocol.id}: {standing(record)}\n",
            f"{protocol.sentence} {method(protocol)}\n",
            f"{provenance(record)}.\n",
            *(picture(protocol, name, "../../") for name in names),
            _table(heads(net), rows),
        ]
    )


def picture(protocol: Protocol, name: str, prefix: str) -> str:
    """A figure in the colours of the reader's theme."""
    place = f"{prefix}results/laptop/{protocol.id}/{name}"
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{place}-dark.png">'
        f'<img src="{place}.png" alt="{protocol.id}: {protocol.sentence}"></picture>\n'
    )


def _linked(protocol: Protocol, results: Path, pages: str) -> Sequence[str]:
    name, *cells = summary_cells(protocol, results)
    return [f"[{name}]({pages}/{protocol.claim}.md)", *cells]


# Of the 2 x 2: a division, and the pairs of arms that differ in it alone (with, without).
DIVISIONS = {
    "1/std, beside 1/|o|": ("grpo", "grpo_std_fix"),
    "1/std, without 1/|o|": ("grpo_length_fix", "dr_grpo"),
    "1/|o|, beside 1/std": ("grpo", "grpo_length_fix"),
    "1/|o|, without 1/std": ("grpo_std_fix", "dr_grpo"),
}
CLIPPED = ("L1.transformer", "L1.natural", "D3.columns")


def divisions(results: Path) -> str:
    """What each of GRPO's two divisions does to accuracy in the 2 x 2 of L1.transformer. Units are runs."""
    table = runs_apart(read_table(results / "laptop" / "L1.transformer" / "cells.csv"))
    rows = []
    for name, arms in DIVISIONS.items():
        values = np.array(paired(table, "accuracy_end", *({"arm": a, "condition": "reference"} for a in arms)))
        ends = interval(values, 0.95)
        rows.append((name, f"{values.mean():.4f}", f"{ends[0]:.4f} .. {ends[1]:.4f}", f"{len(values)} runs"))
    return _table(("division", "accuracy at the end, with minus without", "95 % interval", "replicates"), rows)


PRESSURES = (  # experiment, condition, what tells the experiments apart
    ("L1.transformer", "reference", "a word of confidence, right in 85 %"),
    ("L1.transformer", "no information", "a word of confidence, right in 50 %"),
    ("L1.transformer", "same filler", "the same filler after both words"),
    ("L1.natural", "reference", "no such word, several steps"),
)


def pressures(results: Path) -> str:
    """The bias meter at the start of GRPO's runs beside the growth of incorrect answers."""
    rows = []
    for name, condition, text in PRESSURES:
        runs = chosen(read_table(results / "laptop" / name / "cells.csv"), arm="grpo", condition=condition)
        pressure, growth = (np.mean([float(r[k]) for r in runs]) for k in ("normaliser_pressure_start", "growth"))
        rows.append((f"{name}, {condition}", text, f"{pressure:+.1f}", f"{growth:+.1f}", f"{len(runs)} runs"))
    return _table(("experiment", "base model", "pressure at the start", "growth (tokens)", "replicates"), rows)


def clipped(results: Path) -> str:
    """Shares of optimizer steps at the end of runs whose gradient was clipped, at the reference condition."""
    rows = []
    for name in CLIPPED:
        table = read_table(results / "laptop" / name / "cells.csv")
        main = [row for row in table if row.get("condition", "reference") == "reference"]
        cells = []
        for arm in ("grpo", "dr_grpo"):
            values = [float(row["clipped_gradients_end"]) for row in chosen(main, arm=arm)]
            cells.append(f"{100 * np.mean(values):.1f} % ({100 * min(values):.1f} to {100 * max(values):.1f})")
        rows.append((name, *cells))
    return _table(("experiment", "GRPO", "Dr. GRPO"), rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
