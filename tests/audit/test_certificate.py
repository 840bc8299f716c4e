"""Every preset keeps its invariants, and a broken one is caught: whatever the certificate measures, it can fail."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from zerolab.audit import split_invariance
from zerolab.audit.certificate import INVARIANTS, PASS_RATES, Certificate, certify, question_weights, violations
from zerolab.audit.command import markdown
from zerolab.audit.enumerate import EnumerablePolicy
from zerolab.cli import app
from zerolab.rl import advantage as advantage_module
from zerolab.rl.objective import PRESETS, Objective


@pytest.fixture(scope="module")
def certificates() -> dict[str, Certificate]:
    """All presets, with two real processes."""
    return {c.name: c for c in certify(list(PRESETS.values()))}


@pytest.fixture(scope="module")
def policy() -> EnumerablePolicy:
    return EnumerablePolicy(1)


def test_every_preset_has_promises_and_keeps_them(certificates: dict[str, Certificate]) -> None:
    assert set(INVARIANTS) == set(PRESETS)
    assert {name: c.violations for name, c in certificates.items()} == {name: [] for name in PRESETS}
    assert all(
        set(c.splits) == {"micro_batches", "prompts", "order", "updates", "ranks"} for c in certificates.values()
    )
    assert max(change for c in certificates.values() for change in c.splits.values()) < 1e-10


def test_the_documented_table_is_what_is_measured(certificates: dict[str, Certificate]) -> None:
    """Set ZEROLAB_WRITE_DOCS=1 to write it anew."""
    page = Path(__file__).resolve().parents[2] / "docs" / "certify.md"
    begin, end = "<!-- certificates:begin -->\n", "\n<!-- certificates:end -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    written, after = rest.split(end)
    table = markdown(list(certificates.values()))
    if os.environ.get("ZEROLAB_WRITE_DOCS"):
        page.write_text(before + begin + table + end + after, encoding="utf-8")
        written = table
    assert written == table


def test_the_two_biases_of_grpo_show_and_each_half_fix_mends_half(certificates: dict[str, Certificate]) -> None:
    ratio = {n: c.token_weights[-1] / c.token_weights[0] for n, c in certificates.items()}
    weight = {
        n: c.question_weights[8][0] / c.question_weights[8][PASS_RATES.index(0.5)] for n, c in certificates.items()
    }
    exactly_one = pytest.approx(1, abs=1e-12)  # up to the rounding of a sum, whose order depends on the processor
    assert ratio["grpo"] == pytest.approx(1 / 5)
    assert ratio["grpo_std_fix"] == pytest.approx(1 / 5)
    assert ratio["grpo_length_fix"] == exactly_one
    assert ratio["dr_grpo"] == exactly_one
    assert weight["grpo"] == weight["grpo_length_fix"] == pytest.approx(2.44 / 1.74, abs=0.01)
    assert weight["grpo_std_fix"] == weight["dr_grpo"] == pytest.approx(1, abs=1e-12)
    assert certificates["dr_grpo"].length_drift == pytest.approx(certificates["dr_grpo"].true_length_drift)
    assert certificates["grpo"].length_drift > certificates["grpo"].true_length_drift + 1


def test_std_weighs_questions_as_known_for_every_group_size() -> None:
    """2.44 against 1.74 at G = 8; about twofold at 16; nothing at 2."""
    spread = {}
    for size in (2, 8, 16):
        at = dict(zip(PASS_RATES, question_weights(PRESETS["grpo"], size), strict=True))
        spread[size] = at[0.01] / at[0.5]
        if size == 8:
            assert (at[0.01], at[0.5]) == (pytest.approx(2.44, abs=0.005), pytest.approx(1.74, abs=0.005))
    assert spread[2] == pytest.approx(1)
    assert spread[8] == pytest.approx(1.4, abs=0.05)
    assert spread[16] == pytest.approx(2, abs=0.1)


def test_masking_optimises_the_reward_given_the_end_and_zeroing_the_reward_of_finished_ones(
    certificates: dict[str, Certificate],
) -> None:
    """Masked, every question goes its own true way, but the questions weigh as often as they finish."""
    masked = certificates["dr_grpo"].truncation["mask"]
    assert masked.question_cosine == pytest.approx(1, abs=1e-12)
    assert masked.target.cosine < 1 - 1e-6
    for name in ("keep", "zero", "soft"):
        assert certificates["dr_grpo"].truncation[name].target.cosine == pytest.approx(1, abs=1e-12)
    assert certificates["dr_grpo"].truncation["zero"].reward_cosine < 0.99


def test_a_group_of_equal_rewards_only_counts_in_the_denominator(certificates: dict[str, Certificate]) -> None:
    zero = certificates["dr_grpo"].zero_variance
    assert (zero.largest_advantage, zero.others_scale) == (0, pytest.approx(3 / 4))
    assert zero.others_turned == pytest.approx(0, abs=1e-15)
    assert certificates["reinforce"].zero_variance.largest_advantage == 1


@pytest.mark.parametrize(
    ("owner", "wears"),
    [("dr_grpo", "grpo"), ("dr_grpo", "rloo"), ("rloo", "dr_grpo"), ("grpo", "dr_grpo"), ("grpo", "dapo"),
     ("grpo_length_fix", "grpo"), ("dapo", "grpo"), ("reinforce", "grpo_std_fix")],
)  # fmt: skip
def test_a_row_that_is_another_one_under_its_name_is_caught(
    certificates: dict[str, Certificate], owner: str, wears: str
) -> None:
    assert violations(certificates[wears], INVARIANTS[owner])


@pytest.mark.parametrize(
    "change", [{"splits": {"ranks": 1e-9}}, {"score_residual": 1e-9}, {"splits": {"order": np.nan}}]
)
def test_a_split_that_changes_the_gradient_is_caught_for_any_row(
    certificates: dict[str, Certificate], change: dict
) -> None:
    assert violations(dataclasses.replace(certificates["dr_grpo"], **change), None)


def test_a_denominator_of_the_rank_instead_of_the_step_is_caught(
    policy: EnumerablePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What peers do: every rank takes the rows it owns for the whole step."""
    step, _ = split_invariance.sampled(policy, PRESETS["dapo"])
    whole = split_invariance.ascent(policy.model, step, PRESETS["dapo"])

    shares = [split_invariance.share(step, rank, 2, uneven=False) for rank in range(2)]
    summed = sum(split_invariance.ascent(policy.model, step, PRESETS["dapo"], rows=rows) for rows in shares)
    own = sum(split_invariance.ascent(policy.model, step.select(rows), PRESETS["dapo"]) for rows in shares)
    assert split_invariance.relative_change(summed, whole) < 1e-13
    assert split_invariance.relative_change(own, whole) > 0.1
    assert split_invariance.relative_change(own / 2, whole) > 1e-3


