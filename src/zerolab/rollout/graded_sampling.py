"""Graded responses to a list of prompts: the step that training and evaluation share."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from zerolab.datatypes import Completion, Grade, Prompt, Question
from zerolab.errors import UserError
from zerolab.rollout.engine import Engine, Request

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
