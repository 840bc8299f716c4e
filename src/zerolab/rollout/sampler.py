"""Draw one token per row from softmax(logits / temperature), by inversion of the distribution function.

The random numbers of a sample depend only on its seed and the position. Evaluation may restrict the tokens that can be
drawn (top-k, top-p, a minimum length). Training never does: the learner's probabilities are those of the whole softmax,
so every ratio would be wrong by the mass that was cut off.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

CHUNK = 64


def sample(
    logits_NV: torch.Tensor,
    temperatures_N: np.ndarray,
    uniforms_N: np.ndarray,
    restrict: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (int64 [N]) and their log-probabilities (float32 [N]) under the distribution sampled from.

    Temperature 0 takes the largest logit and reports its log-probability at temperature 1. `restrict` puts -inf in the
    place of what may not be drawn, in logits at the sampling temperature (support.py). The distribution function
    is summed over chunks of the vocabulary in float64, so that a uniform is resolved far below any probability.
    Raises FloatingPointError for logits that are not finite.
    """
    device = logits_NV.device
    greedy_N = temperatures_N == 0
    scaled_NV = logits_NV.float()
    if not np.all(greedy_N | (temperatures_N == 1)):
        safe_N = np.where(greedy_N, 1.0, temperatures_N).astype(np.float32)
        scaled_NV = scaled_NV / torch.from_numpy(safe_N).to(device)[:, None]
    if restrict is not None:
        scaled_NV = restrict(scaled_NV)
    mass_NV = torch.softmax(scaled_NV, -1)
    if mass_NV.shape[1] % CHUNK:
        mass_NV = torch.nn.functional.pad(mass_NV, (0, -mass_NV.shape[1] % CHUNK))
    mass_NCK = mass_NV.unflatten(1, (-1, CHUNK))
    cdf_NC = mass_NCK.sum(-1).double().cumsum(-1)
    total_N1 = cdf_NC[:, -1:]
    if greedy_N.all():
        tokens_N1 = scaled_NV.argmax(-1, keepdim=True)
    else:
        tokens_N1 = _invert(mass_NCK, cdf_NC, torch.from_numpy(uniforms_N).to(device)[:, None])
        if greedy_N.any():
            best_N1 = scaled_NV.argmax(-1, keepdim=True)
            tokens_N1 = torch.where(torch.from_numpy(greedy_N).to(device)[:, None], best_N1, tokens_N1)
    logprobs_N1 = mass_NV.gather(1, tokens_N1).double().log() - total_N1.log()
    # One copy to the host, so that a decoding step waits for the device once. float64 holds token ids exactly.
    tokens_N, logprobs_N, total_N = torch.cat([tokens_N1.double(), logprobs_N1, total_N1], 1).cpu().numpy().T
    if not np.isfinite(total_N).all():
        raise FloatingPointError("the model's logits are not finite; its weights have diverged")
    return tokens_N.astype(np.int64), logprobs_N.astype(np.float32)


def _invert(mass_NCK: torch.Tensor, cdf_NC: torch.Tensor, uniforms_N1: torch.Tensor) -> torch.Tensor:
    """The first token whose distribution function exceeds the uniform: first its chunk, then its place in there.

    The rest of the uniform is rescaled to the chunk's own float64 sum, so a token without mass is never chosen. A row
    that is not finite gets some token of the vocabulary, so that `sample` can report it after its copy to the host.
    """
    target_N1 = uniforms_N1 * cdf_NC[:, -1:]
    chunk_N1 = torch.searchsorted(cdf_NC, target_N1, right=True).clamp_(max=cdf_NC.shape[1] - 1)
    upper_N1 = cdf_NC.gather(1, chunk_N1)
    lower_N1 = torch.where(chunk_N1 > 0, cdf_NC.gather(1, (chunk_N1 - 1).clamp_(min=0)), 0.0)
    share_N1 = ((target_N1 - lower_N1) / (upper_N1 - lower_N1)).clamp_(0.0, 1.0 - 1e-12)
    inner_NK = mass_NCK.gather(1, chunk_N1[:, :, None].expand(-1, -1, CHUNK))[:, 0].double().cumsum(-1)
    place_N1 = torch.searchsorted(inner_NK, share_N1 * inner_NK[:, -1:], right=True)
    return chunk_N1 * CHUNK + place_N1.clamp_(max=CHUNK - 1)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_WORD = (1 << 64) - 1


