"""What an update of a model's weights has to hold, name by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from zerolab.rollout.decoder import check_names


@dataclass(frozen=True, slots=True)
class Expected:
    """Shapes by Hugging Face name; `second` are further names of tied tensors, each with its first."""

    shapes: dict[str, torch.Size]
    second: dict[str, str]

    @classmethod
    def of(cls, config: Any) -> Expected:
        """From a transformers config, without memory for the weights."""
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        model.tie_weights()
        tensors = model.state_dict(keep_vars=True)
        first: dict[int, str] = {}
        second = {n: first[id(t)] for n, t in tensors.items() if first.setdefault(id(t), n) != n}
        return cls({name: tensor.shape for name, tensor in tensors.items()}, second)

    def checked(
        self, tensors: Iterable[tuple[str, torch.Tensor]], dtype: torch.dtype
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """`tensors` as they come, with every name of a tied one: vLLM leaves a name that it does not hear of stale.

        Raises ValueError for a tensor that is unknown, of another shape, or, at the end, missing.
        """
        firsts: dict[str, torch.Tensor] = {}
        given: set[str] = set()
        for name, tensor in tensors:
            if name not in self.shapes:
                raise ValueError(f"unknown tensor {name}")
            if tensor.shape != self.shapes[name]:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(self.shapes[name])}")
            given.add(name)
            if name in self.second.values():
                firsts[name] = tensor
            yield name, tensor.detach().to(dtype)
        for name, first in self.second.items():
            if name not in given and first in firsts:
                given.add(name)
                yield name, firsts[first].detach().to(dtype)
        check_names(given, set(self.shapes), set())
