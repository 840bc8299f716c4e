"""LaTeX and plain mathematics -> syntax tree: recursive descent with caps on depth and size. Nothing is evaluated."""

import math
from fractions import Fraction
from functools import lru_cache

from zerolab.grading.atoms import COMMANDS, OPEN, absolute, function, group, listed, separator, written
from zerolab.grading.tree import DEEPEST, MOST_NODES, RELATIONS, Node, Token, Unreadable, number, tokenize
from zerolab.grading.unit_table import Unit, takes_back
from zerolab.grading.units import read_unit

_FENCES = {r"\lfloor": (r"\rfloor", "floor"), r"\lceil": (r"\rceil", "ceil"), r"\lvert": (r"\rvert", "abs")}
_SETS = {r"\cup": "union", r"\cap": "intersect", r"\setminus": "minus", r"\backslash": "minus", "U": "union"}
_ACCENTS = frozenset(
    (
        *(r"\overline", r"\bar", r"\vec", r"\hat", r"\tilde", r"\dot", r"\ddot", r"\widehat", r"\widetilde"),
        *(r"\overrightarrow", r"\overleftrightarrow"),
    )
)
_BASE_NAMES = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_BASES = {name: str(k) for k, name in enumerate(_BASE_NAMES, 2)}
_CALLED = frozenset("fghFGHPQ")  # letters that are applied to a bracket, not multiplied with it


