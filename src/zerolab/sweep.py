"""`zerolab sweep`: train every combination of settings with every seed in local processes, and write one report.

The same command resumes an interrupted sweep: finished runs are kept, and the others resume from their last checkpoint.
"""

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.table import Table

from zerolab.config import RunConfig, load_run_config
from zerolab.errors import UserError
from zerolab.files import check_can_write
from zerolab.learner.checkpoint_files import checkpoints, step_of
from zerolab.processes import Job, cores, metrics_so_far, run_all, training_job
from zerolab.recipes import find_recipe
from zerolab.report.arms import group_arms, read_run
from zerolab.report.effects import Effects, arm_means, as_table, over_first
from zerolab.report.html_report import write_figures, write_report
from zerolab.report.progress import sparkline
from zerolab.rundir import CONFIG, WINDOWS, differing_keys, read_object
from zerolab.terminal import make_console
from zerolab.toml import on_resume
from zerolab.worlds.base_model import base_model_is_cached

REFRESH_SECONDS = 0.5
PLAIN_SECONDS = 15.0  # between tables if the output is no terminal
SPARKLINE = 30  # characters
PRESSURE = "bias/length_normaliser/incorrect"
LARGEST = 1000  # runs of one sweep
OF_THE_SWEEP = {"seed": "--seeds 0-4", "out": "--out FOLDER", "name": "--out FOLDER"}

State = Literal["new", "started", "finished"]


@dataclass(frozen=True)
class SweepOptions:
    recipe: str
    seeds: str
    settings: tuple[str, ...] = ()  # KEY=VALUE or KEY=VALUE,VALUE
    out: Path | None = None
    jobs: int | None = None  # runs at a time
    overwrite: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class SweepRun:
    """A run of a sweep. `overrides` give its config when they are applied to the recipe."""

    config: RunConfig
    overrides: tuple[str, ...]


def sweep(options: SweepOptions) -> Path | None:
    """Train every arm with every seed, print the results, and return the path of the report.

    A dry run prints the runs and returns None. Before anything starts, raises UserError if a setting is wrong or a
    folder has another run. At the end, after the report, raises UserError if a run failed.
    """
    recipe, console = find_recipe(options.recipe), make_console(120)
    runs = plan_runs(recipe, options)
    out = runs[0].config.folder.parent
    states = ["new" if options.overwrite else state_of(run.config) for run in runs]
    jobs = options.jobs or jobs_at_once([run.config for run in runs])
    console.print(f"{len(runs)} runs, {jobs} at a time, in {out}: {', '.join(_counts(states))}", soft_wrap=True)
    if options.dry_run:
        for run, state in zip(runs, states, strict=True):
            console.print(f"{run.config.folder}: {state}", soft_wrap=True)
        return None
    check_can_write(out / "report.html", "--out")
    todo = [run for run, state in zip(runs, states, strict=True) if state != "finished"]
    try:
        prepare_bases(todo, out, jobs, console)
        failures = train_all(recipe, todo, jobs, not options.overwrite, console)
    except KeyboardInterrupt:
        console.print("stopped; nothing is lost: repeat the command without --overwrite")
        raise
    report = show_results([run.config.folder for run in runs if metrics_so_far(run.config.folder)], out, console)
    if failures:
        raise UserError(f"{len(failures)} of {len(runs)} runs failed: {'; '.join(failures)}; the same command resumes")
    return report


