"""What a LaTeX command, a function name or a bracket takes as its arguments: the leaves of the grammar in parser.py."""

from collections.abc import Callable
from math import gcd, lcm
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
_SYSTEMS = frozenset(("cases", "dcases", "aligned", "align", "gather", "gathered", "split", "equation"))  # and with *
_CONDITION_WORDS = frozenset(("if", "for", "when", "where", "otherwise"))


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


_SEPARATORS = {",": ",", ";": ";", "and": "and", "or": "or"}
_SEPARATORS |= {r"\lor": "or", r"\vee": "or", r"\land": "and", r"\wedge": "and"}


def separator(p: Grammar) -> str:
    """Take what stands between two items, ", and" as one; return "," ";" "and" "or", or "" if nothing stands there."""
    found = ""
    while True:
        token = p.token
        word = _SEPARATORS.get(token.text.strip(" ,") if token.kind == "text" else token.text, "")
        if not word or (token.kind == "text" and word in ",;"):
            return found
        p.take()
        found = word if found in ("", ",", ";") else found


def listed(p: Grammar, items: list[Node], words: list[str]) -> Node:
    """The list of some items and the word that joins them. "x = 1, y = 2 or x = 3, y = 4" is a list of two lists."""
    word = "or" if "or" in words else "and" if "and" in words else None
    between = "or" if word == "or" else ";"
    if between in words and len(set(words)) > 1:
        groups = [[items[0]]]
        for before, item in zip(words, items[1:], strict=True):
            groups.append([item]) if before == between else groups[-1].append(item)
        if all(len(group) == 1 or _is_system(group) for group in groups):
            inner = "and" if "and" in words else None
            return p.node("list", word, *(g[0] if len(g) == 1 else p.node("list", inner, *g) for g in groups))
    return p.node("list", word, *items)


def _is_system(items: list[Node]) -> bool:
    """Whether relations hold together: no variable is given two values."""
    given = [item.args[0] for item in items if item.kind == "rel" and item.value == ("=",)]
    return all(item.kind == "rel" for item in items) and len(set(given)) == len(given)


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
    if name == "cis":
        turn = p.node("mul", None, p.node("sym", "i"), p.node("fn", "sin", argument))
        return p.node("add", None, p.node("fn", "cos", argument), turn)
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
    kind = braced_word(p).rstrip("*")
    if kind not in _MATRICES and kind not in _SYSTEMS:
        raise Unreadable(f"unknown environment {kind!r}")
    if kind == "array":
        p.script()
    rows = [row for row in _rows(p, kind in _SYSTEMS) if row]
    if not rows or len({len(row) for row in rows}) != 1:
        raise Unreadable("a ragged matrix")
    cells = [cell for row in rows for cell in row]
    if kind in _SYSTEMS or (kind == "array" and (len(cells) == 1 or all(cell.kind == "rel" for cell in cells))):
        if len(rows[0]) > 1:  # a value and its condition
            return p.node("list", None, *(p.node("case", None, *row) for row in rows))
        return cells[0] if len(cells) == 1 else p.node("list", None, *cells)
    matrix = p.node("mat", len(rows[0]), *cells)
    if kind == "Vmatrix":
        return p.node("fn", "norm", matrix)
    return p.node("fn", "det", matrix) if kind == "vmatrix" else matrix


def _rows(p: Grammar, system: bool) -> list[list[Node]]:
    rows: list[list[Node]] = [[]]
    while p.token.text != r"\end":
        if p.accept("\\\\"):
            rows.append([])
        elif p.accept("&"):
            pass
        elif system and p.token.kind == "text" and p.token.text.strip(" ,") in _CONDITION_WORDS:
            word = p.take().text.strip(" ,")
            if word == "otherwise":
                rows[-1].append(p.node("sym", word))
        else:
            rows[-1].append(p.item())
            if system:
                p.accept(",", ".", ";")
        if p.token.kind == "end":
            raise Unreadable("an open environment")
    p.take()
    braced_word(p)
    return rows


def dots(p: Grammar) -> Node:
    return p.node("dots")


def braced_word(p: Grammar) -> str:
    return p.script() if p.token.text == "{" else ""


def written(node: Node) -> str:
    return str(node.value) if not node.args else " ".join(written(a) for a in node.args)


def reals(p: Grammar) -> Node:
    return p.node("reals")


def selection(name: str) -> Callable[[Grammar], Node]:
    """gcd, lcm, max or min of whole numbers; of other values an unknown function of them."""

    def read(p: Grammar) -> Node:
        if p.token.text not in ("(", r"\{", "["):
            raise Unreadable(f"{name} without a bracket")
        values = group(p)
        items = values.args if values.kind in ("seq", "set") else (values,)
        if all(item.kind == "num" and item.value.denominator == 1 for item in items):
            return number(_SELECTIONS[name](*(int(item.value) for item in items)))
        return p.node("fn", f"call:{name}", values)

    return read


_SELECTIONS: dict[str, Callable[..., int]] = {
    "gcd": gcd, "lcm": lcm, "max": lambda *k: max(k), "min": lambda *k: min(k)
}  # fmt: skip


def number_set(name: str) -> Callable[[Grammar], Node]:
    return lambda p: p.node("number-set", name)


def empty(p: Grammar) -> Node:
    return p.node("empty")


COMMANDS: dict[str, Callable[[Grammar], Node]] = {
    r"\frac": fraction, r"\sqrt": root, r"\binom": binomial, r"\dbinom": binomial, r"\tbinom": binomial,
    r"\begin": environment, r"\angle": angle, r"\measuredangle": angle, r"\R": reals, r"\emptyset": empty,
    r"\varnothing": empty, r"\ldots": dots, **{rf"\{name}": number_set(name) for name in "ZNQC"},
    **{rf"\{name}": selection(name) for name in _SELECTIONS},
}  # fmt: skip
