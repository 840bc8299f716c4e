"""A response on a terminal: its tokens coloured by their probability, and a line of facts.

Text of a model or a file can hold anything, so every character that a terminal would act on is shown instead.
"""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from zerolab.terminal import make_console, visible
from zerolab.types import Completion, Grade

# (probability at least, style, in words)
BANDS = (
    (0.9, "", "p >= .9"),
    (0.5, "green", ">= .5"),
    (0.2, "yellow", ">= .2"),
    (0.05, "dark_orange", ">= .05"),
    (0.0, "bold red", "less"),
)


def style_of(probability: float) -> str:
    return next(style for least, style, _ in BANDS if probability >= least or least == 0.0)


class Screen:
    """Where responses are shown. Colours only on a terminal that has them, and plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = make_console(soft_wrap=True, file=sys.stdout)

    def legend(self) -> None:
        """What the colours mean; nothing where there are none."""
        if self.console.is_terminal and not self.console.no_color:
            from rich.text import Text

            parts = [("tokens by probability:  ", "dim"), *((f"{words}  ", style) for _, style, words in BANDS)]
            self.console.print(Text.assemble(*parts))

    def waiting(self) -> AbstractContextManager[Any]:
        """A sign of life while the model samples, on a terminal."""
        return self.console.status("sampling") if self.console.is_terminal else nullcontext()

    def prompt(self, text: str, heading: str) -> None:
        from rich.text import Text

        self.console.rule(Text(visible(heading), style="bold"), align="left")
        self.console.print(Text(visible(text), style="dim"))

    def response(self, number: str, pieces: Sequence[str], completion: Completion, verdict: str) -> None:
        """One response; `pieces` is the text of each token, special ones named."""
        from rich.text import Text

        probabilities = np.exp(completion.logprobs_L.astype(float))
        body = Text()
        for piece, probability in zip(pieces, probabilities, strict=True):
            body.append(visible(piece), style=style_of(probability))
        self.console.print(Text(number, style="bold cyan"))
        self.console.print(body)
        self.console.print(Text(facts(completion, verdict), style="cyan"))

    def line(self, text: str) -> None:
        from rich.text import Text

        self.console.print(Text(visible(text), style="cyan"))


def facts(completion: Completion, verdict: str) -> str:
    """Tokens, how it ended, the mean of log p (per token, in nats), and the verdict."""
    mean = float(completion.logprobs_L.mean()) if len(completion) else 0.0
    ended = "truncated" if completion.truncated else "ended by itself"
    return visible(f"{len(completion)} tokens, {ended}, mean log p {mean:.2f}; {verdict}")


def verdict_of(grade: Grade, known: bool) -> str:
    """In words, with the answer as it was extracted."""
    if grade.reason == "unformatted":
        return "no answer in the format of the template"
    answer = f"answer {_short(grade.extracted or '')}"
    return f"{grade.reason}: {answer}" if known else answer


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."


def named_pieces(tokenizer: Any, pieces: Sequence[str], token_ids_L: np.ndarray) -> list[str]:
    """`pieces` with the names of special tokens in their place."""
    special = set(tokenizer.all_special_ids)
    named = zip(pieces, token_ids_L.tolist(), strict=True)
    return [tokenizer.convert_ids_to_tokens(i) if i in special and not piece else piece for piece, i in named]
