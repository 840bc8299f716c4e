"""The batch of a rollout or of one optimizer step, stored as packed columns, and its micro-batches.

A row is a prompt with one response, and is never split. Rows with the same prompt can be arranged so that the prompt is
forwarded once. Several rows can share a line of a micro-batch without attention across their borders: position ids
start at 0 with every row, and transformers reads that as a border (block-diagonal masks in eager and sdpa attention,
separate sequences in flash attention). The padding at the end of a line counts as one more row.
"""

import bisect
import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from zerolab.datatypes import Group
from zerolab.rl.advantage import rollout_advantages
from zerolab.rl.objective import Objective


@dataclass(frozen=True)
class Batch:
    """N responses with their prompts. Row i has prompt_len_N[i] + response_len_N[i] consecutive elements of tokens_S.

    The axis T is the response tokens of all rows, concatenated.
    """

    tokens_S: np.ndarray  # int64, prompt then response of each row
    old_logprobs_T: np.ndarray  # float32 (float64 from a float64 policy), log pi_old at the sampling temperature
    prompt_len_N: np.ndarray  # int64, at least 1
    response_len_N: np.ndarray  # int64, EOS counted
    group_N: np.ndarray  # int64, the same number for all responses to a question
    reward_N: np.ndarray  # float64
    advantage_N: np.ndarray  # float64
    version_N: np.ndarray  # int64, oldest weight version among the tokens of the row
    ref_logprobs_T: np.ndarray | None = None  # log pi_ref, if the objective has a KL term in the loss
    correction_T: np.ndarray | None = None  # weight pi_old / mu, if the objective has a correction
    advantage_T: np.ndarray | None = None  # A_it, if the objective has a critic
    value_target_T: np.ndarray | None = None  # if the objective has a critic
    old_values_T: np.ndarray | None = None  # if the objective has a critic

    def __len__(self) -> int:
        return len(self.response_len_N)

    @property
    def total_len_N(self) -> np.ndarray:
        return self.prompt_len_N + self.response_len_N

    def select(self, rows: np.ndarray) -> "Batch":
        """The batch of these rows, in this order."""
        return Batch(
            tokens_S=self.tokens_S[token_indices(self.total_len_N, rows)],
            **{name: getattr(self, name)[rows] for name in ROW_COLUMNS},
            **self.token_columns(rows),
        )

    def token_columns(self, rows: np.ndarray) -> dict[str, Any]:
        """The columns over response tokens, for these rows; None for a column that the batch does not have."""
        chosen = token_indices(self.response_len_N, rows)
        columns = {name: getattr(self, name) for name in TOKEN_COLUMNS}
        return {name: None if column is None else column[chosen] for name, column in columns.items()}

    def optimizer_steps(self, count: int, seed: int) -> list["Batch"]:
        """Split the rows into `count` nearly equal parts, in a random order given by `seed`.

        Each part is one optimizer step and has its own denominators. A group may be split over parts, because
        advantages are already computed. Parts without rows are left out.
        """
        if count == 1:
            return [self] if len(self) else []
        order = np.random.Generator(np.random.Philox(seed)).permutation(len(self))
        return [self.select(rows) for rows in np.array_split(order, count) if len(rows)]


OPTIONAL_TOKEN_COLUMNS = ("ref_logprobs_T", "correction_T", "advantage_T", "value_target_T", "old_values_T")
TOKEN_COLUMNS = ("old_logprobs_T", *OPTIONAL_TOKEN_COLUMNS)
ROW_COLUMNS = ("prompt_len_N", "response_len_N", "group_N", "reward_N", "advantage_N", "version_N")


def make_batch(groups: Sequence[Group], objective: Objective) -> Batch:
    """The batch of all responses that are not masked, with their advantages A_i."""
    tokens, logprobs, rows = [], [], []
    unmasked = [
        np.arange(len(g.completions)) if g.loss_mask_G is None else np.flatnonzero(g.loss_mask_G) for g in groups
    ]
    advantages = rollout_advantages(
        [g.rewards_G[chosen] for g, chosen in zip(groups, unmasked, strict=True)],
        objective,
        [g.greedy_reward for g in groups],
    )
    for number, group in enumerate(groups):
        prompt_ids = np.asarray(group.prompt.token_ids, dtype=np.int64)
        for i, advantage in zip(unmasked[number], advantages[number], strict=True):
            completion = group.completions[i]
            tokens += [prompt_ids, completion.token_ids_L]
            logprobs.append(completion.logprobs_L)
            rows.append((len(prompt_ids), len(completion), number, group.rewards_G[i], advantage, completion.version))
    return pack(tokens, logprobs, rows)


