"""The contract of a sampling engine, its state while it generates, and graded sampling through it.

An engine can be paused, aborted and given new weights at any time, from any thread. tests/engine_contract.py runs
the same checks on every implementation. Training and evaluation share `sample_graded`: responses to prompts, with
grades.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from zerolab.datatypes import Completion, Grade, Prompt, Question
from zerolab.errors import UserError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Request:
    """One response to sample.

    The random numbers of a sample are a function of `seed` and the position alone: neither the other requests of the
    call, nor their order, nor the number of threads changes them. Temperature 0 is greedy (log-probabilities are then
    those of temperature 1). `stop` strings end a response even when they straddle token borders, and stay in the text.

    `top_k` (0: all) and `top_p` (1: all) restrict what is drawn at a temperature above 0; the first `min_tokens` tokens
    are no end-of-sequence tokens, and a stop string among them ends nothing. Log-probabilities are those of the
    restricted distribution, which is not the policy's: for evaluation, never for training.
    """

    id: int
    prompt_ids: tuple[int, ...]
    seed: int
    max_new_tokens: int
    temperature: float = 1.0
    stop: tuple[str, ...] = ()
    top_p: float = 1.0
    top_k: int = 0
    min_tokens: int = 0


class Engine(Protocol):
    """Samples completions under one version of the weights, of which it owns a copy."""

    version: int

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Completions in the order in which they finish. Requests with equal prompts share one prefill."""
        ...

    def abort(self, ids: Collection[int] | None = None) -> None:
        """Ends the requests with these ids, or all of them: the running `generate` yields them as they are, with
        finish_reason "abort". Ids that are not in flight are ignored. While paused, single ones wait for `resume`."""
        ...

    def pause(self) -> None:
        """Holds generation between two tokens until `resume`; weights may be updated meanwhile."""
        ...

    def resume(self) -> None: ...

    def update_weights(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]], partial: bool = False) -> None:
        """Copies new weights in place, by Hugging Face name. Only while idle or paused; caches are recomputed.

        With `partial` what does not come stays as it is: asked of the torch engine alone, vLLM raises ValueError.
        Raises RuntimeError while generating, ValueError for a tensor that is missing, unknown or of another shape.
        """
        ...

    def sleep(self, weights: bool = False) -> None:
        """Gives KV memory back until `wake`; with `weights` theirs too, until the next update brings them."""
        ...

    def wake(self) -> None: ...

    def close(self) -> None: ...


def generate_all(engine: Engine, requests: Sequence[Request]) -> list[Completion]:
    """All completions, in the order of `requests`."""
    by_id = {c.request_id: c for c in engine.generate(requests)}
    return [by_id[r.id] for r in requests]


def check_request(request: Request, context: int, eos_V: np.ndarray) -> None:
    """UserError for a request that no engine can answer. `context` is in tokens; eos_V (bool): what ends a response."""
    length, vocab_size, eos = len(request.prompt_ids), len(eos_V), int(eos_V.sum())
    if length == 0 or request.max_new_tokens < 1:
        raise UserError("a request needs at least one prompt token and a budget of at least one new token")
    if length + request.max_new_tokens > context:
        raise UserError(
            f"{length} prompt + {request.max_new_tokens} new tokens exceed the model's context of {context}; "
            "lower rollout.max_new_tokens or rollout.max_prompt_tokens"
        )
    if not 0 <= min(request.prompt_ids) <= max(request.prompt_ids) < vocab_size:
        raise UserError(
            f"a prompt has token {max(request.prompt_ids)}, the model only {vocab_size}; "
            "tokenizer and model do not belong together"
        )
    if not 0 <= request.temperature < float("inf"):
        raise UserError(f"temperature must be a number >= 0, not {request.temperature}")
    if not 0 < request.top_p <= 1 or request.top_k < 0:
        raise UserError(
            f"top_p must be above 0 and at most 1, top_k 0 (all tokens) or more; not {request.top_p} and "
            f"{request.top_k}"
        )
    if request.min_tokens > request.max_new_tokens or (request.min_tokens > 0 and eos == vocab_size):
        raise UserError(
            f"min_tokens = {request.min_tokens} cannot be reached: max_new_tokens is {request.max_new_tokens}, and "
            f"{eos} of {vocab_size} tokens end a response"
        )


