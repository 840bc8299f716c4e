"""docs/performance.md from the JSON files in benchmarks/results.

python benchmarks/performance.py        (a part of `make docs`)
"""

import json
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"

HEAD = """# Speed

For whoever asks how fast it is, against what.

Written by `make docs` from `benchmarks/results/`; do not edit. `make bench` measures again. Every comparison is made in
one run, both sides in turn, and is a ratio: absolute numbers are those of the machine named beside them.
"""


def rl_step(found: dict[str, Any]) -> str:
    rows = []
    for r in found["steps"]:
        ours, theirs = r["zerolab"], r["trl"]
        clock = "CPU-seconds, 1 thread" if r["threads"] == 1 else f"seconds, {r['threads']} threads"
        rows.append(
            (
                r["size"],
                r["rewards"],
                r["updates"],
                clock,
                f"{ours['step']:.2f}",
                f"{theirs['step']:.2f}",
                f"**{r['ratio']:.2f}**",
                f"{ours['sample']:.2f} / {theirs['sample']:.2f}",
                f"{ours['learn']:.2f} / {theirs['learn']:.2f}",
                f"{ours['coverage']:.0%}",
            )
        )
    heads = ("size", "rewards", "updates", "clock", "zerolab", "TRL", "ratio", "sample", "learn", "forwarded")
    brought = [
        (r["size"], name, f"{r['learn_factor'][name]:.2f}", f"{factor:.2f}")
        for r in found["shares"]
        for name, factor in r["step_factor"].items()
        if name != "as shipped"
    ]
    return (
        prose(
            "One whole RL step, 32 questions x 8 responses of up to 128 tokens (mean about 54), Dr. GRPO, fp32, random "
            "Qwen2-shaped models, against TRL's GRPOTrainer without bf16 and gradient checkpointing, with the "
            "micro-batch that is fastest for it, or the one that the command below names. Rewards `usual`: half of the "
            "questions are always right or always wrong; `mixed`: none, so nothing can be skipped. With 1 update per "
            "rollout TRL has no second forward pass either, with 2 it has."
        )
        + table(heads, rows)
        + "\n"
        + prose(
            "What each choice brings: time of learning and of the whole step without it, relative to the step as "
            "shipped (rewards `usual`, 1 update). `no padding`: rows sorted by length and cut where that costs least, "
            "against rows as they come; `shared prompts`: the prompt of a group forwarded once; `skipping`: no forward "
            "pass for responses of advantage 0; `no second forward`: log pi_old as the engine recorded it."
        )
        + table(("size", "step", "learning x", "whole step x"), brought)
    )


def pretraining(found: list[dict[str, Any]]) -> str:
    rows = []
    for r in found:
        for kind, what in (("random", "random order"), ("group_by_length", "`group_by_length`")):
            theirs = r[kind]
            rows.append(
                (
                    r["size"],
                    f"{what}, micro-batch {theirs['micro_batch']}",
                    f"{theirs['us_per_token']:.0f} ({theirs['padding']:.0%})",
                    *(f"{r[side]['us_per_token']:.0f} ({r[side]['padding']:.0%})" for side in ("rows", "packed")),
                    *(f"**{theirs['ratio'][side]:.2f}**" for side in ("rows", "packed")),
                )
            )
    heads = ("size", "the Trainer's batches", "Trainer", "rows", "packed", "Trainer / rows", "Trainer / packed")
    return prose(
        "CPU-microseconds of one thread for each token that is no padding, and the share of padding, of whole "
        "pretraining steps on short documents (questions with worked solutions), fp32, random Qwen2-shaped models, "
        "against transformers' Trainer. `rows`: documents of like length side by side, as shipped on a CPU; `packed`: "
        "several in a row of 512 tokens with closed borders, whose mask costs more on a CPU than the padding it saves. "
        "The Trainer that groups documents by length is the stronger opponent, and as fast: what is gained over the "
        "other is gained on padding. Its micro-batch is the fastest for it of those that the command below names."
    ) + table(heads, rows)


