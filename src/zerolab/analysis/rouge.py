"""ROUGE-L by a bit-parallel longest common subsequence."""

from collections.abc import Hashable, Sequence

from zerolab.analysis.overlap import words


def lcs_length(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, in len(a) * len(b) / word size steps (Hyyro 2004).

    A zero bit i of the state says that b[i] lengthens the subsequence; one addition carries all of them.
    """
    where: dict[Hashable, int] = {}
    for i, item in enumerate(b):
        where[item] = where.get(item, 0) | 1 << i
    full = (1 << len(b)) - 1
    state = full
    for item in a:
        hit = state & where.get(item, 0)
        state = ((state + hit) | (state - hit)) & full
    return len(b) - state.bit_count()


def rouge_l(candidate: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004, ROUGE-L with beta 1), in [0, 1]; 0 without words."""
    a, b = words(candidate), words(reference)
    if not a or not b:
        return 0.0
    return 2 * lcs_length(a, b) / (len(a) + len(b))