class EngineState:
    """The states of an engine, and the rules between them: one `generate` at a time, new weights only while idle or
    paused, nothing sampled asleep or on weights that arrived in part.

    A lock is held during a step; flags are read between steps.
    """

    def __init__(self) -> None:
        self.busy = self.asleep = False
        self.complete = True  # False after an update that failed half way, and where weights were given back
        self._paused = self._aborted = False
        self._cut: deque[int] = deque()
        self._between_steps = threading.Condition()

    def abort(self, ids: Collection[int] | None) -> None:
        # Set before the lock is asked for: locks are not fair, and the generating thread would go on taking it.
        if ids is not None:
            self._cut.extend(ids)
        else:
            self._aborted = self.busy
        with self._between_steps:
            self._between_steps.notify_all()

    def pause(self) -> None:
        self._paused = True  # the generating thread sees it before its next step, and lets the lock go
        with self._between_steps:
            pass

    def resume(self) -> None:
        with self._between_steps:
            self._paused = False
            self._between_steps.notify_all()

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Around a change of weights. What raises inside leaves them incomplete."""
        if self.busy and not self._paused:
            raise RuntimeError("weights may change only while the engine is idle or paused")
        with self._between_steps:
            self.complete = False
            yield
            self.complete = True

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Around what needs an engine that does not generate."""
        if self.busy:
            raise RuntimeError("the engine is generating; abort or finish first")
        with self._between_steps:
            yield

    @contextmanager
    def generating(self, begin: Callable[[], None]) -> Iterator[None]:
        """Around one `generate`, which `begin` prepares."""
        with self._between_steps:
            if self.busy:
                raise RuntimeError("the engine is generating already")
            if self.asleep:
                raise RuntimeError("the engine sleeps; call wake() first")
            self._check_weights()
            self._aborted = False
            self._cut.clear()
            begin()
            self.busy = True
        try:
            yield
        finally:
            with self._between_steps:
                self.busy = self._aborted = False

    @contextmanager
    def step(self) -> Iterator[bool]:
        """Around one step, once no pause holds it. False: everything is to end."""
        with self._between_steps:
            self._between_steps.wait_for(lambda: not self._paused or self._aborted)
            if not self._aborted:
                self._check_weights()
            yield not self._aborted

    def take_cut(self) -> set[int]:
        """Ids of the requests to end, each told once."""
        return {self._cut.popleft() for _ in range(len(self._cut))}

    def _check_weights(self) -> None:
        if not self.complete:
            raise RuntimeError("the last weight update failed half way; update the weights again")


Encode = Callable[[str], list[int]]
Grader = Callable[[str, Question], Grade]
Graded = tuple[list[Completion], list[Grade]]


@dataclass(frozen=True)
class SamplingParameters:
    samples: int  # G responses per prompt
    max_new_tokens: int
    temperature: float
    stop: tuple[str, ...]
    seed: int
    top_p: float = 1.0  # these three for evaluation only: see engine.Request
    top_k: int = 0
    min_tokens: int = 0
    greedy: bool = False  # one greedy response more, the last of its group


def request_seed(*parts: int | str) -> int:
    """Seed of one sample: a hash of run seed, draw counter, question and sample index, in [0, 2^63)."""
    text = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def sample_graded(
    engine: Engine,
    grader: Grader,
    pool: Executor,
    prompts: Sequence[tuple[Prompt, int]],
    parameters: SamplingParameters,
) -> list[Graded]:
    """G completions and grades for each (prompt, draw counter), graded in `pool` while others are being sampled."""
    size = parameters.samples + parameters.greedy
    requests = [
        Request(
            id=number * size + sample,
            prompt_ids=prompt.token_ids,
            seed=request_seed(parameters.seed, counter, prompt.question.id, sample),
            max_new_tokens=parameters.max_new_tokens,
            temperature=parameters.temperature if sample < parameters.samples else 0.0,
            stop=parameters.stop,
            top_p=parameters.top_p,
            top_k=parameters.top_k,
            min_tokens=parameters.min_tokens,
        )
        for number, (prompt, counter) in enumerate(prompts)
        for sample in range(size)
    ]
    done: dict[int, tuple[Completion, Future[Grade]]] = {}
    try:
        for completion in engine.generate(requests):
            question = prompts[completion.request_id // size][0].question
            done[completion.request_id] = completion, pool.submit(grader, completion.text, question)
    except FloatingPointError as error:
        raise UserError(f"{error}; the policy has diverged: lower learner.lr; checkpoints are untouched") from error
    members = [[done[number * size + sample] for sample in range(size)] for number in range(len(prompts))]
    return [([c for c, _ in group], [future.result() for _, future in group]) for group in members]
