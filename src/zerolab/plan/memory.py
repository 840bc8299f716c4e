"""Bytes on a GPU, whether a run fits, and what to change if it does not.

Bytes are held for the whole run or for one micro-batch. Every proposal was checked by the same estimate.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from zerolab.config import LoraConfig, RunConfig
from zerolab.plan.gpus import NODE, Cluster, Layout, apart, colocated
from zerolab.plan.job import Job
from zerolab.plan.shapes import Layers, ModelShape

GIB = 2**30
Rows = list[tuple[str, float]]


def memory_estimates(config: RunConfig, shape: ModelShape) -> Rows:
    """GiB of one process on one device, without activations.

    Under lora.offload the engine's share and the learner's are there in turn, and each has its sum.
    """
    logits = ("logits of one chunk, three copies", logits_bytes(config))
    learner = [weights_row(config, shape), *trained_rows(config, shape)]
    engine = engine_rows(config, shape)
    rows = [*learner, *engine, logits]
    if config.lora and config.lora.offload:
        rows += [
            ("sum while sampling", sum(size for _, size in [*engine, learner[1]])),
            ("sum while learning, no activations", sum(size for _, size in [*learner, logits])),
            ("host memory of the base", learner[0][1]),
        ]
    else:
        rows.append(("sum, without activations", sum(size for _, size in rows)))
    return [(name, size / GIB) for name, size in rows]


def weights_row(config: RunConfig, shape: ModelShape) -> tuple[str, float]:
    held = 2.0 if config.model.weights == "bf16" else 4.0
    return f"learner weights, {config.model.weights}", held * shape.parameters


def trained_rows(config: RunConfig, shape: ModelShape) -> Rows:
    """What training needs beside the weights of the policy."""
    if config.lora:  # the base is the reference too
        return [("adapters, gradients and moments, fp32", 16.0 * config.lora.rank * shape.linear_width)]
    half = config.model.weights == "bf16"
    rows = [("master copies, fp32", 4.0 * shape.parameters)] if half else []
    rows += [("gradients, fp32", 4.0 * shape.parameters), ("AdamW moments, fp32", 8.0 * shape.parameters)]
    if config.objective.kl:
        rows.append((f"reference weights, {config.model.weights}", (2.0 if half else 4.0) * shape.parameters))
    if config.objective.needs_critic and not (config.critic and config.critic.kind == "head"):
        rows.append(("critic weights, gradients and moments", 16.0 * shape.parameters))
    return rows


def engine_rows(config: RunConfig, shape: ModelShape) -> Rows:
    width = 4.0 if config.model.precision == "fp32" else 2.0
    return [
        ("engine weights", width * shape.parameters),
        ("engine keys and values (budget)", config.rollout.kv_gb * GIB),
    ]


def logits_bytes(config: RunConfig) -> float:
    return 3.0 * config.learner.logits_mb * 2**20


def activation_bytes(config: RunConfig, layers: Layers, sharded: bool = False) -> float:
    """Of one micro-batch, kept for the backward pass.

    Per token and layer: queries, keys and values of every head and the output of attention, four copies of the MLP's
    inner width, and of the stream what two norms and their products keep, 24 bytes a channel in fp32, 16 in bf16, 26
    under autocast, which casts the input of every product anew. Counted on transformers' Qwen2 (tests/plan). FSDP
    computes in bf16 without autocast. With checkpointing a layer keeps its input, and one layer at a time has the rest.
    """
    tokens = min(config.learner.micro_batch_tokens, longest_step(config))
    computed = 4.0 if config.model.precision == "fp32" else 2.0
    half = config.model.weights == "bf16" or (sharded and computed == 2.0)
    stream = 16.0 if half else 24.0 if computed == 4.0 else 26.0
    inside = stream * layers.hidden + 4 * computed * (layers.attention + layers.inner)
    if config.learner.checkpointing:
        return tokens * (layers.count * (2.0 if half else 4.0) * layers.hidden + inside)
    return tokens * layers.count * inside


def longest_step(config: RunConfig) -> int:
    """Tokens of an optimizer step whose responses all fill the budget: no micro-batch has more."""
    rollout = config.rollout
    responses = rollout.questions_per_step * rollout.samples_per_question
    return -(-responses // config.learner.updates_per_rollout) * longest_row(config)


def longest_row(config: RunConfig) -> int:
    """Tokens of a response that fills the budget, with the longest prompt: it is never divided."""
    return config.rollout.max_prompt_tokens + config.rollout.max_new_tokens


@dataclass(frozen=True)
class GpuMemory:
    """What one GPU of a kind holds: names and bytes, in phases that follow one another on it."""

    role: str
    held: Rows  # all the time
    phases: dict[str, Rows]  # while sampling, while learning

    @property
    def peak(self) -> float:
        return sum(size for _, size in self.held) + max(
            (sum(size for _, size in rows) for rows in self.phases.values()), default=0.0
        )


def gpu_memory(job: Job, layout: Layout) -> list[GpuMemory]:
    """Per kind of GPU: learner rank, engine, or both on one."""
    config, shape = job.config, job.shape
    if layout.ranks > 1:  # whose parts are fp32, whatever is sent and exported
        config = config.model_copy(update={"model": config.model.model_copy(update={"weights": "fp32"})})
    other = ("CUDA and buffers", job.assumed.other_gb * 1e9)
    weights, *trained = [
        (name, size / layout.ranks) for name, size in [weights_row(config, shape), *trained_rows(config, shape)]
    ]
    learning = [
        ("logits of one chunk", logits_bytes(config)),
        *_working(job, layout),
        ("activations of a micro-batch", activation_bytes(config, job.layers, layout.ranks > 1)),
    ]
    engine, cache = engine_rows(config, shape)
    if not layout.colocated:
        return [
            GpuMemory("learner rank", [weights, *trained, other], {"learning": learning}),
            GpuMemory("engine", [engine, cache, other], {}),
        ]
    role = "GPU" if layout.ranks == 1 else "GPU, rank and engine"
    if config.lora and config.lora.offload:
        phases = {"sampling": [engine, cache], "learning": [weights, *learning]}
        return [GpuMemory(role, [*trained, other], phases)]
    if not config.rollout.sleep:
        return [GpuMemory(role, [weights, *trained, engine, cache, other], {"learning": learning})]
    if config.rollout.engine == "vllm":
        phases = {"sampling": [engine, cache], "learning": learning}
        return [GpuMemory(role, [weights, *trained, other], phases)]
    return [GpuMemory(role, [weights, *trained, engine, other], {"sampling": [cache], "learning": learning})]


def _working(job: Job, layout: Layout) -> Rows:
    """Weights in the precision that is computed in: all of them under autocast; under FSDP two layers gathered at once
    with the gradients of one, and embedding and head."""
    if layout.ranks > 1:
        layer = job.layers.body / job.layers.count
        return [("gathered layers", job.computed * (3 * layer + 2 * job.layers.head))]
    model = job.config.model
    if model.weights == "fp32" and job.computed == 2.0:
        return [(f"weights cast to {model.precision}", 2.0 * job.shape.parameters)]
    return []


MOST_NODES = 128


def too_large(job: Job, layout: Layout) -> list[str]:
    """A line for every kind of GPU whose memory does not hold its share; none where all fits."""
    return [
        f"the {memory.role} needs {memory.peak / GIB:.1f} GiB of {job.cluster.gpu.memory / GIB:.1f}"
        for memory in gpu_memory(job, layout)
        if memory.peak > job.cluster.gpu.memory
    ]


def refused(job: Job, layout: Layout) -> list[str]:
    """What does not run on several GPUs, whatever their memory."""
    config, several = job.config, layout.ranks > 1
    cases = (
        (
            several and config.objective.needs_critic,
            "several learner ranks have no critic: one rank, or another objective",
        ),
        (
            several and config.model.precision == "fp16",
            "several learner ranks do not compute in fp16: model.precision=bf16",
        ),
        (
            layout.gpus > 1 and config.lora is not None and config.lora.offload,
            "lora.offload is for one GPU: set it to false",
        ),
    )
    return [words for wrong, words in cases if wrong]


def fits(job: Job, layout: Layout) -> bool:
    return not refused(job, layout) and not too_large(job, layout)


def proposals(job: Job, layout: Layout) -> list[str]:
    """Changes that make it fit, the smallest first; one line that says so where none was found."""
    if refused(job, layout):
        return []  # each says its own remedy
    settings = (words for changed, words in _settings(job.config) if fits(replace(job, config=changed), layout))
    found = list(islice(settings, 1))  # each goes further than the one before it
    if layout.colocated and job.cluster.count > 1:
        splits = [apart(engines, job.cluster, 0) for engines in range(1, job.cluster.count)]
        good = [split for split in splits if fits(job, split)]
        if good:
            best = min(good, key=lambda split: abs(split.engines - split.ranks))
            found.append(f"engines on GPUs of their own: --engines {best.engines} --learner-ranks {best.ranks}")
    if (larger := _more_gpus(job)) is not None:
        found.append(f"more GPUs: --gpus {larger.name}")
    found += _adapters(job, layout)
    return found or ["nothing that was tried makes it fit: take a smaller model or GPUs with more memory"]


def _settings(config: RunConfig) -> Iterator[tuple[RunConfig, str]]:
    """An engine that sleeps while the learner learns, then smaller micro-batches, checkpointing, and less memory for
    keys and values."""
    if not config.rollout.sleep and config.rollout.max_staleness == 0:
        yield _changed(config, rollout={"sleep": True}), "rollout.sleep=true"
    row = longest_row(config)
    least = {"micro_batch_tokens": min(config.learner.micro_batch_tokens, row)}
    words = f"learner.micro_batch_tokens={least['micro_batch_tokens']}"
    yield _changed(config, learner=least), words
    checkpointing = {"checkpointing": True, "share_prompts": "off"}
    kept = config.learner.micro_batch_tokens
    for tokens in (kept, kept // 2, least["micro_batch_tokens"]):
        if tokens >= least["micro_batch_tokens"]:
            more = {**checkpointing, "micro_batch_tokens": tokens}
            less = "" if tokens == kept else f", learner.micro_batch_tokens={tokens}"
            yield _changed(config, learner=more), f"learner.checkpointing=true{less}"
    for share in (0.5, 0.25, 0.1):
        kv_gb = round(config.rollout.kv_gb * share, 1)
        smallest = {**checkpointing, **least}
        yield (
            _changed(config, learner=smallest, rollout={"kv_gb": kv_gb}),
            f"learner.checkpointing=true, {words}, rollout.kv_gb={kv_gb:g}",
        )


def _changed(config: RunConfig, **tables: dict[str, Any]) -> RunConfig:
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=changes) for name, changes in tables.items()}
    )


def _more_gpus(job: Job) -> Cluster | None:
    """The next cluster of these GPUs, by doubling, on which it fits."""
    nodes, per_node = job.cluster.nodes, job.cluster.per_node
    while nodes <= MOST_NODES:
        nodes, per_node = (nodes, per_node * 2) if per_node < NODE else (nodes * 2, per_node)
        larger = Cluster(nodes, per_node, job.cluster.gpu)
        if fits(replace(job, cluster=larger), colocated(larger)):
            return larger
    return None


def _adapters(job: Job, layout: Layout) -> list[str]:
    """LoRA over bf16 weights, offloaded on a single GPU where that is what it takes."""
    config = job.config
    if config.lora or config.objective.needs_critic or config.model.precision != "bf16":
        return []
    half = _changed(config, model={"weights": "bf16"})
    for offload in (False, True) if job.cluster.count == 1 else (False,):
        adapted = half.model_copy(update={"lora": LoraConfig(offload=offload)})
        words = "adapters: lora.rank=32, model.weights=bf16" + ", lora.offload=true" * offload
        for changed, more in [(adapted, ""), *_settings(adapted)]:
            if fits(replace(job, config=changed), layout):
                return [", ".join(filter(None, (words, more)))]
    return []


def rows_that_fit(config: RunConfig, shape: ModelShape) -> float:
    """Responses of full length that the engine's keys and values hold."""
    assert shape.layers is not None
    width = 4 if config.model.precision == "fp32" else 2
    per_token = shape.layers.count * shape.layers.kv * width
    return config.rollout.kv_gb * GIB / per_token / longest_row(config)
