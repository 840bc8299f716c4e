"""The tables of docs/scaling.md, by the cost model: the published run, and 8, 64 and 1,024 GPUs."""

from dataclasses import replace
from pathlib import Path

from tools.markdown import table
from tools.plan_check import check_tables

from zerolab.config import RunConfig
from zerolab.plan.command import best_layouts
from zerolab.plan.cost import PUBLISHED_GPUS, PUBLISHED_HOURS, Estimate, estimate
from zerolab.plan.gpus import GPUS, colocated, parse_cluster
from zerolab.plan.job import Assumptions, Job, listing, make_job
from zerolab.plan.memory import fits
from zerolab.recipes import find_recipe, load

PAPER = "paper/qwen2.5-math-7b"
SIZES = (8, 64, 1024)
BATCH_OF_8 = 128  # questions of a step on 8 GPUs


def recipe(*overrides: str) -> RunConfig:
    return load(find_recipe(PAPER), list(overrides), verb="train")


def job_on(gpus: str, *overrides: str, assumed: Assumptions | None = None) -> Job:
    return make_job(recipe(*overrides), parse_cluster(gpus), assumed)


def published_table() -> str:
    """The paper's run beside the model's hours, as assumed and with one assumption changed at a time."""
    cases: tuple[tuple[str, dict[str, float]], ...] = (
        ("as assumed", {}),
        ("responses twice as long", {"response_share": 0.5}),
        ("half the utilisation in learning", {"learn_utilisation": 0.2}),
        ("half of the bandwidth in sampling", {"bandwidth_utilisation": 0.3}),
        ("all three", {"response_share": 0.5, "learn_utilisation": 0.2, "bandwidth_utilisation": 0.3}),
    )
    rows = [["published (arXiv 2503.20783)", "", "", "", f"{PUBLISHED_HOURS:g}", "1"]]
    for name, changes in cases:
        job = job_on(PUBLISHED_GPUS, assumed=replace(Assumptions(), **changes))
        found = estimate(job, colocated(job.cluster))
        rows.append(
            [
                f"model, {name}",
                f"{found.sample:.0f}",
                f"{found.learn:.0f}",
                f"{found.step:.0f}",
                f"{found.hours:.1f}",
                f"{PUBLISHED_HOURS / found.hours:.1f}",
            ]
        )
    return table(
        ("7B, 290 steps, 8 x A100-80", "sampling, s", "learning, s", "step, s", "hours", "published / model"), rows
    )


def scaling_table(gpu: str, grow: bool) -> str:
    """The 7B recipe on more and more GPUs: with the paper's batch, or one that grows with them."""
    rows, base = [], 0.0
    for count in SIZES:
        questions = BATCH_OF_8 * count // 8 if grow else BATCH_OF_8
        job = job_on(f"{count}x{gpu}", f"rollout.questions_per_step={questions}")
        for found in best_layouts(job):
            tokens = found.work.rollout.tokens / found.step / count
            base = base or tokens
            rows.append([f"{count:,}", *_row(found), f"{tokens / base:.0%}"])
    heads = (
        "GPUs",
        "layout",
        "sampling, s",
        "learning, s",
        "of it gathers, s",
        "push, s",
        "step, s",
        "tokens/s",
        "of 8 GPUs",
    )
    return table(heads, rows)


def _row(found: Estimate) -> list[str]:
    return [
        found.layout.name,
        f"{found.sample:.1f}",
        f"{found.learn:.1f}",
        f"{found.gathers:.1f}",
        f"{found.push:.2f}",
        f"{found.step:.1f}",
        f"{found.work.rollout.tokens / found.step:,.0f}",
    ]


def fits_table() -> str:
    """Which recipe fits on which GPUs, with the hours of a whole run."""
    names = (PAPER, "paper/qwen2.5-math-1.5b", "paper/llama-3.2-3b-numinaqa", "gpu1/qwen2.5-math-7b-lora")
    rows = []
    for name in names:
        config, cells = load(find_recipe(name), verb="train"), []
        for gpus in ("1xRTX4090", "1xA100-40", "1xH100", "1xH200", "8xL40S", "8xA100-80", "8xH100", "8xB200"):
            job = make_job(config, parse_cluster(gpus))
            layout = colocated(job.cluster)
            cells.append(f"{estimate(job, layout).hours:.1f}" if fits(job, layout) else "-")
        rows.append([f"`{name}`", *cells])
    return table(("hours, all GPUs in turn", "1 RTX4090", "1 A100-40", "1 H100", "1 H200", "8 L40S", "8 A100-80",
                  "8 H100", "8 B200"), rows)  # fmt: skip


def gpus_table() -> str:
    return table(
        ("GPU", "GB", "bf16 TFLOP/s", "fp32 TFLOP/s", "memory GB/s", "link GB/s", "source"),
        [
            [
                f"`{g.name}`",
                f"{g.memory / 1e9:g}",
                f"{g.flops / 1e12:g}",
                f"{g.flops_fp32 / 1e12:g}",
                f"{g.bandwidth / 1e9:g}",
                f"{g.link / 1e9:g}",
                g.source,
            ]
            for g in GPUS.values()
        ],
    )


def assumptions_table() -> str:
    rows = [[f"`{name}`", f"{value:g}", why] for name, value, why in listing(Assumptions())]
    return table(("`--assume`", "value", "what"), rows)


def tables(results: Path) -> dict[str, str]:
    """Every table of the page by the name of its markers; `results` is the folder of the benchmarks' records."""
    return {
        **check_tables(results / "plan.json"),
        "published": published_table(),
        "fits": fits_table(),
        "same-batch": scaling_table("H100", grow=False),
        "growing-batch": scaling_table("H100", grow=True),
        "gpus": gpus_table(),
        "assumptions": assumptions_table(),
    }
