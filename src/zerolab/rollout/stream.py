"""The stream of graded groups. It owns engine, grader, rewards and staleness.

Grading overlaps sampling, dynamic sampling refills here, and over-long prompts are dropped here. Sampling runs ahead
of the learner by at most `rollout.max_staleness` updates.
"""

import dataclasses
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from zerolab.config import RolloutConfig
from zerolab.data.questions import Draw
from zerolab.data.templates import Template
from zerolab.datatypes import Completion, Grade, Group, Prompt, Question
from zerolab.errors import UserError
from zerolab.rl.reward import has_right_and_wrong, is_mixed
from zerolab.rollout.engine import Encode, Engine, Grader, SamplingParameters, sample_graded

Made = TypeVar("Made")

END_POLL_S = 0.2


class AsyncSampler(Generic[Made]):
    """Makes rollouts in a thread of its own and hands them out in order.

    Rollout r (from 0) is consumed after r updates. It begins when r - `staleness` updates were published at least, so
    that none of its tokens is sampled under weights more than `staleness` updates older than those that it meets.
    """

    def __init__(self, make: Callable[[], Made], staleness: int) -> None:
        self.make, self.staleness = make, staleness
        self.taken = 0  # rollouts handed out
        self.published = 0  # updates published since the first of them
        self._begun = 0
        self._made: deque[Made] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def take(self) -> Made:
        """The next rollout; waits for it. What went wrong while one was made is raised here."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sampling ahead", daemon=True)
            self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._made or self._error)
            if not self._made and self._error:
                raise self._error
            self.taken += 1
            return self._made.popleft()

    def publish(self) -> None:
        """The learner has learned from everything that was taken, and the engine has its weights."""
        with self._changed:
            self.published = self.taken
            self._changed.notify_all()

    def end(self, abort: Callable[[], None]) -> None:
        """Stops for good; `abort` cuts short what is being sampled."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        while self._thread and self._thread.is_alive():
            abort()
            self._thread.join(END_POLL_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._begun <= self.published + self.staleness)
                if self._ended:
                    return
                self._begun += 1
            try:
                made = self.make()
            except BaseException as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._made.append(made)
                self._changed.notify_all()


Reward = Callable[[Prompt, Sequence[Completion], Sequence[Grade]], Group]

Check = Callable[[Engine], float]  # rollout/weight_check.py

MAX_DROPPED_IN_A_ROW = 10_000
MAX_UNCHECKED = 16  # updates in a row after which no check was made


class QuestionSource(Protocol):
    """What the stream draws from: deterministic, endless, with a cursor."""

    def take(self, count: int) -> list[Draw]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Rollout:
    """P graded groups, and what it took to get them."""

    groups: list[Group]
    counts: dict[str, float]  # groups and tokens sampled, rounds, prompts dropped so far
    draws: list[int]  # the draw counter of every group
    cursor: dict[str, Any]  # where a stream goes on that has consumed this one
    seconds: float = 0.0  # that sampling and grading took, beside the learner's work where the stream samples ahead


