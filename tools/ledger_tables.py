"""The ledger as tables of Markdown: docs/results.md has every statement, README.md the one that decides."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zerolab.claims.command import duration
from zerolab.claims.ledger import CLAIMS, protocols
from zerolab.claims.protocol import SCALES, Protocol, Scale
from zerolab.claims.report import heads, measured, standing, statement_cells
from zerolab.claims.results import read_verdict


def ledger(results: Path) -> str:
    """Every claim at every scale, and every statement of the experiments that ran."""
    rows = [
        (claim, sentence, *("; ".join(f"{n}: {v}" if n else v for n, v in standing(claim, s, results)) for s in SCALES))
        for claim, sentence in CLAIMS.items()
    ]
    lines = _table(("claim", "in a sentence", *(f"{scale} scale" for scale in SCALES)), rows)
    for protocol in protocols():
        record = read_verdict(results / "laptop" / protocol.id)
        if record:
            lines += ["", *_experiment(protocol, record)]
    return "\n".join(lines) + "\n"


def headlines(results: Path) -> str:
    """A row for every experiment: scale, the first statement that has the experiment's verdict, its numbers, a link to
    the figure. What runs on no laptop has the hours that it needs."""
    rows = [row for claim in CLAIMS for row in _headlines(claim, results)]
    return (
        "\n".join(_table(("claim", "scale", "what decides", "estimate", "interval", "holds in", "verdict"), rows))
        + "\n"
    )


def _headlines(claim: str, results: Path) -> Iterator[Sequence[str]]:
    for protocol in (p for p in protocols() if p.claim == claim):
        record = read_verdict(results / "laptop" / protocol.id)
        if record:
            decides = next(s for s in record["statements"] if s["text"] == protocol.primary.text)
            _, text, estimate, interval, _, region = statement_cells(decides)
            name = f"[{protocol.id}](results/laptop/{protocol.id}/figure.png)"
            verdict = record["verdict"] + (" (quick)" if record["quick"] else "")
            yield name, "laptop", text, estimate, interval, region, verdict
        else:
            scale: Scale = "laptop" if protocol.on_a_laptop else "paper"
            *_, (_, verdict) = standing(claim, scale, results)
            yield protocol.id, scale, protocol.sentence, "", "", "", "not run" if scale == "laptop" else verdict


def _experiment(protocol: Protocol, record: dict[str, Any]) -> list[str]:
    seeds = f"{len(record['seeds'])} seeds, {record['cells']} runs" + (", quick" if record["quick"] else "")
    net = any(s.get("net") for s in measured(record))
    return [
        f"### {protocol.id}: {record['verdict']}",
        "",
        f"{protocol.sentence} {seeds}; {record['date']}, {record['cores']} cores, {duration(record['seconds'])}.",
        "",
        *_table(heads(net), [(*statement_cells(s, net), s["verdict"]) for s in measured(record)]),
    ]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
