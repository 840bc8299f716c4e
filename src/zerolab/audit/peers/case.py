"""What a peer is asked: one optimizer step over responses whose lengths, rewards and groups we chose."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Coefficients = list[np.ndarray]  # by response: -dLoss/dlogprob of each of its tokens, summed over the whole step


@dataclass(frozen=True)
class Case:
    """N responses in groups of `group_size` neighbours, one question each; everything on-policy."""

    lengths: tuple[int, ...]  # N, in tokens
    rewards: tuple[float, ...]  # N
    truncated: tuple[bool, ...]  # N; the others end with EOS
    group_size: int
    budget: int  # the longest response that could have been sampled
    micro_batches: int = 1  # equal parts whose gradients are accumulated
    order: int = 0  # 0: as listed; otherwise the seed of a shuffle before cutting
    ranks: int = 1  # data-parallel processes, with micro_batches each
    mismatch: tuple[tuple[float, ...], ...] | None = None  # N x L: log pi_old - log sampler

    def __post_init__(self) -> None:
        assert len(self.lengths) == len(self.rewards) == len(self.truncated)
        assert len(self.lengths) % (self.group_size * self.ranks) == 0
        assert len(self.lengths) % (self.micro_batches * self.ranks) == 0
        assert max(self.lengths) <= self.budget

    def replace(self, **changes: Any) -> "Case":
        return dataclasses.replace(self, **changes)

    def record(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def groups(self) -> np.ndarray:
        return np.arange(len(self.lengths)) // self.group_size


def size(coefficients: Coefficients) -> np.ndarray:
    """Mean absolute coefficient of a token, by response."""
    return np.array([np.abs(c).mean() for c in coefficients])


def change(found: Coefficients, expected: Coefficients) -> float:
    """Relative distance of two answers to the same question."""
    a, b = np.concatenate(found), np.concatenate(expected)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def balanced(lengths: Sequence[Sequence[int]], budget: int) -> Case:
    """Groups in which every length listed is right once and wrong once, so that all advantages have one size."""
    return Case(
        lengths=tuple(length for group in lengths for length in (*group, *group)),
        rewards=tuple(reward for group in lengths for reward in (1.0, 0.0) for _ in group),
        truncated=(False,) * (2 * sum(map(len, lengths))),
        group_size=2 * len(lengths[0]),
        budget=budget,
    )
