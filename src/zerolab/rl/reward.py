"""From grades to rewards: weighted terms, each kept apart, and the truncation policy, which never changes `correct`.

What a run optimises under each policy: zero E[R 1{finished}], mask E[R | finished] (no pressure against overlong
answers), keep E[R], soft E[R + penalty] with the overlong penalty of 2503.14476 eq. 13.
"""

from collections.abc import Sequence

import numpy as np

from zerolab.config import RewardConfig
from zerolab.types import Completion, Grade, Group, Prompt


def make_group(
    prompt: Prompt, completions: Sequence[Completion], grades: Sequence[Grade], config: RewardConfig, budget: int
) -> Group:
    """The rewarded group of one question; `budget` is L_max in tokens."""
    truncated_G = np.array([c.truncated for c in completions])
    parts_G = {
        "correctness": config.correctness * np.array([float(g.correct) for g in grades]),
        "format": config.format * np.array([float(g.formatted) for g in grades]),
    }
    if config.truncation == "zero":
        parts_G = {name: np.where(truncated_G, 0.0, part_G) for name, part_G in parts_G.items()}
    if config.truncation == "soft":
        assert config.soft_margin is not None
        lengths_G = np.array([len(c) for c in completions])
        parts_G["overlong"] = overlong_penalty(lengths_G, budget, config.soft_margin)
    return Group(
        prompt=prompt,
        completions=tuple(completions),
        grades=tuple(grades),
        rewards_G=np.sum(list(parts_G.values()), axis=0),
        parts_G={name: part_G for name, part_G in parts_G.items() if name == "correctness" or part_G.any()},
        enters_G=~truncated_G if config.truncation == "mask" else None,
    )


def overlong_penalty(lengths: np.ndarray, budget: int, margin: int) -> np.ndarray:
    """0 up to budget - margin, then linear down to -1 at the budget (2503.14476 eq. 13)."""
    return -np.clip((lengths - (budget - margin)) / margin, 0.0, 1.0)


def is_mixed(group: Group) -> bool:
    """Whether the entering responses earned different rewards: only then can a centred advantage be non-zero."""
    rewards = group.rewards_G if group.enters_G is None else group.rewards_G[group.enters_G]
    return bool(len(rewards) > 1 and np.ptp(rewards) > 0)
