"""`zerolab claims list | show | run | report`."""

import math
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zerolab.claims.ledger import CLAIMS, claim_of, find, protocols
from zerolab.claims.protocol import LABELS, SCALES, Plan, Protocol, Row
from zerolab.claims.results import code_hash, committed_cells, loses_nothing, read_verdict, write_results
from zerolab.claims.runner import cost, missing, run_cells, table
from zerolab.claims.scales import LARGER, Larger
from zerolab.claims.verdict import RULES, Finding, Verdict, needed_in_all, tone
from zerolab.errors import UserError
from zerolab.grading import GRADER_VERSION
from zerolab.processes import cores
from zerolab.terminal import make_console

WIDTH = 140
COLOURS = {"good": "green", "bad": "red", "unsure": "yellow", "muted": "dim"}


def list_claims(results: Path) -> None:
    """A line per experiment; a claim without one is listed as such."""
    shown = Table(box=None, padding=(0, 1))
    for heading in ("experiment", "label", "claim in a sentence", "scales", "cost", "last verdict"):
        shown.add_column(heading, no_wrap=heading in ("experiment", "cost"))
    for claim, sentence in CLAIMS.items():
        found = [p for p in protocols() if p.claim == claim]
        if not found:
            shown.add_row(claim, "", sentence, "", "", Text("no experiment yet", style="dim"))
        for protocol in found:
            cells = protocol.cells(protocol.plan())
            record = read_verdict(results / "laptop" / protocol.id)
            standing = record["verdict"] if record else "not run" if cells else "needs hardware"
            verdict = Text(standing, style=COLOURS[tone(standing)])
            scales = ", ".join([*(["laptop"] if cells else []), *LARGER.get(claim, {})])
            takes = duration(cost(cells) / cores()) if cells else "-"
            shown.add_row(protocol.id, protocol.label, protocol.sentence, scales, takes, verdict)
    make_console(WIDTH).print(shown)


def show(name: str) -> None:
    """The protocols of a claim: all that is fixed before a run."""
    import importlib

    from zerolab.claims.ledger import MODULES

    console = make_console(WIDTH)
    for protocol in find(name):
        [module] = [
            m for n in MODULES if (m := importlib.import_module(f"zerolab.claims.experiments.{n}")).PROTOCOL is protocol
        ]
        console.print(Text.assemble((protocol.id, "bold"), f"  {protocol.sentence}\n"))
        console.print((module.__doc__ or "").strip() + "\n")
        plan = protocol.plan()
        rows = [
            ("claim", f"{protocol.claim}: {CLAIMS[protocol.claim]}"),
            ("metric", protocol.metric),
            ("test", protocol.test),
            ("refuted by", protocol.refuted),
            ("label", f"{protocol.label}: {LABELS[protocol.label]}"),
            ("replicates", f"{protocol.replicate}s, at least {protocol.fewest}"),
            ("fixed", f"regions, metric and seeds: {protocol.fixed}"),
            ("seeds", ", ".join(map(str, plan.seeds))),
            ("runs", runs_of(protocol, plan)),
        ]
        for key, value in rows:
            console.print(f"{key:12}{value}")
        console.print()
        for statement in protocol.statements:
            region = f"in ({statement.region[0]:g}, {statement.region[1]:g}) {statement.unit}".rstrip()
            kind = "exact" if statement.exact else f"{statement.level:.0%} interval"
            console.print(f"  {statement.role:8} {statement.text}: {kind} {region}")
        console.print()
    claim = claim_of(name)
    for scale, larger in LARGER.get(claim, {}).items():
        need = f"needs hardware: {hours_of(larger)}" if larger.gpus else "no GPU is needed"
        console.print(f"{scale:12}{need}; {larger.choices}")
    console.print(f"{'commands':12}zerolab claims run {claim} --scale gpu, --scale paper")


def runs_of(protocol: Protocol, plan: Plan) -> str:
    cells = protocol.cells(plan)
    return f"{len(cells)}, {duration(cost(cells))} of one core" if cells else "no laptop scale"


def run(
    names: Sequence[str], scale: str, seeds: int | None, quick: bool, dry_run: bool, results: Path, work: Path
) -> bool:
    """Runs experiments and writes their results. True when none failed to run; a verdict is no failure."""
    if scale not in SCALES:
        raise UserError(f"--scale {scale} is unknown: choose one of {', '.join(SCALES)}")
    if seeds is not None and seeds < 1:
        raise UserError("--seeds must be 1 or more")
    console = make_console(WIDTH)
    if scale != "laptop":
        needs_hardware([claim_of(name) for name in names] or list(LARGER), scale, console)
        return True
    chosen = [p for name in names for p in find(name)] if names else list(protocols())
    for protocol in chosen:
        if not protocol.on_a_laptop:
            console.print(Text.assemble(f"{protocol.id:18}", ("needs hardware", "bold"), ", no laptop scale: skipped"))
    chosen = [protocol for protocol in chosen if protocol.on_a_laptop]
    plans = {p.id: p.plan(seeds, quick) for p in chosen}
    if dry_run:
        print_costs(chosen, plans, results / scale, work / scale, console)
        return True
    for folder in (results / scale, work / scale) if chosen else ():
        check_writable(folder)
    failed = []
    for protocol in chosen:
        try:
            run_one(protocol, plans[protocol.id], results / scale, work / scale, console)
        except KeyboardInterrupt:
            console.print("interrupted: the same command goes on where it stopped")
            raise
        except UserError as error:
            failed.append(protocol.id)
            console.print(Text.assemble((f"{protocol.id} did not run:", "red"), f" {error}"))
    return not failed