def test_a_denominator_of_the_micro_batch_is_caught(policy: EnumerablePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token mean over micro-batches, mutated into the production learner."""
    from zerolab.learner.learner import Learner

    original = Learner._backward

    def per_micro_batch(self: Learner, micro, weight_B, advantage_B, objective):
        return original(
            self, micro, np.full(len(weight_B), 1 / int(micro.response_len_B.sum())), advantage_B, objective
        )

    monkeypatch.setattr(Learner, "_backward", per_micro_batch)
    changes = split_invariance.split_changes(policy, PRESETS["dapo"])
    assert changes["micro_batches"] > 1e-3
    assert changes["updates"] > 1e-3


@pytest.mark.parametrize(
    "terms", [{"entropy": 0.1}, {"kl": 0.1, "kl_estimator": "k2", "kl_place": "loss"}, {"kl": 0.1, "entropy": 0.1}]
)
def test_terms_beside_the_reward_are_a_part_of_the_proof(policy: EnumerablePolicy, terms: dict) -> None:
    base = "grpo_kl" if "kl_place" not in terms and "kl" in terms else "dr_grpo"
    objective = Objective(**Objective.resolve({"preset": base, **terms}))
    assert split_invariance.score_residual(policy, objective) < 1e-12
    assert max(split_invariance.split_changes(policy, objective).values()) < 1e-12
    step, score_ND = split_invariance.sampled(policy, objective)
    reward_alone = split_invariance.coefficients(step, objective) @ score_ND
    assert split_invariance.relative_change(split_invariance.ascent(policy.model, step, objective), reward_alone) > 1e-3


def test_the_second_update_on_a_rollout_is_off_policy_and_clipped(policy: EnumerablePolicy) -> None:
    """Otherwise invariance over several updates would say nothing new."""
    step, _ = split_invariance.sampled(policy, PRESETS["dr_grpo"])
    before = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    learner, seen = split_invariance.make_learner(policy.model), []
    for part in step.optimizer_steps(split_invariance.UPDATES, split_invariance.SEED):
        seen.append(learner.forward_backward(part, PRESETS["dr_grpo"]))
        learner.optim_step()
    policy.model.load_state_dict(before)
    assert seen[0]["mismatch_abs"] < 1e-14
    assert seen[-1]["mismatch_abs"] > 0.01
    assert seen[-1]["clip_fraction"] > 0


def test_command_prints_writes_and_fails_when_a_promise_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = CliRunner()
    data, figure = tmp_path / "c.json", tmp_path / "c.png"
    result = runner.invoke(app, ["certify", "dr_grpo", "--no-ranks", "--json", str(data), "--png", str(figure)])
    assert result.exit_code == 0, result.output
    assert "dr_grpo" in result.output
    [record] = json.loads(data.read_text())
    assert record["directions"]["8"]["scale"] == pytest.approx(7 / 8, abs=1e-12)
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert figure.with_suffix(".csv").read_text().startswith("curve,objective")

    centre = advantage_module._centre
    monkeypatch.setattr(advantage_module, "_centre", lambda rewards_G, kind: centre(rewards_G, kind) * (1 + rewards_G))
    result = runner.invoke(app, ["certify", "dr_grpo", "--no-ranks"])
    assert result.exit_code == 1
    assert "BROKEN" in result.output
    assert "cosine to the true gradient" in result.output


def test_command_certifies_a_changed_row_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    from zerolab.audit.command import run_certify
    from zerolab.errors import UserError

    assert run_certify(["grpo"], ["aggregation=constant"], None, None, ranks=False)
    for names, changes, file in (
        (["dr-grpo"], [], None),
        (["grpo"], ["agregation=constant"], None),
        (["grpo"], ["aggregation=sum"], None),
        ([], [], tmp_path / "missing" / "c.json"),
    ):
        with pytest.raises(UserError) as error:
            run_certify(names, changes, file, None, ranks=False)
        assert "\n" not in str(error.value)
