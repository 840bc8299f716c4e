"""Accuracy on held-out questions during training."""

from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np

from zerolab.data.templates import Template
from zerolab.rollout.engine import Engine
from zerolab.rollout.sampling import Encode, Grader, SamplingParameters, make_prompt, sample_graded
from zerolab.types import Question


class Evaluator:
    """The same questions with the same random numbers each time, so that evaluations differ by weights alone."""

    def __init__(
        self,
        engine: Engine,
        encode: Encode,
        questions: Sequence[Question],
        template: Template,
        grader: Grader,
        pool: Executor,
        parameters: SamplingParameters,
    ):
        self.engine, self.grader, self.pool, self.parameters = engine, grader, pool, parameters
        self.prompts = [(make_prompt(question, template, encode), i) for i, question in enumerate(questions)]

    def __call__(self) -> dict[str, float]:
        """accuracy (solved within the budget), its standard error over questions, formatted, truncated, length."""
        graded = sample_graded(self.engine, self.grader, self.pool, self.prompts, self.parameters)
        solved_QG = np.array([[g.correct and not c.truncated for c, g in zip(*group, strict=True)] for group in graded])
        per_question = solved_QG.mean(1)
        completions = [c for group, _ in graded for c in group]
        return {
            "eval/accuracy": float(per_question.mean()),
            "eval/standard_error": float(per_question.std(ddof=1) / np.sqrt(len(graded))) if len(graded) > 1 else 0.0,
            "eval/questions": float(len(graded)),
            "eval/formatted": float(np.mean([g.formatted for _, group in graded for g in group])),
            "eval/truncated": float(np.mean([c.truncated for c in completions])),
            "eval/length": float(np.mean([len(c) for c in completions])),
        }
