"""Engine against learner: weights pi_old / mu for what the engine sampled under slightly other probabilities than the
learner computes, and how much of their mass a bound removes.

With exact weights E[weight] = 1, so the mass that a bound removes is 1 minus the mean weight that is kept. Weights of
tokens vary little and leave a bias; the weight of a response is a product over its tokens, which drifts away from 1
with the length, so that its bound removes long responses: a length bias of its own. Hence the metric by length.
"""

import numpy as np

from zerolab.rl.bias_meter import QUARTERS, length_quarters


def correction_weights(
    old_logprobs_T: np.ndarray, sampled_logprobs_T: np.ndarray, response_len_N: np.ndarray, kind: str, cap: float
) -> np.ndarray:
    """weight_T in the dtype of old_logprobs_T: what the surrogate of every token is multiplied by.

    token_truncate     min(w_it, cap), w_it = pi_old / mu of the token
    token_mask         w_it where it is at most cap, else 0
    sequence_truncate  min(w_i, cap), w_i = product of w_it over the response
    sequence_mask      w_i where it is at most cap, else 0
    """
    level, _, bound = kind.partition("_")
    log_T = old_logprobs_T.astype(np.float64) - sampled_logprobs_T
    if level == "sequence":
        row_T = np.repeat(np.arange(len(response_len_N)), response_len_N)
        log_T = np.bincount(row_T, log_T, len(response_len_N))[row_T]
    within_T = log_T <= np.log(cap)
    beyond = {"truncate": cap, "mask": 0.0}[bound]
    return np.where(within_T, np.exp(np.minimum(log_T, np.log(cap))), beyond).astype(old_logprobs_T.dtype)


def mismatch_metrics(old_logprobs_T: np.ndarray, sampled_logprobs_T: np.ndarray) -> dict[str, float]:
    """Mean |log pi_old - log mu| of a token, and the k3 estimate of KL(mu || pi_old)."""
    gap_T = old_logprobs_T.astype(np.float64) - sampled_logprobs_T
    if not len(gap_T):
        return {"mismatch/abs": float("nan"), "mismatch/k3": float("nan")}
    return {"mismatch/abs": float(np.abs(gap_T).mean()), "mismatch/k3": float((np.expm1(gap_T) - gap_T).mean())}


def removed_mass(weight_T: np.ndarray, response_len_N: np.ndarray, budget: int) -> dict[str, float]:
    """1 - mean kept weight by the length of the response; every response counts once. NaN where there is none."""
    row_T = np.repeat(np.arange(len(response_len_N)), response_len_N)
    kept_N = np.bincount(row_T, weight_T, len(response_len_N)) / response_len_N
    quarter_N = length_quarters(response_len_N, budget)
    inside = {name: kept_N[quarter_N == number] for number, name in enumerate(QUARTERS)}
    return {
        f"mismatch/removed/{n}": float(1 - kept.mean()) if len(kept) else float("nan") for n, kept in inside.items()
    }
