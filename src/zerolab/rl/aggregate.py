"""The weight of a token in the loss. The one place where the length bias lives.

The weights of a whole optimizer step are computed here at once, before it is cut into micro-batches or ranks: the loss
of a part is its weighted sum, and no split can change the gradient.
"""

import numpy as np


def token_weights(response_len_N: np.ndarray, aggregation: str, budget: int) -> np.ndarray:
    """weight_N in float64: what every token of response i counts in an optimizer step of N responses.

    constant       1 / (N L_max)   2503.20783: a constant, so that length earns nothing
    response_mean  1 / (N L_i)     2402.03300: a long wrong answer is punished less per token
    token_mean     1 / sum_j L_j   2503.14476: constant within the step, over the tokens of the whole step
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
