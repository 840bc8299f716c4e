"""The learner of one rank among several. Weights, gradients and moments are sharded with FSDP2.

All ranks call the same methods in the same order with the same arguments, and get the same answer. The learner is that
of `learner.py` on a sharded model, so no part of an optimizer step is written twice. A decoder layer is gathered when
it is reached and dropped after use. Embedding, last norm and head stay whole from the forward to the backward pass.
Gradients are summed over the ranks.
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
    open_shards,
    part_of,
    read_into,
    rows_of_this_rank,
    weight_files,
    whole,
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
) -> ShardedModel:
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


def _row_by_row(source: str | Path, device: torch.device, compute: torch.dtype) -> ShardedModel | None:
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
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception:
        return None


def reshard(whole: ShardedModel) -> None:
    """Drops what a forward pass without a backward pass has left gathered."""
    whole.reshard()  # type: ignore[operator]


def _shard(model: "PreTrainedModel", device: torch.device, compute: torch.dtype) -> ShardedModel:

    layers = decoder_layers(model)
    if not layers:
        raise UserError(f"{type(model).__name__} does not say which modules are its layers: it cannot be sharded")
    half = compute if compute == torch.bfloat16 else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32 if half else None)
    mesh, whole = _mesh(device), ShardedModel(model)
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

    return init_device_mesh(device.type, (dist.get_world_size(),))


def _needed(model: "PreTrainedModel") -> Iterator[str]:
    """Names of the tensors that a model's folder has to hold."""
    yield from (name for name, _ in model.named_parameters())
    yield from set(model.state_dict()) - {name for name, _ in model.named_parameters(remove_duplicate=False)}


def _skeleton(folder: Path) -> "PreTrainedModel":
    """The model of a folder without its weights: parameters take no memory, buffers are as they are computed."""
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


