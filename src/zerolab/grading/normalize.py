"""Steps 1 and 2 of the grader: one spelling for each notation, then exact numbers as fractions.

Step 1 is plain text substitution, linear in the length of the text. Step 2 has no tolerance and no factor of 100:
0.333 is not 1/3, and 28 is not 0.28.
"""

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

from zerolab.grading.tree import LETTER_UNITS, LONGEST_NUMBER, SCALES, SIGNS

LONGEST = 4000  # characters of an answer that is looked into; a longer one is compared as it is

_UNSEEN = frozenset(
    "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff"
)  # overrides stay: they show
_COMMAND_NAMES = (
    "frac|dfrac|tfrac|cfrac|sqrt|left|right|text|pi|cdot|times|infty|pm|cup|cap|setminus|in|circ|begin|end|leq?|geq?|neq?"
    "|lt|gt|sin|cos|tan|log|ln|alpha|beta|theta|mathbb|mathrm|mathbf|q?quad|[lc]?dots|approx|[pb]mod|overline|angle|binom"
    "|div|emptyset"
)
_DOUBLED = re.compile(r"\\\\(?=(?:" + _COMMAND_NAMES + r")(?![A-Za-z]))")
_GROUP_GLUE = re.compile(r"(?<=[0-9])\s*(?:,\s*\\!|\{\s*,\s*\}|\\[,;:! ])\s*(?=[0-9]{3}(?![0-9]))")
_SIZE = re.compile(
    r"\\(?:left|right)(?![A-Za-z])\s*\.?|\\(?:middle|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|rm|bf|it"
    r"|mathstrut|hfill|noindent|centering)(?![A-Za-z])"
)
_SPACE = re.compile(
    r"\\[,;:!> \n]|(?<!\\)~|\\q?quad|\\(?:thinspace|enspace|newline|nobreak)(?![A-Za-z])|\\[hv]space\*?\{[^{}]*\}"
)
_ROW_BREAK = re.compile(r"\\\\(?:\s*\[[0-9.]+(?:pt|em|ex|cm|mm)\])?")
_FRAC = re.compile(r"\\(?:[dtcsx]|nice|flat)frac(?![A-Za-z])|(?<![A-Za-z\\])frac(?=\s*\{)")
# Other spellings of one thing: (pattern, what to write). They do not nest.
_DIGIT = r"\\dot\s*(?:\{\s*([0-9])\s*\}|([0-9]))"
_NO_BRACES = r"([^{}\\]*)"
_SPELLINGS = (
    (
        re.compile(
            r"\\(?:fcolorbox\s*\{[^{}]*\}|(?:text)?color(?:box)?(?![A-Za-z])\s*(?:\[[a-zA-Z]*\])?)\s*\{[^{}]*\}"
        ),
        "",
    ),
    (re.compile(r"\\(?:tiny|scriptsize|footnotesize|small|normalsize|[lL]arge|LARGE|[hH]uge)(?![A-Za-z])"), ""),
    (re.compile(r"\\(?:[hv]?phantom|label|tag\*?)\s*\{[^{}]*\}|\\(?:nonumber|notag|strut)(?![A-Za-z])"), ""),
    (re.compile(r"\\(?:checkmark|blacksquare|qed|qedhere|Box)(?![A-Za-z])\s*$"), ""),
    (re.compile(r"\\(?:[cl]?dots|hdots|dots[cbmio])(?![A-Za-z])"), r"\\ldots "),
    (re.compile(rf"(\.[0-9]*){_DIGIT}([0-9]*){_DIGIT}"), r"\1\\overline{\2\3\4\5\6}"),
    (re.compile(rf"(\.[0-9]*){_DIGIT}"), r"\1\\overline{\2\3}"),
    (
        re.compile(rf"\{{{_NO_BRACES}\\over(?![A-Za-z]){_NO_BRACES}\}}|^{_NO_BRACES}\\over(?![A-Za-z]){_NO_BRACES}$"),
        r"\\frac{\1\3}{\2\4}",
    ),
    (re.compile(r"\\\{\s*(\\begin\{(?:array|aligned|cases|gathered|matrix)\}.*\\end\{[a-z]+\})\s*$"), r"\1"),
)
_PLAIN_DOTS = re.compile(r"\.{3,}")
_EMPHASIS = re.compile(r"(\*{1,3}|_{2}|`{1,3})([^*`]+)\1")
_LAST_MARKS = re.compile(r"\s*[✓✔✅∎■]\ufe0f?\s*$")
_BASE_WORDS = "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|sixteen"
_BASED_GROUP = re.compile(r"(?<![A-Za-z0-9)}^_])[({]\s*([0-9]+)\s*[)}]\s*(?=_)")
_OUT_OF = re.compile(r"([0-9]+)\s*(?:\\text\{\s*(?:out of|in)\s*\}|out of|in)\s*([0-9]+)")
_UNITS_IN_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS_IN_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBERS = {word: k for k, word in enumerate(_UNITS_IN_WORDS.split())}
_NUMBERS |= {word: 20 + 10 * k for k, word in enumerate(_TENS_IN_WORDS.split())}
_NUMBERS |= {
    f"{tens}-{word}": _NUMBERS[tens] + k
    for tens in _TENS_IN_WORDS.split()
    for k, word in enumerate(_UNITS_IN_WORDS.split()[1:10], 1)
}
_BASED = re.compile(
    r"\(?\s*(?:\\text\{\s*)?([0-9A-Fa-f]+)(?:\s*\})?\s*\)?\s*(?:_\s*\{?\s*\(?\s*(?:\\text\{\s*)?(?:base\s*)?\}?\s*"
    rf"|(?:\s|\\text\{{|\()+(?:in )?base[\s}}]*)([0-9]{{1,2}}|{_BASE_WORDS})(?:\s*\}})?\s*\)?\s*\}}?\s*\}}?\)?"
)
_BASES = dict(zip(_BASE_WORDS.split("|"), (*range(2, 13), 16), strict=True))
_TO = re.compile(r"([0-9.]+)\s*(?:\\text\{\s*to\s*\}|to)\s*([0-9.]+)")
_DELIMITER = re.compile(r"\\?\$|\\[()]|(?<!\\)\\[\[\]]")
_OPERATOR = re.compile(
    r"\\(?:text|mathrm|operatorname\*?)\s*\{\s*(?:(det|cis|arg)\s*\}|(gcd|lcm|max|min)\s*\}(?=\s*(?:\(|\\\{|\[)))"
)
_LETTER_SET = re.compile(r"\\mathbb\s*\{\s*([A-Z])\s*\}")  # E and P of probabilities
_ACCENT = r"\\(?:mathbf|boldsymbol|bm|hat|vec|widehat)\s*\{\s*"
_UNIT_VECTOR = re.compile(rf"{_ACCENT}(?:{_ACCENT})?\\?([ijk])(?:math)?\s*\}}(?:\s*\}})?")
_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|sc|md|up)?|mbox|hbox|math(?:rm|bf|it|sf|tt|cal|frak|normal)|operatorname\*?|bold(?:symbol)?|emph|bm|rm"
    r"|underline|boxed|fbox)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_NUMBER_SET = re.compile(
    r"\\(?:mathbb|Bbb|mathds)\s*\{?\s*([RZNQC])\s*\}?(?![A-Za-z])|\\mathbf\s*\{?\s*(R)\s*\}?(?![A-Za-z])"
)
_POSITIVE_REALS = re.compile(r"\\R\s*(?:\^\s*(?:\+|\{\s*\+\s*\})|_\s*\{\s*>\s*0\s*\})")
_EMPTY_SET = re.compile(r"(?:the )?(?:empty|null) set|(?:there (?:is|are) )?no solutions?", re.IGNORECASE)
_ALL_BUT = re.compile(
    r"(?:\\text\{\s*)?all real(?: numbers?| values)?(?: of)?\s*\}?\s*[a-z]?\s*(?:\\text\{\s*)?"
    r"(?:except|other than|but not)(?: for)?(?: when)?\s*\}?\s*(?:[a-z]\s*=\s*)?(?=[-0-9\\({])",
    re.IGNORECASE,
)
_OPEN_LEFT = re.compile(r"(?:(?<=cup)|(?<=\\in)|(?<==)|^)\s*\](?=[^\[]*,)")
_OPEN_RIGHT = re.compile(r"\[\s*(?=\\cup|$)")
_PERCENT = re.compile(r"\\?%|\s*(?<![A-Za-z])(?:\\text\{\s*)?(?:percent(?:age)?|per cent|pct)(?:\s*\})?(?![A-Za-z])")
_DEGREE = re.compile(
    r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])|\\text\{\s*(?:°|deg(?:ree)?s?)\s*\}|(?<=[0-9}\s])deg(?:ree)?s?(?![A-Za-z]))"
)
_MONEY = re.compile(r"(?:\$|\\\()?\s*([+-]?)\s*(?:(\\\$|[€£¥₹])|\$(?=[^$]*$))\s*([0-9][0-9.,]*)\s*(?:\$|\\\))?[\s.]*")
_SMALL_MONEY = re.compile(r"([0-9])\s*¢")
_CURRENCIES = {"€": "euros", "£": "sterling", "¥": "yen", "₹": "rupees"}
_FONT_GROUP = re.compile(r"\{\s*\\(rm|bf|it|sf|tt)(?![A-Za-z])\s*")
_INTEGER_EXPONENT = re.compile(r"([\^_])\s*\{\s*([+-]?[0-9]+|\\odot|\\text\{sun\})\s*\}")
_LEAD_NOUNS = (
    "total|option|choice|point|points|interval|domain|range|set|vector|answer|ans|result|solution|value|minimum|maximum|probability|area|volume|perimeter|length|distance|sum|product|count"
    "|number of ways|final"
)
_LEAD_IN = re.compile(
    r"(?:(?:so|thus|hence|therefore|the|our|my|a|final|correct|required|exact|desired|numerical|total|possible|minimum|maximum"
    rf"|min|max|minimal|maximal|least|greatest|smallest|largest),?\s+){{0,8}}(?:{_LEAD_NOUNS})"
    r"\s*(?P<end>[:=]|is:|(?:is|are|equals)(?![A-Za-z']))?\s*(?P<close>\})?\s*(?P<late>[:=])?\s*(?=\S)",
    re.IGNORECASE,
)
_NAMED_THING = (
    r"(?:[A-Za-z](?:_\{?[0-9A-Za-z]{1,3}\}?)?(?:\s*\+\s*[A-Za-z])*|[A-Z]{2,4}|\\(?:triangle|angle|overline)\s*\{?[A-Z]{1,4}\}?"
    r"|\\(?:theta|alpha|beta|gamma|lambda|phi)|[A-Za-z]\s*\([0-9A-Za-z, ]{1,6}\))"
)
_VALUE_OF = re.compile(
    rf"(?:\\text\{{\s*)?(?i:the )?(?i:{_LEAD_NOUNS}) of\s*\}}?\s*{_NAMED_THING}"
    r"\s*(?:\\text\{\s*)?(?:is|equals|=|:)(?![A-Za-z])\s*\}?\s*(?=\S)"
)
_LEADING_SIGN = re.compile(
    r"(?:=|\\(?:approx|simeq|therefore|implies|Rightarrow)(?![A-Za-z])"
    r"|(?:\\text\{\s*)?(?i:so|thus|hence|therefore)\s*[,:]\s*(?:\}|(?=[^}]*$))|答案(?:是|为)?\s*:?)\s*(?=\S)"
)
_TAIL = " \t\n.,;:"
_BETWEEN_WORDS = re.compile(r"(?<=[0-9A-Za-z])\s+(?=[0-9A-Za-z])")
_BARE_NUMBER = re.compile(r"[+-]?[0-9]+(?:[.,/][0-9]+)*")
_ROOT_SIGN = re.compile(r"\\sqrt\s+([0-9]+(?:\.[0-9]+)?)")
_PRIME_UNIT = re.compile(r"(?<=[0-9])\s*(?:\^\s*\{(?:\s*\\prime\s*)+\}|\^\s*\\prime|'{1,2})\s*$")


