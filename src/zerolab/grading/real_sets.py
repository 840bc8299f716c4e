"""Sets of real numbers: intervals, finite sets, complements, and what inequalities in one variable describe.

Two sets are compared on the cells into which all their end points cut the line: each point, and each gap between two
neighbours. A set is the bits of its cells, so unions, intersections and complements are exact once the end points are
in order; two end points that no proof tells apart leave the comparison open.
"""

from collections.abc import Iterator, Mapping

import mpmath

from zerolab.grading import numeric
from zerolab.grading.labels import is_label
from zerolab.grading.symbolic import Answer, scalar
from zerolab.grading.tree import Node, TooHard, is_scalar, kinds_of, number, symbols_of

MOST_POINTS = 24  # end points of both sets together
INFINITY = Node("inf")
MINUS_INFINITY = Node("neg", None, (INFINITY,))
FLIP = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
_INEQUALITIES = frozenset(("<", "<=", ">", ">=", "!="))
_LINEAR = frozenset(("num", "sym", "add", "mul", "neg", "pow", "root"))
_TINY = numeric.SAME


def same_region(a: Node, g: Node) -> bool | None:
    """Whether two answers describe one set of real numbers; None if they are not read as such sets.

    At least one of the two must be more than a bare pair in round brackets, which may be a point. Variables of
    inequalities must have one name. Raises TooHard if the order of two end points is not decided.
    """
    if not (_must_be_region(a) or _must_be_region(g)) or (a.kind == "rel" and g.kind == "rel" and _plain(a, g)):
        return None
    readers = _Reader(), _Reader()
    answer, gold = readers[0].region(a), readers[1].region(g)
    if answer is None or gold is None:
        return None
    if _ambiguous(a, g) or _ambiguous(g, a):
        return None
    names = readers[0].names, readers[1].names
    if len(names[0]) > 1 or len(names[1]) > 1:
        return None if names[0] == names[1] else False
    if all(names) and names[0] != names[1] and not name_one_function(*names[0], *names[1]):
        return False
    points = _in_order([*_end_points(answer), *_end_points(gold)])
    return _cells(answer, points) == _cells(gold, points)


def name_one_function(a: str, g: str) -> bool:
    """Whether two names stand for the values of one function: y and f(x)."""
    return "y" in (a, g) and any("(" in name for name in (a, g))


def _plain(a: Node, g: Node) -> bool:
    """Whether two relations have one operator each: they are compared as relations."""
    distances = any(side.kind == "fn" and side.value == "abs" for side in a.args + g.args)
    return len(a.value) == len(g.value) == 1 and "in" not in a.value + g.value and not distances


def _must_be_region(node: Node) -> bool:
    if node.kind in ("union", "intersect", "minus", "reals"):
        return True
    if node.kind == "add":  # R - {0}
        return node.args[0].kind == "reals"
    if node.kind == "seq":
        return len(node.args) == 2 and (node.value != "()" or "inf" in kinds_of(node))
    if node.kind == "rel":
        return bool(_INEQUALITIES & set(node.value)) or node.value == ("in",)
    return node.kind == "list" and any(_must_be_region(item) for item in node.args)


def _ambiguous(node: Node, other: Node) -> bool:
    """Whether a list may be one of points: all of its items are pairs in round brackets."""
    return node.kind == "list" and other.kind == "union" and not any(_must_be_region(item) for item in node.args)


