"""Commands on what is known by name: recipes, question sets and models."""

from pathlib import Path

import typer

from zerolab.terminal import echo

recipe_app = typer.Typer(help="The recipes that ship.", no_args_is_help=True)
questions_app = typer.Typer(help="The question sets that are known by name.", no_args_is_help=True)
model_app = typer.Typer(help="Real models by name, and GGUF files.", no_args_is_help=True)


@recipe_app.command("list")
def recipe_list() -> None:
    """Name and purpose of every shipped recipe."""
    from zerolab.recipes import header, shipped

    for name, path in shipped().items():
        echo(f"{name:28} {next(iter(header(path)), '')}")


@recipe_app.command("show")
def recipe_show(recipe: str) -> None:
    """A recipe as it is written."""
    from zerolab.recipes import find_recipe

    echo(find_recipe(recipe).read_text(encoding="utf-8"), end="")


@recipe_app.command("diff")
def recipe_diff(a: str, b: str) -> None:
    """The coordinates in which two resolved recipes differ."""
    from zerolab.recipes import difference, find_recipe

    for key, old, new in difference(find_recipe(a), find_recipe(b)):
        echo(f"{key}: {old} -> {new}")


@questions_app.command("list")
def questions_list() -> None:
    """Name, hub id, split, columns, rows and licence of every set, and what that was checked against."""
    from zerolab.data.builtin import HEADS, listing

    rows = [HEADS, *listing()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    for row in rows:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@model_app.command("list")
def model_list() -> None:
    """Name, state, licence and origin of every model that can be fetched."""
    from zerolab.models.fetch import catalogue, model_folder

    for name, entry in catalogue().items():
        there = model_folder(name)
        echo(f"{name}: {entry.about}")
        echo(f"    {there if there.is_dir() else 'not fetched'}; licence: {entry.licence}; origin: {entry.origin}")
    echo("Any model of the hub works by its id, such as Qwen/Qwen2.5-Math-1.5B (never run here).")


@model_app.command("fetch")
def model_fetch(name: str) -> None:
    """Fetch a model once; its name then works wherever a model is named, without network."""
    from zerolab.models.fetch import fetch_model

    fetch_model(name, echo)


@model_app.command("import")
def model_import(file: Path, folder: Path) -> None:
    """Convert a GGUF file into a Hugging Face folder."""
    from zerolab.models.gguf_file import convert_gguf

    convert_gguf(file, folder, say=echo)
    echo(f"{folder} holds the model")