def pack(tokens: Sequence[np.ndarray], logprobs: Sequence[np.ndarray], rows: Sequence[tuple[Any, ...]]) -> Batch:
    """The batch of these rows, each (prompt_len, response_len, group, reward, advantage, version).

    `tokens` has the pieces of tokens_S in order, `logprobs` the pieces of old_logprobs_T.
    """
    columns = zip(*rows, strict=True) if rows else ((),) * len(ROW_COLUMNS)
    kinds = {"reward_N": np.float64, "advantage_N": np.float64}
    return Batch(
        tokens_S=np.concatenate([*tokens, np.empty(0, np.int64)]).astype(np.int64, copy=False),
        old_logprobs_T=np.concatenate([*logprobs, np.empty(0, np.float32)]),
        **{n: np.asarray(c, dtype=kinds.get(n, np.int64)) for n, c in zip(ROW_COLUMNS, columns, strict=True)},
    )


def token_indices(lengths: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Indices of the elements of `rows` in a concatenated axis whose rows have these lengths."""
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1][rows]
    chosen = lengths[rows]
    ends = np.cumsum(chosen)
    return np.repeat(starts - ends + chosen, chosen) + np.arange(ends[-1] if len(ends) else 0)


# Fixed cost of a forward and backward pass, in tokens (small models on a CPU).
PASS_TOKENS = 64


@dataclass(frozen=True)
class MicroBatch:
    """Rows of a step, right-padded. A causal model never sees the padding, so no attention mask is needed.

    If the prompts were already forwarded (`states`), ids_BL has only the responses, without their last tokens. The
    first position of predicts_BL is then the last position of the prompt, whose hidden state is in `states`.
    """

    rows_B: np.ndarray  # which rows of the step
    ids_BL: torch.Tensor
    predicts_BL: torch.Tensor  # bool: positions whose next token is a response token
    targets_T: torch.Tensor
    old_logprobs_T: torch.Tensor
    response_len_B: torch.Tensor
    padded_tokens: int  # tokens forwarded for these rows, padding included
    real_tokens: int  # the same without padding
    ref_logprobs_T: torch.Tensor | None
    correction_T: torch.Tensor | None
    advantage_T: torch.Tensor | None
    value_target_T: torch.Tensor | None
    old_values_T: torch.Tensor | None
    states: "PromptStates | None" = None
    prompt_B: torch.Tensor | None = None  # which prompt of `states` each row continues
    positions_BL: torch.Tensor | None = None  # position ids, if several rows of the step share a line


def micro_batches(
    batch: Batch,
    rows: np.ndarray,
    token_budget: int,
    device: torch.device | str = "cpu",
    pass_tokens: int = PASS_TOKENS,
) -> list[MicroBatch]:
    """Split `rows` of a step into right-padded micro-batches.

    Each has at most `token_budget` padded tokens, but at least one row.
    """
    return [
        _pad(batch, piece, device)
        for piece in split_micro_batches(batch.total_len_N[rows], rows, token_budget, pass_tokens)
    ]


def split_micro_batches(
    length_N: np.ndarray, rows: np.ndarray, token_budget: int, pass_tokens: int = PASS_TOKENS
) -> list[np.ndarray]:
    """Split `rows`, of these lengths, into pieces of at most `token_budget` padded tokens, but at least one row.

    Rows are sorted by length and split where padding and passes cost least.
    """
    order = np.argsort(-length_N, kind="stable")
    cuts = _cheapest_cuts(length_N[order], token_budget, pass_tokens)
    return [rows[order[a:b]] for a, b in itertools.pairwise(cuts)]


def _cheapest_cuts(lengths: np.ndarray, token_budget: int, pass_tokens: int) -> list[int]:
    """Borders that split falling `lengths` with the least sum of padded tokens + pass_tokens (dynamic programming)."""
    size = len(lengths)
    best, end = np.zeros(size + 1), np.zeros(size, dtype=int)
    for i in range(size - 1, -1, -1):
        longest = min(size - i, max(1, token_budget // lengths[i]))
        costs = lengths[i] * np.arange(1, longest + 1) + pass_tokens + best[i + 1 : i + longest + 1]
        end[i] = i + 1 + int(costs.argmin())
        best[i] = costs.min()
    cuts = [0]
    while cuts[-1] < size:
        cuts.append(int(end[cuts[-1]]))
    return cuts


def no_work(batch: Batch, device: torch.device | str = "cpu") -> MicroBatch:
    """A micro-batch of one token that belongs to no response of `batch`; its gradient is 0."""
    none, one = np.empty(0, np.int64), np.zeros((1, 1), np.int64)
    micro = micro_batch(batch.select(none), none, one, one.astype(bool), none, device, 0)
    return dataclasses.replace(micro, padded_tokens=0)


def _pad(batch: Batch, rows: np.ndarray, device: torch.device | str) -> MicroBatch:
    part = batch.select(rows)
    total_B, prompt_B = part.total_len_N[:, None], part.prompt_len_N[:, None]
    position_L = np.arange(total_B.max())[None, :]
    ids_BL = np.zeros((len(rows), position_L.shape[1]), dtype=np.int64)
    ids_BL[position_L < total_B] = part.tokens_S
    predicts_BL = (position_L >= prompt_B - 1) & (position_L < total_B - 1)
    targets_T = ids_BL[(position_L >= prompt_B) & (position_L < total_B)]
    return micro_batch(part, rows, ids_BL, predicts_BL, targets_T, device, len(part.tokens_S))


def micro_batch(
    part: Batch,
    rows: np.ndarray,
    ids_BL: np.ndarray,
    predicts_BL: np.ndarray,
    targets_T: np.ndarray,
    device: torch.device | str,
    real_tokens: int,
    **prompts: Any,
) -> MicroBatch:
    """The micro-batch of `part`, the selected rows of a step, with its tensors on `device`."""

    def tensor(column: np.ndarray | None) -> Any:
        return None if column is None else torch.from_numpy(np.ascontiguousarray(column)).to(device)

    return MicroBatch(
        rows_B=rows,
        ids_BL=tensor(ids_BL),
        predicts_BL=tensor(predicts_BL),
        targets_T=tensor(targets_T),
        old_logprobs_T=tensor(part.old_logprobs_T),
        response_len_B=tensor(part.response_len_N),
        padded_tokens=ids_BL.size,
        real_tokens=real_tokens,
        **{name: tensor(getattr(part, name)) for name in OPTIONAL_TOKEN_COLUMNS},
        **prompts,
    )


@dataclass(frozen=True)
class PromptPart:
    """Prompts of one forward pass, and the rows that continue them."""

    rows: np.ndarray  # of the step
    prompt_of_row: np.ndarray  # index into the prompts, for each of `rows`
    ids_QP: torch.Tensor  # right-padded
    lengths_Q: torch.Tensor


@dataclass(frozen=True)
class PromptStates:
    """The state after a prompt, from which responses continue: keys and values of every layer, last hidden state."""

    keys: Sequence[torch.Tensor]  # [Q, heads, P, width] each
    values: Sequence[torch.Tensor]
    last_QD: torch.Tensor
    lengths_Q: torch.Tensor


def distinct_prompts(batch: Batch, rows: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """(token ids of every different prompt of these rows, index into them for each row)."""
    starts = np.cumsum(batch.total_len_N) - batch.total_len_N
    seen: dict[bytes, int] = {}
    prompts: list[np.ndarray] = []
    prompt_of_row = np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        ids = batch.tokens_S[starts[row] : starts[row] + batch.prompt_len_N[row]]
        prompt_of_row[i] = seen.setdefault(ids.tobytes(), len(prompts))
        if prompt_of_row[i] == len(prompts):
            prompts.append(ids)
    return prompts, prompt_of_row


def saved_share(batch: Batch, rows: np.ndarray) -> float:
    """Share of the tokens of these rows that need no forward pass if every prompt is forwarded once."""
    if not len(rows):
        return 0.0
    prompts, _ = distinct_prompts(batch, rows)
    saved = batch.prompt_len_N[rows].sum() - sum(map(len, prompts)) + len(rows)  # the last token predicts nothing
    return float(saved / batch.total_len_N[rows].sum())


def prompt_parts(
    batch: Batch, rows: np.ndarray, token_budget: int, device: torch.device | str = "cpu"
) -> list[PromptPart]:
    """The prompts of these rows, sorted by length and cut into right-padded pieces of at most `token_budget` tokens."""
    prompts, prompt_of_row = distinct_prompts(batch, rows)
    length_Q = np.array([len(ids) for ids in prompts], dtype=np.int64)
    parts = []
    for chosen in split_micro_batches(length_Q, np.arange(len(prompts)), token_budget):
        index = np.full(len(prompts), -1)  # of a prompt within this part
        index[chosen] = np.arange(len(chosen))
        continuing = np.flatnonzero(index[prompt_of_row] >= 0)
        ids_QP = np.zeros((len(chosen), length_Q[chosen].max()), dtype=np.int64)
        ids_QP[np.arange(ids_QP.shape[1]) < length_Q[chosen][:, None]] = np.concatenate([prompts[q] for q in chosen])
        ids, lengths = (torch.from_numpy(x).to(device) for x in (ids_QP, length_Q[chosen]))
        parts.append(PromptPart(rows[continuing], index[prompt_of_row[continuing]], ids, lengths))
    return parts


def continuations(
    batch: Batch, part: PromptPart, states: PromptStates, token_budget: int, device: torch.device | str = "cpu"
) -> list[MicroBatch]:
    """Micro-batches of the responses that continue the prompts of `part`, by falling length.

    They are right-padded and lack the last token of each response, which predicts nothing.
    """
    pieces = []
    for chosen in split_micro_batches(batch.response_len_N[part.rows], np.arange(len(part.rows)), token_budget):
        rows = part.rows[chosen]
        selected = batch.select(rows)
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
    # The tokens of the pass over the prompts are counted in the first micro-batch.
    padded, real = part.ids_QP.numel(), int(part.lengths_Q.sum())
    first = pieces[0]
    pieces[0] = replace(first, padded_tokens=first.padded_tokens + padded, real_tokens=first.real_tokens + real)
    return pieces


def packed_micro_batches(
    batch: Batch, rows: np.ndarray, token_budget: int, width: int, device: torch.device | str = "cpu"
) -> list[MicroBatch]:
    """Pack `rows` of a step into lines, and the lines into micro-batches.

    A line has at most `width` tokens, or one longer row. A micro-batch has at most `token_budget` padded tokens, but at
    least one line.
    """
    lines = best_fit(batch.total_len_N[rows], width)
    length_N = np.array([int(batch.total_len_N[rows[line]].sum()) for line in lines], dtype=np.int64)
    return [
        _pack(batch, [rows[lines[i]] for i in piece], device)
        for piece in split_micro_batches(length_N, np.arange(len(lines)), token_budget)
    ]


def best_fit(length_N: np.ndarray, width: int) -> list[np.ndarray]:
    """Indices of the rows of every line: the longest row first, each in the fullest line with room for it."""
    room: list[tuple[int, int]] = []  # (tokens left, line), in rising order
    lines: list[list[int]] = []
    for i in np.argsort(-length_N, kind="stable"):
        length = int(length_N[i])
        fullest = bisect.bisect_left(room, (length, -1))
        left, line = room.pop(fullest) if fullest < len(room) else (max(width, length), len(lines))
        if line == len(lines):
            lines.append([])
        lines[line].append(int(i))
        bisect.insort(room, (left - length, line))
    return [np.array(line) for line in lines]


def _pack(batch: Batch, lines: Sequence[np.ndarray], device: torch.device | str) -> MicroBatch:
    rows = np.concatenate(lines)
    part = batch.select(rows)
    total_N = part.total_len_N
    line_N = np.repeat(np.arange(len(lines)), [len(line) for line in lines])
    before_N = np.cumsum(total_N) - total_N
    begin_N = before_N - before_N[np.searchsorted(line_N, line_N)]  # offset of a row in its line
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
