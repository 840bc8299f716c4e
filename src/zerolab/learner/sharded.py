"""The learner of one rank among several. Weights, gradients and moments are sharded with FSDP2.

All ranks call the same methods in the same order with the same arguments, and get the same results. The optimizer step
is that of `learner.py`, on a sharded model. The weights of a decoder layer are gathered before their use and dropped
after it. Embedding, last norm and head stay gathered from the forward to the backward pass. Gradients are summed over
the ranks.
"""

import copy
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from huggingface_hub import snapshot_download
from safetensors.torch import save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from zerolab.config import LearnerConfig, LoraConfig, RunConfig
from zerolab.errors import UserError
from zerolab.learner.checkpoint import read_state
from zerolab.learner.learner import MASTERS_FILE, OPTIMIZER_FILE, STATE_FILE, Learner
from zerolab.learner.lora import Adapters
from zerolab.learner.optim import load_optimizer, save_optimizer
from zerolab.learner.precision import COMPUTE, trained_weights
from zerolab.learner.ranks import (
    GroupRanks,
    Shards,
    full_tensor,
    open_shards,
    part_of,
    read_into,
    rows_of_this_rank,
    weight_files,
    write_weights,
)
from zerolab.learner.scorer import Scorer, decoder_layers
from zerolab.models.hf import describe_model, hidden_states, load_model, named_weights, probe
from zerolab.models.model_safety import check_files, check_folder
from zerolab.rl.batch import Batch
from zerolab.rl.objective import Objective

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ShardedModel(nn.Module):
    """Wraps a model so that its weights outside the decoder layers are gathered in the forward pass.

    They stay gathered until the backward pass, so that the head can be used after `forward`. If there is no backward
    pass, call `reshard`.
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
) -> ShardedModel:
    """Load or copy a model and shard it over torch.distributed's default group.

    Every rank reads only its own rows, unless the files name tensors differently from the model, or `adapt` is given:
    then every rank holds the full model in host memory for a while. Raises UserError as `load_model` does, and for a
    model family that does not mark its layers.

    Args:
        source: folder or hub id, loaded in fp32, or a model, which is copied.
        compute: the layers compute in bf16 if this is bf16, else in the dtype of the weights.
        adapt: changes the model before it is sharded.
    """
    wrapped = None if adapt or not isinstance(source, str | Path) else _row_by_row(source, device, compute)
    if wrapped is None:
        model = load_model(source) if isinstance(source, str | Path) else copy.deepcopy(source)
        if adapt:
            adapt(model)
        wrapped = _shard(model, device, compute)
    wrapped.model.eval()
    with torch.no_grad():
        wrapped(probe, str(source) if isinstance(source, str | Path) else type(source).__name__)
    reshard(wrapped)
    return wrapped


def _row_by_row(source: str | Path, device: torch.device, compute: torch.dtype) -> ShardedModel | None:
    """Load only this rank's rows; None if the files do not have all tensors under the model's names."""
    folder = check_folder(source) or _downloaded(str(source))
    if folder:
        check_files(str(folder))
    files = sorted(folder.glob("model*.safetensors")) if folder else []
    if folder is None or not files:
        return None
    stored, model = Shards(files), _skeleton(folder)
    if not set(_needed(model)) <= set(stored.names()):
        return None
    wrapped = _shard(model, device, compute)
    _materialise(model, device)
    read_into(model.named_parameters(), stored)
    return wrapped


def _downloaded(name: str) -> Path | None:
    """The folder of a hub id; None if it cannot be downloaded (`load_model` then gives the reason)."""
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception:
        return None


def reshard(wrapped: ShardedModel) -> None:
    """Drop the gathered weights after a forward pass without a backward pass."""
    wrapped.reshard()  # type: ignore[operator]


def _shard(model: "PreTrainedModel", device: torch.device, compute: torch.dtype) -> ShardedModel:
    layers = decoder_layers(model)
    if not layers:
        raise UserError(f"{type(model).__name__} does not say which modules are its layers: it cannot be sharded")
    half = compute if compute == torch.bfloat16 else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32 if half else None)
    mesh, wrapped = _mesh(device), ShardedModel(model)
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(wrapped, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for module in wrapped.modules():
        if isinstance(module, FSDPModule):
            # Token weights have the denominators of the whole step; FSDP would average over the ranks.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return wrapped


def _mesh(device: torch.device) -> "DeviceMesh":
    return init_device_mesh(device.type, (dist.get_world_size(),))


def _needed(model: "PreTrainedModel") -> Iterator[str]:
    """Names of the tensors that a model's folder must have."""
    yield from (name for name, _ in model.named_parameters())
    yield from set(model.state_dict()) - {name for name, _ in model.named_parameters(remove_duplicate=False)}