def as_words(seeds: list[int]) -> np.ndarray:
    """Python integers of any size and sign as uint64 [N], modulo 2^64."""
    return np.array([seed & _WORD for seed in seeds], dtype=np.uint64)


def _mix(words_N: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2714064.2660195)."""
    words_N = (words_N ^ (words_N >> np.uint64(30))) * _MIX_1
    words_N = (words_N ^ (words_N >> np.uint64(27))) * _MIX_2
    return words_N ^ (words_N >> np.uint64(31))


def uniforms(seeds_N: np.ndarray, positions_N: np.ndarray) -> np.ndarray:
    """float64 [N] in [0, 1): the draw of stream `seed` (uint64) at `position` (a non-negative integer).

    The seed is mixed before the position is added, so that neighbouring seeds do not walk through the same sequence.
    """
    with np.errstate(over="ignore"):
        words_N = _mix(_mix(seeds_N + _GOLDEN) + (positions_N.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return (words_N >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True, slots=True)
class Support:
    """One value per row; rows that take all tokens have 0, 1.0 and False."""

    top_k_N: np.ndarray  # int64
    top_p_N: np.ndarray  # float64
    endless_N: np.ndarray  # bool: no end-of-sequence token yet


def restrict(logits_NV: torch.Tensor, support: Support, eos: torch.Tensor) -> torch.Tensor:
    """The logits (at the sampling temperature) with -inf for every token that may not be drawn.

    First the end-of-sequence tokens `eos` (int64) go where they must wait; then top-k keeps the k largest logits; then
    top-p keeps the fewest of the largest whose probability among those left reaches p. Whatever ties with the last one
    kept is kept too, so the support does not depend on an order among equals.
    """
    device = logits_NV.device
    logits_NV = logits_NV.clone()
    endless = torch.from_numpy(np.nonzero(support.endless_N)[0]).to(device)
    if len(endless):
        logits_NV[endless[:, None], eos] = -torch.inf
    cut = np.nonzero((support.top_k_N > 0) | (support.top_p_N < 1))[0]
    if len(cut):
        rows = torch.from_numpy(cut).to(device)
        part_MV = logits_NV[rows]
        top_k_M1 = torch.from_numpy(support.top_k_N[cut]).to(device)[:, None]
        top_p_M1 = torch.from_numpy(support.top_p_N[cut]).to(device)[:, None]
        logits_NV[rows] = part_MV.masked_fill(part_MV < _least(part_MV, top_k_M1, top_p_M1), -torch.inf)
    return logits_NV


def _least(logits_MV: torch.Tensor, top_k_M1: torch.Tensor, top_p_M1: torch.Tensor) -> torch.Tensor:
    """[M, 1]: the smallest logit that stays."""
    size = logits_MV.shape[1]
    falling_MV = logits_MV.sort(-1, descending=True).values
    count_M1 = torch.where(top_k_M1 > 0, top_k_M1.clamp(max=size), size)
    least_M1 = falling_MV.gather(1, count_M1 - 1)
    mass_MV = (falling_MV - falling_MV[:, :1]).double().exp_().masked_fill_(falling_MV < least_M1, 0.0)
    cdf_MV = mass_MV.cumsum_(-1)
    last_M1 = torch.searchsorted(cdf_MV, top_p_M1 * cdf_MV[:, -1:]).clamp_(max=size - 1)
    # Where p is 1 the sum's own rounding must not cut a tail off.
    return torch.where(top_p_M1 < 1, falling_MV.gather(1, last_M1).maximum(least_M1), least_M1)
