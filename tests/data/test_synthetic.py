"""Synthetic families: right answers, the stated difficulty, the same questions everywhere."""

import re

import pytest

from zerolab.data.families import make_family
from zerolab.errors import UserError


def test_modular_has_every_question_once_with_its_answer() -> None:
    family = make_family("modular", {})
    found = [family.question(i) for i in range(family.size or 0)]
    assert len(found) == len({q.text for q in found}) == len({q.id for q in found}) == 507
    for question in found:
        x, operation, y = re.fullmatch(r"(\d+) ([-+*]) (\d+) = \?", question.text).groups()  # type: ignore[union-attr]
        value = {"+": int(x) + int(y), "-": int(x) - int(y), "*": int(x) * int(y)}[operation]
        assert question.answers == (str(value % 13),)


def test_modular_can_say_its_modulus() -> None:
    family = make_family("modular", {"modulus": 7, "explicit": True})
    assert family.size == 147
    assert family.question(146).text == "(6 * 6) mod 7 = ?"
    assert family.question(146).answers == ("1",)


@pytest.mark.parametrize(("digits", "terms", "operations"), [(1, 2, "+"), (3, 2, "+-*"), (12, 2, "*"), (2, 6, "*-")])
def test_arithmetic_has_the_stated_digits_terms_and_answers(digits: int, terms: int, operations: str) -> None:
    family = make_family("arithmetic", {"digits": digits, "terms": terms, "operations": operations})
    assert family.size is None
    for i in range(100):
        question = family.question(i)
        expression = question.text.removesuffix(" = ?")
        operands = re.split(r" [-+*] ", expression)
        assert len(operands) == terms
        assert {len(operand) for operand in operands} == {digits}
        assert set(re.findall(r" ([-+*]) ", expression)) <= set(operations)
        assert question.answers == (str(eval(expression)),)


def test_endless_questions_vary_and_depend_on_index_and_seed_alone() -> None:
    for name in ("arithmetic", "chain", "countdown"):
        family, again, other = (make_family(name, {"seed": seed}) for seed in (0, 0, 1))
        texts = [family.question(i).text for i in range(100)]
        assert len(set(texts)) > 95
        assert [again.question(i).text for i in reversed(range(100))] == texts[::-1]
        assert [other.question(i).text for i in range(100)] != texts
        assert family.question(10**15).text == again.question(10**15).text


@pytest.mark.parametrize(("modulus", "shortest", "longest"), [(10, 2, 4), (7, 1, 1), (100, 3, 9)])
def test_chains_have_the_stated_length_and_answer(modulus: int, shortest: int, longest: int) -> None:
    family = make_family("chain", {"modulus": modulus, "shortest": shortest, "longest": longest})
    lengths = set()
    for i in range(300):
        question = family.question(i)
        start, *steps = re.split(r" (?=[-+])", question.text.removesuffix(" = ?"))
        assert all(re.fullmatch(r"[-+] \d+", step) for step in steps)
        assert all(0 <= int(n) < modulus for n in (start, *(step[2:] for step in steps)))
        assert question.answers == (str(eval(" ".join([start, *steps])) % modulus),)
        assert question.level == len(steps)
        lengths.add(len(steps))
    assert lengths == set(range(shortest, longest + 1))


def test_a_chain_without_a_length_is_refused() -> None:
    with pytest.raises(UserError, match="above longest"):
        make_family("chain", {"shortest": 5})
