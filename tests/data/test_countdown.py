"""The Countdown verifier is exact, and no text hangs, crashes or fools it."""

import random
import time

import pytest

from zerolab.data.families import CountdownOptions, countdown_problem, make_family
from zerolab.grading.countdown import MAX_CHARS, decode_gold, encode_gold, evaluate, verify
from zerolab.grading.grader import grade

GOLD = encode_gold([3, 7, 25, 50], 225)


@pytest.mark.parametrize(
    "expression",
    [
        "(7 - 3) * 50 + 25",
        "25 + 50 * (7 - 3)",
        "((7-3)*50)+25",
        "(7−3)×50+25",
        "$(7 - 3) \\cdot 50 + 25$",
        "\\left(7-3\\right) \\times 50 + 25",
        "(7 - 3) * 50 + 25 = 225",
    ],
)
def test_right(expression: str) -> None:
    assert verify(expression, GOLD)


@pytest.mark.parametrize(
    "expression",
    [
        "225",  # the target alone uses none of the numbers
        "(7 - 3) * 50",  # a number is missing
        "(7 - 3) * 50 + 25 + 25 - 25",  # one is used three times
        "(7 - 3) * 50 + 5 * 5",  # others are used
        "(7 - 3) * 50 + 25 = 224",
        "(7 - 3) * 50 + 25 = 225 = 225",
        "-3 * 50 + 7 * 50 + 25",
        "(-3 + 7) * 50 + 25",  # signs are no operation of the game
        "(7-3)(50)+25",
        "(7 - 3) ** 50 + 25",
        "(7 - 3) * 50 + 25.0",
        "25 * (3 * 3)",
        "(7-3)*50+25 or 1",
        "__import__('os').system('true')",
        "٧ + 3",
        "",
        "=",
        "= 225",
        "()",
        "(7 - 3) * 50 + 25)",
        "((7 - 3) * 50 + 25",
        "7 3 25 50",
        "+ 7",
        "7 / (3 - 3)",
    ],
)
def test_wrong(expression: str) -> None:
    assert not verify(expression, GOLD)


def test_fractions_on_the_way_are_exact() -> None:
    assert verify("8 / (3 - 8 / 3)", encode_gold([3, 3, 8, 8], 24))
    assert not verify("8 / (3 - 8 / 3) + 0 / 1", encode_gold([0, 1, 3, 3, 8, 8], 25))
    assert not verify("1 / 3 * 100000000", encode_gold([1, 3, 100000000], 33333333))


def test_a_number_given_twice_is_used_twice() -> None:
    assert verify("5 + 5", encode_gold([5, 5], 10))
    assert not verify("5 + 5", encode_gold([5, 10], 10))
    assert not verify("5 * 2", encode_gold([5, 5], 10))


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10**6,
        "9" * 10**6,
        "9" * 300,
        "1+" * 200,
        "(" * 200 + "1" + ")" * 200,
        "1/3*" * 120 + "1",
        "*".join(["999999999999999"] * 31),
        "\x00" * 400,
        "\ud800",
        "-" * 400,
    ],
)
def test_hostile_text_is_wrong_at_once(text: str) -> None:
    start = time.perf_counter()
    assert not verify(text, GOLD)
    assert time.perf_counter() - start < 0.1


def test_random_expressions_agree_with_python() -> None:
    """The parser's precedence and associativity are those of arithmetic."""
    rng = random.Random(0)
    for _ in range(300):
        text = str(rng.randint(1, 20))
        for _ in range(rng.randint(1, 5)):
            other = str(rng.randint(1, 20))
            left = text if rng.random() < 0.5 else f"({text})"
            text = f"{left} {rng.choice('+-*')} {other}"
        value, used = evaluate(text)
        assert value == eval(text)
        assert len(used) == sum(part.strip("()").isdigit() for part in text.split())


@pytest.mark.parametrize("gold", ["", "24", "24:", "x: 1 2", "24: a"])
def test_a_broken_gold_is_an_error_not_a_verdict(gold: str) -> None:
    with pytest.raises(ValueError):
        verify("1 + 2", gold)


def test_gold_round_trip() -> None:
    assert decode_gold(GOLD) == (225, [3, 7, 25, 50])


def test_ascending_questions_of_one_set_of_numbers_and_target_are_one_text() -> None:
    """So that a holdout, which is chosen by a hash of the text, shares no numbers and target with training."""
    options = CountdownOptions(numbers=3, max_number=6, max_target=30, ascending=True)
    family = make_family("countdown", options.model_dump())
    texts: dict[str, set[str]] = {}
    for i in range(600):
        question = family.question(i)
        target, numbers = decode_gold(question.answers[0])
        assert numbers == sorted(numbers)
        assert verify(countdown_problem(options, i)[2], question.answers[0])
        texts.setdefault(encode_gold(numbers, target), set()).add(question.text)
    assert max(map(len, texts.values())) == 1
    assert len(texts) < 400  # questions did come again


@pytest.mark.parametrize("numbers", [2, 3, 4, 6, 8])
def test_every_generated_problem_has_a_solution_within_its_limits(numbers: int) -> None:
    options = CountdownOptions(numbers=numbers, max_number=30, max_target=200, seed=5)
    family = make_family("countdown", options.model_dump())
    for i in range(40):
        given, target, solution = countdown_problem(options, i)
        question = family.question(i)
        assert len(given) == numbers
        assert max(given) <= 30
        assert 1 <= target <= 200
        assert len(solution) <= MAX_CHARS
        assert verify(solution, question.answers[0])
        assert grade(f"so \\boxed{{{solution}}}", question.answers, verifier=question.verifier).correct
        assert not grade(f"so \\boxed{{{target}}}", question.answers, verifier=question.verifier).correct
