"""The grader. It never evaluates text, and no text can hang it; docs/grading.md has its conventions."""

from zerolab.grading.equal import counts, equal
from zerolab.grading.extract import extract
from zerolab.grading.grader import VERIFIERS, grade, grade_batch, is_correct
from zerolab.grading.rules import REFERENCE, STANDARD, Rules

__all__ = [
    "REFERENCE", "STANDARD", "VERIFIERS", "Rules", "counts", "equal", "extract", "grade", "grade_batch", "is_correct",
]  # fmt: skip
