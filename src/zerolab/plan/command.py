"""`zerolab plan`: what a recipe needs on GPUs that are not here; and the text of `--dry-run`, from the config alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerolab.config import PretrainConfig, RunConfig, TextRunConfig
from zerolab.files import check_can_write
from zerolab.models.context import evaluation_room, piece_limit, prompt_limit
from zerolab.plan.cost import (
    PUBLISHED_GPUS,
    PUBLISHED_HOURS,
    PUBLISHED_NAME,
    PUBLISHED_STEPS,
    Estimate,
    estimate,
)
from zerolab.plan.gpus import Layout, candidates, choose, find_gpu, parse_cluster
from zerolab.plan.job import Assumptions, Job, assumptions, listing, make_job
from zerolab.plan.memory import (
    GIB,
    GpuMemory,
    Rows,
    fits,
    gpu_memory,
    memory_estimates,
    proposals,
    refused,
    rows_that_fit,
    too_large,
)
from zerolab.plan.shapes import ModelShape, model_shape, tiny_shape
from zerolab.plan.throughput import time_estimate
from zerolab.terminal import echo

Split = tuple[int | None, int | None, int | None]  # engines, learner ranks, staleness; None: not named


@dataclass(frozen=True)
class Plan:
    job: Job
    layout: Layout
    estimate: Estimate
    memory: list[GpuMemory]
    problems: list[str]
    proposals: list[str]


def make_plan(config: RunConfig, gpus: str, assume: Sequence[str] = (), split: Split = (None, None, None)) -> Plan:
    """The plan of a run on these GPUs.

    Raises UserError for a model of unknown shape and for what the options cannot mean.
    """
    job = make_job(config, parse_cluster(gpus), assumptions(assume))
    layout = choose(config, job.cluster, *split)
    problems = [*refused(job, layout), *too_large(job, layout)]
    changes = proposals(job, layout) if problems else []
    return Plan(job, layout, estimate(job, layout), gpu_memory(job, layout), problems, changes)


def run(config: RunConfig, gpus: str, assume: Sequence[str], split: Split, out: Path | None) -> bool:
    """Prints the plan; True where it fits. `out`: also as JSON."""
    check_can_write(out, "--json")
    plan = make_plan(config, gpus, assume, split)
    echo("\n".join(text(plan)))
    if out:
        from zerolab.rundir import clear_errors, write_atomically

        with clear_errors(out, "free space, or choose another --json"):
            write_atomically(out, json.dumps(record(plan), indent=2) + "\n")
    return not plan.problems


def text(plan: Plan) -> list[str]:
    job = plan.job
    return [
        f"{job.config.name} on {job.cluster.name}: {plan.layout.name}",
        f"model        {job.shape.parameters:,} parameters, by {job.shape.source}",
        f"GPU          {job.cluster.gpu.source}",
        "",
        *memory_lines(plan),
        "",
        *time_lines(plan.estimate),
        *published_lines(job, plan.estimate),
        "",
        *alternatives(job),
        "assumed (--assume NAME=VALUE):",
        *(f"  {name:22} {value:>7g}  {why}" for name, value, why in listing(job.assumed)),
        "",
        "A model of the hardware, not a measurement; docs/scaling.md: how far off it was where it could be checked.",
    ]


def memory_lines(plan: Plan) -> list[str]:
    lines, room = [], plan.job.cluster.gpu.memory
    for memory in plan.memory:
        lines.append(f"memory of one {memory.role}, GiB")
        lines += [f"  {name:38} {size / GIB:>8.2f}" for name, size in memory.held]
        for phase, parts in memory.phases.items():
            lines += [f"  {name + ', ' + phase:38} {size / GIB:>8.2f}" for name, size in parts]
        verdict = "fits" if memory.peak <= room else "DOES NOT FIT"
        lines.append(f"  {'at most':38} {memory.peak / GIB:>8.2f} of {room / GIB:.2f}: {verdict}")
    rows = rows_that_fit(plan.job.config, plan.job.shape)
    lines.append(f"  {'full-length responses in the cache':38} {rows:>8,.0f}" + "  NOT ONE" * (rows < 1))
    if plan.problems:
        lines += ["", "would not run: " + "; ".join(plan.problems), *(f"  change {words}" for words in plan.proposals)]
    return lines


def time_lines(found: Estimate) -> list[str]:
    work = found.work
    lengths = work.rollout.lengths
    learning = "gathers and scatters" if found.gathers > found.products else "products"
    return [
        f"a step: {work.rollout.responses:,} responses of {lengths.mean:,.0f} tokens on average (budget "
        f"{lengths.budget:,}, {lengths.truncated:.1%} cut), {work.updates} optimizer steps",
        f"  sampling             {found.sample:>9.1f} s  {work.rollout.tokens / found.sample:>10,.0f} tokens/s",
        f"  learning             {found.learn:>9.1f} s  {work.kept * lengths.mean / found.learn:>10,.0f} tokens/s, "
        f"bound by {learning} ({found.products:.1f} s of products, {found.gathers:.1f} s of gathers, "
        f"{found.optimizer:.1f} s of the optimizer)",
        f"  new weights          {found.push:>9.1f} s",
        f"  a step               {found.step:>9.1f} s  {work.rollout.tokens / found.step:>10,.0f} tokens/s"
        + ", sampling and learning at once" * bool(found.layout.staleness),
        f"  an evaluation        {found.evaluation:>9.1f} s, {work.evaluations} of them",
        f"{work.steps} steps: {found.hours:,.1f} hours, {found.gpu_hours:,.0f} GPU hours; checkpoints, grading and "
        "start-up are not in it",
    ]


def published_lines(job: Job, found: Estimate) -> list[str]:
    """The published hours beside the estimate. Empty unless recipe, steps and GPUs are those of the published run."""
    if (job.config.name, job.config.steps, job.cluster.name) != (PUBLISHED_NAME, PUBLISHED_STEPS, PUBLISHED_GPUS):
        return []
    ratio = PUBLISHED_HOURS / found.hours
    return [
        f"published: {PUBLISHED_HOURS:g} hours (arXiv 2503.20783), {ratio:.1f} times the estimate. The estimate",
        "  assumes a well-tuned run. The published hours include evaluations on five benchmarks; the response",
        "  lengths and utilisations of that run are not public.",
    ]


def alternatives(job: Job) -> list[str]:
    """The best splits of the same GPUs that fit, one of each kind."""
    best = best_layouts(job)
    if job.cluster.count == 1 or not best:
        return []
    return [
        "the same GPUs otherwise, the best of each kind that fits:",
        *(
            f"  {row.layout.name:38} step {row.step:>8.1f} s (sampling {row.sample:.1f}, learning {row.learn:.1f}), "
            f"{row.hours:,.1f} hours"
            for row in best
        ),
        "",
    ]


def best_layouts(job: Job) -> list[Estimate]:
    """Of layouts that fit the fastest in turn, apart and waiting, and apart with staleness 1; fastest first."""
    rows = [estimate(job, layout) for layout in candidates(job.cluster) if fits(job, layout)]
    best: dict[tuple[bool, int], Estimate] = {}
    for row in sorted(rows, key=lambda row: row.step):
        best.setdefault((row.layout.colocated, row.layout.staleness), row)
    return list(best.values())


def record(plan: Plan) -> Mapping[str, Any]:
    """The numbers, for a program."""
    found = plan.estimate
    return {
        "recipe": plan.job.config.name,
        "gpus": plan.job.cluster.name,
        "layout": plan.layout.name,
        "fits": not plan.problems,
        "change": plan.proposals,
        "memory_gib": {m.role: round(m.peak / GIB, 2) for m in plan.memory},
        "seconds": {
            name: round(getattr(found, name), 3)
            for name in ("sample", "products", "gathers", "optimizer", "learn", "push", "step", "evaluation")
        },
        "hours": round(found.hours, 2),
        "gpu_hours": round(found.gpu_hours, 1),
        "assumed": {name: value for name, value, _ in listing(plan.job.assumed)},
    }


def token_estimates(config: RunConfig) -> list[tuple[str, float]]:
    rollout = config.rollout
    responses = rollout.questions_per_step * rollout.samples_per_question
    rounds = 1 + rollout.refill_rounds
    return [
        ("responses per step", responses),
        ("optimizer steps per step", config.learner.updates_per_rollout),
        ("responses per optimizer step", responses / config.learner.updates_per_rollout),
        ("new tokens per step, at most", responses * rollout.max_new_tokens * rounds),
        ("new tokens in all, at most", responses * rollout.max_new_tokens * rounds * config.steps),
    ]


def describe(config: RunConfig) -> str:
    """Resolved config, the objective's formula, token and memory estimates, as text.

    Raises UserError if the budgets leave no room for a prompt in the model's context, as the run would.
    """
    shape = model_shape(config.model)
    lines = [config.model_dump_json(indent=2), "", f"objective {config.objective.name}", config.objective.formula(), ""]
    lines += [f"{name:36} {value:>16,.0f}" for name, value in token_estimates(config)]
    if shape is None:
        lines += ["", f"memory: unknown until the model is at hand ({config.model.path})", time_estimate(config, shape)]
        return "\n".join(lines)
    if shape.context is not None:
        lines.append(f"{'tokens of a prompt, at most':36} {prompt_limit(config, shape.context):>16,}")
    lines += ["", f"{'parameters, by ' + shape.source:36} {shape.parameters:>16,}"]
    lines += [f"{name:36} {value:>12.2f} GiB" for name, value in memory_estimates(config, shape)]
    if shape.layers:
        lines.append(f"{'full-length responses in that cache':36} {rows_that_fit(config, shape):>16,.0f}")
    return "\n".join([*lines, "", time_estimate(config, shape)])


UTILISATION = Assumptions().learn_utilisation


def describe_pretraining(config: PretrainConfig | TextRunConfig) -> str:
    """Resolved config; for a run on texts also tokens, steps and memory."""
    resolved = config.model_dump_json(indent=2)
    if isinstance(config, PretrainConfig):
        return resolved
    shape = text_shape(config)
    if shape is not None and shape.context is not None:
        piece_limit(config, shape.context)
        if config.evaluation.every and config.evaluation.questions:
            evaluation_room(config, shape.context)
    lines = [resolved, "", *(f"{name:36} {value:>16,.0f}" for name, value in text_tokens(config))]
    if shape is None:
        unknown = f"memory: unknown until the model is at hand ({config.model.path})"
        return "\n".join([*lines, "", unknown, time_estimate(config, shape)])
    lines += ["", f"{'parameters, by ' + shape.source:36} {shape.parameters:>16,}"]
    lines.append(f"{'floating-point operations':36} {operations(config, shape):>16.3g}")
    lines.append(f"{f'A100 hours at {UTILISATION:.0%} of its peak':36} {a100_hours(config, shape):>16,.1f}")
    lines += [f"{name:36} {value:>12.2f} GiB" for name, value in text_memory(config, shape)]
    return "\n".join([*lines, "", time_estimate(config, shape)])


def text_tokens(config: TextRunConfig) -> list[tuple[str, float]]:
    """Steps and tokens, of each corpus where there are several."""
    total, sources = config.steps * config.tokens_per_step, config.corpora.sources
    rows: list[tuple[str, float]] = [
        ("optimizer steps", config.steps),
        ("tokens per step", config.tokens_per_step),
        ("tokens in all", total),
    ]
    weights = sum(source.weight for source in sources)
    return rows + [(f"  of {s.name or s.path}", total * s.weight / weights) for s in sources if len(sources) > 1]


def text_shape(config: TextRunConfig) -> ModelShape | None:
    """Shape of the model to begin with; None where it is not known yet."""
    if config.architecture is None:
        return model_shape(config.model)
    if (vocabulary := config.model.vocab_size) is None:
        from zerolab.models.hf import load_tokenizer

        vocabulary = len(load_tokenizer(str(config.model.tokenizer)))
    return tiny_shape(config.architecture, vocabulary)


def operations(config: TextRunConfig, shape: ModelShape) -> float:
    """6 N D (2001.08361, section 2.1), and 2 N D more where activations are computed again."""
    each = 8.0 if config.learner.checkpointing else 6.0
    return each * shape.parameters * config.steps * config.tokens_per_step


def a100_hours(config: TextRunConfig, shape: ModelShape) -> float:
    return operations(config, shape) / (UTILISATION * find_gpu("A100-80").flops) / 3600


def text_memory(config: TextRunConfig, shape: ModelShape) -> Rows:
    """GiB of one process on one device, without activations."""
    half = config.model.weights == "bf16"
    rows = [(f"learner weights, {config.model.weights}", (2.0 if half else 4.0) * shape.parameters)]
    if half:
        rows.append(("master copies, fp32", 4.0 * shape.parameters))
    rows += [("gradients, fp32", 4.0 * shape.parameters), ("AdamW moments, fp32", 8.0 * shape.parameters)]
    if config.evaluation.every and config.evaluation.questions:
        rows.append(("engine weights", (4.0 if config.model.precision == "fp32" else 2.0) * shape.parameters))
        rows.append(("engine keys and values (budget)", config.evaluation.kv_gb * GIB))
    rows.append(("logits of one chunk, three copies", 3.0 * config.learner.logits_mb * 2**20))
    rows.append(("sum, without activations", sum(size for _, size in rows)))
    return [(name, size / GIB) for name, size in rows]
