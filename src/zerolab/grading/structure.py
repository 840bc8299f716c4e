"""Step 3: what an answer is made of. Points and intervals are ordered and their brackets count; sets, lists, unions
and signs from \\pm are not ordered; an equation counts up to a factor, an inequality as its interval. What an answer
is called is in labels.py.
"""

from dataclasses import dataclass, field
from fractions import Fraction

from zerolab.grading.labels import Statement, is_geometric, is_rounded, member, stated, unlabelled
from zerolab.grading.real_sets import (
    FLIP,
    INFINITY,
    MINUS_INFINITY,
    name_of,
    name_one_function,
    same_region,
    substituted,
)
from zerolab.grading.symbolic import Answer, proportional, scalar
from zerolab.grading.tree import Node, TooHard, is_scalar, kinds_of, number, symbols_of
from zerolab.grading.units import SAME_UNIT, conversion

MOST_ITEMS = 60
UNIT_VECTORS = {"hat i": 1, "hat j": 2, "hat k": 3}


@dataclass(slots=True)
class Comparison:
    """One comparison: the rules it follows and what was left open on the way."""

    ordered: bool = False  # lists must have the order of the gold
    open: bool = False  # a pair of values was neither refuted nor confirmed
    unknown: bool = False  # a pair of values lay outside the caps
    unproven: list[tuple[Node, Node]] = field(default_factory=list)
    proven: frozenset[tuple[Node, Node]] = frozenset()

    def values(self, a: Node, g: Node) -> bool:
        if (a, g) in self.proven:
            return True
        verdict = scalar(a, g)
        self.unknown |= verdict is Answer.UNKNOWN
        if verdict is Answer.OPEN:
            self.open = True
            self.unproven.append((a, g))
        return verdict is Answer.SAME

    # -- dispatch

    def same(self, a: Node, g: Node) -> bool:
        """Whether the answer `a` says what the gold `g` says."""
        if a == g:
            return True
        if "in" in (x.value[0] for x in (a, g) if x.kind == "rel"):
            found = self.regions(a, g)
            if found is not None:
                return found
            if a.kind == g.kind == "rel" and a.args[0] != g.args[0] and a.value == g.value:
                return name_one_function(name_of(a.args[0]), name_of(g.args[0])) and self.same(a.args[1], g.args[1])
            a, g = member(a), member(g)
        found = self.derivations(a, g)
        if found is not None:
            return found
        a, g = unlabelled(a, g)
        if "qty" in (a.kind, g.kind):
            return self.quantities(a, g)
        if "dots" in kinds_of(a) | kinds_of(g):
            return self.elided(a, g)
        found = self.regions(a, g)
        if found is not None:
            return found
        if is_scalar(a) and is_scalar(g):
            return self.values(a, g)
        if a.kind == "ratio" and g.kind == "ratio":
            return self.ratios(a.args, g.args)
        signs = "pm" in kinds_of(a) | kinds_of(g)
        if signs and not {a.kind, g.kind} & {"seq", "mat", "rel"}:
            return self.lists(signed(a), signed(g))
        if a.kind == "rel" and g.kind == "rel":
            return self.relations(a, g)
        if {a.kind, g.kind} <= {"list", "set"}:
            return self.collections(a, g)
        if (a.kind == "set" and is_scalar(g)) or (g.kind == "set" and is_scalar(a)):  # {5} for 5
            return all(map(is_scalar, items_of(a) + items_of(g))) and self.lists(items_of(a), items_of(g))
        if a.kind == "list" and a.value == "or" and is_scalar(g):  # 3/4 or 0.75
            return all(self.same(item, g) for item in a.args)
        if {a.kind, g.kind} & {"seq", "mat"}:
            a, g = components(a, g), components(g, a)
        if {a.kind, g.kind} == {"seq", "mat"}:
            return vector(a) is not None and vector(g) is not None and self.in_order(a.args, g.args)
        if {a.kind, g.kind} == {"list", "seq"}:
            return self.labelled_point(*((a, g) if a.kind == "list" else (g, a)))
        if "mat" in kinds_of(a) | kinds_of(g):
            return self.matrices(folded(a), folded(g))
        return self.alike(a, g)

    def elided(self, a: Node, g: Node) -> bool:
        """Whether what stands around an ellipsis is the same, in the same order."""
        kinds = {"list" if x.kind == "set" else x.kind for x in (a, g)}
        return len(kinds) == 1 and (a.value == g.value or "list" in kinds) and self.in_order(a.args, g.args)

    def regions(self, a: Node, g: Node) -> bool | None:
        """The verdict on two sets of real numbers; None if the two are none, or are not decided as such."""
        try:
            return same_region(a, g)
        except TooHard:
            return None

    def quantities(self, a: Node, g: Node) -> bool:
        """Values of which at least one has a unit; a missing unit is the one that was asked for."""
        change = conversion(a.value if a.kind == "qty" else None, g.value if g.kind == "qty" else None)
        if change is None:
            return False
        if any(x.kind != "qty" and "qty" in kinds_of(x) for x in (a, g)):
            return False
        a, g = (x.args[0] if x.kind == "qty" else x for x in (a, g))
        if change != SAME_UNIT:
            if not is_scalar(a):
                return False
            a = Node("add", None, (Node("mul", None, (number(change[0]), a)), number(change[1])))
        return self.same(a, g)

    def derivations(self, a: Node, g: Node) -> bool | None:
        """The verdict if a label or a derivation stands in front of one of two values; None if there is none."""
        answer = stated(a)
        gold = stated(g, gold=a.kind != "rel")
        if (answer is None and (gold is None or a.kind == "rel")) or (gold is None and g.kind == "rel"):
            return None
        if answer is None:
            return gold is not None and self.same(a, gold.exact[-1])
        if gold is None:
            return self.states(answer, g)
        if gold.label is not None and answer.label != gold.label:
            if answer.label is None:
                named = gold.label.kind in ("sym", "fn") or is_geometric(gold.label)
            else:
                named = is_scalar(answer.label) and is_scalar(gold.label) and self.values(answer.label, gold.label)
            if not named:
                return None
        return self.states(answer, gold.exact[-1])

    def states(self, answer: Statement, g: Node) -> bool:
        """Whether an answer states the value `g`, and states nothing else on the way to it."""
        last = answer.exact[-1]
        if not all(self.equal_sides(side, last) for side in answer.exact[:-1]):
            return False
        if any(self.same(side, g) for side in answer.exact):
            return True
        return bool(answer.rounded) and is_rounded(answer.rounded[-1], last) and self.same(answer.rounded[-1], g)

    def equal_sides(self, a: Node, b: Node) -> bool:
        """Whether two sides of one equation are equal: a degree sign is pi/180 here, a percent sign 1/100."""
        a, b = in_decimal(a), in_decimal(b)
        if is_scalar(a) and is_scalar(b):
            return self.values(*(Node("mul", None, (number(1), side)) for side in (a, b)))
        return self.same(a, b)

    def ratios(self, a: tuple[Node, ...], g: tuple[Node, ...]) -> bool:
        """4:6 for 2:3: the same up to a factor, unless the first term is 0."""
        if len(a) != len(g) or not all(is_scalar(x) for x in a + g):
            return False
        zero = number(0)
        if self.values(a[0], zero) or self.values(g[0], zero) or any(symbols_of(x) for x in a + g):
            return self.in_order(a, g)
        return all(
            self.values(Node("mul", None, (a[0], y)), Node("mul", None, (g[0], x)))
            for x, y in zip(a[1:], g[1:], strict=True)
        )

    def alike(self, a: Node, g: Node) -> bool:
        """Two trees of the same kind."""
        if a.kind == "neg" and g.kind == "neg":
            return self.same(a.args[0], g.args[0])
        if a.kind != g.kind or a.kind in SCALARS_ONLY:
            return False
        if a.kind == "seq":
            return brackets(a) == brackets(g) and self.in_order(a.args, g.args)
        if a.kind == "union":
            return self.unordered(pieces(a), pieces(g))
        if a.kind == "intersect":
            return self.unordered(a.args, g.args)
        return a.value == g.value and self.in_order(a.args, g.args)

    # -- collections

    def in_order(self, a: tuple[Node, ...], g: tuple[Node, ...]) -> bool:
        return len(a) == len(g) and all(self.same(x, y) for x, y in zip(a, g, strict=True))

    def unordered(self, a: tuple[Node, ...], g: tuple[Node, ...]) -> bool:
        """As many items, and a partner for each. Equality is transitive, so the first partner found will do."""
        if len(a) != len(g) or len(a) > MOST_ITEMS:
            return False
        left = list(g)
        for x in a:
            partner = next((k for k, y in enumerate(left) if self.same(x, y)), None)
            if partner is None:
                return False
            del left[partner]
        return True

    def distinct(self, items: tuple[Node, ...]) -> tuple[Node, ...]:
        kept: list[Node] = []
        for item in items[:MOST_ITEMS]:
            if not any(self.same(item, k) for k in kept):
                kept.append(item)
        return tuple(kept)

    def lists(self, a: tuple[Node, ...], g: tuple[Node, ...]) -> bool:
        return self.unordered(self.distinct(a), self.distinct(g))

    def collections(self, a: Node, g: Node) -> bool:
        if a.kind == "set" or g.kind == "set" or all(item.kind == "seq" for item in a.args + g.args):
            return self.lists(a.args, g.args)
        return self.in_order(a.args, g.args) if self.ordered else self.unordered(a.args, g.args)

    def labelled_point(self, labels: Node, point: Node) -> bool:
        """x = 1, y = 2 for the point (1, 2): labels in alphabetical order."""
        named = [x for x in labels.args if x.kind == "rel" and x.value == ("=",) and x.args[0].kind == "sym"]
        named.sort(key=lambda x: x.args[0].value)
        names = {x.args[0].value for x in named}
        if brackets(point) != "()" or len(names) < len(labels.args):
            return False
        return self.in_order(tuple(x.args[1] for x in named), point.args)

    def matrices(self, a: Node | None, g: Node | None) -> bool:
        if a is None or g is None or a.kind != "mat" or g.kind != "mat":
            return False
        return a.value == g.value and self.in_order(a.args, g.args)

    # -- relations

    def relations(self, a: Node, g: Node) -> bool:
        if len(a.value) != len(g.value):
            return False
        if len(a.value) > 1:
            if a.value != g.value:
                a = Node("rel", tuple(FLIP.get(o, o) for o in reversed(a.value)), a.args[::-1])
            return a.value == g.value and self.in_order(a.args, g.args)
        (oa,), (og,) = a.value, g.value
        if not all(is_scalar(side) for side in a.args + g.args):
            return oa == og and self.in_order(a.args, g.args)
        if oa in ("=", "!=") or og in ("=", "!="):
            return oa == og and self.proportional(a, g, 0)
        return self.proportional(a, g, 1 if oa == og else -1) if oa in (og, FLIP[og]) else False

    def proportional(self, a: Node, g: Node, sign: int) -> bool:
        return proportional(difference(a), difference(g), sign)


