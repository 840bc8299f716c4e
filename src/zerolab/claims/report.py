"""The ledger as one self-contained page."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zerolab.claims.command import between, count_runs, duration, hours, hours_of, number, units
from zerolab.claims.figure import ARMS, axis_limits, split_by_unit
from zerolab.claims.ledger import CLAIMS, protocols
from zerolab.claims.protocol import LABELS, Protocol, Scale
from zerolab.claims.results import judge_again, read_verdict
from zerolab.claims.scales import LARGER
from zerolab.claims.verdict import tone
from zerolab.errors import UserError
from zerolab.report.page import Page, Section, escape, render
from zerolab.rundir import OTHER_OUT, clear_errors, write_atomically

ROLES = {
    "claim": "what the paper says",
    "control": "what must hold for the experiment to mean what it says; if one fails, the experiment is inconclusive",
    "check": "an identity that tests the code",
    "shown": "reported beside the others, without a verdict",
}
VERDICTS = {
    "reproduced": "every claim's interval lies inside its region, and the controls passed",
    "not reproduced": "the interval of a claim lies wholly outside its region, and the controls passed",
    "underpowered": "an interval crosses a border; the number of replicates that would decide is said",
    "metric cannot tell": "an interval crosses a border and 50 replicates would not change that",
    "control failed (inconclusive)": "the experiment says nothing about the claim",
}
HEADS = ("experiment", "label", "primary statement", "estimate", "interval", "replicates", "controls", "verdict")


def write(results: Path, out: Path) -> Path:
    """Judges every table by the rules of today and writes the page. Raises UserError if there is not one result."""
    if not judge_all(results):
        raise UserError(f"{results} holds no results: run `zerolab claims run --all --quick` first")
    with clear_errors(out, OTHER_OUT):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page(results))
    return out


def judge_all(results: Path) -> list[Protocol]:
    """The experiments with results, whose verdicts are then those of today's rules."""
    return [p for p in protocols() if judge_again(results / "laptop" / p.id, p)]


def page(results: Path) -> str:
    sections = [Section("ledger", "The ledger", INTRO, guide() + summary(results))]
    for claim, sentence in CLAIMS.items():
        found = [p for p in protocols() if p.claim == claim]
        if found:
            body = "".join(experiment(p, results) for p in found) + beyond(claim)
            sections.append(Section(claim.lower(), claim, sentence, body))
    subtitle = '"Understanding R1-Zero-Like Training" (arXiv 2503.20783), re-tested'
    return render(Page("zerolab: the claims ledger", subtitle, sections, {}, styles=("claims.css",)))


INTRO = (
    "Each experiment makes statements: the mean of a number over independent replicates lies in a region. The interval "
    "of that mean decides. The models are tiny, and the label says what an experiment can show."
)


def guide() -> str:
    """What labels, roles and verdicts mean."""
    parts = []
    for name, words in (("Labels", LABELS), ("Roles of statements", ROLES), ("Verdicts", VERDICTS)):
        terms = "".join(f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in words.items())
        parts.append(f"<div><h3>{name}</h3><dl>{terms}</dl></div>")
    return f'<div class="guide">{"".join(parts)}</div>'


def open_first() -> list[Protocol]:
    """The experiments, those first whose outcome nothing decides; among those of a label L1, the question of this
    laboratory, then the order of the paper's argument."""
    return sorted(protocols(), key=lambda p: (list(LABELS).index(p.label), p.claim != "L1"))


def summary(results: Path) -> str:
    rows = []
    for protocol in open_first():
        name, *cells, verdict = summary_cells(protocol, results)
        link = f'<a href="#{protocol.claim.lower()}">{escape(name)}</a>'
        rows.append(_row(HEADS, [link, *map(escape, cells), badge(verdict)]))
    return _table(HEADS, rows)


def summary_cells(protocol: Protocol, results: Path) -> tuple[str, ...]:
    """An experiment in a row: HEADS."""
    record = read_verdict(results / "laptop" / protocol.id)
    if record is None:
        scale: Scale = "laptop" if protocol.on_a_laptop else "paper"
        verdict = "not run" if scale == "laptop" else need_of(protocol.claim, scale)
        return protocol.id, protocol.label, protocol.sentence, "", "", "", "", verdict
    s = next(s for s in record["statements"] if s["text"] == protocol.primary.text)
    _, text, estimate, interval, count, *_ = statement_cells(s)
    return protocol.id, protocol.label, text, estimate, interval, count, record["control"], standing(record)


def standing(record: dict[str, Any]) -> str:
    """The verdict with what belongs to it: a quick look, or how many replicates would decide."""
    more = ["quick"] * record["quick"]
    more += [f"{units(record['needed'], record['replicate'])} would decide"] if record.get("needed") else []
    return record["verdict"] + (f" ({', '.join(more)})" if more else "")


def need_of(claim: str, scale: Scale) -> str:
    larger = LARGER[claim][scale]
    return f"needs hardware: {hours(larger)} GPU h in {count_runs(larger)}" if larger.gpus else "no GPU needed"


def badge(verdict: str) -> str:
    return f'<span class="verdict {tone(plain(verdict))}">{escape(verdict)}</span>' if verdict else ""


def plain(verdict: str) -> str:
    """The verdict without what stands in brackets behind it."""
    return verdict if tone(verdict) != "muted" else verdict.rpartition(" (")[0] or verdict


