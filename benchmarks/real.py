"""A real model on a laptop, end to end: SmolLM2 135M before RL, then GRPO and Dr. GRPO side by side. `make real`.

python benchmarks/real.py [--data-dir FOLDER] [--runs runs/real] [--out results/real]

Four parts, each with a budget of time: fetch the model; ask it held-out facts under four templates (and GSM8K and
MATH500, if their files are in --data-dir); train both arms, one core each; write table, figure and report. A part that
is done is kept, an interrupted run goes on. Every sentence is computed from the data.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import record
from zerolab.build import model_path
from zerolab.config import QuestionsConfig, RunConfig, TemplateConfig
from zerolab.data.questions import QuestionStream, load_questions
from zerolab.datatypes import Question
from zerolab.evaluation.intervals import fixed_set_interval
from zerolab.evaluation.score import pass_at_k
from zerolab.grading.grader import grade
from zerolab.models.hf import load_model, load_tokenizer, pick_device
from zerolab.recipes import run_config
from zerolab.report.curves import COLOURS, column, write_csv
from zerolab.report.html_report import write_report
from zerolab.rundir import can_resume, write_atomically
from zerolab.start import StartOptions, Trial, try_templates

MODEL = "smollm2-135m-instruct-q4"
ARMS = ("laptop/smollm2-grpo", "laptop/smollm2-dr-grpo")
SECONDS = {"before": 420.0, "train": 1080.0}  # budget of a part
Ask = Callable[[str, Sequence[Question], StartOptions, str | None], Trial | None]
FACTS, CHUNK = 40, 10
PARTS = {"chat": (("chat", 32),), "others": (("none", 4), ("qwen-math", 4), ("r1", 4))}  # template, responses to a fact
BENCHMARKS, BENCHMARK_QUESTIONS, BENCHMARK_TOKENS = ("gsm8k_test", "math500"), 20, 256
CURVE = (
    "eval/accuracy",
    "eval/standard_error",
    "accuracy",
    "length/mean",
    "length/correct",
    "length/incorrect",
    "truncated",
)


def held_out(config: RunConfig) -> list[Question]:
    """Facts that no run of these recipes learns from."""
    stream = QuestionStream(load_questions(config.questions).holdout, 0, "shuffle")
    drawn = {draw.question.id: draw.question for draw in stream.take(FACTS)}
    return list(drawn.values())


def before_rl(part: str, runs: Path, data_dir: str | None, slack: float) -> None:
    """Ask the model what one part of the table shows, until the budget of time is spent; write it as JSON."""
    record.begin_with(1)
    end = time.monotonic() + slack * SECONDS["before"]
    config = run_config(ARMS[0])
    path = model_path(config.model)
    tokenizer, device = load_tokenizer(path), pick_device("cpu")
    policy = load_model(path, device=device)

    def ask(template: str, questions: Sequence[Question], options: StartOptions, mode: str | None) -> Trial | None:
        groups: list[Any] = []
        raw = TemplateConfig.model_validate({"name": template} | ({"extractor": mode} if mode else {}))
        began = time.monotonic()
        for start in range(0, len(questions), CHUNK):
            if time.monotonic() < end:
                asked = questions[start : start + CHUNK]
                groups += try_templates(options, [raw], asked, policy, tokenizer, device)[0].groups
        return Trial(raw, groups, time.monotonic() - began) if groups else None

    rows = []
    for template, samples in PARTS[part]:
        options = StartOptions(MODEL, "", samples=samples, budget=config.rollout.max_new_tokens)
        if found := ask(template, held_out(config), options, "mention"):
            rows.append({"questions": "held-out capitals", "template": template, **summary(found, samples)})
        if template == "none" and data_dir:  # the cheap template first, so that the benchmarks are in the budget
            rows += [row for name in BENCHMARKS if (row := benchmark(name, data_dir, ask))]
    write_atomically(runs / f"before-{part}.json", json.dumps(record.rounded(rows), indent=1))


def benchmark(name: str, data_dir: str, ask: Ask) -> dict[str, Any] | None:
    """The row of a few questions of a benchmark, answered greedily under the chat template."""
    raw = {"path": name, "data_dir": data_dir, "limit": BENCHMARK_QUESTIONS}
    pools = load_questions(QuestionsConfig.model_validate(raw)).train
    drawn = QuestionStream(pools, 0, "sequential").take(BENCHMARK_QUESTIONS)
    options = StartOptions(MODEL, "", samples=1, budget=BENCHMARK_TOKENS, temperature=0.0)
    found = ask("chat", [draw.question for draw in drawn], options, None)
    return {"questions": f"{name}, greedy", "template": "chat", **summary(found, 1)} if found else None


def summary(trial: Trial, samples: int) -> dict[str, float | None]:
    """The numbers of a row of the table. Lenient: the answer in any known form."""
    responses = [
        (c, g, group.prompt.question)
        for group in trial.groups
        for c, g in zip(group.completions, group.grades, strict=True)
    ]
    right_Q = np.array([sum(g.correct for g in group.grades) for group in trial.groups])
    interval = fixed_set_interval(right_Q, np.full(len(right_Q), samples)) if samples > 1 else None
    loose = [g.correct or (q.verifier == "math" and grade(c.text, q.answers, "any").correct) for c, g, q in responses]

    def mean(values: Sequence[float]) -> float | None:
        return float(np.mean(values)) if values else None

    return {
        "asked": len(trial.groups),
        "responses": samples,
        "right": trial.share("correct"),
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "lenient": mean([float(x) for x in loose]),
        "formatted": trial.share("formatted"),
        "truncated": trial.share("truncated"),
        "tokens_right": mean([len(c) for c, g, _ in responses if g.correct]),
        "tokens_wrong": mean([len(c) for c, g, _ in responses if not g.correct]),
        f"pass@{samples}": float(pass_at_k(right_Q, samples, samples).mean()),
        "seconds": trial.seconds,
    }


def together(title: str, commands: Mapping[str, tuple[list[str], Path]], seconds: float, show: Any) -> None:
    """Run commands at the same time, one core each; at the end of the budget each is asked to stop (SIGTERM)."""
    print(f"{title}: {', '.join(commands)}; at most {seconds / 60:.0f} minutes", flush=True)
    began, shown = time.monotonic(), 0.0
    jobs = {}
    for name, (words, log) in commands.items():
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            jobs[name] = subprocess.Popen([sys.executable, *words], stdout=file, stderr=subprocess.STDOUT)
    try:
        while running := [name for name, job in jobs.items() if job.poll() is None]:
            spent = time.monotonic() - began
            if spent > seconds:
                for name in running:
                    jobs[name].terminate()
            if spent > shown + 30:
                shown = spent
                print(f"  {spent / 60:.1f} min: {show()}", flush=True)
            time.sleep(1.0)
    finally:
        for job in jobs.values():
            if job.poll() is None:
                job.terminate()
                job.wait()


def measure_before(runs: Path, data_dir: str | None, slack: float) -> list[dict[str, Any]]:
    """All rows of the table, measured now unless they are there."""
    extra = ["--slack", str(slack), *(["--data-dir", data_dir] if data_dir else [])]
    missing = [part for part in PARTS if not (runs / f"before-{part}.json").is_file()]
    commands = {
        part: ([__file__, "--part", part, "--runs", str(runs), *extra], runs / f"before-{part}.log") for part in missing
    }
    if commands:
        together("before RL", commands, slack * (SECONDS["before"] + 240), lambda: "sampling")
    rows = []
    for part in PARTS:
        file = runs / f"before-{part}.json"
        if not file.is_file():
            raise SystemExit(f"{part}: see {runs / f'before-{part}.log'}")
        rows += json.loads(file.read_text())
    return rows


def train_arms(runs: Path, slack: float) -> dict[str, list[dict[str, Any]]]:
    """The logged rows of both arms. A run that its budget of time ends is reported up to there."""
    from zerolab.processes import metrics_so_far

    arms = {recipe: run_config(recipe) for recipe in ARMS}
    folders = {config.name: runs / config.name for config in arms.values()}

    def done() -> str:
        steps = {n: max((r["step"] for r in metrics_so_far(f)), default=0) for n, f in folders.items()}
        return ", ".join(f"{name} step {step}" for name, step in steps.items())

    commands = {}
    for recipe, config in arms.items():
        folder = folders[config.name]
        if max((row["step"] for row in metrics_so_far(folder)), default=0) < config.steps:
            flag = "--resume" if can_resume(folder) else "--overwrite"
            out = f"out={json.dumps(str(folder))}"
            commands[config.name] = (
                ["-m", "zerolab", "train", recipe, flag, "--set", out],
                runs / f"{config.name}.log",
            )
    if commands:
        together("RL", commands, slack * SECONDS["train"], done)
    found = {name: metrics_so_far(folder) for name, folder in folders.items()}
    for name, rows in found.items():
        if not any(row.get("eval/accuracy") is not None and row["step"] > 0 for row in rows):
            raise SystemExit(f"{name} measured no held-out facts after its start: see {runs / f'{name}.log'}")
    return found


def sentences(arms: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """What the runs show, from their numbers."""
    lines = []
    for name, rows in arms.items():
        steps, right = column(rows, "eval/accuracy")
        _, error = column(rows, "eval/standard_error")
        wrong, cut = ends(rows, "length/incorrect"), ends(rows, "truncated")
        lines.append(
            f"{name}: held-out facts right {right[0]:.0%} (standard error {error[0]:.0%}) before, {right[-1]:.0%} "
            f"({error[-1]:.0%}) after {steps[-1]:.0f} steps; wrong responses {wrong[0]:.0f} to {wrong[1]:.0f} tokens, "
            f"truncated {cut[0]:.0%} to {cut[1]:.0%} (first and last three steps)."
        )
    (first, a), (second, b) = ((n, ends(r, "length/incorrect")) for n, r in arms.items())
    more = first if a[1] - a[0] > b[1] - b[0] else second
    shorter = [name for name, (early, late) in ((first, a), (second, b)) if late < early]
    longer = second if shorter == [first] else first
    whole = {
        2: "shorter under both objectives; they shortened less",
        1: f"shorter under {shorter[0] if shorter else ''} and longer under {longer}; they grew more",
        0: "longer under both objectives; they grew more",
    }[len(shorter)]
    gap = abs((a[1] - a[0]) - (b[1] - b[0]))
    lines.append(
        f"Wrong responses became {whole} under {more}, by {gap:.1f} tokens. One seed of each: the difference between "
        "the two has no interval."
    )
    return lines


def ends(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[float, float]:
    """Means over the first and the last three steps."""
    _, values = column([row for row in rows if row["step"] > 0], name)
    return float(values[:3].mean()), float(values[-3:].mean())


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    heads = ("questions", "template", "asked x responses", "right", "lenient", "in format", "truncated")
    heads += ("tokens, right", "tokens, wrong", "pass@k")
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for row in rows:
        k = row["responses"]
        right = f"{row['right']:.1%}" + ("" if row["low"] is None else f" [{row['low']:.1%}, {row['high']:.1%}]")
        shares = (f"{row[name]:.0%}" for name in ("lenient", "formatted", "truncated"))
        lengths = ("-" if row[n] is None else f"{row[n]:.0f}" for n in ("tokens_right", "tokens_wrong"))
        passed = "-" if k == 1 else f"{row[f'pass@{k}']:.0%} (k = {k})"
        cells = (row["questions"], row["template"], f"{row['asked']} x {k}", right, *shares, *lengths, passed)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def draw(path: Path, arms: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Held-out accuracy with its standard error, and the length of wrong responses, by step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
    for colour, (name, rows) in zip(COLOURS, arms.items(), strict=False):
        steps, values = column(rows, "eval/accuracy")
        errors = column(rows, "eval/standard_error")[1]
        left.errorbar(steps, values, errors, color=colour, marker="o", capsize=3, label=name)
        right.plot(*column(rows, "length/incorrect"), color=colour, label=name)
    left.set(
        xlabel="step", ylabel="share of held-out capitals right", ylim=(0, 1), title="40 countries never trained on"
    )
    right.set(xlabel="step", ylabel="tokens of wrong responses", title="wrong responses")
    right.set_ylim(bottom=0)
    left.legend(frameon=False)
    for axis in (left, right):
        axis.grid(alpha=0.25)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def time_spent(runs: Path, minutes: float) -> dict[str, float]:
    """Minutes and CPU minutes of this call and of those that it went on from."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    file = runs / "spent.json"
    before = json.loads(file.read_text()) if file.is_file() else {"minutes": 0.0, "cpu_minutes": 0.0}
    now = {"minutes": minutes, "cpu_minutes": (used.ru_utime + used.ru_stime) / 60}
    spent = {name: before[name] + now[name] for name in now}
    write_atomically(file, json.dumps(spent))
    return spent


