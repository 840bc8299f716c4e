"""The drift probe: take the gradient of a loss on one rollout, move the weights along it, measure, put them back.

Two steps are taken: along the gradient g, by a fixed norm that all losses share, and along sign(g), by lr for every
parameter, which is Adam's first step. What they do is measured on responses to other questions.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch

from zerolab.datatypes import Group
from zerolab.drift.changes import (
    EFFECTIVE,
    Change,
    Difference,
    Moved,
    Sample,
    effective_share,
    measure_changes,
    measure_differences,
)
from zerolab.learner.learner import Learner
from zerolab.learner.precision import trained_weights
from zerolab.rl.batch import Batch, make_batch
from zerolab.rl.objective import PRESETS

DIRECTIONS = ("g", "sign(g)")


class Loss(Protocol):
    """A loss with a name; `backward` adds its gradient on a rollout to what the learner holds."""

    @property
    def name(self) -> str: ...

    @property
    def about(self) -> str: ...

    def backward(self, learner: Learner, rollout: Sequence[Group]) -> None: ...


@dataclass(frozen=True)
class StepSizes:
    lr: float  # along sign(g): how far every parameter moves
    norm: float  # along g: how far all parameters together move


@dataclass(frozen=True)
class Questions:
    """What is asked, and by whom.

    rollout      the groups that the gradient is taken on
    measured     groups of other questions, all of one size, on which the change is measured
    rewarded     gives groups the rewards of a truncation policy
    ask          draws new responses to the measured questions by the learner's weights as they are at that moment;
                 None: no plain sampling
    probability  [Q, S], if `measured` lists every response that exists; None: they were drawn
    """

    rollout: Sequence[Group]
    measured: Sequence[Group]
    rewarded: Callable[[Sequence[Group], str], Sequence[Group]]
    ask: Callable[[], Sequence[Group]] | None = None
    probability: np.ndarray | None = None


@dataclass(frozen=True)
class StepDrift:
    """One step of one loss under one truncation policy, and what it does. Without a gradient there are no changes."""

    loss: str
    truncation: str
    direction: str
    gradient_norm: float
    norm: float  # of the step
    kl: float  # KL(pi, pi') of a response, in nats
    effective: float  # share of the measured responses that importance weights are worth
    changes: tuple[Change, ...] = ()
    differences: tuple[Difference, ...] = ()  # this step minus that of the first loss; empty for that loss itself
    not_linear: tuple[str, ...] = field(default=())  # why the step is too large to be called linear; empty: it is not

    def change(self, metric: str) -> Change | None:
        return next((change for change in self.changes if change.metric == metric), None)

    def difference(self, metric: str) -> Difference | None:
        return next((found for found in self.differences if found.metric == metric), None)


class MovableWeights:
    """The trained weights of a learner, which can be moved along its gradient and are put back exactly."""

    def __init__(self, learner: Learner):
        self.weights = trained_weights(learner.model)
        self.before = [weight.detach().clone() for weight in self.weights]

    @property
    def gradients(self) -> list[torch.Tensor]:
        """Of the loss: a step goes against them."""
        return [weight.grad if weight.grad is not None else torch.zeros_like(weight) for weight in self.weights]

    def clear(self) -> None:
        for weight in self.weights:
            if weight.grad is not None:
                weight.grad.zero_()

    def gradient_norm(self) -> float:
        return float(sum(float(g.double().square().sum()) for g in self.gradients) ** 0.5)

    def norm_of(self, direction: str, sizes: StepSizes) -> float:
        if direction == "g":
            return sizes.norm
        return sizes.lr * float(sum(int((g != 0).sum()) for g in self.gradients) ** 0.5)

    @contextmanager
    def moved(self, direction: str, sizes: StepSizes, share: float) -> Iterator[None]:
        """While entered, the weights are this share of a step further."""
        scale = sizes.norm / self.gradient_norm() if direction == "g" else sizes.lr
        try:
            with torch.no_grad():
                for weight, gradient in zip(self.weights, self.gradients, strict=True):
                    weight.sub_(gradient if direction == "g" else gradient.sign(), alpha=share * scale)
            yield
        finally:
            with torch.no_grad():
                for weight, before in zip(self.weights, self.before, strict=True):
                    weight.copy_(before)


def probe(
    learner: Learner,
    losses: Sequence[Loss],
    questions: Questions,
    sizes: StepSizes,
    truncations: Sequence[str] = ("zero",),
    *,
    seed: int = 0,
    directions: Sequence[str] = DIRECTIONS,
    say: Callable[[str], None] = lambda _: None,
    keep: Callable[[list[StepDrift]], None] = lambda _: None,
) -> list[StepDrift]:
    """Every step of every loss under every truncation policy. The learner's weights are the same afterwards.

    Args:
        seed: of the bootstrap over the measured questions.
        say: is told before each step what is measured.
        keep: gets all steps so far after each of them, so that nothing is lost if the next is interrupted.
    """
    weights = MovableWeights(learner)
    batch = as_batch(questions.measured)
    before_N = response_logprobs(learner, batch)
    steps = len(losses) * len(truncations) * len(directions)
    found: list[StepDrift] = []
    for truncation in truncations:
        rollout = questions.rewarded(questions.rollout, truncation)
        sample = replace(
            Sample.of(questions.rewarded(questions.measured, truncation)), probability=questions.probability
        )
        measured = _Measured(learner, batch, before_N, sample, questions, truncation, seed)
        for loss in losses:
            weights.clear()
            loss.backward(learner, rollout)
            for direction in directions:
                say(f"{loss.name}, truncation {truncation}, along {direction} ({len(found) + 1} of {steps})")
                found.append(_step(weights, measured, loss.name, direction, sizes))
                keep(checked_together(found))
    weights.clear()
    return checked_together(found)


@dataclass(frozen=True)
class _Measured:
    """What a step is measured on."""

    learner: Learner
    batch: Batch
    before_N: np.ndarray
    sample: Sample
    questions: Questions
    truncation: str
    seed: int
    first: dict[str, Moved] = field(default_factory=dict)  # by direction, of the loss that came first

    def log_weights(self) -> np.ndarray:
        """log pi'(o) - log pi(o) [Q, S], with pi' the learner's weights now."""
        return (response_logprobs(self.learner, self.batch) - self.before_N).reshape(self.sample.length.shape)

    def plain(self) -> Sample | None:
        if self.questions.ask is None:
            return None
        return Sample.of(self.questions.rewarded(self.questions.ask(), self.truncation))

    def differences(self, moved: Moved, direction: str) -> list[Difference]:
        """From the same step of the first loss that has a gradient; of that one itself none."""
        first = self.first.setdefault(direction, moved)
        return [] if first is moved else measure_differences(self.sample, moved, first, self.seed)


