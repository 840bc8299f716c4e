"""The weight of a token in the loss. The length bias of GRPO comes from this weight.

The weights of a whole optimizer step are computed at once, before the step is split into micro-batches or ranks. The
loss of a part is a weighted sum, so no split changes the gradient.
"""

import numpy as np


def token_weights(response_len_N: np.ndarray, aggregation: str, budget: int) -> np.ndarray:
    """weight_N in float64: the weight of every token of response i in an optimizer step of N responses.

    constant       1 / (N L_max)   2503.20783: the same for all responses, whatever their length
    response_mean  1 / (N L_i)     2402.03300: a long wrong answer is punished less per token
    token_mean     1 / sum_j L_j   2503.14476: the same for all tokens of the step

    `budget` is L_max in tokens. Raises ValueError for an unknown aggregation.
    """
    lengths_N = np.asarray(response_len_N, dtype=np.float64)
    size = len(lengths_N)
    if aggregation == "constant":
        return np.full(size, 1.0 / (size * budget)) if size else lengths_N
    if aggregation == "response_mean":
        return 1.0 / (size * lengths_N)
    if aggregation == "token_mean":
        return np.full(size, 1.0 / lengths_N.sum()) if size else lengths_N
    raise ValueError(f"unknown aggregation {aggregation!r}")
