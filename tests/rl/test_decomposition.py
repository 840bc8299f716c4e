"""The bias meter: exact zeros, signs on constructed batches, and that it predicts what a policy does."""

import numpy as np
import pytest

from zerolab.audit.expectation import representative
from zerolab.datatypes import Completion, Grade, Group
from zerolab.rl.batch import Batch, make_batch
from zerolab.rl.bias_meter import (
    PASS_RATES,
    bias_metrics,
    clip_metrics,
    clipped_sums,
    coefficients,
    length_quarters,
    pressure,
    relative_weights,
)
from zerolab.rl.objective import PRESETS, Objective

BUDGET = 40


def group(number: int, rows: list[tuple[float, int]], correct_from: float = 1.0) -> Group:
    """A question with responses (reward, length); the budget cuts those that reach it."""
    empty = representative([reward for reward, _ in rows], number)
    completions = tuple(
        Completion(i, "", np.zeros(n, np.int64), np.zeros(n), "length" if n == BUDGET else "stop", 0)
        for i, (_, n) in enumerate(rows)
    )
    grades = tuple(Grade(r >= correct_from, True, "correct" if r >= correct_from else "wrong") for r, _ in rows)
    return Group(empty.prompt, completions, grades, empty.rewards_G)


def metrics(groups: list[Group], name: str) -> dict[str, float]:
    return bias_metrics(groups, make_batch(groups, PRESETS[name]), PRESETS[name], BUDGET)


@pytest.fixture
def groups() -> list[Group]:
    """Two mixed questions; wrong answers are longer, lengths vary within right and within wrong ones."""
    return [
        group(0, [(1, 4), (1, 8), (0, 10), (0, 30), (0, 14)]),
        group(1, [(1, 6), (0, 12), (0, 24), (0, 36), (0, 9)]),
    ]


@pytest.mark.parametrize("name", ["dr_grpo", "rloo", "reinforce", "grpo_length_fix", "dapo"])
def test_normaliser_pressure_is_zero_to_the_bit_where_tokens_weigh_the_same(groups: list[Group], name: str) -> None:
    found = metrics(groups, name)
    for kind in ("all", "correct", "incorrect"):
        assert found[f"bias/length_normaliser/{kind}"] == 0
        assert found[f"bias/length/{kind}"] == found[f"bias/length_reward/{kind}"]
    assert found["bias/length/all"] < 0  # short answers are right here: shortening pays
    # Binary rewards: a wrong answer of this question is worth as much as another, whatever its length.
    assert found["bias/length/incorrect"] == found["bias/length/correct"] == 0


@pytest.mark.parametrize("name", ["grpo", "grpo_std_fix"])
def test_grpo_lengthens_wrong_answers_and_shortens_right_ones_by_its_normaliser_alone(
    groups: list[Group], name: str
) -> None:
    found = metrics(groups, name)
    assert found["bias/length_normaliser/incorrect"] > 0 > found["bias/length_normaliser/correct"]
    for kind in ("correct", "incorrect"):
        assert found[f"bias/length_reward/{kind}"] == pytest.approx(0, abs=1e-12)
        assert found[f"bias/length/{kind}"] == pytest.approx(found[f"bias/length_normaliser/{kind}"])


def test_the_parts_sum_to_the_whole_and_counterfactuals_are_those_of_their_own_runs(groups: list[Group]) -> None:
    runs = {name: metrics(groups, name) for name in ("dr_grpo", "grpo", "dapo")}
    for name, found in runs.items():
        for kind in ("all", "correct", "incorrect"):
            parts = found[f"bias/length_reward/{kind}"] + found[f"bias/length_normaliser/{kind}"]
            assert found[f"bias/length/{kind}"] == pytest.approx(parts, abs=1e-12), name
            assert found[f"bias/length_grpo/{kind}"] == runs["grpo"][f"bias/length/{kind}"]
            assert found[f"bias/length_unbiased/{kind}"] == runs["dr_grpo"][f"bias/length/{kind}"]
    assert runs["dr_grpo"]["bias/cosine_unbiased"] == pytest.approx(1)
    assert runs["grpo"]["bias/cosine_grpo"] == pytest.approx(1)
    assert runs["grpo"]["bias/cosine_unbiased"] == runs["dr_grpo"]["bias/cosine_grpo"] < 0.99


def test_length_pressure_is_a_hand_computed_covariance() -> None:
    """One question, lengths 2 4 6 with rewards 1 0 0; wbar of 1/L is 3 / 12, so v = 2, 1, 2/3."""
    batch = make_batch([group(0, [(1, 2), (0, 4), (0, 6)])], PRESETS["grpo_std_fix"])
    assert relative_weights(batch, PRESETS["grpo_std_fix"], BUDGET) == pytest.approx([2, 1, 2 / 3])
    current = coefficients(batch, PRESETS["grpo_std_fix"], BUDGET)
    assert current == pytest.approx([4 / 3, -1 / 3, -2 / 9])
    wrong = np.array([False, True, True])
    assert pressure(current, batch, wrong) == pytest.approx(2 * (1 / 18) * 1)  # two points: deviations 1/18 and 1
    everyone = np.ones(3, bool)
    assert pressure(current, batch, everyone) == pytest.approx(np.cov(current, [2, 4, 6])[0, 1])
    assert np.isnan(pressure(current, batch, ~wrong))