class Parser:
    """One pass over the tokens. Methods are the levels of precedence, lowest first."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.nodes = 0
        self.bars = 0
        self.braces = 0  # open braces of sets

    # -- tokens

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.tokens[self.at]
        if token.kind != "end":
            self.at += 1
        return token

    def accept(self, *texts: str) -> bool:
        if self.token.text in texts and self.token.kind != "text":
            self.take()
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise Unreadable(f"expected {text!r}, found {self.token.text!r}")

    def node(self, kind: str, value: object = None, *args: Node) -> Node:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise Unreadable("too many terms")
        return Node(kind, value, args)

    # -- levels

    def statement(self) -> Node:
        """item (separator item)*"""
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable("nested too deeply")
        items, words = [self.item()], []
        while word := separator(self):
            words.append(word)
            items.append(self.item())
        self.depth -= 1
        return items[0] if len(items) == 1 else listed(self, items, words)

    def item(self) -> Node:
        """A chain of relations."""
        sides, operators = [self.ratio()], []
        while self.token.kind == "rel":
            operators.append(RELATIONS[self.take().text])
            sides.append(self.ratio())
        return self.node("rel", tuple(operators), *sides) if operators else sides[0]

    def ratio(self) -> Node:
        """3 : 4 : 5. In braces a colon says "such that"."""
        terms = [self.sets()]
        while not self.braces and self.accept(":"):
            terms.append(self.sets())
        return terms[0] if len(terms) == 1 else self.node("ratio", None, *terms)

    def sets(self) -> Node:
        left = self.sum()
        if self.accept(r"\choose"):
            left = self.node("fn", "binom", left, self.sum())
        while self.token.text in _SETS and self.token.kind in ("command", "word"):
            kind = _SETS[self.take().text]
            right = self.sum()
            if kind == "union" and left.kind == "union":
                left = self.node("union", None, *left.args, right)
            else:
                left = self.node(kind, None, left, right)
        return left

    def sum(self) -> Node:
        terms = [self.product()]
        while True:
            if self.accept("+"):
                terms.append(self.product())
            elif self.accept("-"):
                terms.append(self.node("neg", None, self.product()))
            elif self.token.text in (r"\pm", r"\mp"):
                sign = "+" if self.take().text == r"\pm" else "-"
                left = terms[0] if len(terms) == 1 else self.node("add", None, *terms)
                terms = [self.node("pm", sign, left, self.product())]
            else:
                return terms[0] if len(terms) == 1 else self.node("add", None, *terms)

    def product(self) -> Node:
        factors = [self.unary()]
        while True:
            if self.accept("*", r"\cdot", r"\times", r"\ast"):
                factors.append(self.unary())
            elif self.accept("/", r"\div"):
                factors.append(self.node("pow", None, self.unary(), number(-1)))
            elif self.starts_factor():
                digits = self.tokens[self.at + (self.token.text == "{")].kind == "number"
                if digits and factors[-1].kind == "num":  # 12{3} is printed as 123
                    raise Unreadable("two numbers side by side")
                factors.append(self.power())
            else:
                return factors[0] if len(factors) == 1 else self.node("mul", None, *factors)

    def starts_factor(self) -> bool:
        token = self.token
        if token.kind in ("number", "name", "fn"):
            return True
        if token.kind == "text":
            return token.text.strip(" ,") not in ("and", "or")
        if token.text == "|":
            return self.bars == 0
        return token.kind in ("command", "op") and (
            token.text in OPEN or token.text in _FENCES or token.text in _ACCENTS or token.text in COMMANDS
        )

    def unary(self) -> Node:
        negative = False
        count = 0
        while self.token.text in ("+", "-"):
            negative ^= self.take().text == "-"
            count += 1
            if count > 1:
                raise Unreadable("too many signs")
        if self.token.text in (r"\pm", r"\mp"):
            sign = "+" if self.take().text == r"\pm" else "-"
            return self.node("pm", sign, number(0), self.power())
        inner = self.power()
        return self.node("neg", None, inner) if negative else inner

    def power(self) -> Node:
        base = self.postfix(self.atom())
        if self.accept("^", "**"):
            self.depth += 1
            if self.depth > DEEPEST:
                raise Unreadable("nested too deeply")
            exponent = self.exponent()
            self.depth -= 1
            if exponent is None:
                return base
            base = self.node("pow", None, base, exponent)
            return self.postfix(base)
        return base

    def exponent(self) -> Node | None:
        """What stands above; None for a unit's or an accent's mark, which changes nothing."""
        if self.token.text == r"\prime":
            raise Unreadable("a prime on no symbol")
        if self.accept("{"):
            inner = self.statement()
            self.expect("}")
            return inner
        if self.token.text in ("-", "+"):
            return self.unary()
        base = self.postfix(self.atom())
        if self.accept("^", "**"):
            above = self.exponent()
            return base if above is None else self.node("pow", None, base, above)
        return base

    def postfix(self, base: Node) -> Node:
        for _ in range(8):
            if self.token.text == "!" and self.tokens[self.at + 1].text != "!":
                self.take()
                base = self.node("fn", "factorial", base)
            elif self.token.text == "!" and base.kind == "num" and base.value in range(300):
                self.take()
                self.take()
                base = number(math.prod(range(int(base.value), 0, -2)))
            elif self.accept("°"):
                base = self.node("deg", None, base)
            elif self.accept("%"):
                base = self.node("pct", None, base)
            elif self.token.kind == "text" and base.kind in ("num", "deg", "pct", "pow", "fn", "mul", "root"):
                unit = self.unit()
                if unit is None:
                    return base
                return self.node("qty", unit, base)
            else:
                return base
        raise Unreadable("too many marks")

    def unit(self) -> Unit | None:
        """The longest unit that begins with the text here; None, and nothing taken, if there is none."""
        found, text, at = None, "", self.at
        while self.tokens[at].kind == "text" and at - self.at < 24:
            text += " " + self.tokens[at].text
            at += 1
            if self.tokens[at].text == "^":
                sign, digits = at + 1, at + 1
                braced = self.tokens[sign].text == "{"
                digits += braced
                minus = self.tokens[digits].text == "-"
                digits += minus
                if not self.tokens[digits].text.isdigit():
                    break
                text += "^" + "-" * minus + self.tokens[digits].text
                at = digits + 1 + braced
            unit = read_unit(text)
            if unit is not None:
                found = unit, at
            if self.tokens[at].text in (r"\cdot", "*", "/"):
                text += " " + self.tokens[at].text
                at += 1
        if found is None:
            return None
        self.at = found[1]
        return found[0]

    # -- atoms

    def atom(self) -> Node:
        token = self.token
        if token.kind == "number":
            return self.numeral()
        if token.kind == "name":
            return self.name()
        if token.kind == "fn":
            return function(self)
        if token.kind == "text":
            self.take()
            name = " ".join(token.text.split())
            if takes_back(name):  # "not" is no factor
                raise Unreadable("words that change a value")
            return self.node("sym", name)
        if token.text in OPEN:
            return group(self)
        if token.text in _FENCES:
            closer, name = _FENCES[self.take().text]
            inner = self.sum()
            self.expect(closer)
            return self.node("fn", name, inner)
        if token.text == "|":
            return absolute(self)
        if token.text in _ACCENTS:
            self.take()
            return self.marked(self.node("sym", f"{token.text[1:]} {written(self.argument())}"))
        method = COMMANDS.get(token.text)
        if method is None:
            raise Unreadable(f"unexpected {token.text!r}")
        self.take()
        return method(self)

    def numeral(self) -> Node:
        token = self.take()
        if self.token.text == "_" and token.text.isdigit():
            return self.based(token.text)
        value = Fraction(token.text)
        following = self.token
        if following.text == r"\frac" and token.text.isdigit():
            part = self.atom()
            if part.kind == "mul" and all(p.kind == "num" for p in (part.args[0], part.args[1].args[0])):
                over, under = part.args[0].value, part.args[1].args[0].value
                if 0 < over < under:
                    return self.node("num", value + over / under)
                raise Unreadable("a mixed number with an improper fraction")
            return self.node("mul", None, self.node("num", value), part)
        if following.kind == "number" and following.spaced and self.tokens[self.at + 1].text == "/":
            return self.mixed(token.text)
        return self.node("num", value)

    def mixed(self, whole: str) -> Node:
        over, _, under = self.take().text, self.take(), self.take().text
        if not (whole.isdigit() and over.isdigit() and under.isdigit() and 0 < int(over) < int(under)):
            raise Unreadable("not a mixed number")
        return self.node("num", int(whole) + Fraction(int(over), int(under)))

    def based(self, digits: str) -> Node:
        self.expect("_")
        base = self.script()
        base = _BASES.get(base, base)
        if base == "10":
            return self.node("num", Fraction(digits))
        return self.node("base", (digits.lstrip("0") or "0", base))

    def script(self) -> str:
        """A subscript as a name."""
        if self.accept("{"):
            start, open_braces = self.at, 1
            while open_braces:
                text = self.take().text
                open_braces += (text == "{") - (text == "}")
                if self.token.kind == "end" and open_braces:
                    raise Unreadable("an open subscript")
            return "".join(t.text for t in self.tokens[start : self.at - 1]).strip(r"\ ")
        token = self.take()
        if token.kind == "number" and len(token.text) > 1 and not token.spaced:
            return token.text
        if token.kind in ("number", "name", "text"):
            return token.text
        raise Unreadable("an odd subscript")

    def name(self) -> Node:
        token = self.take()
        if token.text == "inf":
            return self.node("inf")
        node = self.marked(self.node("sym", token.text))
        numbered = (
            self.token.text == "("
            and self.tokens[self.at + 1].kind == "number"
            and self.tokens[self.at + 2].text == ")"
        )
        if self.token.text == "(" and (
            node.value in _CALLED or (numbered and len(token.text) == 1 and token.text not in "ei")
        ):
            return self.node("fn", f"call:{node.value}", group(self))
        return node

    def marked(self, symbol: Node) -> Node:
        """With its subscript and primes, which are part of its name."""
        name = symbol.value
        for _ in range(6):
            if self.accept("_"):
                name += "_" + self.script()
            elif self.accept("'"):
                name += "'"
            elif self.token.kind == "number" and not self.token.spaced and len(name) == 1 and name not in "ei":
                name += "_" + self.take().text  # x2 is no product
            elif self.token.text == "^" and self.tokens[self.at + 1].text == r"\prime":
                self.take()
                self.take()
                name += "'"
            elif self.token.text == "^" and [t.text for t in self.tokens[self.at + 1 : self.at + 3]] == [
                "{",
                r"\prime",
            ]:
                self.at += 2
                while self.accept(r"\prime"):
                    name += "'"
                self.expect("}")
            else:
                break
        return symbol if name == symbol.value else self.node("sym", name)

    def argument(self) -> Node:
        """The argument of a LaTeX command: a group, or one sign (one digit of a number)."""
        token = self.token
        if token.text == "{":
            self.take()
            inner = self.statement()
            self.expect("}")
            return inner
        if token.kind == "number" and len(token.text) > 1 and token.text.isdigit():
            self.tokens[self.at] = Token("number", token.text[1:])
            return self.node("num", Fraction(int(token.text[0])))
        if token.kind == "name" and token.text != "inf":
            return self.node("sym", self.take().text)
        if token.kind in ("op", "end", "rel") and token.text not in ("(",):
            raise Unreadable("a command without its argument")
        return self.atom()


@lru_cache(maxsize=512)
def parse(text: str) -> Node:
    """Tree of normalised text. Raises Unreadable, and nothing else, on text that is not in the notation."""
    parser = Parser(tokenize(text))
    try:
        tree = parser.statement()
    except (IndexError, ZeroDivisionError, RecursionError) as error:
        raise Unreadable(type(error).__name__) from error
    if parser.token.kind != "end":
        raise Unreadable(f"unexpected {parser.token.text!r}")
    return tree
