"""Where an answer is found, and where none is."""

import pytest

from zerolab.errors import UserError
from zerolab.grading import extract, grade


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{42}", "42"),
        (r"first \boxed{1} then \boxed{2}", "2"),
        (r"\fbox{7}", "7"),
        (r"\boxed{1} and \fbox{2}", "1, 2"),
        (r"$\boxed{1}$, $\boxed{2}$ and $\boxed{3}$.", "1, 2, 3"),
        (r"\boxed{1} \quad \text{or} \quad \boxed{2}", "1, 2"),
        (r"\boxed{1}, \boxed{1}", "1"),
        (r"it is \boxed{1}. Or \boxed{2}", "2"),
        ("\\boxed{1}\n\n\\boxed{2}", "2"),
        (r"\boxed{} and \boxed{2}", "2"),
        (r"\boxed{\boxed{1} or 2}", "1"),
        (r"\boxed {3}", "3"),
        ("\\boxed\n{3}", "3"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{ x \right\}}", r"\left\{ x \right\}"),
        (r"\boxed{(2, 3]}", "(2, 3]"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{ \fbox{\boxed{5}} }", "5"),
        (r"$$\boxed{a \\ b}$$", r"a \\ b"),
        ("no box at all", None),
        ("The answer is 42.", None),
        ("42", None),
        ("", None),
        (r"\boxed{}", None),
        (r"\boxed{   }", None),
        (r"\boxed{1} but \boxed{}", None),
        (r"\boxed{1} but \boxed{2", None),
        (r"\boxed{1} but \boxed", "1"),
        (r"\boxed{1}. The answer is in \boxed.", "1"),
        (r"\boxed{1}. I used `\boxed` as asked", "1"),
        (r"\boxed{1}, so in $\boxed$ there is 1", "1"),
        (r"\boxed is asked for: \boxed{1}", "1"),
        (r"in \boxed the answer is 1", None),
        (r"\boxed{1} or \boxed x", None),
        (r"\boxed{1} or \boxed\frac12", None),
        (r"\boxed{1} but \boxed 2", None),
        (r"\boxed{\{1\}", None),
        (r"\boxedx{1}", None),
    ],
)
def test_the_last_box_or_nothing(text: str, expected: str | None) -> None:
    assert extract(text) == expected


STRICT = "think </think> <answer> {} </answer>"


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("a </think> <answer> 42 </answer>", "42", "42"),
        (r"a </think> <answer> so \boxed{42} </answer>", "42", "42"),
        (r"a </think> <answer> \boxed{42 </answer>", None, None),
        ("a </think> <answer> 42", None, None),
        ("a </think><answer> 42 </answer>", None, "42"),
        ("a </think>\n<answer> 42 </answer>", None, "42"),
        ("a <answer> 42 </answer>", None, "42"),
        ("a </think> <answer>  </answer>", None, None),
        (r"\boxed{42}", None, None),
        ("</answer> <answer> 42", None, None),
        ("a </think> <answer> 1 </answer> then <answer> 2 </answer>", "2", "2"),
    ],
)
def test_the_answer_tag_strict_and_lenient(text: str, strict: str | None, lenient: str | None) -> None:
    assert extract(text, "answer-tag") == strict
    assert extract(text, "answer-tag-lenient") == lenient


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so 3 + 4 = 7\n#### 7", "7"),
        ("she has 5.\nA: 26", "26"),
        ("1,234 apples and 17 more", "17"),
        ("It is $1,234.50.", "1,234.50"),
        ("minus -5", "-5"),
        ("#### 5\nand 9", "5"),
        ("no number", None),
        ("A: none", None),
    ],
)
def test_the_last_number(text: str, expected: str | None) -> None:
    assert extract(text, "last-number") == expected


def test_prose_is_no_answer_in_a_box() -> None:
    verdict = grade("The answer is 42.", "42")
    assert (verdict.correct, verdict.formatted, verdict.reason, verdict.extracted) == (
        False,
        False,
        "unformatted",
        None,
    )


def test_an_unknown_mode_is_named() -> None:
    with pytest.raises(UserError, match="unknown extraction mode 'boks'"):
        extract("x", "boks")


def test_extraction_is_linear_in_the_text() -> None:
    for piece in (r"\boxed{", r"\boxed{}", "{", "}", "<answer>", "</answer>", "1,", "A:\n", "\\", "# "):
        text = piece * (1_000_000 // len(piece))
        for mode in ("boxed", "answer-tag", "answer-tag-lenient", "last-number"):
            assert len(extract(text, mode) or "") <= len(text)  # and it ends: quadratic work would take hours here
