"""The contract of a sampling engine. tests/engine_contract.py runs the same suite on every implementation."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from zerolab.types import Completion

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

    def update_weights(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Copies new weights in place, by Hugging Face name. Only while idle or paused; caches are recomputed.

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
