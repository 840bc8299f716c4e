"""Responses made up for a test."""

from typing import Any

from zerolab.datatypes import Grade
from zerolab.evaluation.responses import Response

RIGHT, WRONG = Grade(True, True, "correct", "1"), Grade(False, True, "wrong", "2")


def response(question: int = 0, sample: int = 0, correct: bool = True, text: str = "So 1.", **more: Any) -> Response:
    grade = RIGHT if correct else WRONG
    fields: dict[str, Any] = {
        "benchmark": "set",
        "question_id": f"q{question}",
        "problem": f"What is {question}?",
        "answers": ("1",),
        "sample": sample,
        "response": text,
        "tokens": len(text.split()),
        "finish_reason": "stop",
        "grade": grade,
        "lenient": grade,
        "model": "m",
        "template": "t",
        "temperature": 1.0,
    }
    return Response(**fields | more)
