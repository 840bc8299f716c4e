"""`zerolab claims`: the verbs of the ledger. No logic here, and no heavy import before a verb needs it."""

from pathlib import Path
from typing import Annotated

import typer

from zerolab.errors import UserError
from zerolab.terminal import echo

claims_app = typer.Typer(help="The paper's claims, each with an experiment that re-tests it.", no_args_is_help=True)
Results = Annotated[Path, typer.Option("--results", help="Folder of results, made to be committed.")]


@claims_app.command("list")
def claims_list(results: Results = Path("results")) -> None:
    """Every claim and its experiments: scales, cost, last verdict."""
    from zerolab.claims.command import list_claims

    list_claims(results)


@claims_app.command("show")
def claims_show(claim: str) -> None:
    """The protocol: method, metric, seeds, test, thresholds, what would refute it."""
    from zerolab.claims.command import show

    show(claim)


@claims_app.command("run")
def claims_run(
    claims: Annotated[list[str] | None, typer.Argument(help="Claims (L1) or experiments (L1.policy).")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every experiment.")] = False,
    scale: Annotated[str, typer.Option(help="laptop, gpu or paper.")] = "laptop",
    seeds: Annotated[int | None, typer.Option(help="Seeds per arm instead of the protocol's.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few seeds and the main conditions alone.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the number of runs and their cost.")] = False,
    results: Results = Path("results"),
    work: Annotated[Path, typer.Option(help="Folder of single runs: none is run again.")] = Path("runs/claims"),
) -> None:
    """Re-test claims; an interrupted command goes on where it stopped."""
    from zerolab.claims.command import run

    if bool(claims) == everything:
        raise UserError("name the claims to run, or --all (not both): `zerolab claims list` shows them")
    if not run(claims or [], scale, seeds, quick, dry_run, results, work):
        raise typer.Exit(2)


@claims_app.command("report")
def claims_report(
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="The page.")] = Path("results/claims.html"),
) -> None:
    """One page with every claim: figure, table, verdict."""
    from zerolab.claims.report import write

    echo(write(results, out))
