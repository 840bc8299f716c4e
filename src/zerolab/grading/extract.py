"""From a response to the answer it claims. None means: the format was not kept.

boxed               content of the last \\boxed{...} or \\fbox{...}; unterminated or empty: None, never an earlier box;
                    the bare command in prose ("I put it in \\boxed.") is no box
answer-tag          the strict R1 rule: the literal "</think> <answer>" and then "</answer>"; an inner box is unwrapped
answer-tag-lenient  the last <answer>...</answer>, whatever stands before it; an inner box is unwrapped
last-number         "#### 42", "A: 42", else the last number of the text; only for corpora written that way
any                 the first of answer-tag-lenient, boxed and last-number that finds something: how much of a low score
                    is format; never a reward
mention             the first name that occurs, out of all answers of the question's family; for questions whose answers
                    are names. Because the first one decides, listing many names does not pay
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from zerolab.errors import UserError

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_GLUE = re.compile(
    r"(?:[ \t$,;&]|\\[()\[\],;: ]|\\q?quad|\\text\{\s*(?:,|and|or)?\s*\}|,?\s?\b(?:and|or)\b)*\n?", re.IGNORECASE
)
_MENTIONED = re.compile(r"[.,;:!?`'\"*)\]$}]|\\[)\]]|[A-Za-z]{2,}|\Z")  # behind a command that boxes nothing
_BRACE_OR_ESCAPE = re.compile(r"\\.|[{}]", re.DOTALL)
_DECIMAL = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_GROUP = r"\s?\{[^{}\n]{0,60}\}"
_ARGUMENT = rf"(?:{_GROUP}|\s?[0-9])"
_BUILT = rf"(?:\\[dtc]?frac{_ARGUMENT}{_ARGUMENT}|\\sqrt(?:\[[0-9]+\])?{_ARGUMENT}|\\pi(?![A-Za-z])|[√π])"
_POWER = rf"(?:\s?(?:\^|\*\*)(?:{_GROUP}|\(?[-+]?[0-9]+\)?))?"
_FACTOR = rf"(?:{_DECIMAL}(?:[eE][-+]?[0-9]+(?![0-9A-Za-z]))?|{_BUILT}){_POWER}!?(?:\s?\\?%)?(?:_(?:{_GROUP}|[0-9]+))?"
_OPERATOR = (
    r"\s?(?:/|\*|×|÷|\\times(?![A-Za-z])|\\cdot(?![A-Za-z])|\\div(?![A-Za-z]))\s?|(?<=[0-9)}!%])[-+−:](?=[0-9.\\])"
)
_NUMBER = re.compile(
    rf"[-−+]?\$?{_FACTOR}(?:(?:{_OPERATOR})\$?[-−]?{_FACTOR}|\s?{_BUILT}{_POWER}|\s[0-9]+/[0-9]+(?![0-9/]))*"
    r"(?:\s(?:hundred|thousand|million|billion|trillion|dozen)(?![A-Za-z]))?"
)  # fmt: skip
_PART_OF_A_NAME = re.compile(
    r"[0-9A-Za-z)\].]$|[_^]\s?\{?$|[A-Za-z)}]\s?/$"
)  # what stands before digits that are no number
_MARKED_LINE = re.compile(r"^[ \t]*(?:####|A:)(.*)$", re.MULTILINE)
_NESTED_BOXES = 4

MENTION = "mention"
FACT_TABLE = Path(__file__).with_name("facts.tsv")
NAME_VERIFIERS = {"capital": "capital", "symbol": "element", "atomic-number": "element"}  # of the kinds of facts
_WORDS_TOO = {"Male"}  # without its accent a capital is an English word: it counts as a name with a capital letter only
_LETTERS = str.maketrans(dict(zip("łŁøØđĐı", "lLoOdDi", strict=True)) | dict.fromkeys("’‘ʻʼ`´", "'"))


def closing_brace(text: str, start: int) -> int | None:
    """Index of the brace that closes the one at `start`; escaped braces do not count. None: it is never closed."""
    depth = 0
    for match in _BRACE_OR_ESCAPE.finditer(text, start):
        token = match.group()
        if token == "{":
            depth += 1
        elif token == "}":
            depth -= 1
            if depth == 0:
                return match.start()
    return None


def last_box(text: str) -> str | None:
    """Content of the last box, however many boxes are nested in it.

    Boxes that only commas, "and" or "or" join are one list: `\\boxed{2}, \\boxed{3}` answers "2, 3", not 3.
    """
    starts = [match for match in _BOX.finditer(text) if not _MENTIONED.match(text, match.end())]
    if not starts:
        return None
    found = _content(text, starts[-1])
    if found is None or len(starts) == 1:
        return found and found[0]
    items = [found[0]]
    for before, after in zip(starts[-2::-1], starts[:0:-1], strict=True):
        found = _content(text, before)
        if found is None or found[1] > after.start() or not _GLUE.fullmatch(text, found[1], after.start()):
            break
        items.append(found[0])
    return ", ".join(dict.fromkeys(reversed(items)))


def _content(text: str, start: re.Match[str]) -> tuple[str, int] | None:
    """(content, index behind it) of one box; None if it is empty or not closed."""
    end = closing_brace(text, start.end()) if text[start.end() : start.end() + 1] == "{" else None
    content = text[start.end() + 1 : end].strip() if end is not None else ""
    return (content, end + 1) if content and end is not None else None


def _unwrap(answer: str) -> str | None:
    answer = answer.strip()
    if _BOX.search(answer):
        return last_box(answer)
    return answer or None


def answer_tag(text: str) -> str | None:
    """The strict R1 rule of the paper's template."""
    if "</think> <answer>" not in text or "</answer>" not in text:
        return None
    answer = text.split("<answer>")[-1].split("</answer>")
    return _unwrap(answer[0]) if len(answer) > 1 else None