def check_writable(folder: Path) -> None:
    """Raises UserError if nothing can be written there, before anything has run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; choose others by --results and --work") from None


def run_one(protocol: Protocol, plan: Plan, results: Path, work: Path, console: Console) -> None:
    """Runs what is missing and writes the results; if it is interrupted, the lines of the cells that have finished."""
    started = time.monotonic()
    folder, target = work / protocol.id, results / protocol.id
    committed = committed_cells(target)
    try:
        run_cells(protocol, plan, folder, console, committed)
    except BaseException:
        rows = table(protocol, plan, folder, committed)
        if rows and loses_nothing(target, rows):
            write_results(target, protocol, rows, session_of(protocol, plan, rows, started), figures=False)
        raise
    rows = table(protocol, plan, folder, committed)
    found, verdict = write_results(target, protocol, rows, session_of(protocol, plan, rows, started))
    print_findings(protocol, found, verdict, console)
    console.print(f"{target}  ({duration(time.monotonic() - started)})\n")


def session_of(protocol: Protocol, plan: Plan, rows: Sequence[Row], started: float) -> dict[str, Any]:
    """What verdict.json records of a run beside its numbers."""
    code = {"version": protocol.version, "code": code_hash(protocol), "grader": GRADER_VERSION, "rules": RULES}
    counts = {"cells": len(rows), "planned": len(protocol.cells(plan))}
    session = {"quick": plan.quick, "seeds": list(plan.seeds), **counts, "protocol": code}
    return session | machine(time.monotonic() - started)


def machine(seconds: float) -> dict[str, Any]:
    from zerolab.rundir import describe_session

    session = describe_session(0)
    kept = {name: session[name] for name in ("versions", "git_revision", "platform", "python")}
    kept["git_dirty"] = None if kept["git_revision"] is None else kept["git_revision"].endswith("+")
    return {"date": datetime.now(UTC).date().isoformat(), "cores": cores(), "seconds": round(seconds), **kept}


def print_findings(protocol: Protocol, found: Sequence[Finding], verdict: Verdict, console: Console) -> None:
    shown = Table(title=f"{protocol.id}: {protocol.sentence}", title_justify="left", box=None, padding=(0, 1))
    for heading, justify in (("", "left"), ("statement", "left"), ("estimate", "right"), ("interval", "right"),
                             ("replicates", "right"), ("holds in", "right"), ("", "left")):  # fmt: skip
        shown.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for f in found:
        if f.role == "shown" and not f.replicates:  # not a part of a quick look
            continue
        region = "" if f.role == "shown" else between(*f.region)
        said = Text(f.verdict, style=COLOURS[tone(f.verdict)])
        shown.add_row(f.role, f.text, number(f.estimate), between(f.low, f.high), units(f.replicates, f.replicate),
                      region, said)  # fmt: skip
    console.print(shown)
    decide = need(found, protocol) if verdict == "underpowered" else ""
    console.print(Text(f"{protocol.id}: {verdict}{decide}", style=f"bold {COLOURS[tone(verdict)]}"))


def units(count: int, replicate: str) -> str:
    """As in "5 bases"."""
    return f"{count} {replicate}{'s' * (count != 1)}"


def need(found: Sequence[Finding], protocol: Protocol) -> str:
    """How many units of replication would decide, if some statements are underpowered."""
    needed = needed_in_all(found)
    return f" ({units(needed, protocol.replicate)} would decide)" if needed else ""


def print_costs(
    chosen: Sequence[Protocol], plans: dict[str, Plan], results: Path, work: Path, console: Console
) -> None:
    total = 0.0
    for protocol in chosen:
        plan = plans[protocol.id]
        cells = protocol.cells(plan)
        todo = missing(protocol, plan, work / protocol.id, committed_cells(results / protocol.id))
        total += cost(todo)
        count = len(protocol.bases(todo))
        bases = f", {count} base models" if count else ""
        console.print(
            f"{protocol.id:18}{len(cells):5} runs, {len(todo)} to do, {duration(cost(todo))} of one core{bases}",
        )
    console.print(f"in all {duration(total)} of one core, {duration(total / cores())} on {cores()}")


def needs_hardware(claims: Sequence[str], scale: str, console: Console) -> None:
    """What a larger scale would take: hours by the cost model, and the commands. Nothing is run."""
    for claim in dict.fromkeys(claims):
        larger = LARGER[claim]["gpu" if scale == "gpu" else "paper"]
        need = ("needs hardware", f": {hours_of(larger)}") if larger.gpus else ("no GPU", "")
        console.print(Text.assemble(f"{claim}, {scale} scale: ", (need[0], "bold"), need[1]))
        for command in larger.commands():
            console.print(f"    {command}", soft_wrap=True)
        console.print(f"    choices: {larger.choices}", soft_wrap=True)


def hours_of(larger: Larger) -> str:
    """As in "about 24 GPU hours on 8xA100-80 in 12 runs"."""
    return f"about {hours(larger)} GPU hours on {larger.gpus} in {count_runs(larger)}, by the model of `zerolab plan`"


def count_runs(larger: Larger) -> str:
    """As in "12 runs"."""
    count = sum(len(work.commands()) for work in larger.work)
    return f"{count} run{'s' * (count != 1)}"


def hours(larger: Larger) -> str:
    found = larger.gpu_hours()
    return f"{found:,.0f}" if found >= 10 else f"{found:.1f}" if found >= 0.95 else f"{found:.2g}"


def number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def between(low: float | None, high: float | None) -> str:
    return "-" if low is None or (not math.isinf(low) and math.isnan(low)) else f"{number(low)} .. {number(high)}"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
