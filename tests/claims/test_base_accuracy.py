"""B4: what a missing box does to strict accuracy is not taken for an effect of reflection."""

from pathlib import Path

import pytest

from zerolab.claims.experiments import base_accuracy
from zerolab.datatypes import Grade
from zerolab.evaluation.responses import Response

WORDS = "Let me check again: "


def response(question: int, sample: int, reflects: bool, boxed: bool, right: bool) -> Response:
    return Response(
        benchmark="arithmetic",
        question_id=str(question),
        problem="",
        answers=("4",),
        sample=sample,
        response=(WORDS if reflects else "") + "4",
        tokens=4,
        finish_reason="stop",
        grade=Grade(right and boxed, boxed, "correct" if right and boxed else "wrong"),
        lenient=Grade(right, True, "correct" if right else "wrong"),
        model="textbook",
        template="none",
        temperature=1.0,
    )


def test_answers_without_a_box_make_no_difference_of_reflection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of all answers are right whether they reflect or not, but those without a box never reflect."""
    kinds = [(True, True), (False, True), (False, False)]  # (reflects, boxed)
    found = [
        response(question, 2 * k + right, *kind, bool(right))
        for question in range(20)
        for k, kind in enumerate(kinds)
        for right in (0, 1)
    ]
    monkeypatch.setattr(base_accuracy, "responses", lambda factors, templates: found)
    numbers = base_accuracy.run({"kind": "textbook", "seed": 5}, Path())
    assert numbers["within_strict"] == pytest.approx(0.25)
    assert numbers["within_lenient"] == pytest.approx(0)
    assert numbers["within_formatted"] == pytest.approx(0)
    assert numbers["reflects"] == pytest.approx(1 / 3)


def test_no_base_of_the_first_version_is_used_again() -> None:
    seeds = {cell.factors["seed"] for cell in base_accuracy.PROTOCOL.cells(base_accuracy.PROTOCOL.plan())}
    assert seeds == set(range(5, 15))
