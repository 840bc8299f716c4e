"""Golds that no response could equal are read if their meaning is certain, else refused with file and line."""

import json
from pathlib import Path
from typing import Any

import pytest

from command import refusal
from zerolab.config import QuestionsConfig
from zerolab.data.questions import Pool, load_questions
from zerolab.errors import UserError
from zerolab.grading import grade_batch
from zerolab.grading.golds import unbraced_box


def load(folder: Path, *rows: Any) -> list[tuple[str, ...]]:
    path = folder / "q.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    (pool,) = load_questions(QuestionsConfig.model_validate({"path": str(path)})).train
    assert isinstance(pool, Pool)
    return [question.answers for question in pool.questions]


def row(answer: Any, question: str = "q", key: str = "answer") -> dict[str, Any]:
    return {"problem": question, key: answer}


@pytest.mark.parametrize(
    ("line", "gold"),
    [
        (r'{"problem": "q", "answer": "\frac{1}{2}"}', r"\frac{1}{2}"),
        (r'{"problem": "q", "answer": "\boxed{7}"}', "7"),
        (r'{"problem": "q", "solution": "So it is $\boxed{\frac{1}{2}}$."}', r"\frac{1}{2}"),
        (r'{"problem": "q", "answer": "5 \text{ cm}"}', r"5 \text{ cm}"),
        (r'{"problem": "q", "answer": "2\times 3"}', r"2\times 3"),
        (r'{"problem": "q", "answer": "x \neq 1"}', r"x \neq 1"),
        (r'{"problem": "q", "answer": "\rho"}', r"\rho"),
    ],
)
def test_a_backslash_that_json_took_is_put_back_and_told(
    line: str, gold: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert load(tmp_path, row("1", "other"), line) == [("1",), (gold,)]
    told = capsys.readouterr().err
    assert f"{tmp_path / 'q.jsonl'}:2: a control character in the answer was read as a backslash" in told
    assert len(told.splitlines()) == 1


def test_a_gold_that_was_read_can_be_right(tmp_path: Path) -> None:
    [gold] = load(tmp_path, r'{"problem": "q", "answer": "\frac{1}{2}"}')
    [grade] = grade_batch([r"\boxed{0.5}"], [list(gold)])
    assert grade.correct


@pytest.mark.parametrize("answer", ["1\t2", "a\nb", "to\tor", "1\r\n2", "next\negative"])
def test_white_space_of_ordinary_text_is_left_alone(answer: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert load(tmp_path, row(answer)) == [(answer,)]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("answer", ["7\x00", "\x1b[31m7", "1\x0c2", "\x7f7", "\x9b7", ["1", "2\x07"]])
def test_a_control_character_that_means_nothing_is_refused_with_file_and_line(answer: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"q\.jsonl:2: the answer .* holds the control character .*correct the row"):
        load(tmp_path, row("1", "other"), row(answer))


def test_the_same_question_with_two_answers_is_told_with_both_places(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [row("7", "What?"), row("7", "What? "), row("8", " What?"), row("1", "else"), row("9", "What?")]
    assert len(load(tmp_path, *rows)) == 5
    path = tmp_path / "q.jsonl"
    told = capsys.readouterr().err
    assert f"{path}:3 asks the question of {path}:1 with another answer ('8', there '7')" in told
    assert "and 1 more such rows" in told
    assert len(told.splitlines()) == 1


def test_alternatives_in_another_order_are_no_other_answer(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    load(tmp_path, row(["1", "2"]), row(["2", "1 "]))
    assert capsys.readouterr().err == ""


def test_a_list_within_a_list_is_refused_not_flattened(tmp_path: Path) -> None:
    """Flattened, [["1", "2"], ["2", "1"]] would take 1 alone for right."""
    with pytest.raises(UserError, match=r"q\.jsonl:1: the answer is a list within a list"):
        load(tmp_path, row([["1", "2"], ["2", "1"]]))


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        (r"so $\boxed 7$.", "7"),
        (r"so \boxed 7. We are done, 8.", "7"),
        (r"\boxed -1,234.5", "-1,234.5"),
        (r"\boxed7", "7"),
        (r"$\boxed \pi$", r"\pi"),
        (r"\boxed x", "x"),
        (r"first \boxed{3}, then \boxed 4", "4"),
    ],
)
def test_a_box_without_braces_is_read_and_told(
    text: str, gold: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert load(tmp_path, row("1", "other"), row(text, key="solution")) == [("1",), (gold,)]
    assert "q.jsonl:2: a box without braces was read" in capsys.readouterr().err


@pytest.mark.parametrize("text", [r"\boxed{", r"\boxed{7", r"\boxed{}", r"\boxed", r"\boxed and so on"])
def test_what_is_no_box_is_not_guessed(text: str, tmp_path: Path) -> None:
    assert unbraced_box(text) is None
    with pytest.raises(UserError, match=r"q\.jsonl:1: a question without an answer"):
        load(tmp_path, row(text))


def test_the_command_line_names_the_row_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"problem": "q", "answer": "\\u0000"}\n')
    line = refusal(capsys, "sample", "m", "--questions", path)
    assert f"{path}:1: the answer" in line
