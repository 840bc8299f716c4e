"""What a token and a question count for: the two curves in which the biases of GRPO show."""

import math
from functools import cache

import numpy as np

from zerolab.audit.enumerate import BUDGET
from zerolab.audit.expectation import couples_questions, representative
from zerolab.rl.aggregate import token_weights
from zerolab.rl.batch import make_batch
from zerolab.rl.objective import Objective

GROUP_SIZES = (2, 4, 8, 16)
PASS_RATES = (0.01, *(round(0.05 * i, 2) for i in range(1, 20)), 0.99)


def weight_ratio_within_step(objective: Objective) -> float:
    """Weight of a token of the longest response over one of the shortest, in one step that holds every length."""
    weight_N = token_weights(np.arange(1, BUDGET + 1), objective.aggregation, BUDGET)
    return float(weight_N[-1] / weight_N[0])


def question_weights(objective: Objective, size: int) -> list[float]:
    """c(p) at PASS_RATES: the gradient of a question with 0/1 rewards is on average c(p) grad p, lengths being equal.

    With k of the siblings right, c(p) = E_k[A(right | k) - A(wrong | k)], because p E[S | right] = -(1-p) E[S | wrong]
    = grad p. Where advantages look at other questions, one more question with pass rate 1/2 is in the step.
    """
    gap_KJ, other_J = _gaps(objective, size)
    gap_K = gap_KJ @ other_J
    return [float(binomial(size - 1, p) @ gap_K) for p in PASS_RATES]


def _gaps(objective: Objective, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A(right) - A(wrong) by (right siblings k, right answers j to the other question), and the probability of j."""
    others = range(size + 1) if couples_questions(objective) else range(1)
    gaps = [
        [
            _advantage(objective, k + 1, size, j, right=True) - _advantage(objective, k, size, j, right=False)
            for j in others
        ]
        for k in range(size)
    ]
    return np.array(gaps), binomial(size, 0.5) if len(others) > 1 else np.ones(1)


def _advantage(objective: Objective, solved: int, size: int, other: int, right: bool) -> float:
    """Production advantage of a right or wrong response in a group of `size` with `solved` right ones."""
    groups = [
        representative([1.0] * count + [0.0] * (size - count), number) for number, count in enumerate((solved, other))
    ]
    batch = make_batch(groups, objective)
    return float(batch.advantage_N[0 if right else size - 1])


@cache
def binomial(count: int, p: float) -> np.ndarray:
    """P(k) of k = 0 .. count."""
    return np.array([math.comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(count + 1)])
