"""Several documents in one row, without attention across their borders.

Positions start anew with every document. transformers reads that as the border: block-diagonal masks in eager and sdpa
attention, sequences of their own in flash attention. What fills a row up at its end is a document of its own.
"""

import bisect
from collections.abc import Sequence

import numpy as np
import torch

from zerolab.rl.batch import Batch, MicroBatch, cut, micro_batch


def packed_micro_batches(
    step: Batch, rows: np.ndarray, token_budget: int, width: int, device: torch.device | str = "cpu"
) -> list[MicroBatch]:
    """`rows` of a step packed into lines of at most `width` tokens, or of the longest row, and these into pieces of at
    most `token_budget` padded tokens, one line at least."""
    lines = best_fit(step.total_len_N[rows], width)
    length_N = np.array([int(step.total_len_N[rows[line]].sum()) for line in lines], dtype=np.int64)
    return [
        _pack(step, [rows[lines[i]] for i in piece], device)
        for piece in cut(length_N, np.arange(len(lines)), token_budget)
    ]


def best_fit(length_N: np.ndarray, width: int) -> list[np.ndarray]:
    """Numbers of rows, line by line: longest first, each into the fullest line that still has room for it."""
    room: list[tuple[int, int]] = []  # (tokens left, line), in rising order
    lines: list[list[int]] = []
    for i in np.argsort(-length_N, kind="stable"):
        length = int(length_N[i])
        place = bisect.bisect_left(room, (length, -1))
        left, line = room.pop(place) if place < len(room) else (max(width, length), len(lines))
        if line == len(lines):
            lines.append([])
        lines[line].append(int(i))
        bisect.insort(room, (left - length, line))
    return [np.array(line) for line in lines]


def _pack(step: Batch, lines: Sequence[np.ndarray], device: torch.device | str) -> MicroBatch:
    rows = np.concatenate(lines)
    part = step.select(rows)
    total_N = part.total_len_N
    line_N = np.repeat(np.arange(len(lines)), [len(line) for line in lines])
    before_N = np.cumsum(total_N) - total_N
    begin_N = before_N - before_N[np.searchsorted(line_N, line_N)]  # where a row begins in its line
    used_B = np.bincount(line_N, total_N).astype(np.int64)
    width = int(used_B.max())
    position_S = np.arange(len(part.tokens_S)) - np.repeat(before_N, total_N)
    at_S = np.repeat(line_N * width + begin_N, total_N) + position_S
    learned_S = position_S >= np.repeat(part.prompt_len_N, total_N)

    ids_BL = np.zeros((len(lines), width), dtype=np.int64)
    positions_BL = np.maximum(np.arange(width)[None, :] - used_B[:, None], 0)
    predicts_BL = np.zeros((len(lines), width), dtype=bool)
    ids_BL.flat[at_S] = part.tokens_S
    positions_BL.flat[at_S] = position_S
    predicts_BL.flat[at_S[learned_S] - 1] = True
    positions = torch.from_numpy(positions_BL).to(device)
    targets_T, real = part.tokens_S[learned_S], len(part.tokens_S)
    return micro_batch(part, rows, ids_BL, predicts_BL, targets_T, device, real, positions_BL=positions)
