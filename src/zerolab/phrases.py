"""The list of self-reflection phrases, and a search for them in a text.

`paper`: the keywords of 2503.20783 (its public detector looks for 15 of them as plain substrings), with their
inflections. `wide`: also zerolab's own phrases, which find more and are wrong more often. This module imports no torch,
so that a report can use it.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

Scope = Literal["paper", "wide"]
SCOPES: tuple[str, ...] = get_args(Scope)


@dataclass(frozen=True, slots=True)
class Phrase:
    """A keyword with its forms.

    In a form, a hyphen matches any hyphen or nothing, a space any white space, and ' any apostrophe or nothing. A
    trailing ! requires punctuation or the end of a line after the phrase. Case is ignored.
    """

    name: str
    forms: tuple[str, ...]
    scope: Scope


@dataclass(frozen=True, slots=True)
class Hit:
    """A phrase found at text[start:end]."""

    start: int
    end: int
    phrase: str


def _paper(name: str, *forms: str) -> Phrase:
    return Phrase(name, (name, *forms), "paper")


def _wide(name: str, *forms: str) -> Phrase:
    return Phrase(name, (name, *forms), "wide")


PHRASES: tuple[Phrase, ...] = (
    _paper("re-check", "re-checks", "re-checked", "re-checking"),
    _paper("re-think", "re-thinks", "re-thinking", "re-thought"),
    _paper("re-assess", "re-assesses", "re-assessed", "re-assessing", "re-assessment"),
    _paper("re-evaluate", "re-evaluates", "re-evaluated", "re-evaluating", "re-evaluation"),
    _paper("re-examine", "re-examines", "re-examined", "re-examining", "re-examination"),
    _paper("re-consider", "re-considers", "re-considered", "re-considering", "re-consideration"),
    _paper("re-analyze", "re-analyzes", "re-analyzed", "re-analyzing", "re-analyse", "re-analysing", "re-analysis"),
    _paper("double-check", "double-checks", "double-checked", "double-checking"),
    _paper("double check", "double checks", "double checked", "double checking"),
    _paper("check again", "checks again", "checked again", "checking again"),
    _paper("think again", "thinks again", "thinking again", "thought again"),
    _paper("verify again", "verifies again", "verified again", "verifying again"),
    _paper(
        "go over the steps", "going over the steps", "go back over the steps", "go over my steps", "go over each step"
    ),
    _wide("wait!", "oh wait", "but wait", "wait a minute", "wait a moment", "wait a second"),
    _wide("hold on!", "hang on!", "hmm!"),
    _wide("on second thought", "on second thoughts"),
    _wide("try again", "tries again", "trying again", "start over", "starting over", "start again", "starting again"),
    _wide(
        "look again", "looking again", "read again", "re-read", "re-reading", "re-calculate", "re-calculating", "re-do"
    ),
    _wide("i made a mistake", "i made an error", "we made a mistake", "we made an error", "i was wrong", "my mistake"),
    _wide("made a mistake", "made an error", "there is a mistake", "there is an error", "there was a mistake"),
    _wide("that's not right", "that is not right", "this is not right", "this isn't right", "that can't be right"),
    _wide("that's wrong", "that is wrong", "this is wrong", "this can't be right", "this cannot be right"),
    _wide("this is incorrect", "that is incorrect", "that's incorrect", "which is incorrect"),
    _wide("correct myself", "let me correct", "let me fix", "let's correct"),
    _wide("let me check", "let's check", "let us check", "let me verify", "let's verify", "let us verify"),
    _wide(
        "to verify", "to verify this", "we can verify", "to check our", "to check the answer", "to check this answer"
    ),
    _wide("another way", "another approach", "alternative approach", "different approach"),
)

_HYPHENS = "-\u00ad\u2010\u2011\u2012\u2013\u2014\u2212"
_APOSTROPHES = "'`\u2019\u02bc\u2032\uff07"
_WILDCARDS = {
    "-": f"[{_HYPHENS}]?",
    " ": r"\s{1,4}",  # bounded, because \s+ takes quadratic time on a text of spaces
    "'": f"[{_APOSTROPHES}]?",
    "!": r"(?=[^\S\n]{0,4}(?:[,.!?;:\u2026\u2013\u2014-]|\n|\Z))",
}
_SIGNS = str.maketrans("", "", _HYPHENS + _APOSTROPHES + "!")


def _pattern(form: str) -> str:
    return "".join(_WILDCARDS.get(letter) or re.escape(letter) for letter in form)


@cache
def _compiled(scope: Scope) -> tuple[re.Pattern[str], dict[str, str]]:
    chosen = [phrase for phrase in PHRASES if phrase.scope == "paper" or scope == "wide"]
    names = {f"p{i}": phrase.name.rstrip("!") for i, phrase in enumerate(chosen)}
    groups = (
        f"(?P<p{i}>{'|'.join(map(_pattern, sorted(phrase.forms, key=len, reverse=True)))})"
        for i, phrase in enumerate(chosen)
    )
    # No letter, digit or underscore at either end, and no backslash before, because \recheck is a LaTeX macro.
    return re.compile(rf"(?<![\w\\])(?:{'|'.join(groups)})(?!\w)", re.IGNORECASE), names


@cache
def _plain(scope: Scope) -> tuple[str, ...]:
    """The forms without hyphens and apostrophes, except forms that contain a shorter one."""
    chosen = [form for phrase in PHRASES if phrase.scope == "paper" or scope == "wide" for form in phrase.forms]
    kept: list[str] = []
    for form in sorted((form.translate(_SIGNS) for form in chosen), key=len):
        if not any(shorter in form for shorter in kept):
            kept.append(form)
    return tuple(kept)


def find_phrases(text: str, scope: Scope = "paper") -> tuple[Hit, ...]:
    """Every self-reflection phrase of the scope in the text, in order and without overlap. `wide` includes `paper`."""
    plain = " ".join(text.translate(_SIGNS).casefold().split())
    if not any(form in plain for form in _plain(scope)):
        return ()  # true of most texts, and ten times faster than the pattern
    pattern, names = _compiled(scope)
    return tuple(Hit(m.start(), m.end(), names[str(m.lastgroup)]) for m in pattern.finditer(text))


def javascript_pattern(scope: Scope = "paper") -> str:
    """The search pattern of `find_phrases` for JavaScript's RegExp with flags giu, whose \\w is only ASCII."""
    source = re.sub(r"\(\?P<\w+>", "(?:", _compiled(scope)[0].pattern)
    word = r"\p{L}\p{N}_"
    return source.replace(r"(?<![\w\\])", rf"(?<![{word}\\])").replace(r"(?!\w)", f"(?![{word}])").replace(r"\Z", "$")


def pieces(text: str, hits: Iterable[Hit]) -> Iterator[tuple[str, bool]]:
    """(piece, whether it is a hit) of the text, in order. A renderer escapes each piece and marks the hits."""
    at = 0
    for hit in hits:
        if hit.start > at:
            yield text[at : hit.start], False
        yield text[hit.start : hit.end], True
        at = hit.end
    if at < len(text):
        yield text[at:], False