class ShardedLearner:
    """Needs torch.distributed initialised, with gloo on CPUs and NCCL on GPUs, and the rank's GPU as current device.

    `model`: a folder, a hub id, or a model at hand, of which every rank has an equal one. The parts and their moments
    are fp32 (float64 of a float64 model); `precision` is what the layers compute in, `weights` the dtype in which
    `weights()` and `export` give them. Everything else as in `Learner`.
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
                "lora.offload is for one learner rank: ranks hold a share of the base each; set it to false"
            )
        device = own_device()
        self.config = config.model_copy(update={"share_prompts": "off"})  # whose two graphs FSDP's hooks do not follow
        self.budget = budget
        self.dtype, self.rounds = COMPUTE[weights], weights == "bf16"
        self.ranks = GroupRanks(device)
        self.adapters: Adapters | None = None
        self.whole = sharded(model, device, COMPUTE[precision], partial(self._adapt, lora=lora) if lora else None)
        self.frozen = None if self.adapters or not reference else sharded(model, device, COMPUTE[precision])
        if self.frozen:
            self.frozen.requires_grad_(False)
        self.learner = Learner(
            self.whole.model,
            self.config,
            budget=budget,
            total_steps=total_steps,
            reference=self._scorer(self.frozen, temperature) if self.frozen else reference,
            adapters=self.adapters,
            scorer=self._scorer(self.whole, temperature),
        )

    def _adapt(self, model: "PreTrainedModel", lora: LoraConfig) -> None:
        """Adds adapters, with rank 0's random numbers."""
        self.adapters = Adapters(model, lora, torch.device("cpu"))
        for parameter in trained_weights(model):
            parameter.data.copy_(self.ranks.first(parameter.data))

    def _scorer(self, whole: ShardedModel, temperature: float) -> Scorer:
        mb, fp32_head = self.config.logits_mb, self.config.fp32_head
        scorer = Scorer(whole.model, temperature=temperature, precision="fp32", logits_mb=mb, fp32_head=fp32_head)
        return scorer.set_parallel(_trunk(whole), self.ranks)

    @property
    def version(self) -> int:
        return self.learner.version

    def forward_backward(self, batch: Batch, objective: Objective, rows: np.ndarray | None = None) -> dict[str, float]:
        """Adds the gradient of the objective over a whole optimizer step; returns the metrics of the whole step.

        The responses that contribute are dealt to the ranks by tokens, unless `rows` says which are this rank's. A rank
        with fewer micro-batches than another makes up for it with empty ones.
        """
        return self.learner.forward_backward(batch, objective, rows)

    def optim_step(self) -> dict[str, float]:
        """Clips the norm of the whole gradient and takes one AdamW step on every part; see `Learner.optim_step`."""
        return self.learner.optim_step()

    def logprobs_of(self, batch: Batch) -> np.ndarray:
        """logprobs_T of a whole batch under the current weights, on every rank."""
        found_T = self.learner.logprobs_of(batch)
        reshard(self.whole)
        return found_T

    def reference_logprobs_of(self, batch: Batch) -> np.ndarray:
        """logprobs_T of a whole batch under the weights that the learner began with, on every rank."""
        found_T = self.learner.reference_logprobs_of(batch)
        reshard(self.frozen or self.whole)
        return found_T

    def values_of(self, batch: Batch) -> np.ndarray:
        """There is no critic here: raises ValueError, as a learner without one does."""
        return self.learner.values_of(batch)

    def weights(self, changed_only: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
        """(Hugging Face name, full tensor) as `Learner.weights`, one tensor gathered at a time.

        All ranks have to go through all of it together. A tied weight comes under both its names, one after the other.
        """
        found = self.adapters.merged(changed_only) if self.adapters else named_weights(self._model())
        for names, tensor in self._gathered(found):
            yield from ((name, tensor) for name in names)

    @torch.no_grad()
    def _gathered(self, parts: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[list[str], torch.Tensor]]:
        """(all names of a tensor, the tensor of all ranks)."""
        names: dict[int, list[str]] = {}
        for name, parameter in self._model().state_dict(keep_vars=True).items():
            names.setdefault(id(parameter), []).append(name)
        tied = {group[0]: group[1:] for group in names.values()}
        second = {name for group in tied.values() for name in group}
        for name, part in parts:
            if name not in second:
                yield [name, *tied.get(name, ())], whole(part.bfloat16() if self.rounds else part)

    def _model(self) -> "PreTrainedModel":
        reshard(self.whole)
        return self.whole.model

    def export(self, tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
        """Writes the policy as a plain Hugging Face folder: rank 0 does, in files of a few GiB, and all take part."""
        parts = self.adapters.merged() if self.adapters else named_weights(self._model())
        distinct = ((names[0], tensor) for names, tensor in self._gathered(parts))
        write_weights(distinct, folder if self.ranks.rank == 0 else None)
        if self.ranks.rank == 0:
            describe_model(self.whole.model, tokenizer, folder, self.dtype)
        self._meet()

    def loaded(self) -> AbstractContextManager[None]:
        """Where to learn; nothing is offloaded here."""
        return nullcontext()

    def save(self, folder: Path) -> None:
        """What `Learner.save` writes beside an exported model, a part per rank; all ranks see the same folder.

        Any number of ranks can load it, and so can a plain `Learner`.
        """
        rank, count = self.ranks.rank, self.ranks.count
        save_optimizer(self.learner.optimizer, part_of(folder / OPTIMIZER_FILE, rank, count))
        if self.adapters:
            self.adapters.save(folder, writes=rank == 0)
        elif self.rounds:
            masters = {str(number): rows_of_this_rank(p) for number, p in enumerate(self.whole.model.parameters())}
            save_file(masters, part_of(folder / MASTERS_FILE, rank, count))
        if rank == 0:
            (folder / STATE_FILE).write_text(json.dumps({"version": self.version}))
        self._meet()

    def load(self, folder: Path) -> None:
        """Weights, moments and version of a checkpoint that any number of ranks, or a plain `Learner`, has written."""
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
        self._meet()

    def _meet(self) -> None:

        dist.barrier()


def sharded_learner(model: "str | Path | PreTrainedModel", run: RunConfig) -> ShardedLearner:
    """The learner of a run on this rank. Raises UserError for what several ranks cannot do."""
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
    """Where the tensors of this rank's process group lie."""
    return torch.device("cuda", torch.cuda.current_device()) if "nccl" in dist.get_backend() else torch.device("cpu")


def _trunk(whole: ShardedModel) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda ids_BS: whole(hidden_states, ids_BS)
