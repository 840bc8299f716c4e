"""The stream on an engine whose answers are known: dynamic sampling, dropped prompts, seeds, cursor."""

import time
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pytest

from zerolab.config import QuestionsConfig, RewardConfig, RolloutConfig
from zerolab.data.questions import QuestionStream, load_questions
from zerolab.data.templates import TEMPLATES
from zerolab.datatypes import Completion
from zerolab.errors import UserError
from zerolab.grading.grader import grade
from zerolab.rl.reward import has_right_and_wrong, is_mixed, make_group
from zerolab.rollout.engine import Request, SamplingParameters
from zerolab.rollout.stream import Rollout, Stream
from zerolab.toml import parse


class KnownEngine:
    """Answers 7 to everything when the seed is even, 8 when it is odd; for prompts of `dull` length always 7."""

    def __init__(self, dull: int | None = None):
        self.version, self.dull, self.requests = 0, dull, []

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        self.requests += requests
        for request in reversed(requests):  # finishing order is not asking order
            odd = request.seed % 2 and len(request.prompt_ids) != self.dull
            text = f" \\boxed{{{8 if odd else 7}}}"
            yield Completion(request.id, text, np.array([1, 2]), np.zeros(2, np.float32), "stop", self.version)

    def close(self) -> None: ...


def make_stream(
    engine: KnownEngine,
    limit: int = 100,
    seed: int = 0,
    greedy: bool = False,
    reward: RewardConfig | None = None,
    **rollout: int | str,
) -> Stream:
    questions = load_questions(parse(QuestionsConfig, {"path": "synthetic:modular"}, "test"))
    source = QuestionStream(questions.train, seed=seed)
    settings = {
        "questions_per_step": 6,
        "samples_per_question": 4,
        "max_new_tokens": 8,
        "max_prompt_tokens": limit,
        **rollout,
    }

    def grader(text: str, question: object) -> object:
        return grade(text, ["7"], "boxed")

    parts = (engine, list_of_characters, source, TEMPLATES["none"], grader)
    config = RolloutConfig(**settings)
    parameters = SamplingParameters(config.samples_per_question, config.max_new_tokens, 1.0, (), seed, greedy=greedy)
    rewarded = partial(make_group, config=reward or RewardConfig(), budget=config.max_new_tokens)
    return Stream(*parts, config, rewarded, parameters)


def list_of_characters(text: str) -> list[int]:
    return [ord(c) for c in text]


def rewards(rollout: Rollout) -> list[list[float]]:
    return [g.rewards_G.tolist() for g in rollout.groups]


def test_groups_keep_their_questions_and_samples_together() -> None:
    rollout = make_stream(KnownEngine()).rollout()
    assert len(rollout.groups) == 6
    for group in rollout.groups:
        expected = [1.0 if c.text.endswith("{7}") else 0.0 for c in group.completions]
        assert group.rewards_G.tolist() == expected
        assert [c.request_id % 4 for c in group.completions] == [0, 1, 2, 3]
    assert rollout.counts == {"rounds": 1, "groups": 6, "tokens": 48, "dropped_prompts": 0}


def test_every_sample_has_a_seed_of_its_own_and_the_same_one_in_any_run() -> None:
    first, second = KnownEngine(), KnownEngine()
    for engine in (first, second):
        stream = make_stream(engine)
        for _ in range(3):
            stream.rollout()
    seeds = [r.seed for r in first.requests]
    assert len(set(seeds)) == len(seeds) == 72
    assert seeds == [r.seed for r in second.requests]
    other = KnownEngine()
    make_stream(other, seed=1).rollout()
    assert not set(seeds) & {r.seed for r in other.requests}


def test_dynamic_sampling_refills_until_groups_are_mixed() -> None:
    """Short prompts are always right, so their groups are dull and make place for fresh questions."""
    dull = len("3 + 4 = ?")
    plain = make_stream(KnownEngine(dull)).rollout()
    assert not all(map(is_mixed, plain.groups))
    refilled = make_stream(KnownEngine(dull), refill_rounds=20).rollout()
    assert len(refilled.groups) == 6
    assert all(map(is_mixed, refilled.groups))
    assert refilled.counts["rounds"] > 1
    assert refilled.counts["groups"] > 6
    kept = [g for g in plain.groups if is_mixed(g)]
    assert [g.prompt.text for g in refilled.groups[: len(kept)]] == [g.prompt.text for g in kept]


def test_by_answers_a_group_that_only_lengths_divide_makes_place() -> None:
    """Short prompts are always right, but their responses differ in length: mixed by a soft penalty, not by answers."""

    class Longer(KnownEngine):
        def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
            for c in super().generate(requests):
                length = 4 + c.request_id % 4
                yield Completion(c.request_id, c.text, np.arange(length), np.zeros(length, np.float32), "stop", 0)

    dull = len("3 + 4 = ?")
    penalty = RewardConfig(truncation="soft", soft_margin=4)
    by_reward = make_stream(Longer(dull), reward=penalty, refill_rounds=20).rollout()
    assert by_reward.counts["rounds"] == 1
    assert not all(map(has_right_and_wrong, by_reward.groups))
    by_answers = make_stream(Longer(dull), reward=penalty, refill_rounds=20, mixed="correct").rollout()
    assert by_answers.counts["rounds"] > 1
    assert all(map(has_right_and_wrong, by_answers.groups))


