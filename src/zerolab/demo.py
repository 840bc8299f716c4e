"""`zerolab demo`: train a base model, train all arms from it, and show a table, a figure and sentences.

The sentences are made from the metrics at the start and the end of every run.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.console import Group as RenderGroup
from rich.table import Table
from rich.text import Text

from zerolab.config import DemoConfig, RunConfig, load_run_config
from zerolab.errors import UserError
from zerolab.processes import Job, cores, metrics_so_far, run_all, training_job
from zerolab.recipes import find_recipe
from zerolab.report.curves import HEADLINE, Runs, column, draw, has_bias, write_bias, write_csv
from zerolab.report.html_report import write_report
from zerolab.report.progress import sparkline
from zerolab.rundir import WINDOWS, step_windows, window_mean, write_atomically
from zerolab.sweep import PRESSURE, REFRESH_SECONDS, number, shown, watch_jobs
from zerolab.terminal import make_console
from zerolab.worlds.base_model import base_model_is_cached
from zerolab.worlds.confidence_policy import simulate

Window = tuple[float, float]  # means over the start and the end of a run: see rundir.step_windows


@dataclass(frozen=True)
class ArmSummary:
    """The metrics of an arm at the start and at the end, for each seed."""

    name: str
    windows: Mapping[str, Sequence[Window]]
    tokens: Sequence[float]  # all sampled tokens, one number per seed

    def mean(self, metric: str) -> Window:
        """Mean over the seeds with a finite value; NaN if there is none."""
        starts, ends = ([v for v in values if np.isfinite(v)] for values in zip(*self.windows[metric], strict=True))
        return (float(np.mean(starts)) if starts else np.nan, float(np.mean(ends)) if ends else np.nan)

    def growth(self, metric: str) -> list[float]:
        """End minus start, for each seed."""
        return [end - start for start, end in self.windows[metric]]


IN_SENTENCES = ("accuracy", "eval/accuracy", "length/incorrect", "truncated", PRESSURE)


def window(rows: Sequence[Mapping[str, Any]], metric: str) -> Window:
    """Means of a metric over the start and the end of a run; NaN if it was not measured."""
    steps, values = column(rows, metric)
    windows = step_windows(max((row["step"] for row in rows), default=0))
    return window_mean(steps, values, windows["start"]), window_mean(steps, values, windows["end"])


def summarise(config: DemoConfig, runs: Runs) -> list[ArmSummary]:
    return [
        ArmSummary(
            arm,
            {metric: [window(rows, metric) for rows in seeds] for metric in {*IN_SENTENCES, *config.metrics}},
            [sum(row.get("rollout/tokens") or 0 for row in rows) for rows in seeds],
        )
        for arm, seeds in runs.items()
    ]


def sentences(config: DemoConfig, arms: Sequence[ArmSummary]) -> list[str]:
    """Sentences that compare the first two arms, and say whether each effect was seen."""
    first, second = arms[0], arms[1]
    seeds = len(config.seeds)
    lines = [_length(first, second, seeds), *_pressure(first, second), _accuracy(first, second, seeds)]
    for arm in (first, second):
        start, end = arm.mean("truncated")
        lines.append(f"Truncated under {arm.name}: {start:.1%} of the responses at the start, {end:.1%} at the end.")
    tokens = [float(np.mean(arm.tokens)) for arm in (first, second)]
    lines.append(
        f"{first.name} sampled {tokens[0]:,.0f} tokens per run, {second.name} {tokens[1]:,.0f} "
        f"({tokens[0] / tokens[1]:.2f} times as many)."
    )
    lines.append(
        "The confidence marker is built into the base model's training text: this shows the mechanism in a "
        f"transformer, not how common it is. {seeds} seeds are too few for an interval."
    )
    return lines


def _length(first: ArmSummary, second: ArmSummary, seeds: int) -> str:
    metric = "length/incorrect"
    more = sum(a > b for a, b in zip(first.growth(metric), second.growth(metric), strict=True))
    moves = " and ".join("{} from {:.1f} to {:.1f} tokens".format(a.name, *a.mean(metric)) for a in (first, second))
    verdict = "seen" if more == seeds else "not seen" if more == 0 else "mixed"
    return (
        f"Length of incorrect answers, start to end: {moves}. It grew more under {first.name} in {more} of {seeds} "
        f"seeds: the length bias was {verdict}."
    )


def _pressure(first: ArmSummary, second: ArmSummary) -> list[str]:
    """A sentence with the bias meter: the pressure of the token weights on the length of incorrect answers."""
    ends = [arm.mean(PRESSURE)[1] for arm in (first, second)]
    if not np.isfinite(ends).all():
        return []
    return [
        f"Bias meter at the end (length pressure of the loss's own weights on incorrect answers, in reward x tokens): "
        f"{first.name} {ends[0]:+.2f}, {second.name} {ends[1]:+.2f}; 0 means that the weights do not favour length."
    ]


def _accuracy(first: ArmSummary, second: ArmSummary, seeds: int) -> str:
    a, b = first.mean("accuracy")[1], second.mean("accuracy")[1]
    pairs = [x - y for (_, x), (_, y) in zip(first.windows["accuracy"], second.windows["accuracy"], strict=True)]
    side = "higher" if a > b else "lower"
    same = "in every seed" if len({np.sign(p) for p in pairs}) == 1 else "not in every seed"
    held_out = [arm.mean("eval/accuracy") for arm in (first, second)]
    points = f"{100 * abs(a - b):.1f} points {side}, {same}"
    text = f"Accuracy at the end: {first.name} {a:.3f}, {second.name} {b:.3f} ({points})."
    if not np.isnan(held_out).any():
        (a0, a1), (b0, b1) = held_out
        text += f" On held-out questions: {first.name} {a0:.3f} to {a1:.3f}, {second.name} {b0:.3f} to {b1:.3f}."
    return text


WIDTH = 30
PREVIEW_STEPS = 1500
HEADINGS = {
    "eval/accuracy": "held-out",
    "length/mean": "tokens",
    "length/correct": "correct",
    "length/incorrect": "incorrect",
    "tokens_per_solved": "tokens/solved",
    PRESSURE: "bias meter",
}


def run(config: DemoConfig, out: Path, *, resume: bool = False) -> None:
    """Train every arm with every seed, and write table, figure, CSV and sentences to `out`."""
    started = time.monotonic()
    console = make_console(120)
    arms = {(arm, seed): arm_config(arm, seed, out) for arm in config.arms for seed in config.seeds}
    base = the_base(arms)
    console.print(
        Text.assemble(
            (config.name, "bold"), f": {' against '.join(names(arms))}, {len(config.seeds)} seeds, {cores()} cores"
        )
    )
    try:
        prepare_base(base, out, console)
        train_arms(arms, out, console, resume)
    except KeyboardInterrupt:
        console.print("stopped; nothing is lost: repeat the command with --resume")
        raise
    runs: dict[str, list[Any]] = {c.name: [] for c in arms.values()}
    for arm in arms.values():
        runs[arm.name].append(metrics_so_far(arm.folder))
    summaries = summarise(config, runs)
    lines = sentences(config, summaries)
    write_results(out, runs, summaries, lines, config)
    show_curves(console, runs)
    console.print(result_table(summaries, config.metrics))
    for line in lines:
        console.print(f"- {line}")
    report = write_report([arm.folder for arm in arms.values()], out / "report.html")
    figures = ", ".join(str(path) for path in sorted(out.glob("*.png")))
    console.print(f"{figures}, each with a CSV; all of it and every transcript: {report}", soft_wrap=True)
    console.print(f"{time.monotonic() - started:.0f} s in all")


def arm_config(recipe: str, seed: int, out: Path) -> RunConfig:
    path = find_recipe(recipe)
    name = load_run_config(path).name
    return load_run_config(path, overrides(seed, out / f"{name}-seed{seed}"))


def overrides(seed: int, folder: Path) -> list[str]:
    return [f"seed={seed}", f"out={json.dumps(str(folder))}", "threads=1"]


def names(arms: Mapping[Any, RunConfig]) -> list[str]:
    return list(dict.fromkeys(c.name for c in arms.values()))


def the_base(arms: Mapping[Any, RunConfig]) -> str:
    """The pretraining recipe of the base model of all arms. Raises UserError if the arms have several or none."""
    bases = {c.model.base for c in arms.values()}
    if len(bases) != 1 or None in bases:
        raise UserError("the arms of a demo start from one laptop base: give all of them the same model.base")
    return str(next(iter(bases)))


def prepare_base(recipe: str, out: Path, console: Console) -> None:
    """Pretrain the base unless it is cached. Meanwhile, if there is a second core, show a five-parameter policy."""
    cached = base_model_is_cached(recipe)
    console.print(f"base model {recipe}: {'from the cache' if cached else 'pretraining from scratch'}")
    job = Job("pretraining", ["pretrain", recipe], out / "base.log")
    preview = Preview() if not cached and cores() > 1 else None
    with shown(console) as show:
        for _ in run_all([job], 1):
            if preview and not preview.done:
                preview.advance(REFRESH_SECONDS)
            else:
                time.sleep(REFRESH_SECONDS)
                preview = preview if console.is_terminal else None  # plain output shows the finished curve once
            show(RenderGroup(*(preview.lines() if preview else []), Text(last_line(job.log))))
    report_gate(Path(last_line(job.log)), console)


def report_gate(folder: Path, console: Console) -> None:
    """Print the accuracy of the base before RL, and the bounds of its gate that it missed."""
    gate = json.loads((folder / "gate.json").read_text())
    marker = f", its marker agrees with the truth {gate['marker_accuracy']:.0%}" if gate["marker_accuracy"] else ""
    console.print(f"base accuracy {gate['accuracy']:.3f} at temperature 1{marker}")
    for sentence in gate["missed"]:
        console.print(Text(f"the base misses its gate: {sentence}; read the results with that in mind", style="yellow"))


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else ""


class Preview:
    """The five-parameter policy under GRPO and Dr. GRPO, trained in small portions."""

    def __init__(self) -> None:
        self.streams: dict[str, Iterator[Any]] = {
            n: simulate(n, seed=0, steps=PREVIEW_STEPS) for n in ("grpo", "dr_grpo")
        }
        self.lengths: dict[str, list[float]] = {name: [] for name in self.streams}

    @property
    def done(self) -> bool:
        return all(len(values) == PREVIEW_STEPS for values in self.lengths.values())

    def advance(self, seconds: float) -> None:
        """Train both policies for about this many seconds, or until they are finished."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.done:
            for name, stream in self.streams.items():
                self.lengths[name].append(next(stream).length_incorrect)

    def lines(self) -> list[Text]:
        """The curves of both policies, on one scale."""
        top = max(length for values in self.lengths.values() for length in [1.0, *values])
        title = "meanwhile, a policy with five parameters that sees how sure it is: length of its incorrect answers"
        return [Text(title)] + [
            Text(f"  {name:8} {sparkline(values, 2 * WIDTH, 0, top)} {values[-1]:5.1f} tokens, step {len(values)}")
            for name, values in self.lengths.items()
            if values
        ]


