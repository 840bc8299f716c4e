"""What every row of PRESETS promises about its on-policy gradient; `zerolab certify` fails where one is broken.

Two promises hold for every row and stand in `certificate.py`: the production gradient is the sum of coefficient times
score, and no way of cutting a step changes it.
"""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Promise:
    """scale      of an unbiased direction: "1" or "(G-1)/G"; None: the direction is biased, and shown to be
    tokens     weight of a token: the same in all steps, the same within a step, or falling with 1/L
    questions  weight of a question against its pass rate p (0/1 rewards): one of QUESTION_WEIGHTS; None: depends on
               the other questions of the step
    silent     a group of equal rewards has no gradient
    """

    scale: Literal["1", "(G-1)/G"] | None
    tokens: Literal["constant", "one per step", "1/L"]
    questions: str | None
    silent: bool = True

    def scale_at(self, size: int) -> float:
        return 1.0 if self.scale == "1" else (size - 1) / size


def _centred(p: float, size: int) -> float:
    return (size - 1) / size


def _one(p: float, size: int) -> float:
    return 1.0


def _over_std(p: float, size: int) -> float:
    """E_k of the gap 1/std between a right and a wrong answer, std over size - 1, where the group is mixed."""

    def gap(solved: int, right: bool) -> float:
        if solved in (0, size):
            return 0.0
        std = math.sqrt(solved * (size - solved) / (size * (size - 1)))
        return (1 - solved / size if right else solved / size) / std

    chances = [math.comb(size - 1, k) * p**k * (1 - p) ** (size - 1 - k) for k in range(size)]
    return sum(chance * (gap(k + 1, True) + gap(k, False)) for k, chance in enumerate(chances))


def _over_mean(p: float, size: int) -> float:
    """2602.02710: the gradient of log p, truncated at order G - 1."""
    return (1 - (1 - p) ** (size - 1)) / p


QUESTION_WEIGHTS = {"1": _one, "(G-1)/G": _centred, "E[1/std]": _over_std, "(1-(1-p)^(G-1))/p": _over_mean}

PROMISES: dict[str, Promise] = {
    "reinforce": Promise("1", "constant", "1", silent=False),
    "dr_grpo": Promise("(G-1)/G", "constant", "(G-1)/G"),
    "grpo": Promise(None, "1/L", "E[1/std]"),
    "grpo_kl": Promise(None, "1/L", "E[1/std]"),
    "grpo_length_fix": Promise(None, "constant", "E[1/std]"),
    "grpo_std_fix": Promise(None, "1/L", "(G-1)/G"),
    "rloo": Promise("1", "constant", "1"),
    "remax": Promise("1", "constant", "1", silent=False),
    "dapo": Promise(None, "one per step", "E[1/std]"),
    "reinforce_pp_baseline": Promise(None, "one per step", None),
    "lite_ppo": Promise(None, "one per step", None),
    "gspo": Promise(None, "1/L", "E[1/std]"),
    "luspo": Promise(None, "constant", "E[1/std]"),
    "cispo": Promise(None, "one per step", "E[1/std]"),
    "maxrl": Promise(None, "constant", "(1-(1-p)^(G-1))/p"),
    "dppo": Promise("(G-1)/G", "constant", "(G-1)/G"),
    "ppo": Promise("1", "constant", "1", silent=False),
    "ppo_response_mean": Promise(None, "1/L", "1", silent=False),
    "cross_entropy": Promise(None, "one per step", "1", silent=False),
}
