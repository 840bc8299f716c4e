"""Laws of the grader: reflexive, symmetric, blind to formatting, and never "same" where numbers differ."""

import random
from collections.abc import Callable
from fractions import Fraction

import pytest
from expressions import VARIABLES, expression, latex, rewritten
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from zerolab.grading import equal, grade, numeric
from zerolab.grading.algebra import Algebra
from zerolab.grading.exact import is_zero, ratio
from zerolab.grading.normalize import exact, normalize
from zerolab.grading.parser import parse
from zerolab.grading.symbolic import Answer, scalar
from zerolab.grading.tree import Node, TooHard, Unreadable, kinds_of, number, symbols_of

FEW = settings(max_examples=60, deadline=None)
MANY = settings(max_examples=200, deadline=None)
SEEDS = st.integers(0, 10**9)
ANSWER_TEXT = st.text(st.sampled_from("0123456789xyni+-*/^_{}()[],.\\ =<>|!%°π√frac sqrtpm"), min_size=1, max_size=30)


def tree(seed: int, depth: int = 3) -> tuple[random.Random, Node]:
    rng = random.Random(seed)
    return rng, expression(rng, depth, VARIABLES if rng.random() < 0.6 else ())


def boxed_equal(a: str, b: str) -> bool:
    return grade(rf"\boxed{{{a}}}", b).correct


@MANY
@given(ANSWER_TEXT)
def test_every_answer_is_itself(text: str) -> None:
    if normalize(text):
        assert equal(text, text)


@FEW
@given(ANSWER_TEXT, ANSWER_TEXT)
def test_equality_is_symmetric(a: str, b: str) -> None:
    assert equal(a, b) == equal(b, a)


@MANY
@given(SEEDS)
def test_expressions_equal_themselves_and_their_latex(seed: int) -> None:
    _, a = tree(seed)
    assert scalar(a, a) is Answer.SAME
    try:
        again = parse(normalize(latex(a)))
    except Unreadable:
        assume(False)
    assert scalar(again, a) is not Answer.DIFFERENT


@settings(max_examples=600, deadline=None)
@given(SEEDS)
def test_what_is_proven_equal_is_nowhere_different(seed: int) -> None:
    """Normal forms against numbers: rewriting rules that hold, and others that hold for some values only."""
    rng, a = tree(seed, 4)
    b = rewritten(rng, a)
    try:
        algebra = Algebra()
        proven = is_zero(algebra.sub(ratio(a, algebra), ratio(b, algebra)), algebra)
    except TooHard:
        return
    roots_of_variables = any(kinds_of(x) & {"pow", "root"} and symbols_of(x) for x in (a, b))
    if proven and not roots_of_variables:  # roots of a negative variable: principal and real root are both in use
        assert numeric.differ(a, b, symbols_of(a) | symbols_of(b)) is not True, (latex(a), latex(b))


@FEW
@given(SEEDS)
def test_scalar_comparison_is_symmetric(seed: int) -> None:
    rng, a = tree(seed)
    b = rewritten(rng, a)
    assert scalar(a, b) is scalar(b, a)


@FEW
@given(SEEDS, st.integers(1, 9))
def test_another_constant_term_is_another_answer(seed: int, shift: int) -> None:
    _, a = tree(seed)
    assert scalar(Node("add", None, (a, number(shift))), a) is not Answer.SAME


@MANY
@given(st.fractions(max_denominator=10**6), st.data())
def test_a_fraction_in_every_spelling(value: Fraction, data: st.DataObject) -> None:
    n, d, k = value.numerator, value.denominator, data.draw(st.integers(1, 50))
    spellings = [f"{n}/{d}", rf"\frac{{{n}}}{{{d}}}", rf"\dfrac{{{n * k}}}{{{d * k}}}", f"${n}/{d}$", f"{n} / {d}."]
    if n > d > 1:
        spellings.append(rf"{n // d}\frac{{{n % d}}}{{{d}}}" if n % d else str(n // d))
    for spelling in spellings:
        assert boxed_equal(spelling, f"{n}/{d}"), spelling
        assert not boxed_equal(spelling, f"{n + 1}/{d}")


@MANY
@given(st.integers(-(10**12), 10**12))
def test_an_integer_in_every_spelling(n: int) -> None:
    spellings = [
        str(n),
        f"{n:,}",
        f"{n}.0",
        f"{n}.",
        f" {n} ",
        f"${n}$",
        rf"\({n}\)",
        rf"\text{{{n}}}",
        rf"{n}\text{{ cm}}",
    ]
    spellings += [
        f"{n:,}".replace(",", r",\!"),
        f"{n:,}".replace(",", "{,}"),
        str(n).replace("-", "−"),
        f"{n}\u200b",
        f"\ufeff{n}",
    ]
    for spelling in spellings:
        assert boxed_equal(spelling, str(n)), spelling
        assert not boxed_equal(spelling, str(n + 1)), spelling


FORMATTING = [
    lambda t: f"${t}$", lambda t: rf"\left({t}\right)", lambda t: t.replace(r"\frac", r"\dfrac"), lambda t: f"  {t} ",
    lambda t: t.replace("+", r"\, + \!"), lambda t: t + ".", lambda t: rf"\displaystyle {t}", lambda t: "{" + t + "}",
    lambda t: t.replace("(", r"\bigl(").replace(")", r"\bigr)"), lambda t: t.replace("-", "−"), lambda t: f"z = {t}",
    lambda t: "\ufeff" + t, lambda t: t.replace(r"\cdot", "·"), lambda t: rf"\boxed{{{t}}}", lambda t: f"\n{t}\n",
]  # fmt: skip


@FEW
@given(SEEDS)
@pytest.mark.parametrize("change", FORMATTING, ids=range(len(FORMATTING)))
def test_formatting_changes_no_verdict(change: Callable[[str], str], seed: int) -> None:
    rng, a = tree(seed, 2)
    b = expression(rng, 2)
    text, other = latex(a), latex(b)
    before = boxed_equal(text, other)
    assert boxed_equal(change(text), other) == before
    assert boxed_equal(change(text), text)


@FEW
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=6), st.randoms())
def test_order_counts_in_points_and_not_in_lists(items: list[int], rng: random.Random) -> None:
    mixed = items.copy()
    rng.shuffle(mixed)
    as_list, as_point = ", ".join(map(str, items)), "(" + ",".join(map(str, items)) + ")"
    assert boxed_equal(", ".join(map(str, mixed)), as_list)
    assert boxed_equal(r"\{" + ",".join(map(str, mixed)) + r"\}", r"\{" + as_list + r"\}")
    assert boxed_equal("(" + ", ".join(map(str, mixed)) + ")", as_point) == (mixed == items)
    assert not boxed_equal(as_list + ", 51", as_list)


@MANY
@given(st.text(max_size=60))
def test_reading_text_raises_nothing_but_unreadable(text: str) -> None:
    exact(normalize(text))
    try:
        parse(normalize(text))
    except Unreadable:
        return
