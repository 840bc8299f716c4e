"""From what a file gives as its answer to a gold that the grader can compare; doubts are noted with their place."""

import hashlib
import json
import math
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any

from zerolab.errors import UserError
from zerolab.grading.extract import last_box
from zerolab.terminal import echo, visible

_MARKED = re.compile(r"^[ \t]*####(.*)$", re.MULTILINE)
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])[ \t]*")
_UNBRACED = re.compile(r"([-−]?\d+(?:,\d{3})*(?:\.\d+)?)|([^{}$\n]+)(?=\$)|([A-Za-z])(?![A-Za-z])")
# JSON reads "\frac" as a form feed and "rac". A form feed or a backspace before a letter is nothing else; a tab or a
# line end is ordinary text, unless it begins the rest of a LaTeX command.
_LOST_BACKSLASH = re.compile(
    r"(?P<f>\x0c)(?=[A-Za-z])|(?P<b>\x08)(?=[A-Za-z])"
    r"|(?P<t>\t)(?=(?:ext(?:bf|it|rm)?|[df]?rac|frac|imes|heta|au|an|ilde|riangle|binom)(?![A-Za-z]))"
    r"|(?P<n>\n)(?=(?:eq|abla|eg)(?![A-Za-z]))"
    r"|(?P<r>\r)(?=(?:ight|angle|ho)(?![A-Za-z]))"
)
WATCHED = 100_000  # questions whose answers are compared with those of later rows
SHOWN = 40  # characters of a gold in a message


@dataclass
class Doubt:
    """How often one kind of doubt arose, and how the first case reads."""

    first: str = ""
    count: int = 0

    def add(self, case: str) -> None:
        self.first = self.first or case
        self.count += 1

    def __str__(self) -> str:
        return self.first + (f" and {self.count - 1} more rows" if self.count > 1 else "")


@dataclass
class GoldNotes:
    """What was doubtful about the golds of one source, told in a line for each kind."""

    repaired: Doubt = field(default_factory=Doubt)
    unbraced: Doubt = field(default_factory=Doubt)
    contradictions: Doubt = field(default_factory=Doubt)  # "place asks the question of place ..."
    _seen: dict[bytes, tuple[str, tuple[str, ...]]] = field(default_factory=dict)

    def see(self, question: str, answers: tuple[str, ...], place: str) -> None:
        """Note a question that came before with other answers. Spaces do not count.

        Only the first WATCHED questions are remembered, so that a file of any length takes the same memory.
        """
        words = " ".join(question.split()).encode(errors="surrogatepass")
        key = hashlib.blake2b(words, digest_size=12).digest()
        if key not in self._seen and len(self._seen) >= WATCHED:
            return
        first, before = self._seen.setdefault(key, (place, answers))
        if {"".join(a.split()) for a in before} != {"".join(a.split()) for a in answers}:
            self.contradictions.add(
                f"{place} asks the question of {first} with another answer ({_short(answers)}, there {_short(before)})"
            )

    def tell(self) -> None:
        """Print them on stderr, each kind once, with the first place."""
        if self.repaired.count:
            echo(
                f"zerolab: {self.repaired}: a control character in the answer was read as a backslash; "
                'in JSON a backslash is written twice, as in "\\\\frac"',
                error=True,
            )
        if self.unbraced.count:
            echo(f"zerolab: {self.unbraced}: a box without braces was read as \\boxed{{...}}", error=True)
        if self.contradictions.count:
            more = self.contradictions.count - 1
            such = f", and {more} more such rows" if more else ""
            echo(f"zerolab: {self.contradictions.first}{such}: keep one row of each question", error=True)


def read_answers(value: Any, place: str, notes: GoldNotes) -> tuple[str, ...]:
    """Every alternative as text: numbers as the file has them (142.0 stays "142.0"), the final answer of a solution.

    Raises UserError, with the place, for an answer that no response could equal.
    """
    if isinstance(value, list | tuple):
        if not value:
            raise UserError(f"{place}: a question without an answer")
        if any(isinstance(item, list | tuple) for item in value):
            raise UserError(
                f"{place}: the answer is a list within a list: a list holds alternatives, each of them one text; write "
                'an answer of several values as one, such as "1, 2"'
            )
        return tuple(answer for item in value for answer in read_answers(item, place, notes))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"{place}: the answer is a {type(value).__name__}; expected text, a number or a list of them")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{place}: the answer is not a finite number")
    answer = read_gold(json.dumps(value) if not isinstance(value, str) else value, place, notes)
    if not answer.strip():
        raise UserError(f"{place}: a question without an answer")
    return (answer,)


def read_gold(text: str, place: str, notes: GoldNotes) -> str:
    """The final answer of a text: after the last "####", else in the last box, else the text itself.

    Raises UserError for a control character that stands for nothing: no response could ever equal such a gold.
    """
    repaired = with_backslashes(text)
    final = final_answer(repaired)
    if bad := next((c for c in (final or "").strip() if unicodedata.category(c) == "Cc" and c not in "\t\n\r"), None):
        raise UserError(
            f"{place}: the answer {_short((final or '',))} holds the control character {visible(bad)}, so no response "
            "can be right: correct the row"
        )
    if repaired != text and final != final_answer(text):
        notes.repaired.add(place)
    if final is None:
        final = unbraced_box(repaired) or ""
        if final:
            notes.unbraced.add(place)
    return final


def with_backslashes(text: str) -> str:
    """`text` with a backslash for every control character that JSON made of one."""
    return _LOST_BACKSLASH.sub(lambda match: "\\" + str(match.lastgroup), text)


def final_answer(text: str) -> str | None:
    """What stands after the last "####", else in the last box, else the text itself; None for a broken box."""
    if marked := _MARKED.findall(text):
        return str(marked[-1]).strip()
    return last_box(text) if _BOX.search(text) else text


def is_marked(solution: str) -> bool:
    """Whether a worked solution marks its final answer, by "####" or a box."""
    text = with_backslashes(solution)
    return final_answer(text) is not text


def unbraced_box(text: str) -> str | None:
    """7 of "$\\boxed 7$": a number, a letter, or all up to the end of the formula; None if none of them follows."""
    *_, last = _BOX.finditer(text)
    match = _UNBRACED.match(text, last.end())
    return match[0].strip() or None if match else None


def _short(answers: tuple[str, ...]) -> str:
    return ", ".join(repr(a if len(a) <= SHOWN else a[: SHOWN - 3] + "...") for a in answers[:3])
