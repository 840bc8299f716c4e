"""Low precision: the loss scale for fp16, and fp32 master copies of bf16 weights."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from zerolab.errors import UserError
from zerolab.learner.ranks import Shards, read_into

COMPUTE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class LossScale:
    """Dynamic loss scaling (1710.03740). Gradients below 6e-8 are 0 in fp16, and gradients above 65504 overflow.

    The loss is multiplied by `value`, and the gradient is divided by it before it is clipped. If a gradient overflows,
    the step is skipped and the scale halved. After GROWTH_STEPS good steps in a row the scale is doubled.
    """

    START, GROWTH_STEPS, LEAST, MOST = 2.0**16, 200, 2.0**-10, 2.0**24

    def __init__(self) -> None:
        self.value = self.START
        self.good_steps = 0
        self.skipped = 0  # steps since the start of the run

    def unscale(self, gradients: Iterable[torch.Tensor]) -> bool:
        """Divide the gradients by the scale in place. False if one is not finite, so that the step must be skipped."""
        finite = [torch.isfinite(gradient.div_(self.value)).all() for gradient in gradients]
        return bool(torch.stack(finite).all())

    def update(self, finite: bool) -> None:
        """Adapt the scale after a step. Raises UserError if it falls below LEAST, where no scale can help."""
        if finite:
            self.good_steps += 1
            if self.good_steps == self.GROWTH_STEPS:
                self.value, self.good_steps = min(self.MOST, 2 * self.value), 0
            return
        self.value, self.good_steps, self.skipped = self.value / 2, 0, self.skipped + 1
        if self.value < self.LEAST:
            raise UserError(
                "the gradient is not finite at any loss scale: the policy has diverged; lower learner.lr, or set "
                'model.precision to "bf16" or "fp32"; the last checkpoint is untouched'
            )

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "good_steps": self.good_steps, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.good_steps, self.skipped = state["value"], state["good_steps"], state["skipped"]


class MasterWeights:
    """fp32 copies of bf16 weights, in which an update of 1e-6 would be rounded away.

    After every backward pass the gradient is added to the copy's gradient in fp32, and dropped. The optimizer updates
    the copies, and `publish` rounds them to the weights.
    """

    def __init__(self, weights: Sequence[nn.Parameter]):
        self.weights = list(weights)
        self.copies = [nn.Parameter(weight.detach().float()) for weight in self.weights]
        for weight, copy in zip(self.weights, self.copies, strict=True):
            weight.register_post_accumulate_grad_hook(_Collect(copy))

    @torch.no_grad()
    def publish(self) -> None:
        for weight, copy in zip(self.weights, self.copies, strict=True):
            weight.copy_(copy)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {str(number): copy.detach() for number, copy in enumerate(self.copies)}

    @torch.no_grad()
    def load(self, stored: Shards) -> None:
        read_into(((str(number), copy) for number, copy in enumerate(self.copies)), stored)
        self.publish()


class _Collect:
    def __init__(self, copy: nn.Parameter):
        self.copy = copy

    def __call__(self, weight: torch.Tensor) -> None:
        assert weight.grad is not None
        if self.copy.grad is None:
            self.copy.grad = torch.zeros_like(self.copy)
        self.copy.grad.add_(weight.grad)
        weight.grad = None


def trained_weights(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in fp32, or in its own dtype if that is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def is_half(parameter: torch.Tensor) -> bool:
    return parameter.dtype in (torch.bfloat16, torch.float16)
