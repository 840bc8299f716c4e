"""The layers of a model. Under activation checkpointing a layer keeps its input alone and is computed again in the
backward pass."""

from typing import TYPE_CHECKING

from zerolab.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.modeling_layers import GradientCheckpointingLayer


def checkpoint_activations(model: "PreTrainedModel") -> None:
    """Raises UserError for a family that cannot.

    transformers checkpoints in training mode only. The layers alone are put into it: what they hold stays in eval
    mode, so that no dropout begins to act.
    """
    layers = decoder_layers(model)
    if not layers or not model.supports_gradient_checkpointing:
        raise UserError(f"{type(model).__name__} has no activation checkpointing: set learner.checkpointing to false")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for layer in layers:
        layer.training = True


def decoder_layers(model: "PreTrainedModel") -> "list[GradientCheckpointingLayer]":
    """From the first to the last; none where the family does not mark them."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
