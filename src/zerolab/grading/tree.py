r"""The syntax tree of an answer, its tokens, and the caps that keep every later step bounded.
kind     value            args
num      Fraction
sym      name                                  a letter, a Greek letter, a letter with a subscript, an unknown word
inf / reals / empty
number-set  Z N Q C
add mul                   terms, factors
neg                       one term             kept apart from `mul` only by the parser
pow                       base, exponent
pm       "+" or "-"       left, right          \pm is "+", \mp is "-": the sign taken first
fn       name             arguments            sin log abs floor factorial binom sqrt-free: roots are powers
qty      Unit                 value            a value with a unit behind it
deg pct                       value                degrees; percent
root                      radicand, index      an odd root of a negative number is real
seq      "()" "[)" ...    items                point, interval, vector
set                       items                \{...\}
ratio                     terms                3:4:5
list                      items                separated by commas, "and", "or" outside brackets
union intersect minus     sets
rel      operators        sides                chain: a < x <= b has two operators and three sides
case                  value, condition     a row of a definition by cases
dots                                           an ellipsis
mat      columns          cells, by rows
base     (digits, base)

The lexer turns normalised text into tokens by tables of the notation: signs, commands, functions, relations.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

LONGEST_NUMBER = 1000  # digits
MOST_NODES = 600
DEEPEST = 40


class Unreadable(ValueError):
    """The text is not in the notation, or breaks a cap. Never a verdict by itself: the answer is compared as text."""


class TooHard(ArithmeticError):
    """A computation would pass a work cap."""


@dataclass(frozen=True, slots=True)
class Node:
    kind: str
    value: Any = None
    args: tuple["Node", ...] = ()


def number(value: int | Fraction) -> Node:
    return Node("num", Fraction(value))


def symbols_of(node: Node) -> frozenset[str]:
    """Names of the variables (and opaque functions) of a tree."""
    found: set[str] = set()
    stack = [node]
    while stack:
        top = stack.pop()
        named = top.kind == "sym" and top.value not in ("pi", "e", "i")
        if named or (top.kind == "fn" and top.value.startswith("call:")):
            found.add(top.value)
        stack.extend(top.args)
    return frozenset(found)


def kinds_of(node: Node) -> frozenset[str]:
    found: set[str] = set()
    stack = [node]
    while stack:
        top = stack.pop()
        found.add(top.kind)
        stack.extend(top.args)
    return frozenset(found)


SCALAR_KINDS = frozenset(["num", "sym", "add", "mul", "neg", "pow", "fn", "deg", "pct", "root"])


def is_scalar(node: Node) -> bool:
    return kinds_of(node) <= SCALAR_KINDS


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What one sign outside ASCII means, written in LaTeX. Superscripts, subscripts and fractions come from Unicode itself.
SIGNS = {
    "√": r"\sqrt ", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]", "∞": r"\infty ", "−": "-", "–": "-", "—": "-", "‐": "-",
    "‑": "-", "﹣": "-", "－": "-", "×": r"\times ", "✕": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ",
    "∙": r"\cdot ", "•": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/", "°": "°", "º": "°", "˚": "°", "π": r"\pi ",
    "𝜋": r"\pi ", "≤": r"\le ", "≦": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "≧": r"\ge ", "⩾": r"\ge ",
    "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "∅": r"\emptyset ", "∖": r"\setminus ", "ℝ": r"\R ", "∠": r"\angle ", "′": "'", "″": "''", "’": "'",
    "‘": "'", "“": '"', "”": '"', "⟨": r"\langle ", "⟩": r"\rangle ", "〈": r"\langle ", "〉": r"\rangle ",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "…": "...", "α": r"\alpha ",
    "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "ε": r"\epsilon ", "θ": r"\theta ", "λ": r"\lambda ",
    "μ": r"\mu ", "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ", "φ": r"\phi ", "ω": r"\omega ",
    "Δ": r"\Delta ", "ħ": r"\hbar ", "€": "", "£": "", "¥": "", "₹": "", "¢": "", "，": ",", "：": ":", "（": "(",
    "）": ")", "％": "%", "、": ",", "。": ".", "【": "(", "】": ")", "ℤ": r"\Z ", "ℕ": r"\N ",
    "ℚ": r"\Q ", "ℂ": r"\C ", "或": r"\text{ or }", "且": r"\text{ and }", "和": r"\text{ and }",
    "∨": r"\lor ", "∧": r"\land ", "∗": "*", "！": "!",
}  # fmt: skip

GREEK = _words(
    """
    alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron rho sigma tau upsilon phi
    chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega varepsilon vartheta varrho varphi
    varsigma
    """
)
ALIASES = {"varepsilon": "epsilon", "vartheta": "theta", "varrho": "rho", "varphi": "phi", "varsigma": "sigma"}
OTHER_SYMBOLS = _words(
    """
    hbar ell mho partial nabla det odot oplus star ast aleph Re Im triangle square circ bullet
    """
)

FUNCTIONS = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "sinh": "sinh",
    "cosh": "cosh", "tanh": "tanh", "coth": "coth", "sech": "sech", "csch": "csch", "arcsin": "arcsin",
    "arccos": "arccos", "arctan": "arctan", "asin": "arcsin", "acos": "arccos", "atan": "arctan",
    "arccot": "arccot", "cosec": "csc", "tg": "tan", "ctg": "cot", "arctg": "arctan", "ln": "log", "log": "log",
    "lg": "lg", "cis": "cis", "exp": "exp", "arcsinh": "arsinh", "arccosh": "arcosh", "arctanh": "artanh",
    "arsinh": "arsinh", "arcosh": "arcosh", "artanh": "artanh",
}  # fmt: skip

RELATIONS = {
    "=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", r"\le": "<=", r"\leq": "<=",
    r"\leqslant": "<=", r"\ge": ">=", r"\geq": ">=", r"\geqslant": ">=", r"\lt": "<", r"\gt": ">", r"\ne": "!=",
    r"\neq": "!=", r"\in": "in", r"\approx": "~", r"\simeq": "~", r"\cong": "~", r"\equiv": "=", "==": "=",
}  # fmt: skip

# Units of one letter: units only inside \text{}.
LETTER_UNITS = _words(
    """
    m g s h l L N J W V A C F K T H Z
    """
)
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}

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
    return _unaligned(tokens) if "&" in text else tokens


def _unaligned(tokens: list[Token]) -> list[Token]:
    """`tokens` without the marks at which rows of relations are aligned; a row that begins with one goes on a chain."""
    kept: list[Token] = []
    for k, token in enumerate(tokens):
        mark = token.text == "&" and token.kind == "op"
        if mark and ("rel" in (tokens[k - 1].kind, tokens[k + 1].kind) and tokens[k - 1].text != "&"):
            if kept and kept[-1].text == "\\\\" and tokens[k + 1].kind == "rel":
                kept.pop()
            continue
        kept.append(token)
    return kept
