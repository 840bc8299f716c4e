"""The pressure of an update on response length, and its two parts: the reward and the weights of tokens.

It is computed in numpy from the columns of a batch, without a forward pass. The rollout counts as one optimizer step.
With A_i the advantage and w_i the token weight of response i,

    v_i = w_i / wbar,   wbar = sum_i w_i L_i / sum_i L_i      weight of a token, 1 on average over the tokens
    c_i = v_i A_i                                             coefficient of the score of response i

A step that raises log pi(o_i | q) in proportion to c_i changes a mean length by the covariance of c and L:
d E[L | K] = Cov(c, L | K). K is all responses to q, its correct ones or its incorrect ones. The covariance is exactly

    Cov(c, L) = Cov(A, L)  +  Cov((v - 1) A, L)
                reward        normaliser

The reward part is the pressure that is left if every token of the batch has the same weight. With aggregation constant
or token_mean they do, and the normaliser part is exactly 0. `docs/bias_meter.md` says how to read the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from zerolab.datatypes import Group
from zerolab.rl.advantage import advantages
from zerolab.rl.aggregate import token_weights
from zerolab.rl.objective import PRESETS, Objective

if TYPE_CHECKING:  # a report reads these numbers without torch
    from zerolab.rl.batch import Batch

QUARTERS = ("00-25", "25-50", "50-75", "75-100")  # response length in % of the budget
PASS_RATES = ("00-20", "20-40", "40-60", "60-80", "80-100")  # share of a question's responses that solved it


def bias_metrics(groups: Sequence[Group], batch: Batch, objective: Objective, budget: int) -> dict[str, float]:
    """The metrics bias/* of one rollout, except bias/clipped/*. A mean of nothing is NaN.

    Pressures are in reward x tokens. Correct means right and finished within the budget.

    Args:
        batch: make_batch of these groups.
        budget: L_max in tokens.
    """
    solved_N, truncated_N = _verdicts(groups)
    responses = sum(len(g.completions) for g in groups)
    current_v = relative_weights(batch, objective, budget)
    current = current_v * batch.advantage_N
    unbiased, grpo = (coefficients(batch, PRESETS[name], budget) for name in ("dr_grpo", "grpo"))
    selections = {"all": np.ones(len(batch), bool), "correct": solved_N, "incorrect": ~solved_N}
    metrics = {"masked": 1 - len(batch) / responses if responses else 0.0}
    for name, values_N in (
        ("length", current),
        ("length_reward", batch.advantage_N),
        ("length_normaliser", (current_v - 1) * batch.advantage_N),
        ("length_unbiased", unbiased),
        ("length_grpo", grpo),
    ):
        for kind, chosen_N in selections.items():
            metrics[f"{name}/{kind}"] = pressure(values_N, batch, chosen_N)
    metrics["cosine_unbiased"] = _cosine(current, unbiased)
    metrics["cosine_grpo"] = _cosine(current, grpo)
    metrics |= question_weights(batch, solved_N)
    metrics |= _by_length(batch, truncated_N, budget)
    return {f"bias/{name}": value for name, value in metrics.items()}


def _verdicts(groups: Sequence[Group]) -> tuple[np.ndarray, np.ndarray]:
    """(solved_N, truncated_N) of the responses that are not masked, in the order of the batch."""
    rows = [
        (grade.correct and not completion.truncated, completion.truncated)
        for group in groups
        for i, (completion, grade) in enumerate(zip(group.completions, group.grades, strict=True))
        if group.loss_mask_G is None or group.loss_mask_G[i]
    ]
    table = np.array(rows, dtype=bool).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def coefficients(batch: Batch, objective: Objective, budget: int) -> np.ndarray:
    """c_N of this batch under another objective, whose advantages must depend on one question at a time."""
    advantage_N = np.zeros(len(batch))
    for rows in _rows_by_key(batch.group_N):
        advantage_N[rows] = advantages(batch.reward_N[rows], objective)
    return relative_weights(batch, objective, budget) * advantage_N


def relative_weights(batch: Batch, objective: Objective, budget: int) -> np.ndarray:
    """v_N; exactly 1 if all tokens of the batch have the same weight."""
    weight_N = token_weights(batch.response_len_N, objective.aggregation, budget)
    if not len(weight_N):
        return weight_N
    excess_N = weight_N - weight_N[0]
    return weight_N / (weight_N[0] + (excess_N * batch.response_len_N).sum() / batch.response_len_N.sum())


def pressure(values_N: np.ndarray, batch: Batch, chosen_N: np.ndarray) -> float:
    """Covariance of values and length within questions, over the chosen responses.

    It is pooled over questions and unbiased: each question loses one degree of freedom to its own mean. NaN if no
    question has two chosen responses.
    """
    total, freedom = 0.0, 0
    for rows in _rows_by_key(np.where(chosen_N, batch.group_N, -1)):
        if chosen_N[rows[0]] and len(rows) > 1:
            total += float(_centred(values_N[rows]) @ _centred(batch.response_len_N[rows].astype(float)))
            freedom += len(rows) - 1
    return total / freedom if freedom else float("nan")


def _centred(values: np.ndarray) -> np.ndarray:
    """The values minus their mean; exactly 0 if all are equal."""
    excess = values - values[0]
    return excess - excess.mean()


def _rows_by_key(key_N: np.ndarray) -> list[np.ndarray]:
    """The row numbers of every distinct key."""
    order = np.argsort(key_N, kind="stable")
    return [rows for rows in np.split(order, np.flatnonzero(np.diff(key_N[order])) + 1) if len(rows)]


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else float("nan")


def question_weights(batch: Batch, solved_N: np.ndarray) -> dict[str, float]:
    """Weight of a mixed question per unit of centred reward, and its share of all advantage, by pass rate.

    The weight is the slope of A on R - mean(R) within the question. It is 1 unless the objective re-weights questions.
    """
    weights: list[list[float]] = [[] for _ in PASS_RATES]
    mass = np.zeros(len(PASS_RATES))
    for rows in _rows_by_key(batch.group_N):
        centred = _centred(batch.reward_N[rows])
        if not centred.any():
            continue
        bucket = min(int(solved_N[rows].mean() * len(PASS_RATES)), len(PASS_RATES) - 1)
        weights[bucket].append(float(batch.advantage_N[rows] @ centred / (centred @ centred)))
        mass[bucket] += np.abs(batch.advantage_N[rows]).sum()
    return {
        **{f"question_weight/{name}": mean_or_nan(w) for name, w in zip(PASS_RATES, weights, strict=True)},
        **{f"question_share/{name}": _ratio(m, mass.sum()) for name, m in zip(PASS_RATES, mass, strict=True)},
    }


def length_quarters(length_N: np.ndarray, budget: int) -> np.ndarray:
    """Index into QUARTERS of every response."""
    return np.clip((np.asarray(length_N) * len(QUARTERS) - 1) // budget, 0, len(QUARTERS) - 1)


def _by_length(batch: Batch, truncated_N: np.ndarray, budget: int) -> dict[str, float]:
    quarter_N = length_quarters(batch.response_len_N, budget)
    found: dict[str, float] = {}
    for index, name in enumerate(QUARTERS):
        inside_N = quarter_N == index
        found[f"responses/{name}"] = mean_or_nan(inside_N)
        found[f"truncated/{name}"] = mean_or_nan(truncated_N[inside_N])
    return found


def clipped_sums(clipped_T: np.ndarray, response_len_B: np.ndarray, budget: int) -> dict[str, float]:
    """Counts of clipped and forwarded tokens by the length of their response; micro-batches add up."""
    quarter_B = length_quarters(response_len_B, budget)
    clipped_Q = np.bincount(np.repeat(quarter_B, response_len_B), clipped_T, len(QUARTERS))
    tokens_Q = np.bincount(quarter_B, response_len_B, len(QUARTERS))
    return {
        **{f"clipped/{name}": float(x) for name, x in zip(QUARTERS, clipped_Q, strict=True)},
        **{f"forwarded/{name}": float(x) for name, x in zip(QUARTERS, tokens_Q, strict=True)},
    }


def clip_metrics(updates: Sequence[dict[str, float]]) -> dict[str, float]:
    """Share of clipped tokens by the length of their response, over the optimizer steps of one rollout."""
    sums = {n: sum(u.get(n, 0.0) for u in updates) for q in QUARTERS for n in (f"clipped/{q}", f"forwarded/{q}")}
    return {f"bias/clipped/{name}": _ratio(sums[f"clipped/{name}"], sums[f"forwarded/{name}"]) for name in QUARTERS}


def mean_or_nan(values: Sequence[float] | np.ndarray) -> float:
    """The mean, or nan if there is nothing to average."""
    return float(np.mean(values)) if len(values) else float("nan")


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