@lru_cache(maxsize=4096)
def _sign(char: str) -> str:
    """LaTeX for one character outside ASCII; "" for what cannot be seen."""
    if char in SIGNS:
        return SIGNS[char]
    if char in _UNSEEN:
        return ""
    form, _, points = unicodedata.decomposition(char).partition(" ")
    if form in ("<super>", "<sub>"):
        plain = "".join(_sign(chr(int(p, 16))) if int(p, 16) > 127 else chr(int(p, 16)) for p in points.split())
        return ("^{" if form == "<super>" else "_{") + plain + "}"
    if form == "<fraction>":
        return " " + unicodedata.normalize("NFKC", char).replace("⁄", "/") + " "
    if form == "<circle>":  # a circled 2 is no digit
        return char
    plain = unicodedata.normalize("NFKC", char)
    return SIGNS.get(plain, plain)


def _ascii(text: str) -> str:
    if text.isascii():
        return text
    text = "".join(c if c < "\x80" else _sign(c) for c in text)
    return _ROOT_SIGN.sub(r"\\sqrt{\1}", text.replace("}^{", "").replace("}_{", ""))


def _unwrap(match: re.Match[str]) -> str:
    """Text that is mathematics loses its wrapper; words keep one, so that no product of letters is read into them."""
    content = _INTEGER_EXPONENT.sub(r"\1\2", match.group(1)).strip(" ~")
    if "{" in content:
        return match.group(0).replace(match.group(1), _WRAPPER.sub(_unwrap, match.group(1)))
    letters = re.search(r"[A-Za-z]{2,}", content)
    if content in LETTER_UNITS and not match.group(0).startswith((r"\mathb", r"\mathi", r"\mathc")):
        return r"\text{" + content + "}"
    return rf" \text{{{content}}} " if letters else f" {content} "


