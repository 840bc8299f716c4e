"""Recorded responses: ours, somebody else's, and files that a kill cut short."""

import json
from pathlib import Path
from typing import Any

import pytest

from zerolab.datatypes import Grade
from zerolab.errors import UserError
from zerolab.evaluation.responses import Response, ResponseFile, read_responses, text_id, write_responses

RIGHT = Grade(True, True, "correct", "4")
TEXT = "so \\boxed{4} \ud800"
OURS = Response(
    "math500",
    "math500:7",
    "2+2?",
    ("4", "four"),
    3,
    TEXT,
    12,
    "stop",
    RIGHT,
    RIGHT,
    "m",
    "r1",
    0.6,
    3000,
    5,
    cuts=(64, 130),
)


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    other = Response("aime24", "aime24:0", "x?", ("1",), 0, "")
    write_responses(tmp_path / "responses.jsonl", [OURS, other])
    assert read_responses(tmp_path) == [OURS, other]


def test_zerolab_grade_reads_our_file(tmp_path: Path) -> None:
    from zerolab.grading.command import run

    write_responses(tmp_path / "mine.jsonl", [OURS])
    assert "1 responses, 1 in the format, 1 correct" in run(tmp_path / "mine.jsonl")


def test_somebody_elses_file(tmp_path: Path) -> None:
    rows = [
        {"problem": "2+2?", "answer": 4, "response": "\\boxed{4}", "tokens": 5},
        {"question": "2 + 2?", "answers": ["4"], "responses": ["a", "b"], "finish_reasons": ["stop", "length"]},
        {"problem": "2+2?", "answer": "4", "response": "c"},
    ]
    one, a, b, again = read_responses(write(tmp_path / "other.jsonl", *rows))
    assert (one.benchmark, one.question_id, one.answers, one.tokens) == ("other", text_id("2+2?"), ("4",), 5)
    assert (one.sample, again.sample) == (0, 1)
    assert one.question_id == again.question_id != a.question_id == b.question_id == text_id("2  + 2?")
    assert (a.truncated, b.truncated, one.truncated) == (False, True, None)


@pytest.mark.parametrize("name", ["gsm8k_gpt3_solutions_dev", "qwen_math_cot_100x8_dev"])
def test_real_files(shared: Path, name: str) -> None:
    rows = [json.loads(line) for line in (shared / "responses" / f"{name}.jsonl").open()]
    found = read_responses(shared / "responses" / f"{name}.jsonl")
    assert [r.response for r in found] == [text for row in rows for text in row["responses"]]
    assert len({r.question_id for r in found}) == len({" ".join(row["problem"].split()) for row in rows})


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "bad.jsonl:2: not JSON"),
        ("[" * 100_000, "bad.jsonl:2: not JSON"),
        ({"problem": "x", "response": "y"}, "bad.jsonl:2: needs the keys answer and response"),
        ({"problem": "x", "answer": [], "response": "y"}, "bad.jsonl:2: a question without an answer"),
        ({"problem": 3, "answer": "1", "response": "y"}, "bad.jsonl:2: the problem must be text"),
        (
            {"problem": "x", "answer": "1", "responses": ["y", "z"], "tokens": [1]},
            "jsonl:2: tokens must be 2 values",
        ),
        ({"problem": "x", "answer": "1", "response": "y", "tokens": "9"}, "bad.jsonl:2: tokens must be 1 value"),
        ({"problem": "x", "answer": "1", "response": "y", "temperature": "hot"}, "bad.jsonl:2: temperature must be"),
        ({"problem": "a", "answer": "1", "response": "b", "sample": 0}, "sample 0 of question .* stands there twice"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, row: Any, words: str) -> None:
    path = write(tmp_path / "bad.jsonl", {"problem": "a", "answer": "1", "response": "b"}, row)
    with pytest.raises(UserError, match=words):
        read_responses(path)


def test_a_folder_without_responses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no responses\.jsonl"):
        read_responses(tmp_path)


@pytest.mark.parametrize("rest", ["", '{"benchmark": "aim', '{"benchmark": "x"}'])
def test_a_line_that_a_kill_cut_short_is_cut_off(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "responses.jsonl"
    with ResponseFile(path) as file:
        file.append(OURS)
    with path.open("a") as raw:
        raw.write(rest)
    with ResponseFile(path) as file:
        assert file.found == [OURS]
        file.append(Response("b", "b:0", "y", ("2",), 0, "z"))
    assert [r.benchmark for r in read_responses(path)] == ["math500", "b"]
