"""Agreement of two detectors beyond chance."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from zerolab.evaluation.statistics import Interval, percentile_interval


@dataclass(frozen=True)
class Agreement:
    """Cohen's kappa; None where both detectors say the same one thing throughout, so that chance explains all."""

    items: int
    observed: float  # share of items with equal labels
    kappa: float | None
    interval: Interval | None  # 95 %, bootstrap over clusters


def cohen_kappa(table_KK: np.ndarray) -> float:
    """(p_o - p_e) / (1 - p_e) of a table of counts (Cohen 1960); NaN where chance alone explains full agreement."""
    total = table_KK.sum()
    observed = np.trace(table_KK) / total
    expected = float(table_KK.sum(0) @ table_KK.sum(1)) / total**2
    return float("nan") if expected >= 1 else float((observed - expected) / (1 - expected))


def agreement(
    a: Sequence[Hashable],
    b: Sequence[Hashable],
    clusters: Sequence[Hashable] | None = None,
    *,
    replicates: int = 2000,
    seed: int = 0,
) -> Agreement:
    """Kappa of two lists of labels. `clusters` (questions, say) are what the bootstrap draws; items by default.

    ValueError for lists of different lengths or without an item.
    """
    if not len(a) or len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} labels cannot be compared")
    labels = {label: i for i, label in enumerate(dict.fromkeys([*a, *b]))}
    size = len(labels)
    cell_N = np.array([labels[x] * size + labels[y] for x, y in zip(a, b, strict=True)])
    names: dict[Hashable, int] = {}
    keys = range(len(a)) if clusters is None else clusters
    cluster_N = np.array([names.setdefault(key, len(names)) for key in keys])
    table_CK = np.zeros((len(names), size * size))
    np.add.at(table_CK, (cluster_N, cell_N), 1)
    table = table_CK.sum(0).reshape(size, size)
    kappa = cohen_kappa(table)
    observed = float(np.trace(table) / table.sum())
    if np.isnan(kappa):
        return Agreement(len(a), observed, None, None)
    draw = np.random.default_rng(seed)
    count_BC = draw.multinomial(len(names), np.full(len(names), 1 / len(names)), replicates)
    found_B = np.array([cohen_kappa(t.reshape(size, size)) for t in count_BC @ table_CK])
    return Agreement(len(a), observed, kappa, percentile_interval(found_B))
