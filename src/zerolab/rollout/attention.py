"""Attention of one query per row, in two parts under one softmax.

The rows of one prompt stand side by side as one matrix against the prompt's keys, which are stored and read once for
all of them; each row's own keys are read block by block.

Shapes: N rows, Q prompts, H heads, K key/value heads, R = H/K heads per key/value head, D head dimension,
M the most rows of a prompt, P prompt positions, C positions in a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the rows meet the prompts: the places [Q, K, M]."""

    prompts: int
    members: int
    prompt_len: int  # P
    place: torch.Tensor  # int64 [N*K]: of each (row, key/value head)
    source: torch.Tensor  # int64 [Q*K*M], its inverse; a place without a row repeats row 0, and nobody looks there
    prompt_bias: torch.Tensor | None  # [Q, 1, P], -inf behind the end of a prompt


@dataclass(frozen=True, slots=True)
class Own:
    """The rows' own keys and values: how a layer's are written and read, and what of them is hidden."""

    write: Callable[[int, torch.Tensor, torch.Tensor], None]
    keys: Callable[[int], list[torch.Tensor]]  # blocks [N*K, C, D] of a layer
    values: Callable[[int], list[torch.Tensor]]
    tail: int = 0  # so many last positions are not written yet in any row
    bias: torch.Tensor | None = None  # or [N*K, 1, positions], -inf where a row has not written


def arrange(slot_N: np.ndarray, slots: int, kv_heads: int, members: int = 0) -> tuple[np.ndarray, np.ndarray, int]:
    """(place, source, members) of a Layout for rows with these prompt slots; at least `members` places per prompt."""
    n = len(slot_N)
    by_slot = np.argsort(slot_N, kind="stable")
    counts = np.bincount(slot_N, minlength=slots)
    member_N = np.empty(n, dtype=np.int64)
    member_N[by_slot] = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    members = max(members, int(counts.max()))
    place_NK = (slot_N[:, None] * kv_heads + np.arange(kv_heads)) * members + member_N[:, None]
    source = np.zeros(slots * kv_heads * members, dtype=np.int64)
    source[place_NK.reshape(-1)] = np.arange(n * kv_heads)
    return place_NK.reshape(-1), source, members


def prompt_bias(lengths_Q: np.ndarray, prompt_len: int) -> np.ndarray:
    """float32 [Q, 1, P]: -inf behind the end of each prompt."""
    return np.where(np.arange(prompt_len) >= lengths_Q[:, None], -np.inf, 0.0).astype(np.float32)[:, None]


def attend(
    i: int, q: torch.Tensor, prompt_kv: torch.Tensor, layout: Layout, own: Own, product: Product
) -> torch.Tensor:
    """Layer i: q [N, H, D], already scaled, and prompt_kv [2, prompts, K, positions, D] to [N*K, R, D]."""
    n, heads, dim = q.shape
    kv, p = prompt_kv.shape[2], layout.prompt_len
    r = heads // kv
    q = q.reshape(n * kv, r, dim)
    prompt_k, prompt_v = (part[: layout.prompts].flatten(0, 1)[:, :p] for part in prompt_kv)

    side_by_side = _spread(q.view(n * kv, r * dim), layout, dim)
    scores = product(side_by_side, prompt_k.transpose(1, 2))  # [Q*K, M*R, P]
    if layout.prompt_bias is not None:
        scores.view(layout.prompts, -1, p).add_(layout.prompt_bias)
    prompt_scores = scores.view(-1, r * p).index_select(0, layout.place).view(n * kv, r, p)
    scores = torch.cat([prompt_scores, *(product(q, k.transpose(1, 2)) for k in own.keys(i))], -1)
    if own.tail:
        scores[..., -own.tail :] = -torch.inf
    elif own.bias is not None:
        scores[..., p:] += own.bias
    weights = torch.softmax(scores, -1).to(q.dtype)

    spread = _spread(weights[..., :p].reshape(n * kv, r * p), layout, p)
    out = torch.bmm(spread, prompt_v).view(-1, r * dim).index_select(0, layout.place).view(n * kv, r, dim)
    values = own.values(i)
    for block, v in zip(weights[..., p:].split([v.shape[1] for v in values], -1), values, strict=True):
        out.baddbmm_(block, v)
    return out


def _spread(rows: torch.Tensor, layout: Layout, width: int) -> torch.Tensor:
    """[N*K, R*width] to [Q*K, M*R, width]: the rows of a prompt side by side."""
    r = rows.shape[1] // width
    return rows.index_select(0, layout.source).view(-1, layout.members * r, width)
