"""From the columns of an engine to a Completion."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from zerolab.rollout.engine import Request
from zerolab.rollout.stops import decode
from zerolab.types import Completion, FinishReason

Marks = Sequence[tuple[int, int]]  # (tokens, version): so many were sampled up to then, the newest under that version


def make_completion(
    request: Request,
    tokenizer: Any,
    token_ids_L: np.ndarray,
    logprobs_L: np.ndarray,
    reason: FinishReason,
    version: int,
    marks: Marks = (),
) -> Completion:
    """`version` is that of the last token, `marks` has what came before."""
    first, versions_L = token_versions(len(token_ids_L), version, marks)
    return Completion(
        request_id=request.id,
        text=decode(tokenizer, token_ids_L, request.stop),
        token_ids_L=token_ids_L,
        logprobs_L=logprobs_L,
        finish_reason=reason,
        version=first,
        versions_L=versions_L,
    )


def token_versions(count: int, version: int, marks: Marks) -> tuple[int, np.ndarray | None]:
    """The version of the first token, and those of all where they differ."""
    versions_L = np.full(count, version, dtype=np.int64)
    start = 0
    for end, older in marks:
        versions_L[start:end] = older
        start = end
    first = int(versions_L[0]) if count else version
    return first, versions_L if (versions_L != first).any() else None


def unbegun(request: Request, version: int) -> Completion:
    """Of a request that was ended before its first token."""
    none = np.zeros(0)
    return Completion(request.id, "", none.astype(np.int64), none.astype(np.float32), "abort", version)
