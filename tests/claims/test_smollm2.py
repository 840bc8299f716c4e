"""L1.smollm2: pairs come first, a cell names its model by its hash, and growth is measured against the base."""

from dataclasses import replace
from pathlib import Path

import pytest

from tiny_models import tiny_model, tiny_tokenizer
from zerolab.claims.experiments import length_smollm2 as experiment
from zerolab.claims.protocol import Row
from zerolab.claims.verdict import findings, overall
from zerolab.models import fetch
from zerolab.models.hf import export_model

PROTOCOL = experiment.PROTOCOL


def test_pairs_come_before_the_control_and_differ_by_the_objective_alone() -> None:
    cells = [cell.factors for cell in PROTOCOL.cells(PROTOCOL.plan())]
    assert [c["reward"] for c in cells] == ["verdict"] * 18 + ["coin"] * 6
    assert [(c["arm"], c["seed"]) for c in cells[:4]] == [
        *((arm, 0) for arm in ("base", "dr_grpo", "grpo_std_fix")),
        ("base", 1),
    ]
    a, b = (experiment.config_of({"arm": arm, "reward": "verdict", "seed": 3}) for arm in experiment.ARMS)
    assert a.objective != b.objective
    assert a.model_copy(update={"objective": b.objective}) == b
    assert (a.reward.truncation, a.template.extractor, a.learner.updates_per_rollout) == ("keep", "mention", 1)
    assert a.learner.max_grad_norm > 1e6
    coin = experiment.config_of({"arm": "dr_grpo", "reward": "coin", "seed": 0})
    assert (coin.reward.random, coin.reward.correctness, coin.reward.truncation) == (1.0, 0.0, "keep")


def test_a_cell_of_another_file_of_weights_is_another_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    factors = {"arm": "dr_grpo", "reward": "verdict", "seed": 0}
    before = experiment.recipe(factors)
    assert before == experiment.recipe(factors)
    known = dict(fetch.catalogue())
    known["smollm2-135m-instruct-q4"] = replace(known["smollm2-135m-instruct-q4"], sha256="0" * 64)
    monkeypatch.setattr(fetch, "catalogue", lambda: known)
    assert experiment.recipe(factors) != before


def test_training_that_moves_nothing_measures_the_base_and_a_step_changes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(tiny_model("llama"), tiny_tokenizer(), tmp_path / "model")
    toy = (f"model.path='{tmp_path / 'model'}'", "steps=1", "template.name=none", "rollout.max_new_tokens=8")
    small = ("rollout.questions_per_step=2", "rollout.samples_per_question=2")
    monkeypatch.setattr(experiment, "HELD_OUT", 6)
    found = {}
    for name, arm, reward, lr in (
        ("base", "base", "verdict", 1e-30),
        ("still", "dr_grpo", "coin", 1e-30),
        ("moved", "dr_grpo", "coin", 0.1),
    ):
        monkeypatch.setattr(experiment, "SETTINGS", (*experiment.SETTINGS, *toy, *small, f"learner.lr={lr}"))
        numbers = experiment.run({"arm": arm, "reward": reward, "seed": 0}, tmp_path / name)
        found[name] = {k: v for k, v in numbers.items() if k in ("tokens", "truncated", "incorrect")}
    assert found["base"] == found["still"] != found["moved"]


@pytest.mark.parametrize(
    ("end", "coin_gap", "verdict"),
    [
        ({"dr_grpo": 50, "grpo_std_fix": 15}, 0, "reproduced"),
        ({"dr_grpo": 15, "grpo_std_fix": 50}, 0, "not reproduced"),  # the paper's direction
        ({"dr_grpo": 15, "grpo_std_fix": 15}, 0, "not reproduced"),
    ],
)
def test_the_verdict_tells_the_predicted_direction_from_the_paper_s(
    end: dict[str, int], coin_gap: int, verdict: str
) -> None:
    table: list[Row] = []
    for cell in PROTOCOL.cells(PROTOCOL.plan()):
        arm, seed = str(cell.factors["arm"]), int(cell.factors["seed"])
        length = end.get(arm, 32) if cell.factors["reward"] == "verdict" else 32 + coin_gap * (arm == "dr_grpo")
        noise = (seed % 3 - 1) * 0.5 + (arm == "dr_grpo") * (seed % 2) * 0.3
        table.append({**cell.factors, "incorrect": length + noise, "correct": 10, "accuracy": 0.5, "truncated": 0.1})
    assert overall(findings(PROTOCOL, table)) == verdict
