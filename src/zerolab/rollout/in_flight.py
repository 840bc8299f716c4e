"""The table of responses that are being sampled, one row each without gaps; and the Completion made from a row."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from zerolab.datatypes import Completion, FinishReason
from zerolab.rollout.engine import Request
from zerolab.rollout.sampler import Support, as_words, uniforms
from zerolab.rollout.stop_strings import StopStrings, decode


class Rows:
    """Columns of up to `capacity` responses of at most `longest` tokens; rows 0..n-1 are alive."""

    def __init__(self, capacity: int, longest: int) -> None:
        self.n = 0
        self.request = np.zeros(capacity, dtype=np.int64)  # index into the requests of the call
        self.count = np.zeros(capacity, dtype=np.int64)  # tokens sampled so far
        self.budget = np.zeros(capacity, dtype=np.int64)
        self.seed = np.zeros(capacity, dtype=np.uint64)
        self.temperature = np.zeros(capacity, dtype=np.float64)
        self.stop = np.zeros(capacity, dtype=np.int64)  # set of stop strings, -1 for none
        self.top_k = np.zeros(capacity, dtype=np.int64)
        self.top_p = np.ones(capacity, dtype=np.float64)
        self.min_tokens = np.zeros(capacity, dtype=np.int64)
        self.tokens = np.zeros((capacity, longest), dtype=np.int64)
        self.logprobs = np.zeros((capacity, longest), dtype=np.float32)

    @property
    def _columns(self) -> tuple[np.ndarray, ...]:
        settings = self.seed, self.temperature, self.stop, self.top_k, self.top_p, self.min_tokens
        return self.request, self.count, self.budget, *settings

    def add(self, indices: Sequence[int], requests: Sequence[Request], stops: StopStrings) -> slice:
        """Appends empty rows for requests[i], i in indices. Returns where they are."""
        new = slice(self.n, self.n + len(indices))
        chosen = [requests[i] for i in indices]
        self.request[new] = indices
        self.count[new] = 0
        self.budget[new] = [r.max_new_tokens for r in chosen]
        self.seed[new] = as_words([r.seed for r in chosen])
        self.temperature[new] = [r.temperature for r in chosen]
        self.stop[new] = [stops.register(r.stop) for r in chosen]
        self.top_k[new] = [r.top_k if r.temperature else 0 for r in chosen]  # greedy has no use for either
        self.top_p[new] = [r.top_p if r.temperature else 1.0 for r in chosen]
        self.min_tokens[new] = [r.min_tokens for r in chosen]
        self.n = new.stop
        return new

    def uniforms(self, rows: slice) -> np.ndarray:
        return uniforms(self.seed[rows], self.count[rows])

    def support(self, rows: slice) -> Support | None:
        """What these rows may draw now; None where that is every token."""
        support = Support(self.top_k[rows], self.top_p[rows], self.count[rows] < self.min_tokens[rows])
        restricted = (support.top_k_N > 0) | (support.top_p_N < 1) | support.endless_N
        return support if restricted.any() else None

    def append(self, rows: slice, tokens_N: np.ndarray, logprobs_N: np.ndarray) -> None:
        where = np.arange(rows.start, rows.stop), self.count[rows]
        self.tokens[where] = tokens_N
        self.logprobs[where] = logprobs_N
        self.count[rows] += 1

    def keep(self, order: np.ndarray) -> None:
        """New row i is old row order[i]."""
        moved = np.nonzero(order != np.arange(len(order)))[0]
        for column in self._columns:
            column[moved] = column[order[moved]]
        self.tokens[moved] = self.tokens[order[moved]]
        self.logprobs[moved] = self.logprobs[order[moved]]
        self.n = len(order)


def close_gaps(n: int, finished: np.ndarray) -> np.ndarray:
    """order for `keep`: the last living rows fill the places of the finished ones, all others stay where they are."""
    alive = np.ones(n, dtype=bool)
    alive[finished] = False
    left = int(alive.sum())
    order = np.arange(left)
    order[~alive[:left]] = left + np.nonzero(alive[left:])[0]
    return order


VersionSpans = Sequence[
    tuple[int, int]
]  # (tokens, version): so many were sampled up to then, the newest under that version


def make_completion(
    request: Request,
    tokenizer: Any,
    token_ids_L: np.ndarray,
    logprobs_L: np.ndarray,
    reason: FinishReason,
    version: int,
    version_spans: VersionSpans = (),
) -> Completion:
    """`version` is that of the last token, `version_spans` has what came before."""
    first, versions_L = token_versions(len(token_ids_L), version, version_spans)
    return Completion(
        request_id=request.id,
        text=decode(tokenizer, token_ids_L, request.stop),
        token_ids_L=token_ids_L,
        logprobs_L=logprobs_L,
        finish_reason=reason,
        version=first,
        versions_L=versions_L,
    )


def token_versions(count: int, version: int, version_spans: VersionSpans) -> tuple[int, np.ndarray | None]:
    """The version of the first token, and those of all where they differ."""
    versions_L = np.full(count, version, dtype=np.int64)
    start = 0
    for end, older in version_spans:
        versions_L[start:end] = older
        start = end
    first = int(versions_L[0]) if count else version
    return first, versions_L if (versions_L != first).any() else None


def unbegun(request: Request, version: int) -> Completion:
    """Of a request that was ended before its first token."""
    none = np.zeros(0)
    return Completion(request.id, "", none.astype(np.int64), none.astype(np.float32), "abort", version)