def plan_runs(recipe: Path, options: SweepOptions) -> list[SweepRun]:
    """The runs of every arm with every seed. All arms of a seed come before the next seed, so all arms show early."""
    fixed, grid = split_settings(options.settings)
    combinations = [tuple(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    first = load_run_config(recipe, [*fixed, *(f"{key}={value}" for key, value in combinations[0])])
    out = options.out or Path("runs") / f"{first.name}-sweep"
    names = arm_names(combinations) if grid else [first.name]
    seeds = parse_seeds(options.seeds)
    if len(names) * len(seeds) > LARGEST:
        raise UserError(f"{len(names)} arms with {len(seeds)} seeds are more than {LARGEST} runs: sweep in parts")
    threads = () if any(_key(item) == "threads" for item in options.settings) else ("threads=1",)
    found = []
    for seed in seeds:
        for name, values in zip(names, combinations, strict=True):
            folder = json.dumps(str(out / f"{name}-seed{seed}"))
            own = [f"name={json.dumps(name)}", f"out={folder}", f"seed={seed}"]
            overrides = (*threads, *fixed, *(f"{key}={value}" for key, value in values), *own)
            found.append(SweepRun(load_run_config(recipe, overrides), overrides))
    distinct = {run.config.model_dump_json(exclude={"name", "out"}) for run in found}
    if len(distinct) < len(found):
        raise UserError("two arms of this sweep have the same settings: give values that differ")
    return found


def jobs_at_once(configs: Sequence[RunConfig]) -> int:
    """The number of runs at a time: as many as there are cores for their threads, or one if they share a GPU."""
    import torch

    if torch.cuda.is_available() and any(config.model.device != "cpu" for config in configs):
        return 1
    return max(1, cores() // max(1, *(config.threads for config in configs)))


def split_settings(settings: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """(settings with one value, values by key of the others). Raises UserError for an invalid setting."""
    fixed, grid = [], {}
    for item in settings:
        key, equals, text = item.partition("=")
        key, values = key.strip(), split_values(text)
        if not equals or not key or "" in values:
            raise UserError(f"--set {item}: expected KEY=VALUE or KEY=VALUE,VALUE, such as objective=grpo,dr_grpo")
        if key in OF_THE_SWEEP:
            raise UserError(f"--set {item}: a sweep has {OF_THE_SWEEP[key]} for that")
        if len(set(values)) < len(values):
            raise UserError(f"--set {item}: a value is there twice, and both arms would be the same")
        if len(values) == 1:
            fixed.append(item)
        elif key in grid:
            raise UserError(f"--set {key} is there twice: write all its values in one, {key}=A,B,C")
        else:
            grid[key] = values
    return fixed, grid


def split_values(text: str) -> list[str]:
    """Split a text at commas, except commas in brackets, braces and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        depth += (character in "[{") - (character in "]}") if not quote else 0
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def parse_seeds(text: str) -> list[int]:
    """The seeds of a text such as 0-4 or 0,2,7-9. Raises UserError for any other text, and for a repeated seed."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first or last - first >= LARGEST:
            raise UserError(f"--seeds {text}: expected seeds such as 0-4 or 0,2,5, at most {LARGEST}")
        found += range(first, last + 1)
    if len(set(found)) < len(found):
        raise UserError(f"--seeds {text}: a seed is there twice")
    return found


def arm_names(combinations: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
    """A name for each arm that can be a folder's: its values, with the key before each except the objective."""
    names = []
    for values in combinations:
        words = [v if k in ("objective", "objective.preset") else f"{k.split('.')[-1]}-{v}" for k, v in values]
        names.append(re.sub(r"[^\w.-]+", "-", "-".join(words)).strip("-.")[:120] or "arm")
    return [name if names.count(name) == 1 else f"{name}-{i + 1}" for i, name in enumerate(names)]


def _key(setting: str) -> str:
    return setting.partition("=")[0].strip()


def state_of(config: RunConfig) -> State:
    """The state of a run. Raises UserError if its folder has a run with other settings."""
    stored = read_object(config.folder / CONFIG)
    if stored is None:
        return "new"
    changed = differing_keys(stored, json.loads(config.model_dump_json()))
    if fixed := [key for key in changed if on_resume(RunConfig, key) is None]:
        raise UserError(
            f"{config.folder} was started with another {', '.join(fixed)}: give the same settings, another --out, or "
            "--overwrite"
        )
    saved = checkpoints(config.folder / "checkpoints")
    return "finished" if saved and step_of(saved[-1]) >= config.steps else "started"


def _counts(states: Sequence[str]) -> list[str]:
    return [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]


def prepare_bases(runs: Sequence[SweepRun], out: Path, jobs: int, console: Console) -> None:
    """Pretrain the laptop bases from which the runs start, unless they are in the cache."""
    bases = [base for base in dict.fromkeys(run.config.model.base for run in runs) if base]
    todo = [base for base in bases if not base_model_is_cached(base)]
    if todo:
        console.print(f"pretraining {', '.join(todo)} ...")
    work = [Job(base, ["pretrain", base], out / f"base-{i}.log") for i, base in enumerate(todo)]
    for _ in run_all(work, jobs):
        time.sleep(REFRESH_SECONDS)


def train_all(recipe: Path, runs: Sequence[SweepRun], parallel: int, resume: bool, console: Console) -> list[str]:
    """Train the runs in separate processes, with a live table. Returns one line for each failed run."""
    folders = [run.config.folder for run in runs]
    jobs = [
        training_job(recipe, run.config, run.overrides, resume, folder.parent / f"{folder.name}.log")
        for run, folder in zip(runs, folders, strict=True)
    ]
    if jobs:
        watch_jobs(jobs, [run.config for run in runs], parallel, console, keep_going=True)
    return [failure for job in jobs if (failure := job.failure)]


def watch_jobs(
    jobs: Sequence[Job], configs: Sequence[RunConfig], parallel: int, console: Console, keep_going: bool = False
) -> None:
    """Run jobs that train these configs, and show their progress."""
    with shown(console) as show:
        for _ in run_all(jobs, parallel, keep_going):
            time.sleep(REFRESH_SECONDS)
            show(live_table(configs))
        show(live_table(configs))


def live_table(configs: Sequence[RunConfig]) -> Table:
    """A table with the state of every run, from the metrics that it has logged so far."""
    table = Table(box=None)
    for heading in ("arm", "seed", "step", "accuracy", "correct", "incorrect", "truncated", "bias meter"):
        table.add_column(heading, justify="left" if heading == "arm" else "right")
    table.add_column("length of incorrect")
    for config in configs:
        rows = [row for row in metrics_so_far(config.folder) if row["step"] > 0]
        last = rows[-1] if rows else {}
        numbers = [last.get(k) for k in ("accuracy", "length/correct", "length/incorrect", "truncated", PRESSURE)]
        cells = ["" if n is None else number(n) for n in numbers]
        curve = sparkline([row["length/incorrect"] for row in rows], SPARKLINE, 0, config.rollout.max_new_tokens)
        table.add_row(config.name, str(config.seed), f"{last.get('step', 0)}/{config.steps}", *cells, curve)
    return table


def number(value: float) -> str:
    """Format a number: shares with three decimals, lengths with one."""
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.1f}"


@contextmanager
def shown(console: Console) -> Iterator[Callable[[Any], None]]:
    """A function that shows a renderable: live in a terminal, else every few seconds and at the end."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            yield live.update
        return
    printed, last = time.monotonic(), None

    def show(renderable: Any) -> None:
        nonlocal printed, last
        last = renderable
        if time.monotonic() - printed > PLAIN_SECONDS:
            console.print(renderable)
            printed = time.monotonic()

    yield show
    if last is not None:
        console.print(last)


def show_results(folders: Sequence[Path], out: Path, console: Console) -> Path | None:
    """Print the tables of the arms and of their differences, and write the report and its figures.

    Returns the path of the report, or None if no run has logged a step.
    """
    if not folders:
        return None
    arms = group_arms([read_run(folder) for folder in folders])
    console.print(WINDOWS, soft_wrap=True)
    console.print(result_table("at the end, mean and 95 % interval over seeds", arm_means(arms)))
    if differences := over_first(arms):
        console.print(result_table(f"minus {arms[0].label}, seed by seed", differences))
    report = write_report(folders, out / "report.html")
    for path in (*write_figures(folders, out), report):
        console.print(str(path), soft_wrap=True)
    return report


def result_table(title: str, rows: Sequence[Effects]) -> Table:
    heads, cells = as_table(rows)
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0), title_justify="left")
    for head in ("arm", "seeds", *heads):
        table.add_column(head, justify="left" if head == "arm" else "right")
    for row, texts in zip(rows, cells, strict=True):
        table.add_row(row.arm, str(row.seeds), *texts)
    return table
