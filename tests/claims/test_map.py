"""The map of 1/|o|: what is registered, what a probe of a condition says, and the correlation over conditions."""

from pathlib import Path

import numpy as np
import pytest

from zerolab.claims.experiments import length_map
from zerolab.claims.experiments.length_map import PROTOCOL, recipe, run
from zerolab.claims.experiments.map_conditions import (
    COIN,
    CONDITIONS,
    CONSTANT,
    DIVIDED,
    condition,
    opposite_growth,
    rank_correlation,
    sign_agreement,
)
from zerolab.claims.protocol import Row

NUMBERS = ("incorrect_end", "incorrect_before", "drift", "drift_sign")


def row(where: dict[str, object], arm: str, **numbers: float) -> Row:
    return {**where, "arm": arm, "seed": 0, **numbers}


def test_every_registered_condition_is_run() -> None:
    keys = {cell.key for cell in PROTOCOL.cells(PROTOCOL.plan())}
    assert len(keys) == (len(CONDITIONS) + 1) * 2 * PROTOCOL.seeds
    table = [row(dict(cell.factors), str(cell.factors["arm"])) for cell in PROTOCOL.cells(PROTOCOL.plan())]
    table = [{**r, **dict.fromkeys(NUMBERS, float(7 * i % 23) + i / 100)} for i, r in enumerate(table)]
    for statement in PROTOCOL.statements:
        assert statement.values(table), statement.text


def test_the_correlation_is_over_conditions_and_leaves_the_control_out() -> None:
    table = []
    for number, where in enumerate(CONDITIONS):
        table.append(row(dict(where), DIVIDED, drift=2.0 * number, incorrect_end=np.exp(number / 10)))
        table.append(row(dict(where), CONSTANT, drift=number, incorrect_end=0.0))
    table.append(row(dict(COIN), DIVIDED, drift=-99.0, incorrect_end=99.0))
    table.append(row(dict(COIN), CONSTANT, drift=0.0, incorrect_end=0.0))
    assert rank_correlation("drift")(table) == [pytest.approx(1.0)]


def test_signs_and_opposite_growth_are_counted_over_conditions() -> None:
    table = []
    for where, (drift, divided, constant) in zip(
        CONDITIONS, [(1, 9, 0), (-1, 9, 0), (1, 2, 0), (-1, -6, 6)], strict=False
    ):
        table.append(row(dict(where), DIVIDED, drift=drift, incorrect_end=divided, incorrect_before=0.0))
        table.append(row(dict(where), CONSTANT, drift=0.0, incorrect_end=constant, incorrect_before=0.0))
    assert sign_agreement(table) == [pytest.approx(2 / 3)]  # the third condition ends less than 5 tokens apart
    assert opposite_growth(table) == [1.0]  # the last


def test_a_cell_measures_the_end_and_probes_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(length_map, "STEPS", 12)
    where = condition(0.9, 0.0, 0.0, "zero")
    divided, constant = (run({**where, "arm": arm, "seed": 0}, tmp_path) for arm in (DIVIDED, CONSTANT))
    assert divided["drift"] > constant["drift"]  # the signal lets 1/|o| lengthen
    assert divided["incorrect_before"] == constant["incorrect_before"]
    assert run({**COIN, "arm": DIVIDED, "seed": 0}, tmp_path)["drift"] == 0
    assert recipe({**where, "arm": DIVIDED, "seed": 0})["style"] == {"association": 0.0, "spread": 2.0}
