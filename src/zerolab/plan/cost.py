"""Seconds of a step: a roofline of matrix products, memory and links, with utilisations that are assumed.

Decoding one token of b rows reads all weights once and every row's keys and values; it takes the longer of that and of
its products, and what the host needs. A rollout is the sum over positions, with the rows that are still alive there.
Learning is three times the products of a forward pass (four with checkpointing), the longer of that and of FSDP's
gathers and scatters, and the optimizer's pass over its moments. Rows are not divided: an optimizer step takes as long
as its fullest rank.
"""

from dataclasses import dataclass, replace

import numpy as np

from zerolab.config import RunConfig
from zerolab.plan.gpus import Gpu, Layout
from zerolab.plan.job import Assumptions, Job, Sampled, Workload, workload
from zerolab.plan.shapes import Layers

HALF, FULL = 2.0, 4.0  # bytes
# The only public figure for a whole run: Qwen2.5-Math-7B, arXiv 2503.20783.
PUBLISHED_NAME, PUBLISHED_STEPS, PUBLISHED_GPUS, PUBLISHED_HOURS = "qwen2.5-math-7b", 290, "8xA100-80", 27.0


@dataclass(frozen=True)
class Estimate:
    """Seconds of one training step and its parts, and the whole run's hours."""

    work: Workload
    layout: Layout
    sample: float
    products: float  # of learning
    gathers: float  # of learning, hidden behind the products where they are shorter
    optimizer: float
    push: float
    evaluation: float  # one of them

    @property
    def learn(self) -> float:
        return max(self.products, self.gathers) + self.optimizer

    @property
    def step(self) -> float:
        """Staleness lets sampling and learning overlap; taking new weights stops the engines in any case."""
        both = max(self.sample, self.learn) if self.layout.staleness else self.sample + self.learn
        return both + self.push

    @property
    def hours(self) -> float:
        return (self.work.steps * self.step + self.work.evaluations * self.evaluation) / 3600

    @property
    def gpu_hours(self) -> float:
        return self.hours * self.layout.gpus


@dataclass(frozen=True)
class Machine:
    """One GPU as far as the precision of the model lets it be used."""

    gpu: Gpu
    assumed: Assumptions
    width: float  # bytes of a number

    @property
    def flops(self) -> float:
        return self.gpu.flops if self.width == HALF else self.gpu.flops_fp32

    @property
    def bytes_per_s(self) -> float:
        return self.gpu.bandwidth * self.assumed.bandwidth_utilisation


def machine_of(job: Job) -> Machine:
    return Machine(job.cluster.gpu, job.assumed, job.computed)


