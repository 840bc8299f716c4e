"""Units of measurement and counted things behind a value: what they are, and how two of them compare.

A unit is a factor to SI times powers of dimensions. What has no exact factor to SI (parsec, solar mass, year) is a
dimension of its own, and so is every counted thing (apples). Words that are in no table make no unit.
"""

import re
from fractions import Fraction
from functools import lru_cache

from zerolab.grading.unit_table import (
    ADJECTIVES,
    CELSIUS,
    CHINESE,
    FAHRENHEIT,
    NONE,
    NOUNS,
    PLURALS,
    PREFIX_WORDS,
    PREFIXED_SYMBOLS,
    PREFIXED_WORDS,
    PREFIXES,
    SYMBOLS,
    VALUE_CHANGERS,
    WORDS,
    Unit,
)

LONGEST_UNIT = 100  # characters
LARGEST_POWER = 12

_POWER_WORDS = {"square": 2, "sq": 2, "sq.": 2, "cubic": 3, "cu": 3, "cu.": 3}
_NO_UNIT = frozenset(("total", "altogether"))
_POWER_WORDS_BEHIND = {"squared": 2, "cubed": 3}

_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_SPELLED = (
    (re.compile(r"\\(?:mu(?![A-Za-z])|textmu(?![A-Za-z]))\s*"), "μ"),
    (re.compile(r"\\(?:Omega|ohm)(?![A-Za-z])"), "Ω"),
    (re.compile(r"\\(?:AA|r\s*A)(?![A-Za-z])|\\mathring\s*\{?\s*(?:\\text\{)?A\}?\}?"), "Å"),
    (
        re.compile(r"\b([MLR])\s*_\s*(?:\\odot(?![A-Za-z])|sun\b|⊙|\{\s*(?:\\odot|\\text\{\s*sun\s*\}|sun|⊙)\s*\})"),
        r"\1_sun",
    ),
    (re.compile(r"°\s*([CF]|Celsius|Fahrenheit)(?![A-Za-z])"), r" degree_\1 "),
    (re.compile(r"\bdegrees?\s+(Celsius|Fahrenheit)\b", re.IGNORECASE), r"degree_\1"),
)
_TWO_WORDS = re.compile(
    r"\b(?:solar[\s-]+(mass|radi|luminosit)(?:es|us|i|ies|y)?|light[\s-]+(years?))(?![A-Za-z])", re.IGNORECASE
)
_SOLAR = {"mass": "M_sun", "radi": "R_sun", "luminosit": "L_sun"}
_EXPONENT = re.compile(r"\^\s*\{\s*([+-]?\s*[0-9]{1,2})\s*\}")
_IN_TOTAL = re.compile(r"\s+in (?:total|all)\b")
_FRACTION = re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_TOKEN = re.compile(
    r"\s*(?:(?P<word>[A-Za-zÅΩμ][A-Za-zÅΩμ_]*(?:-[a-z]+)?\.?|[\u4e00-\u9fff]+)"
    r"|(?P<power>(?:\^|\*\*)\s*[+-]?\s*[0-9]{1,2}(?![0-9.]))|(?P<op>\\cdot(?![A-Za-z])|\\times(?![A-Za-z])|[/()*]|·))"
)


def _multiplied(a: Unit, b: Unit, power: int) -> Unit:
    total = dict(a.dimensions)
    for name, exponent in b.dimensions:
        total[name] = total.get(name, 0) + exponent * power
    dimensions = tuple(sorted((n, e) for n, e in total.items() if e))
    return Unit(a.factor * b.factor**power, dimensions)


def _prefixed(word: str, prefixes: dict[str, int], table: dict[str, Unit]) -> Unit | None:
    for prefix, exponent in prefixes.items():
        unit = table.get(word[len(prefix) :]) if word.startswith(prefix) else None
        if unit is not None:
            return Unit(unit.factor * Fraction(10) ** exponent, unit.dimensions)
    return None


def singular(word: str) -> str:
    """`word` in the singular, in lower case."""
    word = word.lower()
    if word in PLURALS:
        return PLURALS[word]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


@lru_cache(maxsize=1024)
def lookup(word: str) -> Unit | None:
    """The unit or counted thing that one word names."""
    if word.startswith("degree_"):
        return CELSIUS if word[7] in "Cc" else FAHRENHEIT
    if word in CHINESE:
        return CHINESE[word]
    word = word.removesuffix(".")
    found = SYMBOLS.get(word) or PREFIXED_SYMBOLS.get(word)
    found = found or _prefixed(word, PREFIXES, PREFIXED_SYMBOLS)
    if found is not None:
        return found
    one = singular(word)
    if one in ("celsius", "fahrenheit"):
        return CELSIUS if one == "celsius" else FAHRENHEIT
    found = WORDS.get(one) or PREFIXED_WORDS.get(one) or _prefixed(one, PREFIX_WORDS, PREFIXED_WORDS)
    if found is not None:
        return found
    return Unit(Fraction(1), ((f"#{one}", 1),)) if one in NOUNS else None


