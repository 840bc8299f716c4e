"""`zerolab certify`: certificates to the screen, to JSON and as a figure."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zerolab.errors import UserError
from zerolab.terminal import make_console

if TYPE_CHECKING:
    from zerolab.rl.objective import Objective


def run(names: Sequence[str], overrides: Sequence[str], json_file: Path | None, png: Path | None, ranks: bool) -> bool:
    """Certifies presets by name (none: all), with coordinates changed by KEY=VALUE. True when every invariant is kept.

    Raises UserError for an unknown preset or coordinate and for a file that cannot be written.
    """
    objectives = _objectives(names, overrides)
    for path in (json_file, png):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{path}: its folder does not exist; make it first")

    import torch
    from rich.text import Text

    from zerolab.audit.certificate import certify
    from zerolab.audit.certificate_table import WIDTH, render

    torch.set_num_threads(1)  # models of 700 parameters: more threads only wait for each other
    console = make_console(WIDTH)
    with console.status("certifying") as status:
        certificates = certify(objectives, ranks=ranks, done=lambda name: status.update(Text(f"certified {name}")))
    render(certificates, console)
    if any(objective.entropy or objective.kl for objective in objectives):
        console.print("Expected gradients are those of the reward; KL and entropy terms are proved on the step alone.")
    if json_file is not None:
        json_file.write_text(json.dumps([c.record() for c in certificates], indent=2) + "\n", encoding="utf-8")
        console.print(f"wrote {json_file}")
    if png is not None:
        from zerolab.audit.certificate_table import draw, write_csv

        draw(png, certificates)
        write_csv(png.with_suffix(".csv"), certificates)
        console.print(f"wrote {png} and {png.with_suffix('.csv')}")
    return not any(c.violations for c in certificates)


def _objectives(names: Sequence[str], overrides: Sequence[str]) -> list["Objective"]:
    from zerolab.rl.objective import PRESETS, Objective
    from zerolab.toml import apply_overrides, parse

    changes = apply_overrides({}, list(overrides))
    objectives = []
    for name in names or PRESETS:
        try:
            row = Objective.resolve({"preset": name, **changes})
        except ValueError as error:
            raise UserError(str(error)) from None
        objectives.append(parse(Objective, row, "objective"))
    return objectives