def estimate(job: Job, layout: Layout) -> Estimate:
    """Of a run of this recipe."""
    work = workload(job.config, job.assumed)

    def sampling(sampled: Sampled) -> float:
        share = replace(sampled, responses=-(-sampled.responses // layout.engines))
        return sampling_seconds(job.layers, machine_of(job), share, job.kv_bytes, sampled.responses)

    products, gathers, optimizer = learning_seconds(job, layout, work)
    return Estimate(
        work,
        layout,
        sample=sampling(work.rollout),
        products=products,
        gathers=gathers,
        optimizer=optimizer,
        push=push_seconds(job, layout),
        evaluation=sampling(work.evaluation) if work.evaluations else 0.0,
    )


def sampling_seconds(layers: Layers, machine: Machine, share: Sampled, kv_bytes: float, everywhere: int = 0) -> float:
    """Of the engine that is done last; every one has this share of the responses that there are everywhere.

    Where its memory does not hold all rows, they are kept full until the last ones run out.
    """
    lengths = share.lengths
    rows = min(share.responses, rows_at_once(layers, machine.width, share, kv_bytes))
    total = prefill_seconds(layers, machine, -(-share.responses // share.group), share.prompt)
    if rows < share.responses:
        steps = (share.responses - rows) * lengths.mean / rows
        middle = share.prompt + lengths.square / (2 * lengths.mean)
        total += steps * float(decode_seconds(layers, machine, np.array([float(rows)]), np.array([middle]))[0])
    alive = lengths.alive()
    here = rows * alive / np.maximum(_any(alive, rows), 1e-12)  # rows on an engine that still has one
    seconds = decode_seconds(layers, machine, here, share.prompt + np.arange(lengths.budget))
    return total + float((_any(alive, max(rows, everywhere)) * seconds).sum())


def _any(alive: np.ndarray, rows: int) -> np.ndarray:
    """Probability that one of so many rows or more goes on."""
    return -np.expm1(rows * np.log1p(-np.minimum(alive, 1 - 1e-12)))


def rows_at_once(layers: Layers, width: float, share: Sampled, kv_bytes: float) -> int:
    """Rows whose whole length fits, prompts counted once for their group; at least 1."""
    per_token = layers.count * layers.kv * width
    return max(1, int(kv_bytes / per_token / (share.lengths.budget + share.prompt / share.group)))


def decode_seconds(layers: Layers, machine: Machine, rows: np.ndarray, context: np.ndarray) -> np.ndarray:
    """Of one token of every row at this context, elementwise."""
    weights = layers.body + layers.head
    moved = machine.width * (weights + layers.count * layers.kv * rows * context)
    flops = rows * (2.0 * weights + 4.0 * layers.count * layers.attention * context)
    products = flops / (machine.flops * machine.assumed.prefill_utilisation)
    return np.maximum(products, moved / machine.bytes_per_s) + machine.assumed.host_ms / 1000


def prefill_seconds(layers: Layers, machine: Machine, prompts: int, tokens: float) -> float:
    flops = prompts * (
        2.0 * layers.body * tokens + 2.0 * layers.count * layers.attention * tokens**2 + 2.0 * layers.head
    )
    return flops / (machine.flops * machine.assumed.prefill_utilisation)


def learning_seconds(job: Job, layout: Layout, work: Workload) -> tuple[float, float, float]:
    """(matrix products, gathers and scatters, optimizer) of all optimizer steps of one rollout."""
    machine, ranks = machine_of(job), layout.ranks
    rows = -(-work.learned // ranks) * job.assumed.learned_share
    per_row = forward_flops(job.layers, work.rollout) * passes(job.config)
    products = work.updates * rows * per_row / (machine.flops * job.assumed.learn_utilisation)
    tokens = rows * (work.rollout.prompt + work.rollout.lengths.mean)
    micro_batches = max(1, -(-tokens // job.config.learner.micro_batch_tokens))
    moved = micro_batches * gathered_bytes(job) * (ranks - 1) / ranks
    gathers = work.updates * moved / between_ranks(job, ranks)
    # Read: weight, gradient, two moments. Written: weight, moments, the weight in the precision that is computed in.
    touched = job.trained * (4 * FULL + 3 * FULL + job.computed) / ranks
    return products, gathers, work.updates * touched / machine.bytes_per_s


def forward_flops(layers: Layers, sampled: Sampled) -> float:
    """Of one row of mean length: logits of response tokens alone, causal attention over half of the squared length."""
    mean = sampled.prompt + sampled.lengths.mean
    square = sampled.prompt**2 + 2 * sampled.prompt * sampled.lengths.mean + sampled.lengths.square
    attention = 2.0 * layers.count * layers.attention * square
    return 2.0 * layers.body * mean + 2.0 * layers.head * sampled.lengths.mean + attention


def passes(config: RunConfig) -> float:
    """Forward passes that an optimizer step is worth; a backward pass counts two, one where the weights are frozen."""
    found = 2.0 if config.lora else 3.0
    found += config.learner.checkpointing
    found += config.learner.old_logprobs == "learner"
    found += config.objective.kl > 0
    if config.objective.needs_critic and not (config.critic and config.critic.kind == "head"):
        found += 4.0  # its values before the updates, and its own forward and backward
    return found


def gathered_bytes(job: Job) -> float:
    """Of a micro-batch under FSDP: weights for the forward and for the backward pass, and gradients in fp32."""
    return 2 * job.computed * job.shape.parameters + FULL * job.trained


def between_ranks(job: Job, ranks: int) -> float:
    """Bytes per second that a rank of a ring gets: its link, or its share of all network cards of its machine."""
    speed = job.cluster.gpu.link
    if ranks > job.cluster.per_node:
        speed = min(speed, job.assumed.network_gb_per_s * 1e9 * job.cluster.per_node)
    return speed * job.assumed.link_utilisation


def push_seconds(job: Job, layout: Layout) -> float:
    """New weights to every engine: gathered from the ranks or broadcast, and written where they are used."""
    size = job.computed * job.shape.parameters
    seconds = 3 * size / machine_of(job).bytes_per_s  # read in full precision, written in the engine's
    if layout.gpus > 1:
        seconds += size / between_ranks(job, layout.gpus)
    if job.config.lora and job.config.lora.offload:  # base and engine take turns on the card
        seconds += 2 * HALF * job.shape.parameters / (job.assumed.host_gb_per_s * 1e9)
    return seconds