class _Reader:
    """Recursive descent over the words, powers and operators of one unit."""

    def __init__(self, text: str, nouns: frozenset[str], invent: bool) -> None:
        self.tokens: list[tuple[str, str]] = []
        self.at = 0
        self.nouns = nouns  # counted things besides those of the table
        self.invent = invent  # whether an unknown word is a counted thing
        end = 0
        for match in _TOKEN.finditer(text):
            if match.start() != end:
                break
            self.tokens.append((str(match.lastgroup), match.group(str(match.lastgroup))))
            end = match.end()
        self.complete = not text[end:].strip()

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def product(self, depth: int = 0) -> Unit | None:
        total, found = NONE, False
        while True:
            kind, text = self.peek()
            power = 1
            if kind == "op" and text != "(":
                if text == ")" or (not found and text != "/"):
                    break
                self.at += 1
                power = -1 if text == "/" else 1
            elif kind == "word" and text == "per":
                self.at += 1
                power = -1
            if self.peek()[0] in ("end", "power"):
                return None
            factor = self.factor(depth)
            if factor is None:
                return None
            total = _first(total, factor, power) if not found else _multiplied(total, factor, power)
            found = True
            if self.peek()[0] == "end":
                break
        return total if found else None

    def factor(self, depth: int) -> Unit | None:
        kind, text = self.peek()
        self.at += 1
        if kind == "op":
            if text != "(" or depth > 3:
                return None
            inner = self.product(depth + 1)
            if inner is None or self.peek() != ("op", ")"):
                return None
            self.at += 1
            return self.raised(inner)
        if text.lower() in _POWER_WORDS and self.peek()[0] == "word":
            inner = self.factor(depth)
            return None if inner is None else _multiplied(NONE, inner, _POWER_WORDS[text.lower()])
        if text.lower() in ADJECTIVES or text in _NO_UNIT:
            return NONE
        unit = lookup(text) or self.counted(text)
        return None if unit is None else self.raised(unit)

    def counted(self, word: str) -> Unit | None:
        one = singular(word.removesuffix("."))
        if one in self.nouns or (self.invent and len(one) > 2 and one not in VALUE_CHANGERS and word.isalpha()):
            return Unit(Fraction(1), ((f"#{one}", 1),))
        return None

    def raised(self, unit: Unit) -> Unit | None:
        kind, text = self.peek()
        power = 1
        if kind == "power":
            power = int(re.sub(r"[\^*\s]", "", text))
        elif kind == "word" and text.lower() in _POWER_WORDS_BEHIND:
            power = _POWER_WORDS_BEHIND[text.lower()]
        else:
            return unit
        self.at += 1
        return _multiplied(NONE, unit, power) if 0 < abs(power) <= LARGEST_POWER else None


def _first(total: Unit, factor: Unit, power: int) -> Unit:
    return factor if power == 1 else _multiplied(total, factor, power)


def spelled_out(text: str) -> str:
    """A unit in LaTeX with the signs of its table: Å for \\AA, μ for \\mu, one pair of brackets for a fraction."""
    for pattern, plain in _SPELLED:
        text = pattern.sub(plain, text)
    text = _TEXT.sub(r" \1 ", text)
    for pattern, plain in _SPELLED:
        text = pattern.sub(plain, text)
    text = _TWO_WORDS.sub(lambda m: _SOLAR[m[1].lower()] if m[1] else "light-year", text)
    text = _IN_TOTAL.sub(" total", re.sub(r"μ\s+", "μ", text))
    text = _EXPONENT.sub(r"^\1", text)
    text = _FRACTION.sub(r"(\1)/(\2)", text)
    return re.sub(r"\b([kMm]) +Ω", r"\1Ω", text.replace("{", " ").replace("}", " ").replace("~", " "))


@lru_cache(maxsize=4096)
def read_unit(text: str, nouns: frozenset[str] = frozenset(), invent: bool = False) -> Unit | None:
    """The unit that all of `text` names, in LaTeX or plainly; None if it names none."""
    if not text or len(text) > LONGEST_UNIT:
        return None
    reader = _Reader(spelled_out(text), nouns, invent)
    if not reader.complete or not reader.tokens or len(reader.tokens) > 24:
        return None
    unit = reader.product()
    if unit is None or reader.peek()[0] != "end":
        return None
    return unit if unit.dimensions or all(word in _NO_UNIT for _, word in reader.tokens) else None


def nouns_of(unit: Unit | None) -> frozenset[str]:
    """Names of the counted things in a unit."""
    return frozenset(name[1:] for name, _ in unit.dimensions if name[0] == "#") if unit else frozenset()


