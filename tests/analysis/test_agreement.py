"""Cohen's kappa against a published value, its interval against the large-sample formula."""

import numpy as np
import pytest

from zerolab.analysis.rates import agreement


def lists(table) -> tuple[list[int], list[int]]:
    pairs = [(i, j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    return [i for i, _ in pairs], [j for _, j in pairs]


def test_kappa_of_a_known_table() -> None:
    found = agreement(*lists([[20, 5], [10, 15]]))
    assert (found.observed, found.kappa) == (0.7, pytest.approx(0.4))


def test_the_interval_is_that_of_fleiss_cohen_and_everitt() -> None:
    table = np.array([[200, 50], [100, 150]])
    share = table / table.sum()
    rows, columns = share.sum(1), share.sum(0)
    observed, expected = np.trace(share), rows @ columns
    kappa = (observed - expected) / (1 - expected)
    a = sum(share[i, i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in range(2))
    b = sum(share[i, j] * (columns[i] + rows[j]) ** 2 for i in range(2) for j in range(2) if i != j)
    b *= (1 - kappa) ** 2
    error = np.sqrt((a + b - (kappa - expected * (1 - kappa)) ** 2) / table.sum()) / (1 - expected)
    found = agreement(*lists(table))
    assert found.interval == pytest.approx((kappa - 1.96 * error, kappa + 1.96 * error), abs=0.012)


def test_copies_of_one_item_do_not_narrow_the_interval_of_clusters() -> None:
    a, b = lists([[20, 5], [10, 15]])
    single = agreement(a, b)
    copied = agreement(np.repeat(a, 8).tolist(), np.repeat(b, 8).tolist(), np.repeat(range(50), 8).tolist())
    assert copied.kappa == pytest.approx(single.kappa)
    assert copied.interval == pytest.approx(single.interval, abs=1e-9)


def test_chance_agreement_has_no_kappa() -> None:
    found = agreement(["x"] * 5, ["x"] * 5)
    assert (found.observed, found.kappa, found.interval) == (1.0, None, None)
    assert agreement(["x", "y"] * 50, ["x"] * 100).kappa == 0
    with pytest.raises(ValueError, match="cannot be compared"):
        agreement([], [])