class _Reader:
    """Turns an answer into a region: seq, set, union, intersect, minus, reals, empty, and lists of these."""

    def __init__(self) -> None:
        self.names: set[str] = set()  # of the variables whose values the region holds

    def region(self, node: Node) -> Node | None:
        kind, args = node.kind, node.args
        if kind in ("reals", "empty"):
            return node
        if kind == "seq":
            return node if len(args) == 2 and all(map(_is_end, args)) else None
        if kind == "set":
            return node if all(map(_is_end, args)) else None
        if kind in ("union", "intersect", "minus"):
            return self._all(kind, args)
        if kind == "add" and len(args) == 2 and args[1].kind == "neg":
            return self._all("minus", (args[0], args[1].args[0]))
        if kind == "rel":
            return self._relation(node)
        return self._list(node) if kind == "list" else None

    def _all(self, kind: str, args: tuple[Node, ...]) -> Node | None:
        parts = [self.region(a) for a in args]
        known = tuple(p for p in parts if p is not None)
        return Node(kind, None, known) if len(known) == len(parts) else None

    def _list(self, node: Node) -> Node | None:
        """Relations joined by "or", "and" or a comma; x != 1, 2; or intervals one by one."""
        first, *rest = node.args
        if first.kind == "rel" and first.value == ("!=",) and all(map(_is_end, rest)):
            args = tuple(Node("rel", ("!=",), (first.args[0], other)) for other in (first.args[1], *rest))
            return self._all("intersect", args)
        if all(item.kind == "seq" for item in node.args):
            return self._all("union", node.args)
        kind = {"or": "union", "and": "intersect"}.get(node.value, "list")
        return self._all(kind, node.args)

    def _relation(self, node: Node) -> Node | None:
        if node.value == ("in",):
            if is_label(node.args[0]):
                self.names.add(name_of(node.args[0]))
            return self.region(node.args[1])
        sides = tuple(_named(side) for side in node.args)
        parts = [
            self.solved(left, operator, right)
            for left, operator, right in zip(sides, node.value, sides[1:], strict=False)
        ]
        known = tuple(p for p in parts if p is not None)
        return Node("intersect", None, known) if len(known) == len(parts) else None

    def solved(self, left: Node, operator: str, right: Node) -> Node | None:
        """The solutions of one relation that is linear in one variable, or in the absolute value of such a term."""
        if operator not in FLIP:
            return None
        if _is_end(left) and right.kind in ("sym", "fn"):
            left, operator, right = right, FLIP[operator], left
        if left.kind == "fn" and left.value == "abs" and _is_end(right) and "inf" not in kinds_of(right):
            return self._distance(left.args[0], operator, right)
        if left.kind == "sym" and _is_end(right):
            self.names.add(left.value)
            return _half_line(operator, right)
        difference = Node("add", None, (left, Node("neg", None, (right,))))
        names = symbols_of(difference)
        if len(names) != 1 or not kinds_of(difference) <= _LINEAR:
            return None
        (name,) = names
        self.names.add(name)
        start, one = (substituted(difference, {name: number(k)}) for k in (0, 1))
        slope = Node("add", None, (one, Node("neg", None, (start,))))
        line = Node("add", None, (Node("mul", None, (slope, Node("sym", name))), start))
        if not _is_polynomial(difference, name) or scalar(difference, line) is not Answer.SAME:
            return None
        rise = _real(slope)
        if abs(rise) < _TINY:
            return None
        root = Node("neg", None, (Node("mul", None, (start, Node("pow", None, (slope, number(-1))))),))
        return _half_line(operator if rise > 0 else FLIP[operator], root)

    def _distance(self, inner: Node, operator: str, bound: Node) -> Node | None:
        """|inner| against a bound."""
        if _real(bound) < 0 or operator in ("=", "!="):
            return None
        opposite = Node("neg", None, (bound,))
        parts = self.solved(inner, operator, bound), self.solved(inner, FLIP[operator], opposite)
        if parts[0] is None or parts[1] is None:
            return None
        return Node("intersect" if operator in ("<", "<=") else "union", None, (parts[0], parts[1]))


def name_of(label: Node) -> str:
    """The name of a label, f(x) as one."""
    return label.value if label.kind == "sym" else _named(label).value if label.kind == "fn" else str(label)


def _named(side: Node) -> Node:
    """`side` with f(x) as one variable."""
    if side.kind == "fn" and side.value.startswith("call:") and is_label(side):
        return Node("sym", f"{side.value[5:]}({','.join(str(a.value) for a in side.args)})")
    return Node(side.kind, side.value, tuple(_named(a) for a in side.args))


