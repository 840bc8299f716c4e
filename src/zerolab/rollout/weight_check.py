"""Are the new weights in use? A law of engines, whatever they are made of, asked after every update.

The engine samples a few tokens after prompts that never change; the learner, whose weights were just published, says
how likely these tokens are. An update that was lost, or that reached some tensors only, shows at once instead of as a
policy that slowly drifts away from its own samples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from zerolab.datatypes import Completion
from zerolab.errors import UserError
from zerolab.rl.batch import Batch, pack
from zerolab.rollout.engine import Engine, Request, generate_all

PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 4, 8, 8  # at least so many prompts, and one for every engine
# Mean |difference| of log-probabilities, in nats, that two ways to compute the same weights may have.
TOLERANCE = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.1}
# The learner's move, in nats, that has to be seen in some bit of the engine's numbers.
MOVED = 1e-4

Score = Callable[[Batch], np.ndarray]


@dataclass(frozen=True, slots=True)
class Answer:
    """The probe's prompts with the tokens sampled, and their log-probabilities."""

    tokens_S: np.ndarray
    engine_T: np.ndarray
    learner_T: np.ndarray


class Probe:
    """`merged`: the engine's weights are rounded from the learner's (LoRA), and small updates may vanish in that.

    vocab_size bounds the prompts' token ids, temperature is that of the learner's log-probabilities.
    """

    def __init__(
        self, vocab_size: int, *, precision: str, temperature: float, merged: bool = False, engines: int = 1
    ) -> None:
        prompts = max(PROMPTS, engines)
        ids_PL = np.random.default_rng(0).integers(0, vocab_size, (prompts, PROMPT_TOKENS)).tolist()
        self.requests = [Request(i, tuple(ids), i, NEW_TOKENS, temperature) for i, ids in enumerate(ids_PL)]
        self.precision, self.merged = precision, merged
        self._last: Answer | None = None

    def __call__(self, engine: Engine, score: Score) -> float:
        """Mean |log pi_engine - log pi_learner| over the probe's tokens.

        `score` gives the learner's log-probabilities. Raises UserError where the difference is larger than the
        precision explains, and where the learner moved while no bit of the engine's answer did.
        """
        try:
            completions = generate_all(engine, self.requests)
        except FloatingPointError as error:
            raise UserError(f"{error}; the policy has diverged: lower learner.lr; checkpoints are untouched") from error
        batch = self._batch(completions)
        answer = Answer(batch.tokens_S, batch.old_logprobs_T, score(batch))
        difference = float(np.abs(answer.engine_T - answer.learner_T).mean())
        allowed = TOLERANCE[self.precision]
        if not difference <= allowed:
            how = f"differ by {difference:.2g} on average" if math.isfinite(difference) else "are not finite"
            raise UserError(
                f"after the update to version {engine.version} the log-probabilities of engine and learner {how} "
                f"({allowed:g} is allowed in {self.precision}): the engine does not sample from the new weights. "
                "Checkpoints are untouched; rollout.check_weights = false goes on without this check"
            )
        self._refuse_standstill(engine.version, answer)
        self._last = answer
        return difference

    def _refuse_standstill(self, version: int, answer: Answer) -> None:
        last = self._last
        if last is None or self.merged or not np.array_equal(last.tokens_S, answer.tokens_S):
            return
        moved = float(np.abs(answer.learner_T - last.learner_T).mean())
        if moved > MOVED and np.array_equal(last.engine_T, answer.engine_T):
            raise UserError(
                f"the update to version {version} moved the learner's log-probabilities by {moved:.2g} on average and "
                "none of the engine's by a single bit: the engine still samples from the old weights. Checkpoints are "
                "untouched; rollout.check_weights = false goes on without this check"
            )

    def _batch(self, completions: list[Completion]) -> Batch:
        tokens, logprobs, rows = [], [], []
        for request, completion in zip(self.requests, completions, strict=True):
            tokens += [np.array(request.prompt_ids, dtype=np.int64), completion.token_ids_L]
            logprobs.append(completion.logprobs_L)
            rows.append((len(request.prompt_ids), len(completion), request.id, 0.0, 0.0, completion.version))
        return pack(tokens, logprobs, rows)
