"""Commands that show what ships: recipes, and question sets known by name."""

import typer

from zerolab.terminal import echo

recipe_app = typer.Typer(help="The recipes that ship.", no_args_is_help=True)
questions_app = typer.Typer(help="The question sets that are known by name.", no_args_is_help=True)


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
