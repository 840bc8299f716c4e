"""Truncation policies and reward terms, on a group with every kind of response."""

from dataclasses import replace

import numpy as np
import pytest

from zerolab.config import RewardConfig
from zerolab.datatypes import Completion, Grade, Group, Prompt, Question
from zerolab.rl.batch import make_batch
from zerolab.rl.metrics import rollout_metrics
from zerolab.rl.objective import PRESETS
from zerolab.rl.reward import has_right_and_wrong, is_mixed, make_group

BUDGET = 10
KINDS = [("stop", True, 4), ("stop", False, 8), ("length", True, 10), ("length", False, 10)]  # finish, correct, length


def group(texts: tuple[str, ...] = ("",) * 4, **config: object) -> Group:
    completions = [
        Completion(i, texts[i], np.arange(length), np.zeros(length, np.float32), finish, 0)  # type: ignore[arg-type]
        for i, (finish, _, length) in enumerate(KINDS)
    ]
    grades = [Grade(correct, True, "correct" if correct else "wrong") for _, correct, _ in KINDS]
    prompt = Prompt(Question("q", "?", ("1",)), "?", (1, 2))
    return make_group(prompt, completions, grades, RewardConfig(**config), BUDGET)


@pytest.mark.parametrize(
    ("config", "rewards"),
    [
        ({"truncation": "zero"}, [1, 0, 0, 0]),
        ({"truncation": "keep"}, [1, 0, 1, 0]),
        ({"truncation": "soft", "soft_margin": 4}, [1, -0.5, 0, -1]),
        ({"truncation": "zero", "format": 0.5}, [1.5, 0.5, 0, 0]),
        ({"truncation": "keep", "format": 0.5, "correctness": 2.0}, [2.5, 0.5, 2.5, 0.5]),
    ],
)
def test_rewards_are_the_sum_of_their_parts_under_every_truncation_policy(config: dict, rewards: list) -> None:
    made = group(**config)
    assert made.rewards_G.tolist() == rewards
    assert np.sum(list(made.parts_G.values()), axis=0).tolist() == rewards
    assert [g.correct for g in made.grades] == [True, False, True, False]  # no policy changes the verdict


def test_masked_responses_do_not_enter_statistics_or_batch() -> None:
    masked = group(truncation="mask")
    batch = make_batch([masked], PRESETS["dr_grpo"])
    assert batch.response_len_N.tolist() == [4, 8]
    assert batch.advantage_N.tolist() == [0.5, -0.5]
    assert is_mixed(masked)


def test_a_thought_ends_once() -> None:
    texts = ("a</think>b", "a", "a</think>b</think>", "</think>")
    made = group(texts, truncation="keep", correctness=0.0, think=0.5)
    assert made.parts_G["think"].tolist() == made.rewards_G.tolist() == [0.5, 0, 0, 0.5]
    assert group(texts, truncation="zero", think=0.5).rewards_G.tolist() == [1.5, 0, 0, 0]
    alone = group(texts, truncation="keep", correctness=0.0, think=0.5)
    assert alone.loss_mask_G is None  # a term with an opinion about every response


def test_mixed_by_reward_and_by_answers_differ_where_a_length_penalty_alone_does() -> None:
    """2503.14476 eq. 11: 0 < number of right answers < G."""
    penalised = group(truncation="soft", soft_margin=4)
    all_wrong = replace(penalised, grades=tuple(Grade(False, True, "wrong") for _ in KINDS))
    assert (is_mixed(penalised), has_right_and_wrong(penalised)) == (True, True)
    assert (is_mixed(all_wrong), has_right_and_wrong(all_wrong)) == (True, False)
    unpaid = group(truncation="keep", correctness=0.0, format=1.0)
    assert (is_mixed(unpaid), has_right_and_wrong(unpaid)) == (False, True)
    finished = replace(penalised, loss_mask_G=np.array([True, False, True, False]))
    assert (is_mixed(finished), has_right_and_wrong(finished)) == (True, False)  # both that enter are right


def test_a_group_with_equal_rewards_has_advantages_of_exactly_zero() -> None:
    for name in ("dr_grpo", "grpo", "rloo", "dapo"):
        same = group(truncation="zero", correctness=0.0, format=0.1)
        thirds = Group(same.prompt, same.completions, same.grades, np.full(4, 1 / 3))
        assert make_batch([thirds], PRESETS[name]).advantage_N.tolist() == [0, 0, 0, 0]


def test_entropy_covers_every_response_whatever_it_earned() -> None:
    """-log pi of the sampled tokens: its expectation is the entropy. A group of equal rewards counts as any other."""
    mixed = group(truncation="keep")
    rng = np.random.default_rng(0)
    probability_V = np.array([0.5, 0.25, 0.125, 0.125])  # 1.75 bits
    same = replace(
        mixed,
        completions=tuple(
            replace(c, logprobs_L=np.log(probability_V[rng.choice(4, size=4000, p=probability_V)]))
            for c in mixed.completions
        ),
        rewards_G=np.zeros(4),
    )
    assert rollout_metrics([same])["entropy"] == pytest.approx(1.75 * np.log(2), rel=0.01)
    alone, both = rollout_metrics([mixed])["entropy"], rollout_metrics([mixed, same])["entropy"]
    few = sum(len(c.logprobs_L) for c in mixed.completions)
    assert both == pytest.approx((few * alone + 16000 * rollout_metrics([same])["entropy"]) / (few + 16000))


def test_solved_means_right_and_finished() -> None:
    metrics = rollout_metrics([group(truncation="keep")])
    assert metrics["accuracy"] == 0.25
    assert metrics["correct_but_truncated"] == 0.25
    assert metrics["length/correct"] == 4
    assert metrics["length/incorrect"] == pytest.approx(28 / 3)
    assert metrics["truncated"] == 0.5
    assert metrics["tokens_per_solved"] == 32
