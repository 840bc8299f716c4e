"""The data types of the loop. All are frozen; large data are arrays.

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
    columns: Mapping[str, Any] = field(
        default_factory=dict, compare=False, repr=False
    )  # file row, for reward functions
    group: str | None = None  # questions of one group (phrasings of one fact) are on the same side of the split


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question in a template, as text and tokens."""

    question: Question
    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled response.

    token_ids_L includes the EOS token and the tokens of a stop string. logprobs_L are in nats, under the distribution
    that was sampled (at the sampling temperature). `version` is the weight version of all tokens. If the weights
    changed during the response, `version` is that of the first token, and versions_L has the version of every token.
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
    """Verdict on a response. `formatted`: the response has the answer format of the template, right or wrong."""

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
    rewards_G: np.ndarray  # float64
    parts_G: Mapping[str, np.ndarray] = field(default_factory=dict)  # weighted terms; rewards_G is their sum
    loss_mask_G: np.ndarray | None = None  # bool; False: the response is left out of the update. None: all are in it
    greedy_reward: float | None = None  # reward of the greedy response, if the objective needs it