def experiment(protocol: Protocol, results: Path) -> str:
    folder = results / "laptop" / protocol.id
    record = read_verdict(folder)
    unknown = "not run" if protocol.on_a_laptop else "needs hardware"
    head = f"<h3>{escape(protocol.id)} {badge(standing(record) if record else unknown)}</h3>"
    text = f"<p>{escape(protocol.sentence)}</p>"
    facts = f"<p class='facts'>{escape(method(protocol))}</p>"
    if record is None:
        return head + text + facts
    net = any(s.get("net") for s in measured(record))
    table = _table(heads(net), statement_rows(protocol, record, net))
    images = "".join(_image(folder / f"curves{t}.png", f"{protocol.id}: curves", t) for t in ("", "-dark"))
    return head + text + facts + table + images + f"<p class='facts'>{escape(provenance(record))}</p>"


def method(protocol: Protocol) -> str:
    label = f"{protocol.label.capitalize()}: {LABELS[protocol.label]}"
    return f"{label}. Metric: {protocol.metric}. Test: {protocol.test}. Refuted by: {protocol.refuted}."


def provenance(record: dict[str, Any]) -> str:
    """When regions were fixed, how much ran, and where."""
    seeds = f"{record['cells']} runs, {len(record['seeds'])} seeds" + (", quick" if record["quick"] else "")
    place = [f"{record['cores']} cores, {duration(record['seconds'])}", record.get("platform", "")]
    return f"Regions, metric and seeds were fixed {record['fixed']}. {seeds}; {record['date']}, {'; '.join(place)}"


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
    """Of a table of statements, with a column for effects net of controls if there are some."""
    more = ["net of control"] if net else []
    return ["role", "statement", "estimate", "interval", "replicates", "holds in", *more, "verdict"]


def statement_rows(protocol: Protocol, record: dict[str, Any], net: bool) -> list[str]:
    """A row for every statement, with a strip that draws its interval over its region."""
    arms = {s.text: s.arm for s in protocol.statements}
    rows = []
    panels = split_by_unit(measured(record), lambda s: s["unit"])
    scales = {unit: axis_limits([spread_of(s) for s in panel]) for unit, panel in panels.items()}
    for s in measured(record):
        role, text, *cells = map(escape, statement_cells(s, net))
        drawn = f"{text}{strip(s, scales[s['unit']], arms.get(s['text'], ''))}"
        rows.append(_row(heads(net), [role, drawn, *cells, badge(s["verdict"])]))
    return rows


def spread_of(s: dict[str, Any]) -> tuple[list[float], list[float]]:
    """(numbers that a strip shows, borders of the region) of a statement of verdict.json."""
    region = [] if s["role"] == "shown" else [_float(v) for v in s["region"]]
    return [_float(s[name]) for name in ("estimate", "low", "high")], region


def strip(s: dict[str, Any], scale: tuple[float, float], arm: str) -> str:
    """The region, the interval and the mean as a drawing as wide as its cell; colours come from the style sheet."""
    (mean, low, high), region = spread_of(s)
    if mean != mean:
        return ""

    def x(value: float) -> str:
        return f"{100 * (min(max(value, scale[0]), scale[1]) - scale[0]) / (scale[1] - scale[0]):.2f}"

    parts = [f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="0" y2="12"/>']
    if region:
        width = float(x(region[1])) - float(x(region[0]))
        parts.insert(0, f'<rect class="region" x="{x(region[0])}" y="0" width="{max(width, 0.5):.2f}" height="12"/>')
    if low == low:
        parts.append(f'<line class="interval" x1="{x(low)}" x2="{x(high)}" y1="6" y2="6"/>')
    parts.append(f'<line class="mean" x1="{x(mean)}" x2="{x(mean)}" y1="1" y2="11"/>')
    kind = f"strip arm{ARMS.index(arm)}" if arm in ARMS else "strip"
    return (
        f'<svg class="{kind}" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">{"".join(parts)}</svg>'
    )


def statement_cells(s: dict[str, Any], net: bool = False) -> list[str]:
    """Role, text, estimate, interval, replicates, region, and with `net` what the estimate is net of its control."""
    estimate, low, high, *region = (_float(v) for v in (s["estimate"], s["low"], s["high"], *s["region"]))
    unit = f" {s['unit']}" if s["unit"] else ""
    holds = "" if s["role"] == "shown" else between(*region)
    count = units(s["replicates"], s["replicate"])
    cells = [s["role"], s["text"], number(estimate) + unit, between(low, high), count, holds]
    if not net:
        return cells
    mean, *ends = (_float(v) for v in s.get("net") or (None, None, None))
    return [*cells, f"{number(mean)}, {between(*ends)}" if s.get("net") else ""]


def measured(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The statements, without those that only a longer run measures."""
    return [s for s in record["statements"] if s["replicates"] or s["role"] != "shown"]


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _row(heads: Sequence[str], cells: Sequence[str]) -> str:
    """Of markup; each cell names its column, which a narrow screen shows before it."""
    named = "".join(f'<td data-label="{escape(h)}">{cell}</td>' for h, cell in zip(heads, cells, strict=True))
    return f"<tr>{named}</tr>"


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(h)}</th>" for h in heads)
    return f'<table class="claims"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _image(path: Path, alt: str, theme: str) -> str:
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img class="figure on{theme or "-light"}" alt="{escape(alt)}" src="data:image/png;base64,{data}">'