SCALARS_ONLY = frozenset(["num", "sym", "add", "mul", "pow", "fn", "deg", "pct", "root"])


def items_of(node: Node) -> tuple[Node, ...]:
    return node.args if node.kind == "set" else (node,)


def difference(relation: Node) -> Node:
    return Node("add", None, (relation.args[0], Node("neg", None, (relation.args[1],))))


def brackets(seq: Node) -> str:
    """Brackets of a sequence; at an infinite end a square one is as good as a round one."""
    opener, closer = seq.value
    first, last = seq.args[0], seq.args[-1]
    if first == MINUS_INFINITY:
        opener = "("
    if last == INFINITY or (last.kind == "add" and last.args[-1] == INFINITY):
        closer = ")"
    return opener + closer


def pieces(node: Node) -> tuple[Node, ...]:
    """Parts of a union; its finite sets together are one set."""
    points = [item for part in node.args if part.kind == "set" for item in part.args]
    rest = [part for part in node.args if part.kind not in ("set", "empty")]
    return (*rest, Node("set", None, tuple(points))) if points else tuple(rest)


def signed(node: Node) -> tuple[Node, ...]:
    """The values of an expression with \\pm: all upper signs, then all lower signs."""
    if node.kind in ("list", "set"):
        return tuple(value for item in node.args for value in signed(item))
    if "pm" not in kinds_of(node):
        return (node,)
    return (_choose(node, "+"), _choose(node, "-"))


