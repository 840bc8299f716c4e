"""A causal LM whose weights lie in parts on all ranks (FSDP2, torch.distributed.fsdp.fully_shard).

Every decoder layer is gathered when it is reached and dropped after use; embedding, last norm and head stay whole from
the forward to the backward pass. Gradients are summed over the ranks into the parts.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from zerolab.errors import UserError
from zerolab.learner.activations import decoder_layers
from zerolab.learner.shards import Shards, read_into
from zerolab.models.hf import check_folder, load_model, probe
from zerolab.models.untrusted import check_files

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel


class Whole(nn.Module):
    """Runs a function of the model where the weights outside its layers are gathered.

    They stay so until the backward pass, so that the head serves outside; after a forward pass without one, `reshard`.
    """

    def __init__(self, model: "PreTrainedModel"):
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(self.model, *arguments)


def sharded(
    source: "str | Path | PreTrainedModel",
    device: torch.device,
    compute: torch.dtype,
    adapt: "Callable[[PreTrainedModel], None] | None" = None,
) -> Whole:
    """The model of a folder or hub id, in fp32, or a copy of a model that is at hand, cut over torch.distributed's
    default group; its layers compute in `compute`, if that is bf16.

    Every rank reads its own rows alone, unless tensors are stored under other names than the model's, or `adapt` has
    to change the model before it is cut: then every rank holds all of it in host memory for a while. Raises UserError
    as `load_model` does, and for a family that does not name its layers.
    """
    whole = None if adapt or not isinstance(source, str | Path) else _row_by_row(source, device, compute)
    if whole is None:
        model = load_model(source) if isinstance(source, str | Path) else copy.deepcopy(source)
        if adapt:
            adapt(model)
        whole = _shard(model, device, compute)
    whole.model.eval()
    with torch.no_grad():
        whole(probe, str(source) if isinstance(source, str | Path) else type(source).__name__)
    reshard(whole)
    return whole


def _row_by_row(source: str | Path, device: torch.device, compute: torch.dtype) -> Whole | None:
    """None where the files do not have the model's tensors under their names."""
    folder = check_folder(source) or _downloaded(str(source))
    if folder:
        check_files(str(folder))
    files = sorted(folder.glob("model*.safetensors")) if folder else []
    if folder is None or not files:
        return None
    stored, model = Shards(files), _skeleton(folder)
    if not set(_needed(model)) <= set(stored.names()):
        return None
    whole = _shard(model, device, compute)
    _materialise(model, device)
    read_into(model.named_parameters(), stored)
    return whole


def _downloaded(name: str) -> Path | None:
    """The folder of a hub id; None where it cannot be had, for a reason that `load_model` names."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception:
        return None


def reshard(whole: Whole) -> None:
    """Drops what a forward pass without a backward pass has left gathered."""
    whole.reshard()  # type: ignore[operator]


def _shard(model: "PreTrainedModel", device: torch.device, compute: torch.dtype) -> Whole:
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    layers = decoder_layers(model)
    if not layers:
        raise UserError(f"{type(model).__name__} does not say which modules are its layers: it cannot be sharded")
    half = compute if compute == torch.bfloat16 else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32 if half else None)
    mesh, whole = _mesh(device), Whole(model)
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(whole, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for module in whole.modules():
        if isinstance(module, FSDPModule):
            # Token weights have the denominators of the whole step; FSDP would average over the ranks.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return whole


def _mesh(device: torch.device) -> "DeviceMesh":
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(device.type, (dist.get_world_size(),))


def _needed(model: "PreTrainedModel") -> Iterator[str]:
    """Names of the tensors that a model's folder has to hold."""
    yield from (name for name, _ in model.named_parameters())
    yield from set(model.state_dict()) - {name for name, _ in model.named_parameters(remove_duplicate=False)}


def _skeleton(folder: Path) -> "PreTrainedModel":
    """The model of a folder without its weights: parameters take no memory, buffers are as they are computed."""
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    with _parameters_on_meta():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(str(folder))
    return model


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Parameters are made on the meta device, whatever module makes them."""
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:  # a tied one is there already, and has to stay the same
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _materialise(model: "PreTrainedModel", device: torch.device) -> None:
    """Memory for this rank's rows. Buffers keep their values; weights that were tied are tied again."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.to_empty(device=device)
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    model.tie_weights()
