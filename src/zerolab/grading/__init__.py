"""The grader. It never evaluates text, and no text can hang it; docs/grading.md has its conventions."""

from zerolab.grading.equal import counts, equal
from zerolab.grading.extract import extract
from zerolab.grading.grader import VERIFIERS, grade, grade_batch, is_correct, warm
from zerolab.grading.rules import REFERENCE, STANDARD, Rules

# Raise it if any response would be graded differently: stored results that depend on grades are then computed again.
GRADER_VERSION = "3"

__all__ = [
    "GRADER_VERSION", "REFERENCE", "STANDARD", "VERIFIERS", "Rules", "counts", "equal", "extract", "grade",
    "grade_batch", "is_correct", "warm",
]  # fmt: skip