def train_arms(arms: Mapping[tuple[str, int], RunConfig], out: Path, console: Console, resume: bool) -> None:
    """Train all arms in processes with one thread, with a live table."""
    # All arms of a seed come before the next seed, so that all arms show results early.
    order = sorted(arms, key=lambda arm: arm[1])
    jobs = [
        training_job(
            recipe,
            arms[recipe, seed],
            overrides(seed, arms[recipe, seed].folder),
            resume,
            out / f"{arms[recipe, seed].folder.name}.log",
        )
        for recipe, seed in order
    ]
    watch_jobs(jobs, list(arms.values()), cores(), console)


def show_curves(console: Console, runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> None:
    """Print length of incorrect responses and accuracy of the first seed of each arm, as curves of text."""
    for metric, label in (("length/incorrect", "length of incorrect"), ("accuracy", "accuracy")):
        series = {arm: [row.get(metric) for row in seeds[0] if row["step"] > 0] for arm, seeds in runs.items()}
        top = max(v for values in series.values() for v in values if v is not None)
        console.print(f"{label}, 0 to {top:.3g}")
        for arm, values in series.items():
            console.print(f"  {arm:10} {sparkline(values, 2 * WIDTH, 0, top)}")


def result_table(summaries: Sequence[ArmSummary], metrics: Sequence[str]) -> Table:
    """A table with the metrics of the recipe at the start and at the end. Lengths are in tokens."""
    table = Table(title=f"start -> end, mean over seeds ({WINDOWS})", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("arm")
    measured = [m for m in metrics if any(np.isfinite(arm.mean(m)).any() for arm in summaries)]
    for metric in measured:
        table.add_column(HEADINGS.get(metric, metric), justify="right")
    for arm in summaries:
        windows = [arm.mean(metric) for metric in measured]
        table.add_row(arm.name, *(f"{number(a)} -> {number(b)}" for a, b in windows))
    return table


def write_results(
    out: Path,
    runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    summaries: Sequence[ArmSummary],
    lines: Sequence[str],
    config: DemoConfig,
) -> None:
    write_csv(out / "curves.csv", runs)
    title = f"{config.name}: {len(config.seeds)} seeds, thin lines are single runs"
    draw(out / "curves.png", runs, title, HEADLINE, size=13)
    if has_bias(runs):
        write_bias(out / "bias.png", runs, f"bias meter of {title}")
    rows = [{"arm": s.name, "windows": {k: [list(w) for w in v] for k, v in s.windows.items()}} for s in summaries]
    record = {"config": config.model_dump(), "arms": rows, "sentences": list(lines)}
    write_atomically(out / "summary.json", json.dumps(record, indent=2) + "\n")