def _choose(node: Node, upper: str) -> Node:
    args = tuple(_choose(a, upper) for a in node.args)
    if node.kind != "pm":
        return Node(node.kind, node.value, args)
    right = args[1] if node.value == upper else Node("neg", None, (args[1],))
    return Node("add", None, (args[0], right))


def in_decimal(node: Node) -> Node:
    """The number that digits in another base stand for."""
    if node.kind != "base" or not str(node.value[1]).isdigit():
        return node
    digits, base = node.value[0], int(node.value[1])
    return number(int(digits, base)) if 2 <= base <= 36 and all(int(c, 36) < base for c in digits) else node


def components(node: Node, other: Node) -> Node:
    """3i + 4j for unit vectors as a point like `other`; a list of rows in square brackets as a matrix."""
    if node.kind == "seq" and other.kind == "mat" and all(row.kind == "seq" for row in node.args):
        widths = {len(row.args) for row in node.args}
        cells = tuple(cell for row in node.args for cell in row.args)
        return Node("mat", other.value, cells) if widths == {other.value} else node
    names = symbols_of(node)
    if not is_scalar(node) or not names & UNIT_VECTORS.keys() or not names <= UNIT_VECTORS.keys():
        return node
    zeros = dict.fromkeys(names, number(0))
    parts = [substituted(node, zeros | {name: number(1)}) for name in UNIT_VECTORS]
    terms = [Node("mul", None, (part, Node("sym", name))) for part, name in zip(parts, UNIT_VECTORS, strict=True)]
    if scalar(node, Node("add", None, tuple(terms))) is not Answer.SAME:
        return node
    parts = parts[: max(len(other.args), *(UNIT_VECTORS[name] for name in names))]
    return Node("seq", "()", tuple(parts))


