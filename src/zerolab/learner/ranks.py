"""Processes that share every optimizer step: who works on which responses, and what they add up.

Every rank has the whole step, so every denominator is the step's and gradients are summed, never averaged. Sharded
weights are gathered by all ranks together: each of them has to make the same number of passes.
"""

import heapq
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch

from zerolab.rl.batch import PASS_TOKENS, Batch, MicroBatch, no_work


class Ranks(Protocol):
    @property
    def pass_tokens(self) -> int:
        """What one more forward and backward pass costs, in tokens."""
        ...

    def share(self, length_N: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Those of `rows`, with lengths in tokens, that this rank works on."""
        ...

    def in_step(self, pieces: Iterable[MicroBatch], batch: Batch) -> Iterable[MicroBatch]:
        """`pieces`, then empty ones until every rank has as many."""
        ...

    def total(self, sums: Counter[str]) -> Counter[str]:
        """Sums over all ranks, on every rank."""
        ...

    def joined(self, values_T: np.ndarray) -> np.ndarray:
        """A column of which every rank has filled in its own part and left 0 elsewhere."""
        ...


class OneRank:
    """One process does everything."""

    pass_tokens = PASS_TOKENS

    def share(self, length_N: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return rows

    def in_step(self, pieces: Iterable[MicroBatch], batch: Batch) -> Iterable[MicroBatch]:
        return pieces

    def total(self, sums: Counter[str]) -> Counter[str]:
        return sums

    def joined(self, values_T: np.ndarray) -> np.ndarray:
        return values_T


class GroupRanks:
    """The processes of torch.distributed's default group. `device` is where its tensors lie."""

    # A pass gathers all weights twice and sums all gradients; measured at 15M over gloo, where only the ratio matters.
    pass_tokens = 3 * PASS_TOKENS

    def __init__(self, device: torch.device):
        import torch.distributed as dist

        self.rank, self.count, self.device = dist.get_rank(), dist.get_world_size(), device

    def share(self, length_N: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return balanced(length_N, rows, self.count)[self.rank]

    def in_step(self, pieces: Iterable[MicroBatch], batch: Batch) -> Iterable[MicroBatch]:
        import torch.distributed as dist

        mine = list(pieces)
        most = torch.tensor(len(mine), device=self.device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        yield from mine
        for _ in range(int(most) - len(mine)):
            yield no_work(batch, self.device)

    def total(self, sums: Counter[str]) -> Counter[str]:
        names = sorted(sums)  # the same on all ranks: each has made as many passes as the others
        summed = self._summed(torch.tensor([float(sums[name]) for name in names], dtype=torch.float64))
        return Counter(dict(zip(names, summed.tolist(), strict=True)))

    def joined(self, values_T: np.ndarray) -> np.ndarray:
        return self._summed(torch.from_numpy(values_T)).numpy()

    def first(self, tensor: torch.Tensor) -> torch.Tensor:
        """Rank 0's tensor, on every rank."""
        import torch.distributed as dist

        tensor = tensor.to(self.device)
        dist.broadcast(tensor, 0)
        return tensor

    def _summed(self, values: torch.Tensor) -> torch.Tensor:
        import torch.distributed as dist

        values = values.to(self.device)
        dist.all_reduce(values, dist.ReduceOp.SUM)
        return values.cpu()


def balanced(length_N: np.ndarray, rows: np.ndarray, ranks: int) -> list[np.ndarray]:
    """`rows` dealt to `ranks`, the longest first, each to the one with the fewest tokens so far.

    No rank has more than the shortest load plus the longest row. The same on every rank.
    """
    loads = [(0, rank) for rank in range(ranks)]
    owned: list[list[int]] = [[] for _ in range(ranks)]
    for row in rows[np.argsort(-length_N[rows], kind="stable")]:
        tokens, rank = heapq.heappop(loads)
        owned[rank].append(int(row))
        heapq.heappush(loads, (tokens + int(length_N[row]), rank))
    return [np.array(sorted(mine), dtype=np.int64) for mine in owned]
