"""Lengths of responses: exponential, cut at the budget. Long ones decide how long a rollout takes."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Lengths:
    mean: float  # tokens
    budget: int

    @cached_property
    def scale(self) -> float:
        """tau of S(t) = exp(-t / tau), whose integral up to the budget is the mean; infinite where all fill it."""
        if self.mean >= self.budget * (1 - 1e-6):
            return math.inf
        low, high = self.mean, 1e7 * self.budget
        for _ in range(200):
            middle = math.sqrt(low * high)
            if -middle * math.expm1(-self.budget / middle) < self.mean:
                low = middle
            else:
                high = middle
        return high

    @property
    def truncated(self) -> float:
        """Share of responses that the budget cuts."""
        return math.exp(-self.budget / self.scale)

    @property
    def square(self) -> float:
        """E[L^2] = integral of 2 t S(t)."""
        x = self.budget / self.scale
        if x < 1e-3:
            return self.budget**2 * (1 - 2 * x / 3)
        return 2 * self.scale**2 * (1 - math.exp(-x) * (1 + x))

    def alive(self) -> np.ndarray:
        """Share of the responses that are still going on at each position, one number for each of the budget."""
        return np.exp(-np.arange(self.budget) / self.scale)