def test_when_rounds_run_out_the_rollout_is_filled_with_dull_groups() -> None:
    class Right(KnownEngine):
        def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
            for request in requests:
                yield Completion(request.id, "\\boxed{7}", np.array([1]), np.zeros(1, np.float32), "stop", 0)

    rollout = make_stream(Right(), refill_rounds=2).rollout()
    assert len(rollout.groups) == 6
    assert rollout.counts["rounds"] == 3
    assert rollout.counts["groups"] == 18


def test_long_prompts_are_dropped_and_counted_and_an_impossible_limit_is_said() -> None:
    limit = len("3 + 4 = ?")
    rollout = make_stream(KnownEngine(), limit=limit).rollout()
    assert all(len(g.prompt.token_ids) <= limit for g in rollout.groups)
    assert rollout.counts["dropped_prompts"] > 0
    with pytest.raises(UserError, match="max_prompt_tokens"):
        make_stream(KnownEngine(), limit=3).rollout()


def test_a_restored_cursor_draws_what_would_have_come() -> None:
    whole = make_stream(KnownEngine())
    rollouts = [rewards(whole.rollout()) for _ in range(4)]
    first = make_stream(KnownEngine())
    for _ in range(2):
        first.rollout()
    second = make_stream(KnownEngine())
    second.load_state_dict(first.state_dict())
    assert [rewards(second.rollout()) for _ in range(2)] == rollouts[2:]


def test_a_greedy_response_is_sampled_beside_the_group_and_only_its_reward_is_kept() -> None:
    """The other responses are those that would have been sampled without it."""
    engine = KnownEngine()
    plain, beside = make_stream(KnownEngine()).rollout(), make_stream(engine, greedy=True).rollout()
    assert rewards(plain) == rewards(beside)
    assert [len(g.completions) for g in beside.groups] == [4] * 6
    greedy = [r for r in engine.requests if r.temperature == 0]
    assert len(greedy) == 6
    assert [g.greedy_reward for g in beside.groups] == [float(r.seed % 2 == 0) for r in greedy]
    assert [g.greedy_reward for g in plain.groups] == [None] * 6
    assert beside.counts["tokens"] == 2 * 5 * 6
    for group in beside.groups:
        assert is_mixed(group) == (set(group.rewards_G) != {group.greedy_reward})


def engine_steps(engine: KnownEngine, updates: int, staleness: int, **options: int) -> list[Rollout]:
    """Rollouts of a loop that publishes after each of them, every learning step of which lets sampling run on."""
    stream = make_stream(engine, max_staleness=staleness, **options)
    found = []
    for version in range(1, updates + 1):
        found.append(next(stream))
        time.sleep(0.02)
        stream.publish(version, [])
    stream.close()
    return found


class Updatable(KnownEngine):
    def __init__(self) -> None:
        super().__init__()
        self.began: list[int] = []  # versions under which a rollout began

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        self.began.append(self.version)
        return super().generate(requests)

    def update_weights(self, version: int, tensors: object) -> None:
        self.version = version

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def abort(self, ids: object = None) -> None: ...


def test_a_rollout_says_how_long_sampling_it_took_and_not_how_long_it_was_waited_for() -> None:
    class Slow(Updatable):
        def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
            time.sleep(0.1)
            return super().generate(requests)

    for staleness in (0, 1):
        stream = make_stream(Slow(), **({"max_staleness": staleness} if staleness else {}))
        next(stream)
        time.sleep(0.4)  # the learner learns, and the next rollout is sampled meanwhile under staleness
        began = time.perf_counter()
        rollout = next(stream)
        waited = time.perf_counter() - began
        assert rollout.seconds >= 0.1
        assert (waited < 0.1) == bool(staleness)
        stream.close()


@pytest.mark.parametrize("staleness", [1, 2])
def test_sampling_ahead_is_at_most_so_many_updates_behind(staleness: int) -> None:
    engine = Updatable()
    rollouts = engine_steps(engine, 6, staleness)
    behind = [r.counts["staleness_max"] for r in rollouts]
    assert max(behind) == staleness
    assert behind[0] == 0
    for number, began in enumerate(engine.began):
        assert began >= number - staleness
    assert [d for r in rollouts for d in r.draws] == list(range(36))


def test_what_was_sampled_ahead_is_drawn_again_after_a_resume() -> None:
    first = make_stream(Updatable(), max_staleness=2)
    draws = next(first).draws
    state = first.state_dict()
    first.close()
    second = make_stream(Updatable(), max_staleness=2)
    second.load_state_dict(state)
    second.publish(1, [])
    assert draws + next(second).draws == list(range(12))
    second.close()


def test_what_fails_while_sampling_ahead_reaches_the_loop() -> None:
    class Broken(Updatable):
        def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
            raise FloatingPointError("no finite logits")

    stream = make_stream(Broken(), max_staleness=1)
    with pytest.raises(UserError, match="diverged"):
        next(stream)
    stream.close()
