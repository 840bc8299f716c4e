"""LoRA (2106.09685) through peft: only small matrices, added to frozen ones, are trained.

The base never changes, so the policy with its adapters switched off is the reference of a KL. The engine gets merged
weights and needs no adapters. There is no dropout, because an importance ratio compares two passes of one network.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zerolab.config import LoraConfig
from zerolab.errors import UserError
from zerolab.learner.precision import trained_weights, widened
from zerolab.learner.ranks import Shards, full_tensor, read_into
from zerolab.learner.scorer import Scorer
from zerolab.rl.batch import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FOLDER, NAME = "adapter", "default"


class Adapters:
    """Adapters in the linear layers of a model. They are added in place; the model keeps its class and its methods."""

    def __init__(self, model: "PreTrainedModel", config: LoraConfig, device: torch.device):
        peft = _peft()
        settings = peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
            target_modules=config.targets if isinstance(config.targets, str) else list(config.targets),
        )
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "fan_in_fan_out")  # GPT-2 stores transposed matrices; peft sees it
                self.wrapped: Any = peft.get_peft_model(model, settings)
        except ValueError as error:
            text = str(error).split("\n")[0][:200]
            raise UserError(f"lora.targets fit no linear layer of {type(model).__name__}: {text}") from error
        self.layers: dict[str, Any] = {
            name: module for name, module in model.named_modules() if isinstance(module, peft.tuners.lora.LoraLayer)
        }
        self._refuse_embedding_and_head(model)
        model.eval()
        for tensor in [*trained_weights(model), *model.buffers()]:
            tensor.data = tensor.data.to(device)
        self.model, self.device = model, device
        # The base never changes, so its copy in host memory stays valid while another copy is on the device.
        frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
        self.base = frozen if config.offload else []
        self.host = [_pinned(parameter.data) for parameter in self.base] if config.offload else None

    def _refuse_embedding_and_head(self, model: "PreTrainedModel") -> None:
        """Raise UserError if an embedding or the output head has an adapter.

        The learner computes log-probabilities from the head's own matrix, to which an embedding may be tied.
        """
        for name, layer in self.layers.items():
            if layer is model.get_output_embeddings() or isinstance(layer.get_base_layer(), torch.nn.Embedding):
                raise UserError(
                    f"lora.targets name {name}, an embedding or the output head: name linear layers between them, or "
                    'use "all-linear"'
                )

    @torch.no_grad()
    def merged(self, changed_only: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
        """(Hugging Face name, tensor) of every weight with its adapters merged in, in the dtype of the base.

        The tensors of a sharded model are sharded too.

        Args:
            changed_only: only the matrices that have an adapter.
        """
        for name, tensor in self.model.state_dict().items():
            layer, rest = self._split(name)
            if changed_only and rest != "base_layer.weight":
                continue
            if layer is None:
                yield name, tensor.detach()
            elif rest == "base_layer.weight":
                delta = self.layers[layer].get_delta_weight(NAME)
                yield f"{layer}.weight", (widened(tensor.to(delta.device)) + widened(delta)).to(tensor.dtype)
            elif rest.startswith("base_layer."):
                yield f"{layer}.{rest.removeprefix('base_layer.')}", tensor.detach()

    def _split(self, name: str) -> tuple[str | None, str]:
        """(adapted layer of a tensor, or None; name of the tensor within that layer)."""
        parts = name.split(".")
        for i in range(len(parts) - 1, 0, -1):
            if (layer := ".".join(parts[:i])) in self.layers:
                return layer, ".".join(parts[i:])
        return None, name

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """A context in which an offloaded base is on the device. Without offloading it does nothing."""
        if self.host is None:
            yield
            return
        for parameter, tensor in zip(self.base, self.host, strict=True):
            parameter.data = tensor.to(self.device, non_blocking=True)
        try:
            yield
        finally:
            for parameter, tensor in zip(self.base, self.host, strict=True):
                parameter.data = tensor

    @contextmanager
    def off(self) -> Iterator[None]:
        """A context in which adapters are off, so that the model is the one before the first step."""
        for layer in self.layers.values():
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in self.layers.values():
                layer.enable_adapters(True)

    def save(self, folder: Path, writes: bool = True) -> None:
        """Write FOLDER in a checkpoint, which peft's `PeftModel.from_pretrained` can load onto the base.

        All ranks call this to gather the rows; one rank `writes`.
        """
        tensors = {name: full_tensor(parameter.detach()) for name, parameter in self._trained()}
        if writes:
            self.wrapped.save_pretrained(str(folder / FOLDER), save_embedding_layers=False, state_dict=tensors)

    def load(self, folder: Path) -> None:
        file = folder / FOLDER / "adapter_model.safetensors"
        if not file.is_file():
            raise UserError(f"{folder} holds no adapter: it is a checkpoint of a run without lora")
        stored = Shards([file])
        trained = {name.replace(f".{NAME}.", "."): parameter for name, parameter in self._trained()}  # as peft names it
        if unknown := set(stored.names()) - set(trained):
            raise UserError(f"{folder} holds an adapter of another model ({min(unknown)})")
        read_into(trained.items(), stored)

    def _trained(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        return ((name, parameter) for name, parameter in self.wrapped.named_parameters() if parameter.requires_grad)


class BaseReference:
    """The reference policy of a KL: the policy without its adapters. It takes no memory."""

    def __init__(self, policy: Scorer, adapters: Adapters):
        self.policy, self.adapters = policy, adapters

    def logprobs_of(self, batch: Batch, token_budget: int) -> np.ndarray:
        with self.adapters.off():
            return self.policy.logprobs_of(batch, token_budget)


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in host memory, pinned if there is a GPU, so that copies to the GPU are fast."""
    return tensor.cpu().pin_memory() if torch.cuda.is_available() else tensor.cpu()


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise UserError("lora needs peft: pip install 'zerolab[lora]'") from error
    return peft
