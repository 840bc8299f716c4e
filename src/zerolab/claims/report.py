"""The ledger as one self-contained page."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zerolab.claims.command import between, duration, hours, hours_of, number
from zerolab.claims.ledger import CLAIMS, protocols
from zerolab.claims.protocol import SCALES, Protocol, Scale
from zerolab.claims.results import judge_again, read_verdict
from zerolab.claims.scales import LARGER
from zerolab.claims.verdict import tone
from zerolab.errors import UserError
from zerolab.report.page import Page, Section, escape, render
from zerolab.rundir import clear_errors, write_atomically


def write(results: Path, out: Path) -> Path:
    """Judges every table by the rules of today and writes the page. Raises UserError if there is not one result."""
    if not judge_all(results):
        raise UserError(f"{results} holds no results: run `zerolab claims run --all --quick` first")
    with clear_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page(results))
    return out


def judge_all(results: Path) -> list[Protocol]:
    """The experiments with results, whose verdicts are then those of today's rules."""
    return [p for p in protocols() if judge_again(results / "laptop" / p.id, p)]


def page(results: Path) -> str:
    sections = [Section("ledger", "The ledger", INTRO, summary(results))]
    for claim, sentence in CLAIMS.items():
        found = [p for p in protocols() if p.claim == claim]
        if found:
            body = "".join(experiment(p, results) for p in found) + beyond(claim)
            sections.append(Section(claim.lower(), claim, sentence, body))
    subtitle = '"Understanding R1-Zero-Like Training" (arXiv 2503.20783), re-tested'
    return render(Page("zerolab: the claims ledger", subtitle, sections, {}, styles=("claims.css",)))


INTRO = (
    "A statement says that a mean lies in a region. Its interval inside the region: reproduced; wholly outside: not "
    "reproduced; across a border: underpowered. Regions, metrics and seeds were fixed before the runs."
)


def summary(results: Path) -> str:
    rows = []
    for claim, sentence in CLAIMS.items():
        verdicts = "".join(f"<td>{_badges(standing(claim, scale, results))}</td>" for scale in SCALES)
        link = f'<a href="#{claim.lower()}">{claim}</a>' if any(p.claim == claim for p in protocols()) else claim
        rows.append(f"<tr><td>{link}</td><td>{escape(sentence)}</td>{verdicts}</tr>")
    return _table(("claim", "in a sentence", *(f"{scale} scale" for scale in SCALES)), rows)


def standing(claim: str, scale: Scale, results: Path) -> list[tuple[str, str]]:
    """(experiment, its verdict) at a scale, or what is said where there is none; a single one goes without its name."""
    experiments = [p for p in protocols() if p.claim == claim]
    if scale != "laptop":
        larger = LARGER[claim][scale]
        return [("", f"needs hardware: {hours(larger)} GPU h" if larger.gpus else "no GPU needed")]
    if not experiments:
        return [("", "no experiment yet")]
    return [(p.id.partition(".")[2] if len(experiments) > 1 else "", _verdict(p, results)) for p in experiments]


def _verdict(protocol: Protocol, results: Path) -> str:
    if not protocol.on_a_laptop:
        return "needs hardware"
    record = read_verdict(results / "laptop" / protocol.id)
    if record is None:
        return "not run"
    return record["verdict"] + (" (quick)" if record["quick"] else "")


def _badges(found: Sequence[tuple[str, str]]) -> str:
    return "<br>".join(f"{escape(name)} {badge(verdict)}".strip() for name, verdict in found)


def badge(verdict: str) -> str:
    mark = tone(verdict.removesuffix(" (quick)"))
    return f'<span class="verdict {mark}">{escape(verdict)}</span>'


def experiment(protocol: Protocol, results: Path) -> str:
    folder = results / "laptop" / protocol.id
    record = read_verdict(folder)
    unknown = "not run" if protocol.on_a_laptop else "needs hardware"
    head = f"<h3>{escape(protocol.id)} {badge(record['verdict'] if record else unknown)}</h3>"
    text = f"<p>{escape(protocol.sentence)}</p>"
    method = f"{protocol.metric}. {protocol.test}. Refuted by: {protocol.refuted}."
    facts = f"<p class='facts'>{escape(method)}</p>"
    if record is None:
        return head + text + facts
    net = any(s.get("net") for s in measured(record))
    table = _table(heads(net), [_statement(s, net) for s in measured(record)])
    figure = folder / "figure.png"
    image = _image(figure, f"{protocol.id}: {protocol.sentence}") if figure.is_file() else ""
    seeds = f"{record['cells']} runs, {len(record['seeds'])} seeds" + (", quick" if record["quick"] else "")
    note = f"{seeds}; {record['date']}, {record['cores']} cores, {duration(record['seconds'])}; {record['platform']}"
    return head + text + facts + table + image + f"<p class='facts'>{escape(note)}</p>"


def beyond(claim: str) -> str:
    """What larger scales take, with the commands behind a fold."""
    parts = []
    for scale, larger in LARGER[claim].items():
        need = f"needs hardware, {hours_of(larger)}" if larger.gpus else "no GPU needed"
        commands = "\n".join(larger.commands())
        parts.append(
            f"<details class='more'><summary>{escape(f'{scale} scale: {need}')}</summary>"
            f"<p class='facts'>{escape(larger.choices)}</p><pre>{escape(commands)}</pre></details>"
        )
    return "".join(parts)


def heads(net: bool) -> list[str]:
    """Of a table of statements, with a column for effects net of controls where there are some."""
    return [
        "role",
        "statement",
        "estimate",
        "interval",
        "n",
        "holds in",
        *(["net of control"] if net else []),
        "verdict",
    ]


def _statement(s: dict[str, Any], net: bool) -> str:
    cells = "".join(f"<td>{escape(c)}</td>" for c in statement_cells(s, net))
    return f"<tr>{cells}<td>{badge(s['verdict'])}</td></tr>"


def statement_cells(s: dict[str, Any], net: bool = False) -> list[str]:
    """Role, text, estimate, interval, replicates, region, and with `net` what the estimate is net of its control."""
    estimate, low, high, *region = (_float(v) for v in (s["estimate"], s["low"], s["high"], *s["region"]))
    unit = f" {s['unit']}" if s["unit"] else ""
    cells = [s["role"], s["text"], number(estimate) + unit, between(low, high), str(s["replicates"]), between(*region)]
    if not net:
        return cells
    mean, *ends = (_float(v) for v in s.get("net") or (None, None, None))
    return [*cells, f"{number(mean)}, {between(*ends)}" if s.get("net") else ""]


def measured(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The statements, without those that only a longer run measures."""
    return [s for s in record["statements"] if s["replicates"] or s["role"] != "shown"]


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(h)}</th>" for h in heads)
    table = f'<table class="claims"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _image(path: Path, alt: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img class="figure" alt="{escape(alt)}" src="data:image/png;base64,{data}">'
