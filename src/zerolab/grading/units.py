"""Units of measurement and counted things behind a value: what they are, and how two of them compare.

A unit is a factor to SI times powers of dimensions. What has no exact factor to SI (parsec, solar mass, year) is a
dimension of its own, and so is every counted thing (apples). Words that are in no table make no unit.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from zerolab.grading.nouns import ADJECTIVES, NOUNS, PLURALS, VALUE_CHANGERS

LONGEST_UNIT = 100  # characters
LARGEST_POWER = 12

Dimensions = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """`value` of this unit is `value * factor + offset` in the base units of its dimensions."""

    factor: Fraction
    dimensions: Dimensions
    offset: Fraction = Fraction(0)


NONE = Unit(Fraction(1), ())


def _table(text: str) -> dict[str, Unit]:
    """Rows `names = factor dimension^power ...`."""
    made = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        names, _, definition = line.partition(" = ")
        factor, *powers = definition.split()
        dimensions = tuple(sorted((d, int(p or 1)) for d, _, p in (power.partition("^") for power in powers)))
        for name in names.split():
            made[name] = Unit(Fraction(factor), dimensions)
    return made


_PREFIXES = {
    "f": -15, "p": -12, "n": -9, "u": -6, "μ": -6, "m": -3, "c": -2, "d": -1, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15,
}  # fmt: skip
_PREFIX_WORDS = {
    "femto": -15, "pico": -12, "nano": -9, "micro": -6, "milli": -3, "centi": -2, "deci": -1, "kilo": 3, "mega": 6,
    "giga": 9, "tera": 12,
}  # fmt: skip

# Symbols and words that take a prefix. Dimensions: m kg s A K mol, then what has no exact factor to these.
_PREFIXED_SYMBOLS = _table(
    """
    m = 1 m
    g = 1/1000 kg
    s = 1 s
    A = 1 A
    K = 1 K
    mol = 1 mol
    Hz = 1 s^-1
    N = 1 kg m s^-2
    Pa = 1 kg m^-1 s^-2
    J = 1 kg m^2 s^-2
    W = 1 kg m^2 s^-3
    V = 1 kg m^2 s^-3 A^-1
    C = 1 A s
    F = 1 A^2 s^4 kg^-1 m^-2
    H = 1 kg m^2 s^-2 A^-2
    T = 1 kg s^-2 A^-1
    Wb = 1 kg m^2 s^-2 A^-1
    Ω = 1 kg m^2 s^-3 A^-2
    S = 1 A^2 s^3 kg^-1 m^-2
    Wh = 3600 kg m^2 s^-2
    eV = 1602176634/10000000000000000000000000000 kg m^2 s^-2
    cal = 4184/1000 kg m^2 s^-2
    bar = 100000 kg m^-1 s^-2
    l L = 1/1000 m^3
    pc = 1 parsec
    yr = 1 year
    rad = 1 radian
    Jy = 1/100000000000000000000000000 kg s^-2
    """
)
_SYMBOLS = _table(
    """
    min mins = 60 s
    h hr hrs = 3600 s
    sec secs = 1 s
    in = 254/10000 m
    ft = 3048/10000 m
    yd = 9144/10000 m
    mi = 1609344/1000 m
    Å = 1/10000000000 m
    AU au = 149597870700 m
    ly = 9460730472580800 m
    lb lbs = 45359237/100000000 kg
    oz = 45359237/1600000000 kg
    cc = 1/1000000 m^3
    mph = 1609344/3600000 m s^-1
    kph kmph = 1000/3600 m s^-1
    erg ergs = 1/10000000 kg m^2 s^-2
    dyn dyne dynes = 1/100000 kg m s^-2
    G gauss = 1/10000 kg s^-2 A^-1
    atm = 101325 kg m^-1 s^-2
    Torr torr mmHg = 101325/760 kg m^-1 s^-2
    sr = 1 steradian
    usd USD = 1 dollar
    eur EUR = 1 euro
    rads = 1 radian
    deg = 1 degree
    arcmin = 1/60 degree
    arcsec as = 1/3600 degree
    mas = 1/3600000 degree
    rpm = 6 degree s^-1
    u amu Da = 1 dalton
    dB = 1 decibel
    mag mags = 1 magnitude
    dex = 1 dex
    M_sun = 1 solar-mass
    L_sun = 1 solar-luminosity
    R_sun = 1 solar-radius
    yrs = 1 year
    """
)
_PREFIXED_WORDS = _table(
    """
    meter metre = 1 m
    gram = 1/1000 kg
    second = 1 s
    ampere amp = 1 A
    hertz = 1 s^-1
    newton = 1 kg m s^-2
    pascal = 1 kg m^-1 s^-2
    joule = 1 kg m^2 s^-2
    watt = 1 kg m^2 s^-3
    volt = 1 kg m^2 s^-3 A^-1
    coulomb = 1 A s
    farad = 1 A^2 s^4 kg^-1 m^-2
    henry = 1 kg m^2 s^-2 A^-2
    tesla = 1 kg s^-2 A^-1
    ohm = 1 kg m^2 s^-3 A^-2
    liter litre = 1/1000 m^3
    calorie = 4184/1000 kg m^2 s^-2
    parsec = 1 parsec
    mole = 1 mol
    """
)
_WORDS = _table(
    """
    inch = 254/10000 m
    foot = 3048/10000 m
    yard = 9144/10000 m
    mile = 1609344/1000 m
    angstrom = 1/10000000000 m
    light-year lightyear = 9460730472580800 m
    pound = 45359237/100000000 kg
    ounce = 45359237/1600000000 kg
    tonne = 1000 kg
    ton = 1 ton
    minute = 60 s
    hour = 3600 s
    day = 86400 s
    week = 604800 s
    month = 1/12 year
    year = 1 year
    gallon = 473176473/125000000000 m^3
    quart = 473176473/500000000000 m^3
    pint = 473176473/1000000000000 m^3
    kelvin = 1 K
    dollar buck = 1 dollar
    cent penny = 1/100 dollar
    euro = 1 euro
    rupee = 1 rupee
    sterling = 1 sterling
    yen = 1 yen
    yuan = 1 yuan
    radian = 1 radian
    degree = 1 degree
    arcminute = 1/60 degree
    arcsecond = 1/3600 degree
    revolution = 360 degree
    steradian = 1 steradian
    electronvolt = 1602176634/10000000000000000000000000000 kg m^2 s^-2
    unit = 1 length
    acre = 316160658/78125 m^2
    hectare = 10000 m^2
    celsius = 1 celsius
    fahrenheit = 1 fahrenheit
    byte = 8 bit
    bit = 1 bit
    """
)
_CELSIUS = Unit(Fraction(1), (("K", 1),), Fraction(27315, 100))
_FAHRENHEIT = Unit(Fraction(5, 9), (("K", 1),), Fraction(45967, 100) * Fraction(5, 9))
_CHINESE = {
    "个": Unit(Fraction(1), (("#piece", 1),)), "种": Unit(Fraction(1), (("#way", 1),)),
    "人": Unit(Fraction(1), (("#person", 1),)), "元": Unit(Fraction(1), (("yuan", 1),)),
    "米": Unit(Fraction(1), (("m", 1),)), "厘米": Unit(Fraction(1, 100), (("m", 1),)),
    "千米": Unit(Fraction(1000), (("m", 1),)), "千克": Unit(Fraction(1), (("kg", 1),)),
    "克": Unit(Fraction(1, 1000), (("kg", 1),)), "秒": Unit(Fraction(1), (("s", 1),)),
    "分钟": Unit(Fraction(60), (("s", 1),)), "小时": Unit(Fraction(3600), (("s", 1),)),
    "天": Unit(Fraction(86400), (("s", 1),)), "岁": Unit(Fraction(1), (("year", 1),)),
    "平方厘米": Unit(Fraction(1, 10000), (("m", 2),)), "平方米": Unit(Fraction(1), (("m", 2),)),
}  # fmt: skip
DEGREE = Unit(Fraction(1), (("degree", 1),))
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
        return _CELSIUS if word[7] in "Cc" else _FAHRENHEIT
    if word in _CHINESE:
        return _CHINESE[word]
    word = word.removesuffix(".")
    found = _SYMBOLS.get(word) or _PREFIXED_SYMBOLS.get(word)
    found = found or _prefixed(word, _PREFIXES, _PREFIXED_SYMBOLS)
    if found is not None:
        return found
    one = singular(word)
    if one in ("celsius", "fahrenheit"):
        return _CELSIUS if one == "celsius" else _FAHRENHEIT
    found = _WORDS.get(one) or _PREFIXED_WORDS.get(one) or _prefixed(one, _PREFIX_WORDS, _PREFIXED_WORDS)
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
    text = _IN_TOTAL.sub(" total", re.sub(r"μ\s+", "μ", text))
    text = _EXPONENT.sub(r"^\1", text)
    text = _FRACTION.sub(r"(\1)/(\2)", text)
    return text.replace("{", " ").replace("}", " ").replace("~", " ")


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


def conversion(unit: Unit | None, to: Unit | None) -> tuple[Fraction, Fraction] | None:
    """(factor, offset) that turn a value in `unit` into one in `to`. None: the two measure different things.

    A missing unit is the one that was asked for. "5 units" may be any length, "5 square units" any area.
    """
    if unit is None or to is None or unit == to or not unit.dimensions or not to.dimensions:
        return Fraction(1), Fraction(0)
    if unit.dimensions == to.dimensions:
        return unit.factor / to.factor, (unit.offset - to.offset) / to.factor
    for generic, other in ((unit, to), (to, unit)):
        power = dict(generic.dimensions).get("length")
        if generic.dimensions == (("length", power),) and other.dimensions == (("m", power),):
            return Fraction(1), Fraction(0)
    return None


# -- where a unit begins

_START = re.compile(r"\\text\{|\\frac\{|\\mu|\\Omega|\\ohm|\\AA|[A-Za-zÅΩμ°({/\u4e00-\u9fff]")
_PLAIN_QUOTIENTS = frozenset(("m/s", "m/s^2", "N/m", "N/C", "V/m", "W/m^2", "J/K", "g/L", "g/mol", "J/s", "C/s"))
_LETTER = re.compile(r"(?<![A-Za-zμ\\_])[A-Za-zΩ](?![A-Za-zΩ_])")
_WORD_OF_LETTERS = re.compile(r"[A-Za-zμΩ]{2,}|[Å\u4e00-\u9fff]|_sun")
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
                return text[:k].strip(), unit
        if char in "({[" and text[k - 1 : k] != "\\":
            depth += 1
        elif char in ")}]" and text[k - 1 : k] != "\\":
            depth = max(0, depth - 1)
    return text, None


def _may_follow(text: str, k: int) -> bool:
    """Whether what stands before index k can be a value, and k does not split a word."""
    before = text[k - 1]
    if before.isalpha() and before.isascii():
        return False
    head = text[:k]
    return before != "\\" and bool(re.search(r"[0-9\\]", head)) and not _OPERATOR_BEHIND.search(head)
