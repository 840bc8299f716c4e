"""A learner on a small model, and a batch for it."""

import numpy as np
import torch

from zerolab.config import LearnerConfig
from zerolab.learner.learner import Learner
from zerolab.rl.batch import Batch, pack


def random_batch(rows: int = 12, seed: int = 0) -> Batch:
    generator = np.random.default_rng(seed)
    tokens, logprobs, columns = [], [], []
    for row in range(rows):
        prompt, response = generator.integers(2, 9), generator.integers(1, 20)
        tokens.append(generator.integers(2, 150, prompt + response))
        logprobs.append(np.full(response, -5.0, np.float32))
        columns.append((prompt, response, row // 4, float(row % 2), row % 2 - 0.5, 0))
    return pack(tokens, logprobs, columns)


def make_learner(model: torch.nn.Module, precision: str = "fp32", **config: object) -> Learner:
    return Learner(model, LearnerConfig(**config), budget=32, total_steps=10, precision=precision)


def weights(learner: Learner) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in learner.model.parameters()])