# The conversion between a unit and itself: factor 1, offset 0.
SAME_UNIT = (Fraction(1), Fraction(0))


def conversion(unit: Unit | None, to: Unit | None) -> tuple[Fraction, Fraction] | None:
    """(factor, offset) that turn a value in `unit` into one in `to`. None: the two measure different things.

    A missing unit is the one that was asked for. "5 units" may be any length, "5 square units" any area.
    """
    if unit is None or to is None or unit == to or not unit.dimensions or not to.dimensions:
        return SAME_UNIT
    if unit.dimensions == to.dimensions:
        return unit.factor / to.factor, (unit.offset - to.offset) / to.factor
    for generic, other in ((unit, to), (to, unit)):
        power = dict(generic.dimensions).get("length")
        if generic.dimensions == (("length", power),) and other.dimensions == (("m", power),):
            return SAME_UNIT
    return None


# -- where a unit begins

_START = re.compile(r"\\text\{|\\frac\{|\\mu|\\Omega|\\ohm|\\AA|[A-Za-zÅΩμ°({/\u4e00-\u9fff]")
_PLAIN_QUOTIENTS = frozenset(("m/s", "m/s^2", "N/m", "N/C", "V/m", "W/m^2", "J/K", "g/L", "g/mol", "J/s", "C/s"))
_LETTER = re.compile(r"(?<![A-Za-zμ\\_])[A-Za-zΩ](?![A-Za-zΩ_])")
_WORD_OF_LETTERS = re.compile(r"[A-Za-zμΩ]{2,}|[Å\u4e00-\u9fff]|_sun")
_COMPOUND = re.compile(r"([0-9]+)\s*([^0-9=,;]*?[A-Za-z}])\s*(?:,|and|\\text\{\s*and\s*\})?\s*([0-9]+(?:\.[0-9]+)?)")
_OPERATOR_BEHIND = re.compile(r"(?:[=^_+\-*/(<>,;]|\\(?:cdot|times|le|ge|frac|sqrt|pm|in|text|approx|div))\s*$")


def _acceptable(tail: str, spaced: bool, letters: bool) -> bool:
    """Whether letters outside \\text may be units: "cm" may, "m" is a variable unless it stands in known company."""
    plain = _TEXT.sub(" ", tail)
    for pattern, sign in _SPELLED:
        plain = pattern.sub(sign, plain)
    if not _LETTER.search(plain) or _WORD_OF_LETTERS.search(plain.replace("frac", "")):
        return spaced or not _LETTER.match(plain.strip())
    if not spaced:
        return False
    return letters or "".join(plain.split()).replace("{", "").replace("}", "") in _PLAIN_QUOTIENTS


@lru_cache(maxsize=8192)
def split_measure(
    text: str, letters: bool = False, nouns: frozenset[str] = frozenset(), invent: bool = False
) -> tuple[str, Unit | None]:
    """(value, unit) of normalised text; (text, None) if no known unit stands behind a value.

    Args:
        letters: a single letter behind a space may be a unit outside \\text too ("10 m").
        nouns: counted things besides those of the table.
        invent: unknown words behind a value are counted things. For golds only.
    """
    depth = 0
    first = max(0, len(text) - LONGEST_UNIT)
    for k, char in enumerate(text):
        if k >= first and k > 0 and depth == 0 and _START.match(text, k) and _may_follow(text, k):
            tail = text[k:]
            spaced = text[k - 1] == " " or text[k - 1] in "}°"
            unit = read_unit(tail, nouns, invent)
            if unit is not None and _acceptable(tail, spaced, letters):
                return _joined(text[:k].strip(), unit), unit
        if char in "({[" and text[k - 1 : k] != "\\":
            depth += 1
        elif char in ")}]" and text[k - 1 : k] != "\\":
            depth = max(0, depth - 1)
    return text, None


def _joined(value: str, unit: Unit) -> str:
    """`value` in `unit`, also if it has a part in a larger one: "5 feet 3" inches is 63 inches."""
    match = _COMPOUND.fullmatch(value)
    larger = read_unit(re.sub(r" +and(?= *\}?$)", "", match[2])) if match else None
    if match is None or larger is None or larger.dimensions != unit.dimensions or larger.offset or unit.offset:
        return value
    ratio, rest = larger.factor / unit.factor, Fraction(match[3])
    return str(Fraction(match[1]) * ratio + rest) if rest < ratio else value


def _may_follow(text: str, k: int) -> bool:
    """Whether what stands before index k can be a value, and k does not split a word."""
    before = text[k - 1]
    if before.isalpha() and before.isascii():
        return False
    head = text[:k]
    return before != "\\" and bool(re.search(r"[0-9\\]", head)) and not _OPERATOR_BEHIND.search(head)
