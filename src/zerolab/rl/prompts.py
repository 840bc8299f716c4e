"""Rows that begin with the same prompt: which they are, and how they are cut so that each prompt is forwarded once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from zerolab.rl.batch import Batch, MicroBatch, cut, micro_batch


@dataclass(frozen=True)
class PromptPart:
    """Prompts of one forward pass, and the rows that continue them."""

    rows: np.ndarray  # of the step
    prompt_of_row: np.ndarray  # index into the prompts, for each of `rows`
    ids_QP: torch.Tensor  # right-padded
    lengths_Q: torch.Tensor


@dataclass(frozen=True)
class PromptStates:
    """What continuing a prompt needs: keys and values of every layer, and the last hidden state."""

    keys: Sequence[torch.Tensor]  # [Q, heads, P, width] each
    values: Sequence[torch.Tensor]
    last_QD: torch.Tensor
    lengths_Q: torch.Tensor


def distinct_prompts(step: Batch, rows: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """(token ids of every different prompt of these rows, index into them for each row)."""
    starts = np.cumsum(step.total_len_N) - step.total_len_N
    seen: dict[bytes, int] = {}
    prompts: list[np.ndarray] = []
    owner = np.empty(len(rows), dtype=np.int64)
    for place, row in enumerate(rows):
        ids = step.tokens_S[starts[row] : starts[row] + step.prompt_len_N[row]]
        owner[place] = seen.setdefault(ids.tobytes(), len(prompts))
        if owner[place] == len(prompts):
            prompts.append(ids)
    return prompts, owner


def saved_share(step: Batch, rows: np.ndarray) -> float:
    """Share of the tokens of these rows that need no forward pass when every prompt is forwarded once."""
    if not len(rows):
        return 0.0
    prompts, _ = distinct_prompts(step, rows)
    saved = step.prompt_len_N[rows].sum() - sum(map(len, prompts)) + len(rows)  # the last token predicts nothing
    return float(saved / step.total_len_N[rows].sum())


def prompt_parts(
    step: Batch, rows: np.ndarray, token_budget: int, device: torch.device | str = "cpu"
) -> list[PromptPart]:
    """The prompts of these rows, sorted by length and cut into right-padded pieces of at most `token_budget` tokens."""
    prompts, owner = distinct_prompts(step, rows)
    length_Q = np.array([len(ids) for ids in prompts], dtype=np.int64)
    parts = []
    for chosen in cut(length_Q, np.arange(len(prompts)), token_budget):
        place = np.full(len(prompts), -1)
        place[chosen] = np.arange(len(chosen))
        mine = np.flatnonzero(place[owner] >= 0)
        ids_QP = np.zeros((len(chosen), length_Q[chosen].max()), dtype=np.int64)
        ids_QP[np.arange(ids_QP.shape[1]) < length_Q[chosen][:, None]] = np.concatenate([prompts[q] for q in chosen])
        ids, lengths = (torch.from_numpy(x).to(device) for x in (ids_QP, length_Q[chosen]))
        parts.append(PromptPart(rows[mine], place[owner[mine]], ids, lengths))
    return parts


def continuations(
    step: Batch, part: PromptPart, states: PromptStates, token_budget: int, device: torch.device | str = "cpu"
) -> list[MicroBatch]:
    """The responses of a part without their last tokens, right-padded, by falling length."""
    pieces = []
    for chosen in cut(step.response_len_N[part.rows], np.arange(len(part.rows)), token_budget):
        rows = part.rows[chosen]
        selected = step.select(rows)
        lengths_2N = np.stack([selected.prompt_len_N, selected.response_len_N], axis=1)
        targets_T = selected.tokens_S[np.repeat(np.tile([False, True], len(rows)), lengths_2N.ravel())]
        response_BL = np.arange(selected.response_len_N.max()) < selected.response_len_N[:, None]
        ids_BL = np.zeros(response_BL.shape, dtype=np.int64)
        ids_BL[response_BL] = targets_T
        pieces.append(
            micro_batch(
                selected,
                rows,
                ids_BL[:, :-1],
                response_BL,
                targets_T,
                device,
                len(targets_T) - len(rows),
                states=states,
                prompt_B=torch.from_numpy(part.prompt_of_row[chosen]).to(device),
            )
        )
    # The pass over the prompts counts with the first of the rows.
    padded, real = part.ids_QP.numel(), int(part.lengths_Q.sum())
    first = pieces[0]
    pieces[0] = replace(first, padded_tokens=first.padded_tokens + padded, real_tokens=first.real_tokens + real)
    return pieces