def _step(weights: MovableWeights, measured: _Measured, loss: str, direction: str, sizes: StepSizes) -> StepDrift:
    norm = weights.gradient_norm()
    if norm == 0:
        return StepDrift(loss, measured.truncation, direction, 0.0, 0.0, 0.0, 1.0)
    with weights.moved(direction, sizes, 0.5):
        half_QS = measured.log_weights()
    with weights.moved(direction, sizes, 1.0):
        moved = Moved(measured.log_weights(), half_QS, measured.plain())
    return StepDrift(
        loss=loss,
        truncation=measured.truncation,
        direction=direction,
        gradient_norm=norm,
        norm=weights.norm_of(direction, sizes),
        kl=float(np.expm1(moved.whole_QS).mean() - moved.whole_QS.mean()),
        effective=effective_share(moved.whole_QS),
        changes=tuple(measure_changes(measured.sample, moved, measured.seed)),
        differences=tuple(measured.differences(moved, direction)),
    )


def checked_together(found: Sequence[StepDrift]) -> list[StepDrift]:
    """The steps, each with what speaks against its linearity; p values are corrected for the number of all checks."""
    checks = sum((1 if c.p_plain is None else 2) for step in found for c in step.changes)
    return [_checked(step, checks) for step in found]


def _checked(step: StepDrift, checks: int) -> StepDrift:
    reasons = [line for change in step.changes for line in change.disagreements(checks)]
    if step.effective < EFFECTIVE:
        reasons.insert(0, f"importance weights are worth {step.effective:.0%} of the responses")
    return replace(step, not_linear=tuple(reasons))


def as_batch(groups: Sequence[Group]) -> Batch:
    """Every response of the groups, masked or not, in their order."""
    return make_batch([replace(group, loss_mask_G=None) for group in groups], PRESETS["reinforce"])


def response_logprobs(learner: Learner, batch: Batch) -> np.ndarray:
    """log pi(o) of every response, in float64."""
    row_T = np.repeat(np.arange(len(batch)), batch.response_len_N)
    return np.bincount(row_T, learner.logprobs_of(batch).astype(float), len(batch))