def sampling(found: list[dict[str, Any]]) -> str:
    rows = [
        (
            r["size"],
            f"{r['parameters']:,}",
            f"{r['engine_tokens_per_cpu_s']:,.0f}",
            f"{r['transformers_tokens_per_cpu_s']:,.0f}",
            f"**{r['ratio']:.2f}**",
            f"{r['share_of_bound']:.0%}",
        )
        for r in found
    ]
    return prose(
        "Tokens per CPU-second of one thread, 32 questions x 8 responses of up to 128 tokens in fp32, against the "
        "batched `generate` of transformers; the share is of a computed bound by matrix products and memory bandwidth."
    ) + table(("size", "parameters", "zerolab", "transformers", "ratio", "of the bound"), rows)


def vllm_sampling(found: list[dict[str, Any]]) -> str:
    rows = [
        (
            r["size"],
            f"{r['parameters']:,}",
            f"{r['torch_tokens_per_cpu_s']:,.0f}",
            f"{r['vllm_tokens_per_cpu_s']:,.0f}",
            f"**{r['ratio']:.2f}**",
            f"{r['megabytes']:.0f} MB",
            f"{r['torch_update_s']:.3f} / {r['vllm_update_s']:.3f}",
        )
        for r in found
    ]
    heads = ("size", "parameters", "torch engine", "vLLM", "torch / vLLM", "weights", "update, s (torch / vLLM)")
    return prose(
        "Tokens per CPU-second of one thread through the same interface, both sides in turn, 32 questions x 8 "
        "responses of up to 128 tokens in fp32; and the seconds that an update of all weights takes in the same "
        "process. `laptop`: the shape of laptop/base with 2 heads, since vLLM has no kernel for heads of 16 channels "
        "on a CPU. This is not what vLLM is made for."
    ) + table(heads, rows)


def grading(found: dict[str, Any]) -> str:
    rows = [(name, f"{value:,.3g}" if value < 1000 else f"{value:,.0f}") for name, value in found.items()]
    return prose("Answers per second and core of the grader, its latency, and Math-Verify beside it.") + table(
        ("figure", "value"), rows
    )


def evaluation(found: dict[str, Any]) -> str:
    rows = [(name, f"{value:,.3g}" if value < 1000 else f"{value:,.0f}") for name, value in found.items()]
    return prose(
        "Evaluation without a model: made-up responses through `zerolab evaluate FILE` on all cores, and bootstraps of "
        "1,560 questions x 8 samples with 10,000 replicates."
    ) + table(("figure", "value"), rows)


def sharded(found: dict[str, Any]) -> str:
    held = found["bytes"]
    rows = [
        (kind, *(f"{held[side][kind] / 1e6:.1f} MB" for side in ("one process", "two ranks")))
        for kind in held["one process"]
    ]
    return prose(
        f"One optimizer step of dr_grpo on {found['rows']} responses, {found['size']} shape, fp32, {found['ranks']} "
        "gloo ranks with one thread each beside one process with one thread, in turn. CPU seconds of both ranks over "
        f"those of the one process: **{found['cpu_ratio']:.2f}**, which is what gathering weights and summing "
        f"gradients costs on this machine; wall time: **{found['wall_ratio']:.2f}**, at a load average of "
        f"{found['load_average']:.0f} on these cores (on idle ones, half the ratio of CPU seconds is the best that "
        f"two ranks can do). What a rank holds is {found['bytes_ratio']:.3f} of what the one process holds. Gathering "
        f"all weights on every rank, tensor by tensor, took {found['gather_all_weights_s']:.2f} s."
    ) + table(("of one process", "one process", "each of two ranks"), rows)


