"""Normalised text -> tokens."""

import re
from dataclasses import dataclass

from zerolab.grading.symbols import ALIASES, FUNCTIONS, GREEK, OTHER_SYMBOLS, RELATIONS
from zerolab.grading.tree import LONGEST_NUMBER, Unreadable

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<hex>0[xXbBoO][0-9A-Fa-f])|(?P<number>(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4}(?![0-9A-Za-z.]))?)|\\text\{(?P<text>[^{}]*)\}"
    r"|(?P<rel><=|>=|!=|==|[=<>])|(?P<command>\\[A-Za-z]+|\\.)|(?P<word>[A-Za-z]+)|(?P<op>\*\*|\.\.\.|.)",
    re.DOTALL,
)
_WORD_SYMBOLS = {"pi": "pi", "infty": "inf", "inf": "inf", "infinity": "inf", "oo": "inf", **{g: g for g in GREEK}}
_IGNORED = frozenset((r"\ ", r"\,", r"\!", r"\;", r"\:", r"\quad", r"\qquad"))
LONGEST_WORD_OF_FACTORS = 3  # "abc" is a product, "SRAC" a name


@dataclass(frozen=True, slots=True)
class Token:
    kind: str  # number text rel command word name fn op end
    text: str
    spaced: bool = False  # white space before it


def _word(word: str, spaced: bool) -> list[Token]:
    """A run of letters: a known name, a function with its one-letter argument, one long name, or a product."""
    if word in FUNCTIONS or word == "sqrt":
        return [Token("fn", word, spaced)]
    if word in _WORD_SYMBOLS:
        return [Token("name", _WORD_SYMBOLS[word], spaced)]
    if word in ("and", "or", "where", "U"):
        return [Token("word", word, spaced)]
    for length in (6, 4, 3, 2):
        if len(word) == length + 1 and word[:length] in FUNCTIONS:
            return [Token("fn", word[:length], spaced), Token("name", word[length:])]
    if len(word) > LONGEST_WORD_OF_FACTORS:
        return [Token("name", word, spaced)]
    return [Token("name", letter, spaced and i == 0) for i, letter in enumerate(word)]


def _command(name: str, spaced: bool) -> Token:
    bare = name[1:]
    if name in RELATIONS:
        return Token("rel", name, spaced)
    if bare in FUNCTIONS:
        return Token("fn", bare, spaced)
    if bare in GREEK:
        return Token("name", ALIASES.get(bare, bare), spaced)
    if bare == "pi":
        return Token("name", "pi", spaced)
    if bare in OTHER_SYMBOLS:
        return Token("name", bare, spaced)
    if bare in ("infty", "infin"):
        return Token("name", "inf", spaced)
    return Token("command", name, spaced)


def tokenize(text: str) -> list[Token]:
    """Tokens of normalised text, an "end" behind them. Raises Unreadable on a number past the cap."""
    tokens: list[Token] = []
    spaced = False
    for match in _TOKEN.finditer(text):
        kind = str(match.lastgroup)
        piece = match.group(kind)
        if kind == "space" or piece in _IGNORED:
            spaced = True
            continue
        if kind == "hex":
            raise Unreadable("a number of a programming language")
        if kind == "number" and len(piece) > LONGEST_NUMBER:
            raise Unreadable("a number with too many digits")
        if kind == "word":
            tokens.extend(_word(piece, spaced))
        elif kind == "command":
            tokens.append(_command(piece, spaced))
        else:
            tokens.append(Token(kind, piece, spaced))
        spaced = False
    tokens.append(Token("end", ""))
    return tokens
