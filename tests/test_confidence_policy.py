"""The five-parameter policy: its score is exact, and the length bias appears, in the right arms only."""

from dataclasses import replace

import numpy as np
import pytest

from zerolab.errors import UserError
from zerolab.rl.advantage import advantages
from zerolab.rl.aggregate import token_weights
from zerolab.rl.objective import PRESETS
from zerolab.worlds.confidence_policy import (
    LEVELS,
    STYLE,
    Rollout,
    Setting,
    Style,
    drift_of_incorrect_length,
    enumerate_responses,
    expected_step,
    loss_gradient,
    sample,
    score,
    simulate,
)

SEEDS = (0, 1)


def incorrect_lengths(objective: str, seed: int, accuracy: float = 0.8, steps: int = 400) -> tuple[float, float]:
    """Mean length of incorrect answers over the first 10 and the last third of the steps."""
    rows = list(simulate(objective, seed=seed, steps=steps, setting=Setting(signal_accuracy=accuracy)))
    lengths = np.array([row.length_incorrect for row in rows])
    return float(lengths[:10].mean()), float(lengths[-steps // 3 :].mean())


def logprob(parameters: np.ndarray, right: bool, level: int, sure: int, length: int, stopped: bool) -> float:
    """log pi of one response, token by token."""

    def log_sigmoid(x: float) -> float:
        return -float(np.log1p(np.exp(-x)))

    answer, stop = parameters[level], parameters[LEVELS + sure]
    total = log_sigmoid(answer) if right else log_sigmoid(-answer)
    for _ in range(length - 1 - stopped):
        total += log_sigmoid(-stop)
    return total + (log_sigmoid(stop) if stopped else 0.0)


@pytest.mark.parametrize(
    ("right", "sure", "length", "stopped"), [(True, 1, 2, True), (False, 0, 9, True), (True, 0, 64, False)]
)
def test_score_is_the_gradient_of_logprob(right: bool, sure: int, length: int, stopped: bool) -> None:
    parameters = np.array([-2.5, -1.0, 0.5, -1.3, 0.4])
    arrays = [np.array([[value]]) for value in (1, False, right, right, sure, length, stopped)]
    exact = score(Rollout(*arrays), parameters, Setting())[0, 0]
    h = 1e-6
    for k in range(5):
        up, down = parameters.copy(), parameters.copy()
        up[k] += h
        down[k] -= h
        difference = logprob(up, right, 1, sure, length, stopped) - logprob(down, right, 1, sure, length, stopped)
        assert exact[k] == pytest.approx(difference / (2 * h), abs=1e-6)


@pytest.mark.parametrize("objective", ["dr_grpo", "grpo"])
def test_gradient_is_coefficient_times_score_on_policy_and_clipped_off_it(objective: str) -> None:
    setting = Setting()
    old = setting.parameters()
    rollout = sample(old, setting, 0, 1)
    advantage = np.stack([advantages(r, PRESETS[objective]) for r in rollout.solved.astype(float)])
    weight = token_weights(rollout.length.ravel(), PRESETS[objective].aggregation, 64)
    rows = np.arange(rollout.length.size)
    found = loss_gradient(rollout, old, PRESETS[objective], setting, advantage, old, rows)
    expected = -(weight * advantage.ravel()) @ score(rollout, old, setting).reshape(-1, 5)
    assert np.allclose(found, expected, atol=1e-14)

    def surrogate(parameters: np.ndarray) -> float:
        """By plain loops over tokens."""
        total = 0.0
        columns = (rollout.level, rollout.right, rollout.sure, rollout.length, rollout.stopped)
        for w, a, level, right, sure, length, stopped in zip(
            weight, advantage.ravel(), *(c.ravel() for c in columns), strict=True
        ):
            after = LEVELS + sure
            tokens = [(level, right), *[(after, False)] * int(length - 1 - stopped), *[(after, True)] * int(stopped)]
            for index, happened in tokens:
                chance = [1 / (1 + np.exp(-p[index])) for p in (parameters, old)]
                r = chance[0] / chance[1] if happened else (1 - chance[0]) / (1 - chance[1])
                total += w * min(r * a, np.clip(r, 0.8, 1.2) * a)
        return -total

    moved = old + np.array([0.3, -0.2, 0.4, 0.5, -0.4])
    found = loss_gradient(rollout, moved, PRESETS[objective], setting, advantage, old, rows)
    h = 1e-6
    for k in range(5):
        up, down = moved.copy(), moved.copy()
        up[k] += h
        down[k] -= h
        assert found[k] == pytest.approx((surrogate(up) - surrogate(down)) / (2 * h), abs=1e-7)


def test_a_coin_teaches_nothing_on_policy() -> None:
    """Accuracy stays within noise over seeds, and lengths do not grow under either objective."""
    gains = {"dr_grpo": [], "grpo": []}
    for objective, found in gains.items():
        for seed in range(6):
            rows = list(simulate(objective, seed=seed, steps=150, setting=Setting(reward="coin", truncation="keep")))
            found.append(np.mean([r.accuracy for r in rows[-50:]]) - np.mean([r.accuracy for r in rows[:50]]))
        assert abs(np.mean(found)) < 3 * np.std(found, ddof=1) / np.sqrt(len(found)) + 0.01


def test_score_has_mean_zero_under_its_own_policy() -> None:
    setting = Setting(questions=4000)
    parameters = setting.parameters()
    scores = score(sample(parameters, setting, 0, 1), parameters, setting).reshape(-1, 5)
    standard_error = scores.std(0) / np.sqrt(len(scores))
    assert (np.abs(scores.mean(0)) < 4 * standard_error).all()


def test_samples_follow_the_parameters() -> None:
    setting = Setting(questions=4000, signal_accuracy=0.8)
    rollout = sample(setting.parameters(), setting, 0, 1)
    for level, logit in enumerate(setting.correct_logits):
        assert rollout.right[rollout.level == level].mean() == pytest.approx(1 / (1 + np.exp(-logit)), abs=0.02)
    assert (rollout.sure == rollout.right).mean() == pytest.approx(0.8, abs=0.01)
    assert (~rollout.stopped).mean() == pytest.approx(0.88**63, abs=5e-4)
    assert rollout.length[rollout.stopped].min() == 2
    assert (rollout.length[~rollout.stopped] == 64).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("objective", ["grpo", "grpo_std_fix"])
def test_incorrect_answers_grow_when_divided_by_their_length(objective: str, seed: int) -> None:
    first, last = incorrect_lengths(objective, seed)
    assert last > 2.5 * first


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("objective", ["dr_grpo", "grpo_length_fix", "rloo"])
def test_incorrect_answers_do_not_grow_under_a_constant(objective: str, seed: int) -> None:
    first, last = incorrect_lengths(objective, seed)
    assert last < 1.25 * first


@pytest.mark.parametrize("seed", SEEDS)
def test_without_information_in_the_signal_nothing_grows(seed: int) -> None:
    for objective in ("grpo", "dr_grpo"):
        first, last = incorrect_lengths(objective, seed, accuracy=0.5)
        assert last < 1.25 * first


def test_both_objectives_learn_and_the_hardest_questions_stay_hard() -> None:
    for objective in ("grpo", "dr_grpo"):
        rows = list(simulate(objective, seed=0, steps=400))
        assert rows[-1].accuracy > rows[0].accuracy + 0.2
        assert max(row.accuracy for row in rows[-50:]) < 0.85  # a third of the questions is right 7.6 % of the time


def test_same_seed_same_rows() -> None:
    assert list(simulate("grpo", seed=3, steps=20)) == list(simulate("grpo", seed=3, steps=20))
    assert list(simulate("grpo", seed=3, steps=20)) != list(simulate("grpo", seed=4, steps=20))


def test_unknown_objective_is_named() -> None:
    with pytest.raises(UserError, match="dr_grpo"):
        next(simulate("dr_grop"))


STYLED = Setting(style=Style(association=2.0), mending=0.02, signal_accuracy=0.7)


def test_enumerated_responses_are_those_that_are_sampled() -> None:
    law = enumerate_responses(STYLED.parameters(), STYLED)
    assert law.probability.sum() == pytest.approx(1, abs=1e-12)
    sampled = sample(STYLED.parameters(), replace(STYLED, questions=20_000), 0, 1)
    for column in ("brief", "answered", "right", "sure", "length", "stopped"):
        values = getattr(sampled, column).astype(float).mean(1)  # a question is a replicate
        exact = (law.probability * getattr(law.responses, column)).sum()
        assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(len(values)), column
    wrong = sampled.length[~sampled.solved]
    assert law.incorrect_length() == pytest.approx(wrong.mean(), abs=4 * wrong.std() / np.sqrt(len(wrong)))


@pytest.mark.parametrize("truncation", ["zero", "keep"])
@pytest.mark.parametrize("objective", ["dr_grpo", "grpo_std_fix"])
def test_the_expected_step_is_the_mean_of_sampled_gradients(objective: str, truncation: str) -> None:
    setting = replace(STYLED, truncation=truncation)
    start, rows, found = setting.parameters(), np.arange(setting.questions * setting.samples), []
    for step in range(400):
        rollout = sample(start, setting, 0, step)
        rewards = (rollout.solved if truncation == "zero" else rollout.right).astype(float)
        advantage = np.stack([advantages(r, PRESETS[objective]) for r in rewards])
        found.append(-loss_gradient(rollout, start, PRESETS[objective], setting, advantage, start, rows))
    mean, error = np.mean(found, 0)[1:], np.std(found, 0)[1:] / np.sqrt(len(found))
    exact = expected_step(objective, setting)
    assert exact[0] == 0
    assert (np.abs(mean - exact[1:]) < 4 * error).all()


def test_the_drift_of_a_direction_is_a_derivative_and_a_style_moves_lengths() -> None:
    towards_brief = np.eye(6)[STYLE]
    assert drift_of_incorrect_length(towards_brief, STYLED) < 0
    up, down = (drift_of_incorrect_length(sign * towards_brief, STYLED) for sign in (1, -1))
    assert up == pytest.approx(-down, rel=1e-6)
    with pytest.raises(UserError, match="reward minus the group's mean"):
        expected_step("grpo", STYLED)


def test_a_style_that_decides_nothing_leaves_the_other_parameters_alone() -> None:
    plain, styled = (
        list(simulate("grpo", steps=40, setting=Setting(style=style))) for style in (None, Style(0.0, spread=0.0))
    )
    assert plain == styled