def _strip_tail(text: str) -> str:
    if text.endswith(("...", r"\dots", r"\ldots")):
        return text
    text = text.rstrip(_TAIL)
    while text.endswith("\\"):
        text = text.rstrip("\\").rstrip(_TAIL)
    return text


@lru_cache(maxsize=8192)
def normalize(text: str) -> str:
    """One spelling of an answer, still LaTeX. Empty if nothing but formatting was there."""
    text = text.strip()
    if len(text) > LONGEST or _BARE_NUMBER.fullmatch(text):
        return text
    text = " ".join(text.split())
    if text[:1] in ("*", "_", "`"):
        text = _EMPHASIS.sub(r"\2", text) if _EMPHASIS.fullmatch(text) else text
    if "..." in text or "~" in text:
        text = _PLAIN_DOTS.sub(r"\\ldots ", text.replace("~", " "))
    if "$" in text or not text.isascii():
        money = _MONEY.fullmatch(text)
        if money:
            text = rf"{money[1]}{money[3].rstrip('.,')}\text{{{_CURRENCIES.get(money[2], 'dollars')}}}"
        text = _ascii(_SMALL_MONEY.sub(r"\1\\text{cents}", _LAST_MARKS.sub("", text)))
    if "\\" in text or "{" in text:
        text = _GROUP_GLUE.sub("", text)
    if "\\" in text or "frac{" in text:
        if "\\\\begin" in text:
            text = text.replace("\\\\", "\\")
        elif "\\begin" not in text:
            text = _DOUBLED.sub(lambda _: "\\", text)
        text = _FONT_GROUP.sub(r"\\mathrm{", text)
        text = _SIZE.sub("", _FRAC.sub(lambda _: r"\frac", text))
        for pattern, spelled in _SPELLINGS:
            text = pattern.sub(spelled, text)
        text = _NUMBER_SET.sub(lambda m: rf"\{m[1] or m[2]} ", text)
        text = _POSITIVE_REALS.sub(lambda _: r"(0,\infty)", text)
        text = _OPERATOR.sub(r"\\\1\2 ", _LETTER_SET.sub(r"\1 ", text))
        text = _UNIT_VECTOR.sub(r" \\hat \1 ", text)
        for _ in range(3):  # wrappers in wrappers
            unwrapped = _WRAPPER.sub(_unwrap, text)
            if unwrapped == text:
                break
            text = unwrapped
        text = _SPACE.sub(" ", _ROW_BREAK.sub("\x1f", text)).replace("\x1f", r" \\ ")
    text = _DELIMITER.sub("", text)
    text = _DEGREE.sub("°", _PERCENT.sub("%", text))
    text = _strip_tail(" ".join(text.split()))
    if "[" in text or "]" in text:
        text = _OPEN_RIGHT.sub(")", _OPEN_LEFT.sub("(", text))
    if text.startswith(r"\text{") and text.endswith("}") and text.count("{") == 1:
        text = _strip_tail(text[6:-1].strip())
    return _named(_peel(_without_lead_in(text)))