def test_the_pressure_is_the_derivative_of_a_mean_length() -> None:
    """One logit per response, tilted by the coefficients: the exact law behind the meter."""
    generator = np.random.default_rng(0)
    length_N = generator.integers(1, BUDGET, 400)
    reward_N = (generator.random(400) < 0.7 - 0.4 * length_N / BUDGET).astype(float)
    batch = make_batch([group(0, list(zip(reward_N.tolist(), length_N.tolist(), strict=True)))], PRESETS["grpo"])
    current = coefficients(batch, PRESETS["grpo"], BUDGET)

    def mean_length(tilt: float, chosen: np.ndarray) -> float:
        weight = np.exp(tilt * current) * chosen
        return float(weight @ length_N / weight.sum())

    for chosen in (np.ones(400, bool), reward_N == 1, reward_N == 0):
        slope = (mean_length(1e-5, chosen) - mean_length(-1e-5, chosen)) / 2e-5
        assert pressure(current, batch, chosen) == pytest.approx(slope * chosen.sum() / (chosen.sum() - 1), rel=1e-6)


def test_pressure_looks_within_questions_only() -> None:
    """A hard question with long answers beside an easy one with short answers: no pressure in that."""
    groups = [group(0, [(1, 5), (1, 5), (1, 5), (0, 5)]), group(1, [(0, 30), (0, 30), (0, 30), (1, 30)])]
    found = metrics(groups, "grpo")
    assert found["bias/length/all"] == found["bias/length/correct"] == found["bias/length/incorrect"] == 0


def test_question_weights_show_the_std_and_only_the_std() -> None:
    size = 8
    groups = [group(k, [(1, 5)] * k + [(0, 9)] * (size - k)) for k in (1, 4, 7)]
    expected = {"00-20": 1, "40-60": 4, "80-100": 7}
    for name in ("grpo", "grpo_length_fix", "dapo"):
        found = metrics(groups, name)
        for bucket, solved in expected.items():
            std = np.sqrt(solved * (size - solved) / (size * (size - 1)))
            assert found[f"bias/question_weight/{bucket}"] == pytest.approx(1 / std, rel=1e-6)
        assert np.isnan(found["bias/question_weight/20-40"])
    plain = metrics(groups, "grpo_std_fix")
    assert [plain[f"bias/question_weight/{b}"] for b in expected] == pytest.approx([1, 1, 1])
    assert sum(plain[f"bias/question_share/{b}"] for b in PASS_RATES) == pytest.approx(1)
    assert plain["bias/question_share/40-60"] > plain["bias/question_share/00-20"]


def test_length_quarters_truncated_and_masked_responses_are_counted() -> None:
    assert length_quarters(np.array([1, 10, 11, 20, 21, 30, 31, 40]), BUDGET).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    rows = [(1.0, 5), (0.0, 10), (0.0, BUDGET), (1.0, 35)]
    found = metrics([group(0, rows)], "dr_grpo")
    assert found["bias/responses/00-25"] == 0.5
    assert found["bias/truncated/75-100"] == 0.5
    assert found["bias/truncated/00-25"] == 0
    assert np.isnan(found["bias/truncated/25-50"])
    whole = group(0, rows)
    masked = Group(
        whole.prompt, whole.completions, whole.grades, whole.rewards_G, {}, np.array([True, True, False, True])
    )
    found = metrics([masked], "dr_grpo")
    assert found["bias/masked"] == 0.25
    assert found["bias/truncated/75-100"] == 0


def test_clipped_tokens_are_shared_out_by_the_length_of_their_response() -> None:
    clipped_T = np.array([1, 0, 0, 0, *[1] * 30], dtype=bool)
    sums = clipped_sums(clipped_T, np.array([4, 30]), BUDGET)
    found = clip_metrics([sums, sums])
    assert found["bias/clipped/00-25"] == 0.25
    assert found["bias/clipped/50-75"] == 1
    assert np.isnan(found["bias/clipped/75-100"])


def test_nothing_to_measure_is_no_error() -> None:
    for groups in ([], [group(0, [(0, 3), (0, 5)])]):
        found = metrics(groups, "grpo")
        assert np.isnan(found["bias/cosine_unbiased"])
        assert found["bias/masked"] == 0
    assert isinstance(make_batch([], PRESETS["grpo"]), Batch)


def test_a_changed_row_is_measured_by_its_coordinates_not_its_name(groups: list[Group]) -> None:
    row = Objective(**Objective.resolve({"preset": "grpo", "aggregation": "constant"}))
    found = bias_metrics(groups, make_batch(groups, row), row, BUDGET)
    assert found["bias/length_normaliser/incorrect"] == 0
    assert found["bias/length_grpo/incorrect"] > 0
