"""benchmarks/real.py: its sentences and its table say what the numbers say, and a finished part is kept."""

import importlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("real")


def rows(before: float, after: float, early: float, late: float) -> list[dict[str, Any]]:
    """Six steps in which wrong responses go from `early` to `late` tokens, evaluated at both ends."""
    evaluations = [{"step": step, "eval/accuracy": right, "eval/standard_error": 0.05} for step, right in
                   ((0, before), (6, after))]  # fmt: skip
    steps = [{"step": step, "length/incorrect": early if step < 4 else late, "truncated": 0.5} for step in range(1, 7)]
    return [evaluations[0], *steps[:-1], {**steps[-1], **evaluations[1]}]


@pytest.mark.parametrize(
    ("late_a", "late_b", "expected"),
    [
        (10, 20, "shorter under both objectives; they shortened less under b, by 10.0 tokens"),
        (20, 10, "shorter under both objectives; they shortened less under a, by 10.0 tokens"),
        (50, 20, "shorter under b and longer under a; they grew more under a, by 30.0 tokens"),
        (40, 60, "longer under both objectives; they grew more under b, by 20.0 tokens"),
    ],
)
def test_the_sentence_follows_the_numbers(real: Any, late_a: float, late_b: float, expected: str) -> None:
    *each, last = real.sentences({"a": rows(0.2, 0.6, 30, late_a), "b": rows(0.2, 0.5, 30, late_b)})
    assert expected in last
    assert "20% (standard error 5%) before, 60% (5%) after 6 steps" in each[0]
    assert f"wrong responses 30 to {late_b} tokens" in each[1]


def test_the_table_shows_an_interval_where_there_is_one(real: Any) -> None:
    row = {"questions": "q", "template": "chat", "asked": 40, "responses": 32, "right": 0.25, "low": 0.2, "high": 0.3}
    row |= {"lenient": 0.25, "formatted": 0.5, "truncated": 0.1, "tokens_right": 9.0, "tokens_wrong": None}
    greedy = row | {"responses": 1, "low": None, "high": None}
    shown = real.table([row | {"pass@32": 0.7}, greedy | {"pass@1": 0.25}])
    assert "| 40 x 32 | 25.0% [20.0%, 30.0%] | 25% | 50% | 10% | 9 | - | 70% (k = 32) |" in shown[2]
    assert shown[3].endswith("| 40 x 1 | 25.0% | 25% | 50% | 10% | 9 | - | - |")


def test_the_time_of_an_interrupted_call_counts(real: Any, tmp_path: Path) -> None:
    first = real.time_spent(tmp_path, 3.0)
    again = real.time_spent(tmp_path, 2.0)
    assert again["minutes"] == 5.0
    assert again["cpu_minutes"] >= first["cpu_minutes"]


def test_facts_asked_before_rl_are_held_out_from_both_arms(real: Any) -> None:
    from zerolab.data.questions import Pool, load_questions
    from zerolab.recipes import run_config

    configs = [run_config(recipe) for recipe in real.ARMS]
    asked = {question.text for question in real.held_out(configs[0])}
    assert len(asked) == real.FACTS
    for config in configs:
        pools = load_questions(config.questions).train
        assert asked.isdisjoint(q.text for pool in pools if isinstance(pool, Pool) for q in pool.questions)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks by phase are Linux's")
def test_a_peak_of_memory_belongs_to_the_phase_that_reached_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    memory = importlib.import_module("memory")
    peaks = memory.Peaks()
    with peaks.phase("large"):
        b"1" * (300 * 2**20)  # zeros would take no memory before they are written
    with peaks.phase("small"):
        b"1" * 2**20
    assert peaks.kib["large"] - peaks.kib["small"] > 250 * 2**10