def _named(text: str) -> str:
    """`text`, or the usual name of what it says in words or by another notation: an empty set, a base, a ratio."""
    if _EMPTY_SET.fullmatch(text):
        return r"\emptyset"
    if text[:1] in "aA\\":
        text = _ALL_BUT.sub(lambda _: r"\R \setminus \{", text) + r"\}" if _ALL_BUT.match(text) else text
    if "_" in text or "base" in text:
        return _in_base(text)
    if text[:1].isdigit():
        text = _OUT_OF.sub(r"\\frac{\1}{\2}", text) if _OUT_OF.fullmatch(text) else text
        return _TO.sub(r"\1:\2", text) if "to" in text and _TO.fullmatch(text) else text
    return str(_NUMBERS.get(text.lower(), text))


def _in_base(text: str) -> str:
    """One spelling for a number in another base, alone or in an expression."""
    match = _BASED.fullmatch(text)
    if match:
        base = match[2] if match[2].isdigit() else str(_BASES[match[2]])
        digits = match[1]  # a_{11} is no number
        letters = digits.isalpha() and (len(digits) < 2 or not digits.isupper())
        if digits.isdigit() or (int(base) > 10 and not letters):
            return f"{match[1].upper()}_{{{base}}}"
    return _BASED_GROUP.sub(r"\1", text)