def answer_tag_lenient(text: str) -> str | None:
    """The last answer tag that is closed, without regard to the thinking before it."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    return _unwrap(text[start + len("<answer>") : end]) if start >= 0 else None


def _numbers(text: str) -> list[str]:
    """The number expressions of a text: "3/4", "2^{10}" and "1 1/2" are one each, the 2 of x_2 or cm^2 is none."""
    return [
        match.group()
        for match in _NUMBER.finditer(text)
        if not _PART_OF_A_NAME.search(text[max(0, match.start() - 3) : match.start()])
    ]


def last_number(text: str) -> str | None:
    """The number after the last "####" or "A:" line, else the last number expression of the text."""
    marked = _MARKED_LINE.findall(text)
    numbers = _numbers(marked[-1] if marked else text)
    if not numbers:
        return None
    return (numbers[0] if marked else numbers[-1]).replace("$", "")


def anywhere(text: str) -> str | None:
    """The answer in any of the known forms, the most explicit first."""
    return answer_tag_lenient(text) or last_box(text) or last_number(text)


class Fact(NamedTuple):
    """A row of the table: `asked` is a country, a symbol or a number; the first of `names` is the answer."""

    kind: str
    asked: str
    names: tuple[str, ...]


@lru_cache
def read_facts() -> tuple[Fact, ...]:
    """All facts of the shipped table, in its order."""
    lines = FACT_TABLE.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return tuple(Fact(kind, asked, tuple(names)) for kind, asked, *names in rows)


def fold(text: str) -> str:
    """`text` without accents, with plain apostrophes, single spaces in the place of hyphens, and "Saint" for "St."."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).translate(_LETTERS)
    return re.sub(r"\b[Ss]t\.? (?=[A-Za-z])", "Saint ", re.sub(r"[\s\-‐]+", " ", plain))


def compile_names(facts: Iterable[Fact]) -> tuple[re.Pattern[str], dict[str, str]]:
    """(pattern that finds any name in a folded text, answer by folded lower-case name without apostrophes)."""
    answers = {_name_key(name): fact.names[0] for fact in facts for name in fact.names}
    names = {fold(name) for fact in facts for name in fact.names}
    patterns = []
    for name in sorted(names, key=lambda name: (-len(name), name)):  # "New Delhi" is tried before "Delhi"
        pattern = re.escape(name).replace("'", "'?")
        patterns.append(f"(?-i:{pattern[0]}){pattern[1:]}" if name in _WORDS_TOO else pattern)
    whole = rf"(?<![A-Za-z0-9])(?:{'|'.join(patterns)})(?![A-Za-z0-9])"
    return re.compile(whole, re.IGNORECASE), answers


@lru_cache
def _names_of(verifier: str) -> tuple[re.Pattern[str], dict[str, str]]:
    return compile_names([fact for fact in read_facts() if NAME_VERIFIERS[fact.kind] == verifier])


def _name_key(name: str) -> str:
    return fold(name).lower().replace("'", "")


def first_mention(text: str, verifier: str) -> str | None:
    """The answer whose name occurs first in `text`, in the table's spelling; None if there is none.

    Raises UserError for a verifier whose answers are not names.
    """
    if verifier not in NAMES_ARE_ANSWERS:
        raise UserError(
            f"mode {MENTION} looks for names, and answers of verifier {verifier} are none: choose another mode, or "
            "questions of synthetic:facts"
        )
    pattern, answers = _names_of(verifier)
    found = pattern.search(fold(text))
    return None if found is None else answers[_name_key(found.group())]


MODES: dict[str, Callable[[str], str | None]] = {
    "boxed": last_box,
    "answer-tag": answer_tag,
    "answer-tag-lenient": answer_tag_lenient,
    "last-number": last_number,
    "any": anywhere,
}


MODE_NAMES = (*MODES, MENTION)
NAMES_ARE_ANSWERS = frozenset(NAME_VERIFIERS.values())  # verifiers for which mode mention is meant


def extract(response: str, mode: str = "boxed", verifier: str = "math") -> str | None:
    """The answer in `response`, or None if it is not in the format of `mode`; as written, except by mode mention."""
    if mode == MENTION:
        return first_mention(response, verifier)
    if mode not in MODES:
        raise UserError(f"unknown extraction mode {mode!r}; choose one of {', '.join(MODE_NAMES)}")
    return MODES[mode](response)
