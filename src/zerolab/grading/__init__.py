"""The grader. It never evaluates text, and no text can hang it."""

from zerolab.grading.grader import VERIFIERS, grade, grade_batch, is_correct

__all__ = ["VERIFIERS", "grade", "grade_batch", "is_correct"]