def _without_lead_in(text: str) -> str:
    """`text` without the words before an answer ("The answer is", "Maximum value:"), all from a closed vocabulary."""
    opened = text.startswith(r"\text{")
    if opened or (text[:1].isascii() and text[:1].isalpha()):
        match = _LEAD_IN.match(text, 6 if opened else 0)
        if match and bool(match["close"]) == opened and (match["end"] or match["late"]):
            text = text[match.end() :]
    match = _LEADING_SIGN.match(text) or _VALUE_OF.match(text)
    return text[match.end() :] if match else text


def _peel(text: str) -> str:
    """Without the brackets or braces that hold all of it. A point and a set in braces keep theirs."""
    if not text or text[0] not in "({" or text[-1] not in ")}":
        return text
    partner, commas, stack = {}, set(), []
    for k, char in enumerate(text):
        if char in "({[" and (k == 0 or text[k - 1] != "\\"):
            stack.append(k)
        elif char in ")}]" and text[k - 1] != "\\":
            if not stack:
                return text
            partner[stack.pop()] = k
        elif char in ",;" and stack:
            commas.add(stack[-1])
    first, last = 0, len(text) - 1
    while (
        first < last and partner.get(first) == last and text[first] + text[last] in ("()", "{}") and first not in commas
    ):
        first, last = first + 1, last - 1
        while first < last and text[first] == " ":
            first += 1
        while first < last and text[last] == " ":
            last -= 1
    return text[first : last + 1] if first <= last else text


def compact(text: str) -> str:
    """`text` without the spaces that mean nothing: all but those between two letters or digits."""
    return "".join(_BETWEEN_WORDS.sub("\0", text).split()).replace("\0", " ")


def without_primes(text: str) -> str:
    """`text` without the marks of minutes, seconds, feet or inches behind a number."""
    return _PRIME_UNIT.sub("", text).strip()


LARGEST_EXPONENT = 4000

