"""Curves in a line of text."""

import itertools
import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float | None], width: int, low: float, high: float) -> str:
    """`values` averaged into at most `width` blocks, on a scale from low to high; a gap where nothing is known."""
    known = [math.nan if v is None else float(v) for v in values]
    bins = min(width, len(known))
    edges = [round(i * len(known) / bins) for i in range(bins + 1)] if bins else [0]
    return "".join(_block(known[a:b], low, high) for a, b in itertools.pairwise(edges))


def _block(values: Sequence[float], low: float, high: float) -> str:
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return " "
    share = (sum(finite) / len(finite) - low) / (high - low) if high > low else 0.0
    return BLOCKS[min(len(BLOCKS) - 1, max(0, int(share * len(BLOCKS))))]
