"""Certificates as text, and their two weight curves as a PNG with its CSV."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zerolab.audit.certificate import COUPLED_SIZES, TRUNCATION_SIZE, Certificate, Truncation
from zerolab.audit.enumerate import BUDGET
from zerolab.audit.weight_curves import PASS_RATES

WIDTH = 118
EASY, HARD = PASS_RATES.index(0.5), 0


def render(certificates: Sequence[Certificate], console: Console) -> None:
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


def draw(path: Path, certificates: Sequence[Certificate]) -> None:
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
    names: dict[tuple, list[str]] = {}
    for name, curve in curves.items():
        names.setdefault(tuple(round(v, 6) for v in curve), []).append(name)
    return {
        ",\n".join(", ".join(group[i : i + 3]) for i in range(0, len(group), 3)): curves[group[0]]
        for group in names.values()
    }