def _skeleton(folder: Path) -> "PreTrainedModel":
    """The model of a folder without its weights: parameters take no memory, buffers are computed."""
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    with _parameters_on_meta():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(str(folder))
    return model


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """A context in which new parameters are on the meta device."""
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:  # a tied parameter is on meta already; keep the object
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _materialise(model: "PreTrainedModel", device: torch.device) -> None:
    """Allocate memory for this rank's rows. Buffers keep their values, and tied weights are tied again."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.to_empty(device=device)
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    model.tie_weights()


class ShardedLearner:
    """The learner of one rank. Needs torch.distributed (gloo on CPUs, NCCL on GPUs), with the rank's GPU as current.

    Sharded weights and moments are fp32 (float64 for a float64 model).

    Args:
        model: a folder, a hub id, or a model, which must be equal on all ranks.
        precision: precision of the layers' computation.
        weights: dtype of the tensors of `weights()` and `export`.

    The other arguments are those of `Learner`.
    """

    def __init__(
        self,
        model: "str | Path | PreTrainedModel",
        config: LearnerConfig,
        *,
        budget: int,
        total_steps: int,
        temperature: float = 1.0,
        precision: str = "fp32",
        weights: str = "fp32",
        reference: bool = False,
        lora: LoraConfig | None = None,
    ):
        if precision == "fp16":
            raise UserError('several learner ranks compute in bf16 or fp32: set model.precision to "bf16"')
        if lora and lora.offload:
            raise UserError(
                "lora.offload is for one learner rank, and each of several ranks has a share of the base: set it to "
                "false"
            )
        device = own_device()
        # FSDP's hooks do not follow the two graphs of shared prompts.
        self.config = config.model_copy(update={"share_prompts": "off"})
        self.budget = budget
        self.dtype, self.rounds = COMPUTE[weights], weights == "bf16"
        self.ranks = GroupRanks(device)
        self.adapters: Adapters | None = None
        self.wrapped = sharded(model, device, COMPUTE[precision], partial(self._adapt, lora=lora) if lora else None)
        self.frozen = None if self.adapters or not reference else sharded(model, device, COMPUTE[precision])
        if self.frozen:
            self.frozen.requires_grad_(False)
        self.learner = Learner(
            self.wrapped.model,
            self.config,
            budget=budget,
            total_steps=total_steps,
            reference=self._scorer(self.frozen, temperature) if self.frozen else reference,
            adapters=self.adapters,
            scorer=self._scorer(self.wrapped, temperature),
        )

    def _adapt(self, model: "PreTrainedModel", lora: LoraConfig) -> None:
        """Add adapters. Rank 0's random initial values are copied to all ranks."""
        self.adapters = Adapters(model, lora, torch.device("cpu"))
        for parameter in trained_weights(model):
            parameter.data.copy_(self.ranks.first(parameter.data))

    def _scorer(self, wrapped: ShardedModel, temperature: float) -> Scorer:
        mb, fp32_head = self.config.logits_mb, self.config.fp32_head
        scorer = Scorer(wrapped.model, temperature=temperature, precision="fp32", logits_mb=mb, fp32_head=fp32_head)
        return scorer.set_parallel(_trunk(wrapped), self.ranks)

    @property
    def version(self) -> int:
        return self.learner.version

    def forward_backward(self, batch: Batch, objective: Objective, rows: np.ndarray | None = None) -> dict[str, float]:
        """Add the gradient of the objective over an optimizer step; returns the metrics of the whole step.

        The responses are divided over the ranks by tokens, unless `rows` has those of this rank. A rank with fewer
        micro-batches than another adds empty ones, because all ranks gather weights together.
        """
        return self.learner.forward_backward(batch, objective, rows)

    def optim_step(self) -> dict[str, float]:
        """Clip the gradient by its norm over all ranks, and take one AdamW step; see `Learner.optim_step`."""
        return self.learner.optim_step()

    def logprobs_of(self, batch: Batch) -> np.ndarray:
        """logprobs_T of a batch under the current weights; the same on every rank."""
        found_T = self.learner.logprobs_of(batch)
        reshard(self.wrapped)
        return found_T

    def reference_logprobs_of(self, batch: Batch) -> np.ndarray:
        """logprobs_T of a batch under the reference policy; the same on every rank."""
        found_T = self.learner.reference_logprobs_of(batch)
        reshard(self.frozen or self.wrapped)
        return found_T

    def values_of(self, batch: Batch) -> np.ndarray:
        """Raises ValueError: a sharded learner has no critic."""
        return self.learner.values_of(batch)

    def weights(self, changed_only: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
        """(Hugging Face name, full tensor) as in `Learner.weights`; one tensor is gathered at a time.

        All ranks must iterate over all tensors together. A tied weight comes under both its names, one after the other.
        """
        found = self.adapters.merged(changed_only) if self.adapters else named_weights(self._model())
        for names, tensor in self._gathered(found):
            yield from ((name, tensor) for name in names)

    @torch.no_grad()
    def _gathered(self, parts: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[list[str], torch.Tensor]]:
        """(all names of a tensor, the full tensor)."""
        names: dict[int, list[str]] = {}
        for name, parameter in self._model().state_dict(keep_vars=True).items():
            names.setdefault(id(parameter), []).append(name)
        tied = {group[0]: group[1:] for group in names.values()}
        second = {name for group in tied.values() for name in group}
        for name, part in parts:
            if name not in second:
                yield [name, *tied.get(name, ())], full_tensor(part.bfloat16() if self.rounds else part)

    def _model(self) -> "PreTrainedModel":
        reshard(self.wrapped)
        return self.wrapped.model

    def export(self, tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
        """Write the policy as a Hugging Face folder, in files of a few GiB. All ranks call this; rank 0 writes."""
        parts = self.adapters.merged() if self.adapters else named_weights(self._model())
        distinct = ((names[0], tensor) for names, tensor in self._gathered(parts))
        write_weights(distinct, folder if self.ranks.rank == 0 else None)
        if self.ranks.rank == 0:
            describe_model(self.wrapped.model, tokenizer, folder, self.dtype)
        self._wait_for_all()

    def loaded(self) -> AbstractContextManager[None]:
        """A context that does nothing: a sharded learner offloads no weights."""
        return nullcontext()

    def save(self, folder: Path) -> None:
        """Write what `Learner.save` writes, one part per rank, to a folder that all ranks share.

        Any number of ranks can load it, and so can a plain `Learner`.
        """
        rank, count = self.ranks.rank, self.ranks.count
        save_optimizer(self.learner.optimizer, part_of(folder / OPTIMIZER_FILE, rank, count))
        if self.adapters:
            self.adapters.save(folder, writes=rank == 0)
        elif self.rounds:
            masters = {str(number): rows_of_this_rank(p) for number, p in enumerate(self.wrapped.model.parameters())}
            save_file(masters, part_of(folder / MASTERS_FILE, rank, count))
        if rank == 0:
            (folder / STATE_FILE).write_text(json.dumps({"version": self.version}))
        self._wait_for_all()

    def load(self, folder: Path) -> None:
        """Load weights, moments and version of a checkpoint, written by any number of ranks or a plain `Learner`."""
        model = self._model()
        if self.adapters:
            self.adapters.load(folder)
        elif self.rounds:
            read_into(
                ((str(number), p) for number, p in enumerate(model.parameters())), open_shards(folder / MASTERS_FILE)
            )
        else:
            read_into(model.named_parameters(), Shards(weight_files(folder)))
        load_optimizer(self.learner.optimizer, folder / OPTIMIZER_FILE)
        self.learner.version = read_state(folder / STATE_FILE)["version"]
        self._wait_for_all()

    def _wait_for_all(self) -> None:
        dist.barrier()


def sharded_learner(model: "str | Path | PreTrainedModel", run: RunConfig) -> ShardedLearner:
    """Make the learner of a run on this rank. Raises UserError for a setting that needs one rank."""
    if run.objective.needs_critic:
        raise UserError("an objective with a critic trains on one learner rank: set cluster.learner_ranks to 1")
    return ShardedLearner(
        model,
        run.learner,
        budget=run.rollout.max_new_tokens,
        total_steps=run.steps * run.learner.updates_per_rollout,
        temperature=run.rollout.temperature,
        precision=run.model.precision,
        weights=run.model.weights,
        reference=run.objective.kl > 0,
        lora=run.lora,
    )


def own_device() -> torch.device:
    """The device of this rank's process group: its GPU under NCCL, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if "nccl" in dist.get_backend() else torch.device("cpu")


def _trunk(wrapped: ShardedModel) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda ids_BS: wrapped(hidden_states, ids_BS)
