"""`zerolab certify` and `zerolab audit`: run the checks, and show them as text, JSON and figures."""

import csv
import difflib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zerolab.audit.certificate import COUPLED_SIZES, PASS_RATES, TRUNCATION_SIZE, Certificate, Truncation
from zerolab.audit.checks import Audit, summary
from zerolab.audit.enumerate import BUDGET
from zerolab.errors import UserError
from zerolab.files import check_can_write, shorten
from zerolab.terminal import make_console

if TYPE_CHECKING:
    from zerolab.rl.objective import Objective


def run_certify(
    names: Sequence[str], overrides: Sequence[str], json_file: Path | None, png: Path | None, ranks: bool
) -> bool:
    """Certifies presets by name (none: all), with coordinates changed by KEY=VALUE. True when every invariant is kept.

    Raises UserError for an unknown preset or coordinate and for a file that cannot be written.
    """
    objectives = _objectives(names, overrides)
    check_outputs(json_file, png)

    import torch
    from rich.text import Text

    from zerolab.audit.certificate import certify

    torch.set_num_threads(1)  # models of 700 parameters: more threads only wait for each other
    console = make_console(WIDTH)
    with console.status("certifying") as status:
        certificates = certify(objectives, ranks=ranks, done=lambda name: status.update(Text(f"certified {name}")))
    render_certificates(certificates, console)
    if any(objective.entropy or objective.kl for objective in objectives):
        console.print("Expected gradients are those of the reward; KL and entropy terms are proved on the step alone.")
    if json_file is not None:
        json_file.write_text(json.dumps([c.record() for c in certificates], indent=2) + "\n", encoding="utf-8")
        console.print(f"wrote {json_file}")
    if png is not None:
        draw_certificates(png, certificates)
        write_csv(png.with_suffix(".csv"), certificates)
        console.print(f"wrote {png} and {png.with_suffix('.csv')}")
    return not any(c.violations for c in certificates)


def check_outputs(json_file: Path | None, png: Path | None) -> None:
    """Raise UserError for a file that cannot be written."""
    for path, option in ((json_file, "--json"), (png, "--png")):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{shorten(str(path))}: its folder does not exist; make it first")
        check_can_write(path, option)


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


KEYS = ("length", "scale", "pass-rate", "split", "order", "ranks", "truncation", "zero-variance", "importance")


def run_audit(target: str, json_file: Path | None, png: Path | None, fail_on: str, python: str | None) -> bool:
    """Audits a target. True when no row named in `fail_on` is biased.

    Raises UserError for a target that does not exist or cannot be run, for an unknown row, for one that could not be
    measured although `fail_on` names it, and for a file that cannot be written.
    """
    keys = rows(fail_on)
    check_outputs(json_file, png)

    from zerolab.audit.targets import find

    peers = find(target, python)

    from rich.text import Text

    from zerolab.audit import checks

    console = make_console(WIDTH)
    with console.status(Text(f"auditing {target}")):
        audits = checks.audit(peers)
    render_audits(audits, console)
    if json_file is not None:
        json_file.write_text(json.dumps(record(audits), indent=2) + "\n", encoding="utf-8")
        console.print(f"wrote {json_file}")
    if png is not None:
        draw_audits(png, audits)
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


def render_audits(audits: Sequence[Audit], console: Console) -> None:
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


