"""The conventions of the grader, case by case: tests/golden/grading.txt holds the cases, with a note on each."""

from pathlib import Path

import pytest

from zerolab.grading import grade

PATH = Path(__file__).resolve().parent.parent / "golden" / "grading.txt"


def cases() -> list[tuple[str, str, str, bool]]:
    """(convention, answer, gold, expected) of every line."""
    found, convention = [], ""
    for line in PATH.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            convention = line[3:].split(":")[0]
        elif line[:2] in ("+ ", "- ") and " :: " in line and convention:
            answer, gold = line[2:].split(" :: ")
            found.append((convention, answer, gold, line[0] == "+"))
    return found


CASES = cases()


def test_the_golden_file_is_several_hundred_cases_of_both_kinds() -> None:
    assert len(CASES) > 450
    assert sum(not expected for *_, expected in CASES) > 150
    assert len({convention for convention, *_ in CASES}) > 30


@pytest.mark.parametrize(("convention", "answer", "gold", "expected"), CASES)
def test_golden_case(convention: str, answer: str, gold: str, expected: bool) -> None:
    verdict = grade(rf"So the answer is \boxed{{{answer}}}.", gold)
    assert verdict.correct is expected, f"{convention}: {answer!r} against {gold!r} gave {verdict}"
    assert verdict.reason in ("correct", "wrong", "unformatted")
