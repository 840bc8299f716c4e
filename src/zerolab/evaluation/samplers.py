"""Text in; text, token count and finish reason out. Evaluation, analysis and judges see only this.

An engine with its tokenizer is a sampler (here), a served model is one (endpoint.py).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from zerolab.rollout.engine import Engine, Request
from zerolab.rollout.stop_strings import decode

CUT_TOKENS = 64  # every so many tokens it is noted where in the text they end


@dataclass(frozen=True, slots=True)
class Ask:
    """One response to sample. Its random numbers are a function of its seed, where the sampler can do that."""

    id: int
    prompt: str
    seed: int
    max_new_tokens: int
    temperature: float = 1.0
    stop: tuple[str, ...] = ()
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    min_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Sampled:
    """tokens is None where nobody counted. cuts[i]: characters of the text after (i + 1) CUT_TOKENS tokens."""

    id: int
    text: str
    tokens: int | None
    finish_reason: str  # stop, length
    budget: int  # tokens it was allowed: less than asked for where the context is too short
    cuts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """No response, and why, in one line. Never a response of no text, never a wrong answer."""

    id: int
    why: str


class Sampler(Protocol):
    def sample(self, asks: Sequence[Ask]) -> Iterator[Sampled | Failed]:
        """One outcome for each ask, as they finish. After `stop` those that did not finish are left out.

        UserError where nothing can come of it (no access, no such model, too many failures in a row).
        """
        ...

    def stop(self) -> None:
        """Ends what is in flight, from another thread or between two outcomes."""
        ...

    def close(self) -> None: ...


class EngineSampler:
    """A sampling engine, its tokenizer, and the model's context in tokens.

    A prompt that leaves less room than the budget is sampled to the end of the context; one that leaves none fails.
    """

    def __init__(self, engine: Engine, tokenizer: Any, encode: Callable[[str], list[int]], context: int):
        self.engine, self.tokenizer, self.encode, self.context = engine, tokenizer, encode, context

    def sample(self, asks: Sequence[Ask]) -> Iterator[Sampled | Failed]:
        requests, room, stops = [], {}, {ask.id: ask.stop for ask in asks}
        ids = {prompt: tuple(self.encode(prompt)) for prompt in dict.fromkeys(ask.prompt for ask in asks)}
        for ask in asks:
            prompt_ids = ids[ask.prompt]
            room[ask.id] = min(ask.max_new_tokens, self.context - len(prompt_ids))
            if room[ask.id] < 1:
                yield Failed(ask.id, f"a prompt of {len(prompt_ids)} tokens fills the context of {self.context}")
                continue
            requests.append(self._request(ask, prompt_ids, room[ask.id]))
        for completion in self.engine.generate(requests):
            if completion.finish_reason == "abort":
                continue
            yield Sampled(
                completion.request_id,
                completion.text,
                len(completion),
                completion.finish_reason,
                room[completion.request_id],
                token_cuts(self.tokenizer, completion.token_ids_L, stops[completion.request_id]),
            )

    @staticmethod
    def _request(ask: Ask, prompt_ids: tuple[int, ...], room: int) -> Request:
        restrictions = (ask.top_p, ask.top_k, min(ask.min_tokens, room))
        return Request(ask.id, prompt_ids, ask.seed, room, ask.temperature, ask.stop, *restrictions)

    def stop(self) -> None:
        self.engine.abort()

    def close(self) -> None:
        self.engine.close()


def token_cuts(tokenizer: Any, token_ids_L: np.ndarray, stop: tuple[str, ...] = ()) -> tuple[int, ...]:
    """Lengths of the text of every prefix of a multiple of CUT_TOKENS tokens."""
    ends = range(CUT_TOKENS, len(token_ids_L) + 1, CUT_TOKENS)
    return tuple(len(decode(tokenizer, token_ids_L[:end], stop)) for end in ends)
