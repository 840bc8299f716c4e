"""What a LaTeX command, a function name or a bracket takes as its arguments: the leaves of the grammar in parser.py."""

from collections.abc import Callable
from typing import Protocol

from zerolab.grading.tree import FUNCTIONS, Node, Token, Unreadable, number

OPEN = {
    "(": ")",
    "[": "]",
    r"\{": r"\}",
    r"\lbrace": r"\rbrace",
    r"\langle": r"\rangle",
    "{": "}",
    r"\lbrack": r"\rbrack",
}
_SQUARE = {r"\lbrack": "[", r"\rbrack": "]", r"\langle": "(", r"\rangle": ")"}
_MATRICES = frozenset(("pmatrix", "bmatrix", "matrix", "vmatrix", "Bmatrix", "Vmatrix", "smallmatrix", "array"))
_SYSTEMS = frozenset(("cases", "aligned", "align", "align*", "gathered", "split"))


class Grammar(Protocol):
    """What a leaf asks of the parser; parser.py says what each of these reads."""

    bars: int
    braces: int

    @property
    def token(self) -> Token: ...
    def take(self) -> Token: ...
    def accept(self, *texts: str) -> bool: ...
    def expect(self, text: str) -> None: ...
    def node(self, kind: str, value: object = None, *args: Node) -> Node: ...
    def statement(self) -> Node: ...
    def item(self) -> Node: ...
    def sum(self) -> Node: ...
    def starts_factor(self) -> bool: ...
    def unary(self) -> Node: ...
    def power(self) -> Node: ...
    def exponent(self) -> Node | None: ...
    def postfix(self, base: Node) -> Node: ...
    def atom(self) -> Node: ...
    def script(self) -> str: ...
    def marked(self, symbol: Node) -> Node: ...
    def argument(self) -> Node: ...


def function(p: Grammar) -> Node:
    word = p.take().text
    if word == "sqrt":
        return root(p)
    name = FUNCTIONS[word]
    base: Node | None = None
    exponent: Node | None = None
    for _ in range(2):
        if name == "log" and p.accept("_"):
            base = p.argument()
        elif p.accept("^"):
            exponent = p.exponent()
    argument = applied(p)
    if exponent is not None and exponent.kind in ("num", "neg") and is_minus_one(exponent):
        name = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}.get(name, name + "^-1")
        exponent = None
    if name == "lg":
        name, base = "log", number(10)
    node = p.node("fn", name, argument) if base is None else p.node("fn", "log", argument, base)
    return node if exponent is None else p.node("pow", None, node, exponent)


def is_minus_one(node: Node) -> bool:
    return node.kind == "neg" and node.args[0] == number(1)


def applied(p: Grammar) -> Node:
    """The argument of a function: a bracket, or the factors up to the next sign or function."""
    if p.token.text in ("(", "[", "{", "|", r"\lvert", r"\{"):
        return p.postfix(p.atom())
    factors = [p.unary() if p.token.text == "-" else p.power()]
    while p.starts_factor() and p.token.kind != "fn" and p.token.text not in ("(", "["):
        factors.append(p.power())
    return factors[0] if len(factors) == 1 else p.node("mul", None, *factors)


def fraction(p: Grammar) -> Node:
    over = p.argument()
    under = p.argument()
    return p.node("mul", None, over, p.node("pow", None, under, number(-1)))


def root(p: Grammar) -> Node:
    index = number(2)
    if p.token.text == "[":
        p.take()
        index = p.sum()
        p.expect("]")
    radicand = p.argument()
    return p.node("root", None, radicand, index)


def binomial(p: Grammar) -> Node:
    return p.node("fn", "binom", p.argument(), p.argument())


def angle(p: Grammar) -> Node:
    name = ""
    while p.token.kind == "name":
        name += p.marked(p.node("sym", p.take().text)).value
    if not name:
        raise Unreadable("an angle without a name")
    return p.node("sym", "angle " + name)


def absolute(p: Grammar) -> Node:
    p.expect("|")
    p.bars += 1
    inner = p.sum()
    p.bars -= 1
    p.expect("|")
    return p.node("fn", "abs", inner)


def group(p: Grammar) -> Node:
    """Brackets: a group if they hold one value, else a point, an interval, a vector or a set."""
    opener = p.take().text
    closer = OPEN[opener]
    bars, p.bars = p.bars, 0
    if closer in (r"\}", r"\rbrace", "}") and p.accept(closer):
        return p.node("empty")
    p.braces += opener in (r"\{", r"\lbrace")
    inner = p.statement()
    p.bars = bars
    last = p.take().text
    items = inner.args if inner.kind == "list" else (inner,)
    if opener in (r"\{", r"\lbrace"):
        p.braces -= 1
        if last in (r"\mid", ":") and (inner.kind == "sym" or (inner.kind == "rel" and inner.value == ("in",))):
            inner = p.statement()  # the set of all x with a property is the property
            if not (p.accept(r"\}") or p.accept(r"\rbrace")):
                raise Unreadable("an open set")
            return inner
        if last not in (r"\}", r"\rbrace"):
            raise Unreadable("an open set")
        return p.node("set", None, *items)
    if opener == "{":
        if last != "}":
            raise Unreadable("an open brace")
        return p.node("set", None, *items) if len(items) > 1 else inner
    opener, last = _SQUARE.get(opener, opener), _SQUARE.get(last, last)
    if last not in (")", "]"):
        raise Unreadable("an open bracket")
    if len(items) == 1:
        if (opener == "(") != (last == ")"):
            raise Unreadable("brackets that do not match")
        return inner
    return p.node("seq", opener + last, *items)


def environment(p: Grammar) -> Node:
    kind = braced_word(p)
    if kind not in _MATRICES and kind not in _SYSTEMS:
        raise Unreadable(f"unknown environment {kind!r}")
    if kind == "array":
        p.script()
    rows: list[list[Node]] = [[]]
    while p.token.text != r"\end":
        if p.accept("\\\\"):
            rows.append([])
        elif p.accept("&"):
            pass
        else:
            rows[-1].append(p.item())
            if kind in _SYSTEMS:
                p.accept(",")
        if p.token.kind == "end":
            raise Unreadable("an open environment")
    p.take()
    braced_word(p)
    rows = [row for row in rows if row]
    if not rows or len({len(row) for row in rows}) != 1:
        raise Unreadable("a ragged matrix")
    cells = [cell for row in rows for cell in row]
    if kind in _SYSTEMS:
        return p.node("list", None, *cells)
    matrix = p.node("mat", len(rows[0]), *cells)
    if kind == "Vmatrix":
        return p.node("fn", "norm", matrix)
    return p.node("fn", "det", matrix) if kind == "vmatrix" else matrix


def braced_word(p: Grammar) -> str:
    return p.script() if p.token.text == "{" else ""


def written(node: Node) -> str:
    return str(node.value) if not node.args else " ".join(written(a) for a in node.args)


def reals(p: Grammar) -> Node:
    return p.node("reals")


def empty(p: Grammar) -> Node:
    return p.node("empty")


COMMANDS: dict[str, Callable[[Grammar], Node]] = {
    r"\frac": fraction, r"\sqrt": root, r"\binom": binomial, r"\dbinom": binomial, r"\tbinom": binomial,
    r"\begin": environment, r"\angle": angle, r"\measuredangle": angle, r"\R": reals, r"\emptyset": empty,
    r"\varnothing": empty,
}  # fmt: skip
