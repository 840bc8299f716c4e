"""The commands of recipes, question sets, models and claims."""

from pathlib import Path
from typing import Annotated

import typer

from zerolab.cli.help import example
from zerolab.errors import UserError
from zerolab.terminal import echo

recipe_app = typer.Typer(help="List, print and compare the recipes that ship.", no_args_is_help=True)
questions_app = typer.Typer(help="List the question sets that are known by name.", no_args_is_help=True)
model_app = typer.Typer(help="List and fetch real models by name, and import GGUF files.", no_args_is_help=True)
claims_app = typer.Typer(help="List, re-test and report the paper's claims.", no_args_is_help=True)
Results = Annotated[Path, typer.Option("--results", help="Folder of results, which can be committed.")]


@recipe_app.command("list", epilog=example("recipe list"))
def recipe_list() -> None:
    """List every shipped recipe with its purpose."""
    from zerolab.recipes import header, shipped

    for name, path in shipped().items():
        echo(f"{name:28} {next(iter(header(path)), '')}")


@recipe_app.command("show", epilog=example("recipe show laptop/grpo"))
def recipe_show(recipe: str) -> None:
    """Print the text of a recipe."""
    from zerolab.recipes import find_recipe

    echo(find_recipe(recipe).read_text(encoding="utf-8"), end="")


@recipe_app.command("diff", epilog=example("recipe diff laptop/grpo laptop/dr-grpo"))
def recipe_diff(a: str, b: str) -> None:
    """Print the keys in which two resolved recipes differ."""
    from zerolab.recipes import difference, find_recipe

    for key, old, new in difference(find_recipe(a), find_recipe(b)):
        echo(f"{key}: {old} -> {new}")


@questions_app.command("list", epilog=example("questions list"))
def questions_list() -> None:
    """List name, hub id, split, columns, rows and licence of every set, and how they were checked."""
    from zerolab.data.builtin import HEADS, listing

    rows = [HEADS, *listing()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    for row in rows:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@model_app.command("list", epilog=example("model list"))
def model_list() -> None:
    """List name, state, licence and origin of every model that can be fetched."""
    from zerolab.models.fetch import catalogue, model_folder

    for name, entry in catalogue().items():
        there = model_folder(name)
        echo(f"{name}: {entry.about}")
        echo(f"    {there if there.is_dir() else 'not fetched'}; licence: {entry.licence}; origin: {entry.origin}")
    echo("Any model of the hub works by its id, such as Qwen/Qwen2.5-Math-1.5B (never run here).")


@model_app.command("fetch", epilog=example("model fetch smollm2-135m-instruct-q4"))
def model_fetch(name: str) -> None:
    """Fetch a model once. Its name then works in every command that takes a model, without network."""
    from zerolab.models.fetch import fetch_model

    fetch_model(name, echo)


@model_app.command("import", epilog=example("model import model.gguf models/mine"))
def model_import(file: Path, folder: Path) -> None:
    """Convert a GGUF file into a Hugging Face folder."""
    from zerolab.models.gguf_file import convert_gguf

    convert_gguf(file, folder, say=echo)
    echo(f"{folder} holds the model")


@claims_app.command("list", epilog=example("claims list"))
def claims_list(results: Results = Path("results")) -> None:
    """List every claim and its experiments: scales, cost, last verdict."""
    from zerolab.claims.command import list_claims

    list_claims(results)


@claims_app.command("show", epilog=example("claims show L1"))
def claims_show(claim: str) -> None:
    """Print the protocol of a claim: method, metric, seeds, test, thresholds, and the result that refutes it."""
    from zerolab.claims.command import show

    show(claim)


@claims_app.command("run", epilog=example("claims run L1 --quick"))
def claims_run(
    claims: Annotated[list[str] | None, typer.Argument(help="Claims (L1) or experiments (L1.policy).")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every experiment.")] = False,
    scale: Annotated[str, typer.Option(help="laptop, gpu or paper.")] = "laptop",
    seeds: Annotated[int | None, typer.Option(help="Seeds per arm instead of the protocol's.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few seeds, and only the main conditions.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the number of runs and their cost.")] = False,
    results: Results = Path("results"),
    work: Annotated[Path, typer.Option(help="Folder of single runs; a finished run is not repeated.")] = Path(
        "runs/claims"
    ),
) -> None:
    """Re-test claims. After an interruption, the same command resumes."""
    from zerolab.claims.command import run

    if bool(claims) == everything:
        raise UserError("name the claims to run, or --all (not both): `zerolab claims list` shows them")
    if not run(claims or [], scale, seeds, quick, dry_run, results, work):
        raise typer.Exit(2)


@claims_app.command("report", epilog=example("claims report"))
def claims_report(
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("results/claims.html"),
) -> None:
    """Write one page with every claim: figure, table, verdict."""
    from zerolab.claims.report import write

    echo(write(results, out))