class Stream:
    """An endless iterator of rollouts.

    With rollout.max_staleness = 0 every rollout is sampled under the weights published last. With k > 0 a thread
    samples ahead: new weights reach the engine while it holds responses half way, which go on under them.
    """

    def __init__(
        self,
        engine: Engine,
        encode: Encode,
        source: QuestionSource,
        template: Template,
        grader: Grader,
        rollout: RolloutConfig,
        reward: Reward,
        parameters: SamplingParameters,
    ):
        self.engine, self.encode, self.source, self.template, self.grader = engine, encode, source, template, grader
        self.config, self.reward, self.parameters = rollout, reward, parameters
        self.dropped = self.sampled_tokens = 0
        self.pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grader")
        self.turn = threading.Lock()  # held by who samples: the stream, or an evaluation
        self.ahead = self._new_ahead()
        self._unchecked = 0
        self._published, self._updates = 0, dict[int, int]()  # how many updates, and which one brought a version
        self._cursor = self.beginning = self._now()

    def _new_ahead(self) -> AsyncSampler[Rollout] | None:
        return AsyncSampler(self.rollout, self.config.max_staleness) if self.config.max_staleness else None

    def __iter__(self) -> Iterator[Rollout]:
        return self

    def __next__(self) -> Rollout:
        rollout = self.ahead.take() if self.ahead else self.rollout()
        self._cursor = rollout.cursor
        return self._with_staleness(rollout) if self.ahead else rollout

    def rollout(self) -> Rollout:
        """P groups. With refill rounds, groups that are not mixed make place for fresh questions while rounds last;
        what is still missing then is filled up with them, at no cost for a centred advantage of equal rewards."""
        wanted, rounds = self.config.questions_per_step, self.config.refill_rounds
        mixed = has_right_and_wrong if self.config.mixed == "correct" else is_mixed
        started = time.perf_counter()
        kept: list[tuple[Group, int]] = []
        spare: list[tuple[Group, int]] = []
        counts: Counter[str] = Counter()
        while len(kept) < wanted and counts["rounds"] <= rounds:
            before = self.sampled_tokens
            prompts = self._prompts(wanted - len(kept))
            groups = self.sample(prompts)
            counts.update(rounds=1, groups=len(groups), tokens=self.sampled_tokens - before)
            for group, (_, counter) in zip(groups, prompts, strict=True):
                (kept if mixed(group) or not rounds else spare).append((group, counter))
        chosen = kept + spare[: wanted - len(kept)]
        counts["dropped_prompts"] = self.dropped
        seconds = time.perf_counter() - started
        return Rollout([g for g, _ in chosen], {**counts}, [counter for _, counter in chosen], self._now(), seconds)

    def sample(self, prompts: list[tuple[Prompt, int]]) -> list[Group]:
        """The rewarded groups of these (prompt, draw counter)."""
        with self.turn:
            graded = sample_graded(self.engine, self.grader, self.pool, prompts, self.parameters)
        self.sampled_tokens += sum(len(c) for completions, _ in graded for c in completions)
        return [self._group(prompt, *members) for (prompt, _), members in zip(prompts, graded, strict=True)]

    def _group(self, prompt: Prompt, completions: list[Completion], grades: list[Grade]) -> Group:
        """The rewarded group; a greedy response gives its reward to compare with, and does not enter."""
        size = self.parameters.samples
        group = self.reward(prompt, completions[:size], grades[:size])
        if not self.parameters.greedy:
            return group
        greedy = self.reward(prompt, completions[size:], grades[size:])
        return dataclasses.replace(group, greedy_reward=float(greedy.rewards_G[0]))

    def _prompts(self, count: int) -> list[tuple[Prompt, int]]:
        """The next `count` prompts that are not too long, each with its draw counter."""
        prompts: list[tuple[Prompt, int]] = []
        dropped = 0
        while len(prompts) < count:
            for draw in self.source.take(count - len(prompts)):
                prompt = self.prompt(draw.question)
                if prompt:
                    prompts.append((prompt, draw.counter))
                    dropped = 0
                else:
                    dropped += 1
                    self.dropped += 1
            if dropped >= MAX_DROPPED_IN_A_ROW:
                raise UserError(
                    f"{dropped} prompts in a row are longer than {self.config.max_prompt_tokens} tokens: raise "
                    "rollout.max_prompt_tokens, lower rollout.max_new_tokens, or use a shorter template"
                )
        return prompts

    def prompt(self, question: Question) -> Prompt | None:
        """The question under the template, tokenized; None where it is longer than a prompt may be."""
        text = self.template.render(question.text)
        token_ids = tuple(self.encode(text))
        return Prompt(question, text, token_ids) if len(token_ids) <= self.config.max_prompt_tokens else None

    def publish(
        self,
        version: int,
        weights: Iterable[tuple[str, torch.Tensor]],
        check: Check | None = None,
        partial: bool = False,
    ) -> dict[str, float]:
        """pi_old <- pi (all of it, or `partial`: what changed), and what `check` then says of the engine. What is being
        sampled ahead is held between two tokens meanwhile."""
        how = {"partial": True} if partial else {}
        if not self.ahead:
            self.engine.update_weights(version, weights, **how)
            return self._checked(check)
        self.engine.pause()
        try:
            self.engine.update_weights(version, weights, **how)
        finally:
            self.engine.resume()
        checked = self._checked(check)
        self._published += 1
        self._updates[version] = self._published
        self.ahead.publish()
        return checked

    def _checked(self, check: Check | None) -> dict[str, float]:
        """An engine in the middle of a rollout cannot be asked: it is after the next update, and waited for after
        MAX_UNCHECKED of them."""
        if check is None:
            return {}
        if not self.turn.acquire(blocking=self._unchecked >= MAX_UNCHECKED):
            self._unchecked += 1
            return {}
        try:
            self._unchecked = 0
            return {"mismatch/probe": check(self.engine)}
        finally:
            self.turn.release()

    def _with_staleness(self, rollout: Rollout) -> Rollout:
        """How many updates behind the newest weights the tokens were sampled."""
        completions = [c for group in rollout.groups for c in group.completions]
        behind = self._published - np.array(
            [self._updates.get(version, 0) for c in completions for version in token_versions(c).tolist()]
        )
        counts = {
            "staleness_mean": float(behind.mean()) if len(behind) else float("nan"),
            "staleness_max": float(behind.max(initial=0)),
            "carried_over": sum(c.versions_L is not None for c in completions),  # responses with tokens of two versions
        }
        return dataclasses.replace(rollout, counts={**rollout.counts, **counts})

    def _now(self) -> dict[str, Any]:
        return {"source": self.source.state_dict(), "dropped": self.dropped}

    def state_dict(self) -> dict[str, Any]:
        """Where the rollout after the last one consumed begins; what was sampled ahead is drawn again."""
        return self._cursor if self.ahead else self._now()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._end_ahead()
        self.ahead = self._new_ahead()
        self._published, self._updates = 0, {}
        self.source.load_state_dict(state["source"])
        self.dropped = state["dropped"]
        self._cursor = self._now()

    def _end_ahead(self) -> None:
        if self.ahead:
            self.ahead.end(self.engine.abort)

    def close(self) -> None:
        self._end_ahead()
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.engine.close()


def token_versions(completion: Completion) -> np.ndarray:
    """versions_L of a completion."""
    if completion.versions_L is not None:
        return completion.versions_L
    return np.full(len(completion), completion.version)
