"""Whether a run fits its GPUs, and what to change where it does not: every proposal was tried by the same model."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from zerolab.config import LoraConfig, RunConfig
from zerolab.plan.gpus import NODE, Cluster
from zerolab.plan.job import Job
from zerolab.plan.layout import Layout, apart, colocated
from zerolab.plan.memory import GIB, gpu_memory, longest_row
from zerolab.plan.shapes import ModelShape

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
