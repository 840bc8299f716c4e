"""What a recipe asks of the hardware: rows and tokens of a step, at the mean lengths that are assumed."""

from dataclasses import dataclass

from zerolab.config import RunConfig
from zerolab.plan.assumptions import Assumptions
from zerolab.plan.lengths import Lengths


@dataclass(frozen=True)
class Sampled:
    """Responses to be sampled together, `group` of them to every prompt."""

    responses: int
    group: int
    prompt: float  # tokens
    lengths: Lengths

    @property
    def tokens(self) -> float:
        return self.responses * self.lengths.mean


@dataclass(frozen=True)
class Workload:
    steps: int
    rollout: Sampled
    kept: int  # responses that are learned from: without those whose groups dynamic sampling replaced
    updates: int
    evaluations: int
    evaluation: Sampled

    @property
    def learned(self) -> int:
        """Responses of one optimizer step."""
        return -(-self.kept // self.updates)


def workload(config: RunConfig, assumed: Assumptions) -> Workload:
    """Dynamic sampling draws until the assumed share of mixed groups fills the batch, or its rounds end."""
    rollout, evaluation = config.rollout, config.evaluation
    prompt = min(assumed.prompt_tokens, rollout.max_prompt_tokens)

    def sampled(questions: int, samples: int, budget: int) -> Sampled:
        return Sampled(questions * samples, samples, prompt, Lengths(max(1.0, assumed.response_share * budget), budget))

    draws = min(1 + rollout.refill_rounds, 1 / assumed.mixed_share) if rollout.refill_rounds else 1
    questions = round(rollout.questions_per_step * draws)
    budget = evaluation.max_new_tokens or rollout.max_new_tokens
    return Workload(
        steps=config.steps,
        rollout=sampled(questions, rollout.samples_per_question, rollout.max_new_tokens),
        kept=rollout.questions_per_step * rollout.samples_per_question,
        updates=config.learner.updates_per_rollout,
        evaluations=1 + -(-config.steps // evaluation.every) if evaluation.every else 0,
        evaluation=sampled(evaluation.max_questions, evaluation.samples_per_question, budget),
    )
