"""The offline rules, on cases and on real texts: worked responses answer, questions go on."""

import json
from pathlib import Path
from typing import get_args

import pytest

from zerolab.analysis.answering import Answering, rule_answering


@pytest.mark.parametrize(
    ("response", "label", "rule"),
    [
        (" We have 3 + 4 = 7. The answer is \\boxed{7}.", "answers", "final answer"),
        ("I add. </think> <answer> 7 </answer>", "answers", "final answer"),
        ("3 and 4\nA: 7", "answers", "final answer"),
        ("First we add 3 and 4, which means that", "answers", "work"),
        (" 7", "answers", "bare answer"),
        ("The total is 7.\n\nQuestion: What is 5 + 5?\nAnswer: 10", "continues", "next question"),
        ("So we have 7. \\boxed{7}\n\nQuestion: What is 5 + 5?", "answers", "final answer"),
        ("User: thanks. Assistant: welcome", "continues", "next question"),
        ("\n(A) 3 (B) 7 (C) 12", "continues", "choices"),
        (" Express your result as a common fraction.", "continues", "sets a task"),
        (" and how many are left?", "continues", "sets a task"),
        ("\n \t...", "other", "empty"),
        ("the cat sat on the mat " * 40, "other", "nothing"),
    ],
)
def test_a_case_of_every_rule(response: str, label: str, rule: str) -> None:
    found = rule_answering(response)
    assert (found.label, found.rule) == (label, rule)


def texts(path: Path, key: str) -> list[str]:
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [text for row in rows for text in (row[key] if isinstance(row[key], list) else [row[key]])]


def test_worked_responses_answer_and_questions_do_not(shared: Path) -> None:
    """Benchmark questions stand for what a model writes that goes on asking. docs/analysis.md has the shares."""

    def share(found: list[str]) -> float:
        return sum(rule_answering(text).label == "answers" for text in found) / len(found)

    worked = ("qwen_math_cot_100x8_dev", "gsm8k_gpt3_solutions_dev")
    assert all(share(texts(shared / f"responses/{name}.jsonl", "responses")) == 1 for name in worked)
    asked = {"math500": 0.08, "gsm8k_test": 0.02, "olympiadbench": 0.13}
    assert all(share(texts(shared / f"eval/{name}.jsonl", "problem")) < most for name, most in asked.items())


def test_a_hostile_text_costs_no_more_than_its_length() -> None:
    for bad in ("A." * 100_000, "A.B." * 100_000, "#" * 200_000, " " * 200_000, "= " * 200_000, "q" * 200_000):
        assert rule_answering(bad).label in get_args(Answering)
