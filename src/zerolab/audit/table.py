"""Certificates as text."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zerolab.audit.certificate import COUPLED_SIZES, TRUNCATION_SIZE, Certificate, Truncation
from zerolab.audit.weights import PASS_RATES

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
    kept = f"{len(certificates) - broken} of {len(certificates)} objectives keep what their row promises"
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
