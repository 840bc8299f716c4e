"""A run that does not learn says so once, with the remedy; a healthy run is silent."""

import json
from pathlib import Path
from typing import Any

import pytest

from command import run, write_recipe
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.config import RunConfig
from zerolab.models.hf import export_model
from zerolab.recipes import run_config, shipped
from zerolab.report.health import RULES, Health
from zerolab.rundir import read_metrics

HEALTHY: dict[str, Any] = {
    "formatted": 0.9,
    "zero_variance_groups": 0.4,
    "truncated": 0.05,
    "entropy": 0.6,
    "accuracy": 0.5,
    "grad_clipped": 0.5,
    "grad_norm": 1.1,
    "mismatch/k3": 1e-9,
}
SCORED = {"eval/accuracy": 0.5, "eval/standard_error": 0.03}
STALE = {"rollout": {"max_staleness": 1}}


def config(**tables: Any) -> RunConfig:
    given = {"steps": 200, "model": {"path": "m"}, "questions": {"path": "synthetic:modular"}, "objective": "rloo"}
    return run_config({**given, **tables})


def warned(rows: list[dict[str, Any]], **tables: Any) -> list[tuple[int, str]]:
    health = Health(config(**tables))
    found = [health.check({"step": step, **row}) for step, row in enumerate(rows, 1)]
    return [(warning.step, warning.name) for warnings in found for warning in warnings]


def then(healthy: int, sick: int, **changes: Any) -> list[dict[str, Any]]:
    return [HEALTHY] * healthy + [{**HEALTHY, **changes}] * sick


# rule: (rows that it warns of, step of the warning, rows just short of it)
CASES: dict[str, tuple[list[dict[str, Any]], int, list[dict[str, Any]]]] = {
    "no_response_in_format": (then(0, 30, formatted=0.0), 5, then(0, 30, formatted=0.01)),
    "no_mixed_group": (then(5, 30, zero_variance_groups=1.0), 15, then(5, 30, zero_variance_groups=0.99)),
    "almost_all_truncated": (then(3, 20, truncated=0.97), 13, then(3, 9, truncated=0.97)),
    "entropy_collapsed": (then(10, 30, entropy=0.001), 30, then(10, 60, entropy=0.001, accuracy=0.97)),
    "gradient_always_clipped": (
        then(2, 60, grad_clipped=1.0, grad_norm=30.0),
        52,
        then(2, 60, grad_clipped=0.98, grad_norm=30.0),
    ),
    "mismatch_growing": (then(10, 10, **{"mismatch/k3": 0.02}), 20, then(0, 40, **{"mismatch/k3": 0.02})),
    "held_out_below_best": (
        [HEALTHY | SCORED, HEALTHY, HEALTHY | SCORED | {"eval/accuracy": 0.4}],
        3,
        [HEALTHY | SCORED, HEALTHY, HEALTHY | SCORED | {"eval/accuracy": 0.43}],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_rule_warns_once_and_not_short_of_its_condition(name: str) -> None:
    sick, step, nearly = CASES[name]
    assert (step, name) in warned(sick)
    assert [found for _, found in warned(sick)].count(name) == 1
    assert warned(nearly) == []


def test_stale_responses_without_a_bound_are_warned_of_at_the_first_row() -> None:
    assert warned([HEALTHY] * 3, **STALE) == [(1, "stale_without_bound")]
    assert warned([HEALTHY] * 3, **STALE, objective="dr_grpo") == []


def test_every_rule_is_tested() -> None:
    assert {rule.name for rule in RULES} == {*CASES, "stale_without_bound"}


def test_a_group_that_nothing_is_compared_in_need_not_be_mixed() -> None:
    sick, *_ = CASES["no_mixed_group"]
    assert warned(sick, objective="reinforce") == []


@pytest.mark.parametrize("absent", [None, float("nan")])
def test_what_was_not_measured_warns_of_nothing(absent: float | None) -> None:
    assert warned([dict.fromkeys([*HEALTHY, *SCORED], absent)] * 80) == []


def test_healthy_rows_are_silent_under_every_shipped_recipe() -> None:
    rows = [{"step": step, **HEALTHY, **SCORED} for step in range(1, 101)]
    recipes = [path for path in shipped().values() if "[objective]" in path.read_text()]
    assert len(recipes) > 5
    for path in recipes:
        health = Health(run_config(path))
        assert [warning for row in rows for warning in health.check(row)] == [], path


def test_laptop_runs_are_silent() -> None:
    recorded = Path(__file__).parent / "health_rows.json"
    for name, rows in json.loads(recorded.read_text()).items():
        health = Health(run_config(name))
        assert len(rows) >= 60
        assert [warning for row in rows for warning in health.check(row)] == [], name


def test_a_resumed_run_does_not_warn_again() -> None:
    rows = [{"step": step, **HEALTHY, "formatted": 0.0} for step in range(1, 9)]
    assert Health(config(), rows[:7], {"no_response_in_format"}).check(rows[7]) == []
    assert [w.name for w in Health(config(), rows[:7]).check(rows[7])] == ["no_response_in_format"]


def test_a_run_without_a_response_in_the_format_says_so(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    export_model(tiny_model("qwen2"), tiny_tokenizer(), tmp_path / "model")
    recipe, out = write_recipe(tmp_path / "recipe.toml", tmp_path / "model"), tmp_path / "run"
    answer_tag = ("--set", "template.extractor=answer-tag")  # which a random model never writes
    assert run("train", recipe, *answer_tag, "--set", f"out={out}", "--set", "steps=6") == 0
    shown = capfd.readouterr().err
    warnings = [json.loads(line) for line in (out / "health.jsonl").read_text().splitlines()]
    assert [(w["step"], w["name"]) for w in warnings] == [(5, "no_response_in_format")]
    assert shown.count(warnings[0]["message"]) == 1
    assert warnings[0]["remedy"] in shown
    assert " fmt 0.00 " in shown
    assert run("train", recipe, *answer_tag, "--set", f"out={out}", "--set", "steps=8", "--resume") == 0
    assert len((out / "health.jsonl").read_text().splitlines()) == 1


def test_read_metrics_takes_text_and_paths(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "accuracy": 0.5}\n{"step": 2, "acc')
    assert read_metrics(str(tmp_path)) == read_metrics(tmp_path) == [{"step": 1, "accuracy": 0.5}]