def _is_end(node: Node) -> bool:
    """Whether a node is a real constant or an infinity."""
    return node in (INFINITY, MINUS_INFINITY) or (is_scalar(node) and not symbols_of(node))


def _is_polynomial(node: Node, name: str) -> bool:
    """Whether no division by the variable and no root of it hides a hole."""
    if name not in symbols_of(node):
        return True
    if node.kind == "pow":
        exponent = node.args[1]
        return exponent.kind == "num" and exponent.value.denominator == 1 and exponent.value > 0
    return node.kind != "root" and all(_is_polynomial(a, name) for a in node.args)


def substituted(node: Node, values: Mapping[str, Node]) -> Node:
    """`node` with values in the place of some variables."""
    if node.kind == "sym" and node.value in values:
        return values[node.value]
    return Node(node.kind, node.value, tuple(substituted(a, values) for a in node.args))


def _half_line(operator: str, end: Node) -> Node:
    if operator == "=":
        return Node("set", None, (end,))
    if operator == "!=":
        return Node("minus", None, (Node("reals"), Node("set", None, (end,))))
    if operator[0] == "<":
        return Node("seq", "(]" if operator == "<=" else "()", (MINUS_INFINITY, end))
    return Node("seq", "[)" if operator == ">=" else "()", (end, INFINITY))


# -- cells


def _real(node: Node) -> mpmath.mpf:
    value = numeric.value(node)
    if abs(value.imag) > _TINY * max(1, abs(value)):
        raise TooHard("an end point that is not real")
    return value.real


def _end_points(region: Node) -> Iterator[Node]:
    if region.kind in ("seq", "set"):
        yield from (a for a in region.args if a not in (INFINITY, MINUS_INFINITY))
    else:
        for part in region.args:
            yield from _end_points(part)


def _in_order(points: list[Node]) -> list[list[Node]]:
    """Groups of equal end points, in ascending order. Raises TooHard if two are neither apart nor proven equal."""
    points = list(dict.fromkeys(points))
    if len(points) > MOST_POINTS:
        raise TooHard("too many end points")
    values = {p: _real(p) for p in points}
    groups: list[list[Node]] = []
    for point in sorted(points, key=values.__getitem__):
        last = groups[-1][0] if groups else None
        if last is None or values[point] - values[last] > _TINY * max(1, abs(values[point])):
            groups.append([point])
        elif scalar(point, last) is Answer.SAME:
            groups[-1].append(point)
        else:
            raise TooHard("two end points that may be equal")
    return groups


def _cells(region: Node, points: list[list[Node]]) -> int:
    """The cells of a region as bits: bit 2k + 1 is the k-th end point, bit 2k the gap below it."""
    everything = (1 << (2 * len(points) + 1)) - 1
    parts = [_cells(part, points) for part in region.args] if region.kind not in ("seq", "set") else []
    if region.kind == "reals":
        return everything
    if region.kind == "empty":
        return 0
    if region.kind == "set":
        return sum(1 << k for k in {_index(p, points) for p in region.args})
    if region.kind == "seq":
        low, high = (_index(end, points) for end in region.args)
        if low > high or (low == high and region.value != "[]"):
            raise TooHard("an interval with its ends exchanged")
        first, last = low + (region.value[0] == "("), high - (region.value[1] == ")")
        return everything & ((2 << last) - 1) & ~((1 << max(first, 0)) - 1)
    total = parts[0]
    for part in parts[1:]:
        total = total | part if region.kind == "union" else total & ~part if region.kind == "minus" else total & part
    if region.kind == "list" and not total:  # x < 2, x > 5: no number is in both, so the comma says "or"
        for part in parts:
            total |= part
    return total


def _index(end: Node, points: list[list[Node]]) -> int:
    if end == MINUS_INFINITY:
        return -1
    if end == INFINITY:
        return 2 * len(points) + 1
    return next(2 * k + 1 for k, group in enumerate(points) if end in group)
