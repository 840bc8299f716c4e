"""All output to the terminal: `echo` for lines, `make_console` for tables, bars and colours.

Run names, question ids, columns, file names and error texts come from data, and may have control characters on which a
terminal acts. So everything that is printed passes through `visible`. tests/test_terminal.py refuses any other `print`.
"""

import sys
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any

from rich.console import Console
from rich.segment import Segment


def visible(text: str) -> str:
    """The text with control and direction characters as escapes, except line feeds and tabs."""
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def echo(*parts: object, error: bool = False, end: str = "\n") -> None:
    """Print the parts, separated by spaces, with every control character visible.

    Args:
        error: write to stderr and flush.
    """
    text = visible(" ".join(map(str, parts)))
    print(text, end=end, file=sys.stderr if error else sys.stdout, flush=error)


def make_console(width: int | None = None, error: bool = False, **options: Any) -> Any:
    """Make a rich Console that shows control characters in everything it prints.

    Markup is off, because text from data may have brackets. Callers style with `rich.text.Text`.

    Args:
        width: columns if the output is no terminal (default: rich's own choice).
        error: write to stderr.
    """
    options = {"markup": False, "emoji": False, "highlight": False, **options}
    console = _console_class()(stderr=error, **options)
    return console if console.is_terminal or width is None else _console_class()(stderr=error, width=width, **options)


@cache
def _console_class() -> type:
    """The class of `make_console`."""

    class VisibleConsole(Console):
        """A Console that escapes control characters of texts, but not those that rich itself sends."""

        def render_str(self, text: str, **options: Any) -> Any:  # before widths are measured
            return super().render_str(visible(text), **options)

        def render(self, renderable: Any, options: Any = None) -> Iterable[Any]:
            for segment in super().render(renderable, options):
                if segment.control or segment.text.isprintable():
                    yield segment
                else:
                    yield Segment(visible(segment.text), segment.style)

    return VisibleConsole
