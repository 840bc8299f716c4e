"""`zerolab audit`: the battery on a loss that is not ours, to the screen, to JSON and as a figure."""

import difflib
import json
from pathlib import Path

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

    from zerolab.audit import audit_report, battery
    from zerolab.audit.table import WIDTH

    console = make_console(WIDTH)
    with console.status(Text(f"auditing {target}")):
        audits = battery.audit(peers)
    audit_report.render(audits, console)
    if json_file is not None:
        json_file.write_text(json.dumps(audit_report.record(audits), indent=2) + "\n", encoding="utf-8")
        console.print(f"wrote {json_file}")
    if png is not None:
        audit_report.draw(png, audits)
        console.print(f"wrote {png}")
    missing = [(a, key) for key in keys for a in audits if a.row(key).biased is None]
    if missing:
        a, key = missing[0]
        raise UserError(f"--fail-on {key}: {a.name} was {a.row(key).verdict}")
    lines = battery.biased(audits, keys)
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
