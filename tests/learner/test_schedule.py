"""Warm-up, stable, decay."""

import math

import pytest

from zerolab.config import OptimizerConfig
from zerolab.learner.optim import learning_rate


def rates(steps: int, **settings: object) -> list[float]:
    config = OptimizerConfig(lr=2.0, schedule="wsd", **settings)
    return [learning_rate(step, steps, config) for step in range(steps + 1)]


def test_wsd_warms_up_is_constant_and_falls_as_one_minus_the_root_of_what_is_over() -> None:
    found = rates(100, warmup_steps=10, decay_share=0.25, final_lr_ratio=0.1)
    assert found[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert found[10:76] == [2.0] * 66
    for step in (76, 80, 90, 99, 100):
        assert found[step] == pytest.approx(2.0 * (0.1 + 0.9 * (1 - math.sqrt((step - 75) / 25))))
    assert found[100] == pytest.approx(0.2)


def test_the_decay_takes_a_fifth_unless_it_is_said_otherwise() -> None:
    assert rates(50) == rates(50, decay_share=0.2)
    assert rates(50)[40] == 2.0 > rates(50)[41]


def test_before_the_decay_a_longer_run_has_the_same_rates() -> None:
    """What the schedule is for: the end may still be open. Under a cosine it is not."""
    assert rates(100, warmup_steps=5)[:80] == rates(200, warmup_steps=5)[:80]
    cosine = OptimizerConfig(lr=2.0, schedule="cosine")
    assert learning_rate(50, 100, cosine) != learning_rate(50, 200, cosine)


def test_a_warm_up_into_the_decay_is_not_cut_short() -> None:
    found = rates(10, warmup_steps=9, decay_share=1.0)
    assert found[:9] == pytest.approx([2.0 * (i + 1) / 9 for i in range(9)])
    assert found[10] == pytest.approx(0.0)
