"""Reference pages of the command line and of the metrics, written from the code."""

import inspect
from collections.abc import Iterator
from typing import Any

import typer
from tools.markdown import table

from zerolab.cli import app
from zerolab.cli.help import GROUPS
from zerolab.rl.metrics import MEANINGS

COMMANDS_HEAD = """# Command line

For whoever looks for a verb or an option. Written by `make docs` from the code; do not edit. `zerolab --help` prints
the verbs, and `--help` behind a verb prints what stands here.

```
zerolab --help
```
"""
METRICS_HEAD = """# Metrics

For whoever reads `metrics.jsonl`, the report or a tracker: every number that a step of `zerolab train` logs, with its
unit. Written by `make docs` from `rl/metrics.py`; do not edit. A metric is `null` in a step that has nothing to average
(no response was right, say). A name that ends in `*` stands for several. [The bias meter](bias_meter.md) explains the
metrics under `bias/`.

```
zerolab report runs/demo/grpo-seed0
```
"""


def commands_page() -> str:
    """docs/commands.md: every verb with its options, in the groups of `zerolab --help`."""
    group = typer.main.get_command(app)
    verbs = list(_verbs(group))
    parts = [COMMANDS_HEAD]
    for title in GROUPS:
        inside = [(name, verb) for name, panel, verb in verbs if panel == title]
        if inside:
            parts.append(f"## {title}\n")
            parts += [_verb(name, verb) for name, verb in inside]
    return "\n".join(parts)


def _verbs(command: Any, name: str = "", panel: str = "") -> Iterator[tuple[str, str, Any]]:
    """(name, group of the help, verb) of every verb below a command."""
    if not hasattr(command, "commands"):
        yield name, panel, command
        return
    for word, inner in command.commands.items():
        yield from _verbs(inner, f"{name} {word}".strip(), getattr(inner, "rich_help_panel", None) or panel)


def _verb(name: str, verb: Any) -> str:
    text = inspect.cleandoc(verb.help or "").replace("\n", " ").replace("  ", " ")
    example = (verb.epilog or "").rpartition("\n")[2].strip()
    rows = [_parameter(parameter) for parameter in verb.params if parameter.name != "help"]
    options = table(("argument or option", "default", "meaning"), rows) if rows else ""
    return f"### zerolab {name}\n\n{text}\n\nExample: `{example}`\n\n{options}"


def _parameter(parameter: Any) -> tuple[str, str, str]:
    """(names, default, meaning) of an argument or an option."""
    option = parameter.param_type_name == "option"
    names = (*parameter.opts, *parameter.secondary_opts) if option else (parameter.name,)
    default = "" if parameter.default in (None, (), [], False) else str(parameter.default)
    shown = "required" if parameter.required else default
    return ", ".join(f"`{name}`" for name in names), shown, getattr(parameter, "help", None) or ""


def metrics_page() -> str:
    """docs/metrics.md."""
    return METRICS_HEAD + "\n" + table(("metric", "unit", "meaning"), [(f"`{n}`", u, m) for n, u, m in MEANINGS])
