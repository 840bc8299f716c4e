"""The stream of graded groups. It owns engine, grader and rewards: grading overlaps sampling, dynamic sampling refills
here, and over-long prompts are dropped here."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from zerolab.config import RolloutConfig
from zerolab.data.questions import Draw
from zerolab.data.templates import Template
from zerolab.errors import UserError
from zerolab.rl.reward import is_mixed
from zerolab.rollout.engine import Engine
from zerolab.rollout.sampling import Encode, Grader, SamplingParameters, sample_graded
from zerolab.types import Completion, Grade, Group, Prompt, Question

Reward = Callable[[Prompt, Sequence[Completion], Sequence[Grade]], Group]

MAX_DROPPED_IN_A_ROW = 10_000


class QuestionSource(Protocol):
    """What the stream draws from: deterministic, endless, with a cursor."""

    def take(self, count: int) -> list[Draw]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Rollout:
    """P graded groups, and what it took to get them."""

    groups: list[Group]
    counts: dict[str, int]  # groups and tokens sampled, rounds, prompts dropped so far


class Stream:
    """Synchronous: every rollout is sampled under the weights published last."""

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

    def __iter__(self) -> Iterator[Rollout]:
        while True:
            yield self.rollout()

    def rollout(self) -> Rollout:
        """P groups. With refill rounds, groups of equal rewards make place for fresh questions while rounds last; what
        is still missing then is filled up with them, at no cost for a centred advantage."""
        wanted, rounds = self.config.questions_per_step, self.config.refill_rounds
        kept: list[Group] = []
        spare: list[Group] = []
        counts: Counter[str] = Counter()
        while len(kept) < wanted and counts["rounds"] <= rounds:
            before = self.sampled_tokens
            groups = self.sample(self._prompts(wanted - len(kept)))
            counts.update(rounds=1, groups=len(groups), tokens=self.sampled_tokens - before)
            for group in groups:
                (kept if is_mixed(group) or not rounds else spare).append(group)
        return Rollout(kept + spare[: wanted - len(kept)], {**counts, "dropped_prompts": self.dropped})

    def sample(self, prompts: list[tuple[Prompt, int]]) -> list[Group]:
        """The rewarded groups of these (prompt, draw counter)."""
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

    def publish(self, version: int, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """pi_old <- pi."""
        self.engine.update_weights(version, weights)

    def state_dict(self) -> dict[str, Any]:
        return {"source": self.source.state_dict(), "dropped": self.dropped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.source.load_state_dict(state["source"])
        self.dropped = state["dropped"]

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.engine.close()
