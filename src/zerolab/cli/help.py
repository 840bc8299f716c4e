"""Parts that the help of several commands shares: groups, examples and options."""

from typing import Annotated

import typer

START, TRAIN, SHOW = "Start here", "Train", "Show runs and hand them on"
EVALUATE, PROVE, NAMES = "Look at models and responses", "Prove and re-test", "Known by name"
GROUPS = (START, TRAIN, SHOW, EVALUATE, PROVE, NAMES)  # in this order in `zerolab --help`

Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key: learner.lr=1e-4.")]
NO_OVERRIDES: list[str] = []


def example(arguments: str) -> str:
    """The last lines of a command's help. The mark \\b keeps a narrow terminal from wrapping the example."""
    return f"Example:\n\n\b\n  zerolab {arguments}"


def complete_recipes(incomplete: str) -> list[str]:
    """The shipped recipes that start with the typed text, for the completion of the shell."""
    from zerolab.recipes import shipped

    return [name for name in shipped() if name.startswith(incomplete)]


Recipe = Annotated[
    str, typer.Argument(help="TOML file, or the name of a shipped recipe.", autocompletion=complete_recipes)
]
