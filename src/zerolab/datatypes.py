"""The nouns of the loop. Frozen values; what is large is a column.

Shape legend, used as a suffix everywhere (`rewards_G`, `logprobs_T`):
    P  questions of a rollout            G  responses to one question
    N  responses of a rollout or step    L  tokens of one response
    T  response tokens of N responses, concatenated      S  prompt + response tokens, concatenated
    B  rows of a micro-batch             V  vocabulary
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

FinishReason = Literal["stop", "length", "abort"]
Reason = Literal["correct", "wrong", "unformatted", "timeout", "error"]


@dataclass(frozen=True, slots=True)
class Question:
    """A question with every answer that counts as right (alternatives, not parts)."""

    id: str  # unique within a run, e.g. "gsm_8k:17"
    text: str
    answers: tuple[str, ...]
    verifier: str = "math"  # how an extracted answer is compared: a key of grading.grader.VERIFIERS
    level: int | None = None
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)  # its row, for reward functions
    group: str | None = None  # questions of one group are on the same side of the split: phrasings of one fact


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question under a template, tokenized."""

    question: Question
    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled response.

    token_ids_L keeps the EOS token and the tokens of a stop string. logprobs_L are natural logarithms under the
    distribution that was really sampled (at the sampling temperature). `version` is the weight version of every token;
    where weights changed under way (while the engine was paused) it is that of the first, and versions_L has them all.
    """

    request_id: int
    text: str
    token_ids_L: np.ndarray  # int64
    logprobs_L: np.ndarray  # float32
    finish_reason: FinishReason
    version: int
    versions_L: np.ndarray | None = None  # int64

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"

    def __len__(self) -> int:
        return len(self.token_ids_L)


@dataclass(frozen=True, slots=True)
class Grade:
    """Verdict on a response. `formatted` says that the template's answer format was found, right or wrong."""

    correct: bool
    formatted: bool
    reason: Reason
    extracted: str | None = None
    milliseconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Group:
    """A question with its G graded responses; the unit of a group-relative advantage."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    grades: tuple[Grade, ...]
    rewards_G: np.ndarray  # float64, what the objective sees
    parts_G: Mapping[str, np.ndarray] = field(default_factory=dict)  # the weighted terms that rewards_G sums
    loss_mask_G: np.ndarray | None = None  # bool; None: all. False: masked by the truncation policy
    greedy_reward: float | None = None  # of the greedy response, where the objective compares with it
