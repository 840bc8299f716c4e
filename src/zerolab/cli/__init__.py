"""The command line: its groups, its version and its exit codes. A command imports heavy modules only when it runs."""

import errno
import re
import sys
import traceback
from importlib import metadata
from io import StringIO
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from zerolab.cli import model_commands, training_commands
from zerolab.cli.help import GROUPS, NAMES, PROVE, example
from zerolab.cli.list_commands import claims_app, model_app, questions_app, recipe_app
from zerolab.errors import UserError
from zerolab.files import file_problem
from zerolab.terminal import echo


class CommandGroup(TyperGroup):
    """The command line. Usage errors and tracebacks quote the user's input, so they are printed by `echo` too."""

    def main(self, *args: Any, **options: Any) -> None:
        sys.excepthook = lambda *error: echo("".join(traceback.format_exception(*error)), error=True, end="")
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
        except Exception as error:
            if not (isinstance(error, typer.Abort) or hasattr(error, "format_message")):
                raise
            text = StringIO()
            error.show(text) if hasattr(error, "show") else text.write("Aborted!\n")
            echo(text.getvalue(), error=True, end="")
            sys.exit(getattr(error, "exit_code", 1))
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run a command. If it takes no recipe, error messages name its options instead of the keys of a recipe."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            command = self.commands.get(str(ctx.invoked_subcommand))
            known = {option for parameter in command.params for option in parameter.opts} if command else set()
            raise UserError(name_options(str(error), known)) from error

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands by group, each with its first sentence."""
        for group in GROUPS:
            commands = [c for c in self.commands.values() if getattr(c, "rich_help_panel", None) == group]
            with formatter.section(group):
                formatter.write_dl([(str(c.name), (c.help or "").split("\n\n")[0]) for c in commands])


# Key in a message of a lower layer -> option of a command that takes no recipe.
OPTIONS = {
    "questions.data_dir": "--data-dir",
    "questions.path": "--benchmarks",
    "questions.limit": "--limit",
    "rollout.max_new_tokens": "--budget",
    "rollout.temperature": "--temperature",
    "rollout.kv_gb": "--kv-gb",
    "rollout.engine": "--engine",
    "model.device": "--device",
    "model.precision": "--precision",
    "template.name": "--template",
    "template.extractor": "--extractor",
}


def name_options(message: str, known: set[str]) -> str:
    """Replace the keys in a message by options of the command: `model.precision = "bf16"` becomes `--precision bf16`.

    Args:
        known: options of the command; other keys stay.
    """
    if "--set" in known or not known.intersection(OPTIONS.values()):
        return message

    def named(found: re.Match[str]) -> str:
        option = OPTIONS[found["key"]]
        value = f" {found['value']}" if found["value"] else ""
        return option + value if option in known else found[0]

    keys = "|".join(map(re.escape, OPTIONS))
    return re.sub(rf'(?<![\w.])(?P<key>{keys})(?![\w])(?: = "(?P<value>[^"]*)")?', named, message)


app = typer.Typer(
    help="The laboratory for R1-Zero-like training.",
    epilog=example("demo"),
    cls=CommandGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(training_commands.app)
app.add_typer(model_commands.app)
app.add_typer(claims_app, name="claims", rich_help_panel=PROVE)
app.add_typer(recipe_app, name="recipe", rich_help_panel=NAMES)
app.add_typer(questions_app, name="questions", rich_help_panel=NAMES)
app.add_typer(model_app, name="model", rich_help_panel=NAMES)


def print_version(asked: bool) -> None:
    if asked:
        echo("zerolab", metadata.version("zerolab"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None: ...


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errors of a write, which names no file


def main() -> None:
    try:
        app()
    except UserError as error:
        echo("zerolab:", " ".join(str(error).splitlines()), error=True)
        sys.exit(2)
    except OSError as error:
        if error.filename is None and error.errno not in FULL:
            raise
        problem = f"write: {error.strerror}" if error.filename is None else f"use {file_problem(error)}"
        echo("zerolab: cannot", problem, error=True)
        sys.exit(2)
    except KeyboardInterrupt:
        echo("zerolab: interrupted", error=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
