"""LoRA (2106.09685) through peft: small matrices beside frozen ones are all that is trained.

The base never changes, so the policy with its adapters switched off is the reference of a KL, and the engine gets plain
merged weights through the same verb as always. There is no dropout: a ratio needs the same network twice.
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
from zerolab.learner.ranks import Shards, read_into, whole
from zerolab.learner.scorer import Scorer
from zerolab.rl.batch import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FOLDER, NAME = "adapter", "default"


class Adapters:
    """Adapters in the linear layers of a model, added in place; the model keeps its class and its verbs."""

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
        self._refuse_ends(model)
        model.eval()
        for tensor in [*trained_weights(model), *model.buffers()]:
            tensor.data = tensor.data.to(device)
        self.model, self.device = model, device
        # The base never changes, so what lies in host memory stays right while a copy is on the device.
        frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
        self.base = frozen if config.offload else []
        self.host = [_pinned(parameter.data) for parameter in self.base] if config.offload else None

    def _refuse_ends(self, model: "PreTrainedModel") -> None:
        """UserError if an embedding or the output head has an adapter.

        The learner computes log-probabilities from the head's own matrix, which an embedding may be tied to.
        """
        for name, layer in self.layers.items():
            if layer is model.get_output_embeddings() or isinstance(layer.get_base_layer(), torch.nn.Embedding):
                raise UserError(
                    f"lora.targets name {name}, an embedding or the output head: name linear layers between them, or "
                    'use "all-linear"'
                )

    @torch.no_grad()
    def merged(self, changed_only: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
        """(Hugging Face name, tensor) of every weight with its adapters added, in the dtype of the base.

        `changed_only`: the matrices that have an adapter, which are all that training changes. Of a sharded model the
        tensors are sharded too.
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
        """(adapted layer that a tensor belongs to, or None; its name within that layer)."""
        parts = name.split(".")
        for i in range(len(parts) - 1, 0, -1):
            if (layer := ".".join(parts[:i])) in self.layers:
                return layer, ".".join(parts[i:])
        return None, name

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """The base on the device; outside it is in host memory, where it is offloaded at all."""
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
        """The base alone, as it was before the first step."""
        for layer in self.layers.values():
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in self.layers.values():
                layer.enable_adapters(True)

    def save(self, folder: Path, writes: bool = True) -> None:
        """FOLDER in a checkpoint: what peft's `PeftModel.from_pretrained` loads onto the base.

        Of several ranks all gather their rows and one `writes`.
        """
        tensors = {name: whole(parameter.detach()) for name, parameter in self._trained()}
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
    """The reference policy of a KL: the policy's own base. It takes no memory."""

    def __init__(self, policy: Scorer, adapters: Adapters):
        self.policy, self.adapters = policy, adapters

    def logprobs_of(self, batch: Batch, token_budget: int) -> np.ndarray:
        with self.adapters.off():
            return self.policy.logprobs_of(batch, token_budget)


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    """In host memory that a GPU copies from at full speed."""
    return tensor.cpu().pin_memory() if torch.cuda.is_available() else tensor.cpu()


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise UserError("lora needs peft: pip install 'zerolab[lora]'") from error
    return peft