_DECIMAL = (
    r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?"
    r"|[0-9]{1,3}(?:\.[0-9]{3}){2,}|[0-9]{1,3}(?:'[0-9]{3})+(?:\.[0-9]+)?)"
)
_SIGN = r"(?P<sign>[+-]?)\s*"
_EXPONENT = r"\{?\s*\(?\s*(?P<exponent>[+-]?\s*[0-9]{1,6})\s*\)?\s*\}?"
_FORMS = tuple(
    re.compile(_SIGN + form + r"(?P<percent>\s*%)?", re.ASCII)
    for form in (
        rf"(?P<value>{_DECIMAL})",
        rf"\(?(?P<value>{_DECIMAL})\)?\s*(?:\\times|\\cdot|\*|x)\s*10\s*(?:\^|\*\*)\s*{_EXPONENT}",
        rf"(?P<value>{_DECIMAL})[eE](?P<exponent>[+-]?[0-9]{{1,6}})",
        rf"(?P<ten>10)\s*\^\s*{_EXPONENT}",
        r"(?:(?P<whole>[0-9]+)\s*)?\\frac\s*(?:\{\s*(?P<over>-?\s*[0-9]+)\s*\}|(?P<over1>[0-9]))\s*(?:\{\s*(?P<under>[0-9]+)\s*\}|(?P<under1>[0-9]))",
        rf"(?P<over>{_DECIMAL})\s*/\s*(?P<under>{_DECIMAL})",
        r"(?P<whole>[0-9]+)\s+(?P<over>[0-9]+)\s*/\s*(?P<under>[0-9]+)",
        r"(?P<head>[0-9]{0,40}\.[0-9]{0,40}?)(?:(?P<digit>[0-9])(?P=digit){2,40}|(?P<block>[0-9]{2,20})(?P=block)+)\s*\\ldots",
        r"(?P<head>[0-9]*\.)\(\s*(?P<period>[0-9]+)\s*\)",
        r"(?P<head>[0-9]*\.[0-9]*)\\(?:overline|bar)\s*\{?\s*(?P<period>[0-9]+)\s*\}?",
        rf"(?P<value>{_DECIMAL})\s*(?:\\text\{{\s*)?(?P<scale>hundred|thousand|million|billion|trillion)(?:\s*\}})?",
    )
)
_SIMPLE = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_STARTS_LIKE_A_NUMBER = re.compile(r"[-+]?\s*(?:[0-9.(]|\\frac)")


def _decimal(text: str) -> Fraction:
    text = text.replace(",", "").replace(" ", "").replace("'", "")
    return Fraction(text.replace(".", "") if text.count(".") > 1 else text)


def _fraction(found: dict[str, str]) -> Fraction | None:
    over = _decimal(found.get("over") or found["over1"])
    under = _decimal(found.get("under") or found["under1"])
    if under == 0:
        return None
    if not found.get("whole"):
        return over / under
    return int(found["whole"]) + over / under if 0 <= over < under else None


def _value(found: dict[str, str]) -> Fraction | None:
    if "over" in found or "over1" in found:
        return _fraction(found)
    if "head" in found:
        head, period = found["head"], found.get("period") or found.get("digit") or found["block"]
        decimals = len(head) - head.index(".") - 1
        return _decimal(head + "0") + Fraction(int(period), (10 ** len(period) - 1) * 10**decimals)
    value = Fraction(1) if "ten" in found else _decimal(found["value"])
    if "scale" in found:
        return value * 10 ** SCALES[found["scale"]]
    exponent = int(found.get("exponent", "0").replace(" ", ""))
    if abs(exponent) > LARGEST_EXPONENT:
        return None
    return value * Fraction(10) ** exponent


@lru_cache(maxsize=8192)
def exact(text: str) -> tuple[Fraction, bool] | None:
    """(value as written, whether a percent sign follows) of normalised text; None if it is not one plain number."""
    if _SIMPLE.fullmatch(text) and len(text) <= LONGEST_NUMBER:
        return Fraction(text), False
    if not _STARTS_LIKE_A_NUMBER.match(text) or len(text) > LONGEST_NUMBER:
        return None
    for form in _FORMS:
        match = form.fullmatch(text)
        if match:
            found = {k: v for k, v in match.groupdict().items() if v is not None}
            value = _value(found)
            return None if value is None else (-value if found["sign"] == "-" else value, "percent" in found)
    return None


def same_number(a: tuple[Fraction, bool], b: tuple[Fraction, bool]) -> bool:
    """Equality of exact numbers. A percent sign on one side only is a unit or 1/100; on both sides it is a unit."""
    if a[0] == b[0]:
        return True
    if a[1] == b[1]:
        return False
    return (a[0] / 100 if a[1] else a[0]) == (b[0] / 100 if b[1] else b[0])
