"""Counter-based random numbers: a sample's draws are a function of its seed and the position, of nothing else."""

import numpy as np

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