def draw_audits(path: Path, audits: Sequence[Audit]) -> None:
    """Left: weight of a token against response length, right: weight of a question against its pass rate."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

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


WIDTH = 118
EASY, HARD = PASS_RATES.index(0.5), 0


def render_certificates(certificates: Sequence[Certificate], console: Console) -> None:
    console.print(directions(certificates))
    console.print(production(certificates))
    console.print(truncation(certificates))
    for certificate in certificates:
        for line in certificate.violations:
            console.print(Text.assemble(("BROKEN", "red"), f" {certificate.name}: {line}"))
    broken = sum(bool(c.violations) for c in certificates)
    kept = f"{len(certificates) - broken} of {len(certificates)} objectives keep their invariants"
    console.print(Text(kept, style="red" if broken else "green"))


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", padding=(0, 1))
    table.add_column("objective", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def directions(certificates: Sequence[Certificate]) -> Table:
    table = _table(
        "Expected gradient against the true one: exact, over every step that could be sampled",
        (
            "G",
            "cosine",
            "scale\n(x L_max)",
            "bias after\nrescale",
            "token weight\nlongest/shortest",
            "question weight p=.01/.5\nG=2    G=8   G=16",
            "drift of wrong\nlength (true)",
        ),
    )
    for c in certificates:
        direction = c.directions[c.largest_size]
        ratios = [f"{c.question_weights[size][HARD] / c.question_weights[size][EASY]:.2f}" for size in (2, 8, 16)]
        table.add_row(
            c.name,
            str(c.largest_size),
            f"{direction.cosine:.6f}",
            f"{direction.scale:.4f}",
            f"{direction.bias:.1e}" if direction.bias < 1e-6 else f"{direction.bias:.1%}",
            f"{c.token_weights[-1] / c.token_weights[0]:.3f}",
            "   ".join(ratios),
            f"{c.length_drift:+.2f} ({c.true_length_drift:+.2f})",
        )
    return table


def production(certificates: Sequence[Certificate]) -> Table:
    ways = list(certificates[0].splits) if certificates else []
    table = _table(
        "The production step: largest relative change of its gradient",
        (
            "coefficient\nx score",
            *(way.replace("_", "\n") for way in ways),
            "equal rewards:\nown gradient",
            "equal rewards:\neffect on others",
        ),
    )
    for c in certificates:
        silent = c.zero_variance.largest_advantage == 0
        turned = "" if c.zero_variance.others_turned < 1e-12 else f", turned {c.zero_variance.others_turned:.1e}"
        table.add_row(
            c.name,
            f"{c.score_residual:.0e}",
            *(f"{c.splits[way]:.0e}" for way in ways),
            "none" if silent else "yes",
            f"x {c.zero_variance.others_scale:.2f}{turned}",
        )
    return table


def truncation(certificates: Sequence[Certificate]) -> Table:
    """Three cosines per truncation policy: whole / worst question / to grad E[R]."""
    targets = {
        "keep": "keep: E[R]",
        "zero": "zero: E[R 1{fin}]",
        "soft": "soft: E[R + penalty]",
        "mask": "mask: E[R | fin]",
    }
    table = _table(
        f"Truncation policies, G = {TRUNCATION_SIZE} ({min(COUPLED_SIZES)} for a batch std): cosine to the stated "
        "target / its worst question / to E[R]",
        list(targets.values()),
    )
    for c in certificates:
        table.add_row(c.name, *(_cosines(c.truncation.get(name)) for name in targets))
    return table


def _cosines(t: Truncation | None) -> str:
    if t is None:
        return "-"
    return f"{t.target.cosine:.3f} / {t.question_cosine:.3f} / {t.reward_cosine:.3f}"


def markdown(certificates: Sequence[Certificate]) -> str:
    """The first table with the two weight columns, as docs/certify.md holds it."""
    rows = [
        "| objective | G | cosine | scale | bias after rescale | token weight, longest/shortest | "
        "question weight p=.01/.5, G=8 | drift of wrong length (true) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for c in certificates:
        direction = c.directions[c.largest_size]
        weights = c.question_weights[8]
        rows.append(
            f"| `{c.name}` | {c.largest_size} | {direction.cosine:.4f} | {direction.scale:.3f} | {direction.bias:.1%} "
            f"| {c.token_weights[-1] / c.token_weights[0]:.3f} | {weights[HARD] / weights[EASY]:.2f} | "
            f"{c.length_drift:+.2f} ({c.true_length_drift:+.2f}) |"
        )
    return "\n".join(rows)


GROUP_SIZE = 8


def write_csv(path: Path, certificates: Sequence[Certificate]) -> None:
    """Lines (curve, objective, G, x, weight): x is a length or a pass rate."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["curve", "objective", "group_size", "x", "weight"])
        for c in certificates:
            for length, weight in enumerate(c.token_weights, 1):
                writer.writerow(["token", c.name, c.largest_size, length, weight])
            for size, values in c.question_weights.items():
                for p, weight in zip(PASS_RATES, values, strict=True):
                    writer.writerow(["question", c.name, size, p, weight])


def draw_certificates(path: Path, certificates: Sequence[Certificate]) -> None:
    """Left: weight of a token against response length. Right: weight of a question against its pass rate.

    Objectives with the same curve share a line.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lengths = range(1, BUDGET + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    by_length = merge({c.name: [w / c.token_weights[0] for w in c.token_weights] for c in certificates})
    by_pass_rate = merge({c.name: c.question_weights[GROUP_SIZE] for c in certificates})
    for label, curve in by_length.items():
        left.plot(lengths, curve, marker="o", linewidth=1.8, label=label)
    for label, curve in by_pass_rate.items():
        right.plot(PASS_RATES, curve, linewidth=1.8, label=label)
    left.set(xlabel="response length", ylabel="weight of a token / that at length 1", ylim=(0, 1.55), xticks=lengths)
    top = 1.6 * max(max(curve) for curve in by_pass_rate.values())
    right.set(xlabel=f"pass rate p (G = {GROUP_SIZE})", ylabel="weight of a question: c(p) grad p", ylim=(0, top))
    for axis in (left, right):
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, fontsize=8, loc="upper left")
    figure.suptitle("What a token and a question count for; an unbiased objective is flat in both")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def merge(curves: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """Curves that agree to six digits as one, labelled with all their names, three to a line."""
    names: dict[tuple[Any, ...], list[str]] = {}
    for name, curve in curves.items():
        names.setdefault(tuple(round(v, 6) for v in curve), []).append(name)
    return {
        ",\n".join(", ".join(group[i : i + 3]) for i in range(0, len(group), 3)): curves[group[0]]
        for group in names.values()
    }
