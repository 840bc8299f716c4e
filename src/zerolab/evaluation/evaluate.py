"""Accuracy on held-out questions during training."""

from collections.abc import Sequence

import numpy as np

from zerolab.config import EvaluationConfig, TextEvaluationConfig
from zerolab.data.questions import QuestionStream
from zerolab.data.templates import Template
from zerolab.datatypes import Question
from zerolab.errors import UserError
from zerolab.rollout.engine import SamplingParameters, request_seed, sample_graded
from zerolab.rollout.stream import Stream


def choose_questions(source: QuestionStream, most: int) -> list[Question]:
    """The different questions among the first `most` draws of a stream: the same ones in every evaluation."""
    return list({draw.question.id: draw.question for draw in source.take(most)}.values())


def evaluation_parameters(
    evaluation: EvaluationConfig | TextEvaluationConfig, template: Template, seed: int, max_new_tokens: int
) -> SamplingParameters:
    """How an evaluation samples: the settings of the config, with random numbers of its own."""
    return SamplingParameters(
        samples=evaluation.samples_per_question,
        max_new_tokens=max_new_tokens,
        temperature=evaluation.temperature,
        stop=template.stop,
        seed=request_seed(seed, "evaluation"),
        top_p=evaluation.top_p,
        top_k=evaluation.top_k,
        min_tokens=evaluation.min_tokens,
    )


class Evaluator:
    """The same questions with the same random numbers each time, so that evaluations differ by weights alone.

    It samples through the engine, template and grader of the training stream; over-long prompts are left out.
    """

    def __init__(self, stream: Stream, questions: Sequence[Question], parameters: SamplingParameters):
        self.stream, self.parameters = stream, parameters
        prompts = [(stream.prompt(question), i) for i, question in enumerate(questions)]
        self.prompts = [(prompt, i) for prompt, i in prompts if prompt is not None]
        if not self.prompts:
            raise UserError(
                f"all evaluation prompts are longer than {stream.config.max_prompt_tokens} tokens: shorten the template"
            )

    def __call__(self) -> dict[str, float]:
        """accuracy (solved within the budget), its standard error over questions, formatted, truncated, length."""
        stream = self.stream
        with stream.turn:
            graded = sample_graded(stream.engine, stream.grader, stream.pool, self.prompts, self.parameters)
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