def cluster(found: dict[str, Any]) -> str:
    rows = [
        (f"{what}, s", *(f"{found[side][name]:.2f}" for side in ("one process", "ray")))
        for what, name in (("CPU time of a step", "cpu"), ("wall time of a step", "wall"))
    ]
    ahead = [
        (side, *(f"{found[side][name]:.2f}" for name in ("wall", "sample", "learn"))) for side in ("sync", "async")
    ]
    return (
        prose(
            "The 15M model, 8 questions x 8 samples of up to 64 tokens, Dr. GRPO, one AdamW step in fp32, one thread "
            "per process: one engine and one learner rank over Ray on one host beside the same run in one process, "
            f"step by step in turn. Ratio of the medians: CPU time of all processes **{found['cpu_ratio']:.2f}**, "
            f"wall time **{found['wall_ratio']:.2f}**, at a load average of {found['load_average']:.0f} on these "
            f"cores, where wall times say little. Publishing {found['push_mb']:.0f} MB of weights, from the learner's "
            f"process into the engine's, took **{found['push_s']:.2f} s**."
        )
        + table(("median", "one process", "Ray"), rows)
        + "\n"
        + prose(
            "Sampling ahead: seconds of wall time for a step, for waiting on samples, and for learning, with "
            "rollout.max_staleness 0 and 1, in turn. The step can become as short as the longer of its "
            f"parts, {found['ideal_step_s']:.2f} s; **{found['share_of_ideal_gain']:.0%}** of that gain was there."
        )
        + table(("", "step", "waits for samples", "learns"), ahead)
    )


def gpu(found: list[dict[str, Any]]) -> str:
    rows = []
    for r in found:
        for name, row in [*(("zerolab", row) for row in r["learning"]), ("TRL", r["trl"])]:
            if row:
                what = name + ", checkpointing" * row["checkpointing"]
                peak = f"{row['peak_gib']:.1f}" if row["peak_gib"] else ""
                share = f"{row['share_of_matrix_peak']:.1%}"
                rows.append((r["shape"], f"learning, {what}", f"{row['tokens_per_s']:,.0f}", share, peak))
        if s := r["sampling"]:
            share = f"{s['times_the_bound']:.2f} x the bound's time"
            rows.append((r["shape"], "sampling", f"{s['tokens_per_s']:,.0f}", share, f"{s['peak_gib'] or 0:.1f}"))
    return prose("Random weights in bf16, sequences of 3,000 tokens; shares are of the measured matrix peak.") + table(
        ("shape", "what", "tokens/s", "share", "peak GiB"), rows
    )


def startup(found: dict[str, Any]) -> str:
    rows = [(f"`{row['verb']}`", f"{row['first']:.2f}", f"**{row['second']:.2f}**") for row in found["verbs"]]
    return (
        prose(
            "User seconds of one thread of the verbs that need no model, in the first and in the second run; each may "
            f"take {found['most']:g}. None of them imports torch."
        )
        + table(("zerolab", "first", "second"), rows)
        + "\n"
    )


SECTIONS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "rl_step": ("A whole RL step", rl_step),
    "pretraining": ("Pretraining on texts", pretraining),
    "sharded": ("Sharded training", sharded),
    "cluster": ("Over Ray", cluster),
    "sampling": ("Sampling", sampling),
    "vllm_sampling": ("vLLM on a CPU", vllm_sampling),
    "grading": ("Grading", grading),
    "evaluation": ("Evaluation", evaluation),
    "startup": ("Start-up", startup),
    "gpu": ("On a GPU", gpu),
}
ELSEWHERE = {"plan": "scaling.md"}  # results that have a page of their own


def prose(text: str) -> str:
    return textwrap.fill(text, 118) + "\n\n"


def table(heads: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def origin(record: dict[str, Any]) -> str:
    """Where and when, in one line."""
    hardware = record["hardware"]
    machine = ", ".join([*hardware["gpus"], f"{hardware['cores']} cores of {hardware['processor']}"])
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    note = f" {record['note']}" if "note" in record else ""
    return prose(f"`{record['command']}`, {record['date']}, {machine}; {versions}.{note}")


def page(folder: Path = RESULTS) -> str:
    parts = [HEAD]
    for name, (title, render) in SECTIONS.items():
        file = folder / f"{name}.json"
        parts.append(f"## {title}\n")
        if file.is_file():
            record = json.loads(file.read_text(encoding="utf-8"))
            parts += [render(record["results"]), origin(record).removesuffix("\n")]
        else:
            parts.append(f"`python benchmarks/{name}.py`: never run.\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