def vector(node: Node) -> tuple[Node, ...] | None:
    """Entries of a point in round brackets or of a matrix with one column or one row."""
    if node.kind == "seq":
        return node.args if brackets(node) == "()" else None
    return node.args if node.kind == "mat" and node.value in (1, len(node.args)) else None


def folded(node: Node) -> Node | None:
    """A sum or product of explicit matrices and scalars as one matrix; None if it is none or has no value."""
    if node.kind == "mat" or "mat" not in kinds_of(node):
        return node
    parts = [folded(a) for a in node.args]
    if any(p is None for p in parts):
        return None
    known = [p for p in parts if p is not None]
    if node.kind == "neg":
        return Node("mat", known[0].value, tuple(Node("neg", None, (c,)) for c in known[0].args))
    if node.kind == "add" and len({(p.kind, p.value, len(p.args)) for p in known}) == 1 and known[0].kind == "mat":
        cells = tuple(Node("add", None, cell) for cell in zip(*(p.args for p in known), strict=True))
        return Node("mat", known[0].value, cells)
    if node.kind == "mul":
        product: Node | None = known[0]
        for factor in known[1:]:
            product = _times(product, factor) if product is not None else None
        return product
    return None


def _times(a: Node, b: Node) -> Node | None:
    if a.kind != "mat" or b.kind != "mat":
        matrix, factor = (a, b) if a.kind == "mat" else (b, a)
        if matrix.kind != "mat":
            return Node("mul", None, (a, b))
        return Node("mat", matrix.value, tuple(Node("mul", None, (factor, c)) for c in matrix.args))
    rows, inner = len(a.args) // a.value, a.value
    if len(b.args) // b.value != inner or rows * b.value > MOST_ITEMS:
        return None
    cells = []
    for r in range(rows):
        for c in range(b.value):
            terms = tuple(Node("mul", None, (a.args[r * inner + k], b.args[k * b.value + c])) for k in range(inner))
            cells.append(Node("add", None, (number(Fraction(0)), *terms)))
    return Node("mat", b.value, tuple(cells))