def report(
    out: Path, runs: Path, rows: Sequence[Mapping[str, Any]], arms: Mapping[str, Any], spent: Mapping[str, float]
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "curve.csv", {name: [list(logged)] for name, logged in arms.items()}, CURVE)
    draw(out / "curve.png", arms)
    facts, shown = record.provenance(), sentences(arms)
    machine = f"{facts['date']}, {facts['hardware']['processor']}, {facts['hardware']['cores']} cores, revision"
    took = f"{spent['minutes']:.0f} minutes, {spent['cpu_minutes']:.0f} of one core"
    text = [f"`python benchmarks/real.py`, {machine} {facts['revision']}, {took}.", ""]
    text += ["Before RL:", "", *table(rows), "", "RL:", "", *(f"* {line}" for line in shown), ""]
    write_atomically(out / "table.md", "\n".join(text))
    record.write("real", {"before": rows, "sentences": shown, **spent}, out / "real.json")
    page = write_report([runs / name for name in arms], runs / "report.html", sentences=shown)
    print("\n".join([*table(rows), "", *shown, "", f"{out / 'table.md'}, {out / 'curve.png'}, report: {page}"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="folder with gsm8k_test.jsonl and math500.jsonl")
    parser.add_argument("--runs", type=Path, default=Path("runs/real"))
    parser.add_argument("--out", type=Path, default=Path("results/real"))
    parser.add_argument("--slack", type=float, default=1.0, help="multiplies every budget of time: a busy machine")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part:
        before_rl(chosen.part, chosen.runs, chosen.data_dir, chosen.slack)
        return
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "zerolab", "model", "fetch", MODEL], check=True)
    try:
        rows = measure_before(chosen.runs, chosen.data_dir, chosen.slack)
        arms = train_arms(chosen.runs, chosen.slack)
    finally:
        spent = time_spent(chosen.runs, (time.monotonic() - began) / 60)
    report(chosen.out, chosen.runs, rows, arms, spent)


if __name__ == "__main__":
    main()
