"""`zerolab watch`: a run as it goes on, from its folder alone. It never writes there, so that it may come and go."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from zerolab.errors import UserError
from zerolab.report.arms import ReportRun, as_text, is_number, name_of, read_run
from zerolab.report.progress import sparkline
from zerolab.run_lock import is_running
from zerolab.rundir import CONFIG, METRICS
from zerolab.terminal import make_console

LINES = (  # (metric, heading); a blank heading parts the groups
    ("reward/mean", "reward"),
    ("accuracy", "accuracy"),
    ("eval/accuracy", "held-out accuracy"),
    ("", ""),
    ("length/mean", "length"),
    ("length/correct", "of correct"),
    ("length/incorrect", "of incorrect"),
    ("truncated", "truncated"),
    ("", "bias meter: length pressure, above 0 lengthens"),
    ("bias/length_reward/all", "all, by the reward"),
    ("bias/length_normaliser/incorrect", "incorrect, by the loss"),
    ("bias/length_normaliser/correct", "correct, by the loss"),
)
TEXT_LINES = (  # of pretraining on texts
    ("loss", "loss"),
    ("eval/loss", "held-out loss"),
    ("eval/accuracy", "held-out accuracy"),
    ("grad_norm", "gradient norm"),
    ("lr", "learning rate"),
)
LABEL = 24
RECENT = 20  # steps that rates are taken over
SILENT_SECONDS = 120.0
SILENT_STEPS = 10  # a run that is silent for so many of its own steps has probably stopped
REFRESH_SECONDS = 1.0


def watch(
    folder: Path, *, once: bool = False, console: Console | None = None, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Shows the run until it has reached its last step or Ctrl-C; one frame where `once`, or where nobody looks.

    Raises UserError for one frame of a run that is not there; a live watch waits for it to begin.
    """
    console = console or make_console()
    if once or not console.is_terminal:
        if not (folder / CONFIG).exists():
            raise UserError(f"{folder} holds no run yet: give the folder of a run, such as runs/NAME-seed0")
        console.print(frame(read_run(folder), age(folder), console.width))
        return
    try:
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                run = run_so_far(folder)
                shown = frame(run, age(folder), console.width) if run else Text(f"waiting for {folder} to begin")
                live.update(shown, refresh=True)
                if run and finished(run):
                    return
                sleep(REFRESH_SECONDS)
    except KeyboardInterrupt:
        console.print("no longer watching; the run goes on", highlight=False)


def run_so_far(folder: Path) -> ReportRun | None:
    """None before the run has begun, and while it is written anew."""
    try:
        return read_run(folder)
    except UserError:
        return None


def finished(run: ReportRun) -> bool:
    return run.done >= run.steps > 0


def age(folder: Path) -> float:
    """Seconds since the run last wrote a line, or since it wrote its config; 0 where there is neither."""
    for name in (METRICS, CONFIG):
        if (folder / name).exists():
            return max(0.0, time.time() - (folder / name).stat().st_mtime)
    return 0.0


def frame(run: ReportRun, silent_seconds: float, width: int) -> RenderableType:
    """Head, bar, curves and status of a run as it stands."""
    objective = run.config.get("objective")
    preset = as_text(objective.get("name", "")) if isinstance(objective, dict) else ""
    title = Text.assemble((name_of(run), "bold"), f"  {preset}  {run.folder}")
    title.truncate(width, overflow="ellipsis")
    bar = Table.grid(padding=(0, 1))
    goes_on = not finished(run) and not has_stopped(run) and not is_silent(run, silent_seconds)
    bar.add_row(ProgressBar(max(run.steps, 1), run.done, width=24), progress(run, goes_on))
    return Group(title, bar, *(Text(line) for line in [*rates(run), *curves(run, width), status(run, silent_seconds)]))


def progress(run: ReportRun, goes_on: bool) -> Text:
    """Steps done and, of a run that goes on, the time that is left."""
    seconds = step_seconds(run)
    left = f"about {duration(seconds * (run.steps - run.done))} left" if math.isfinite(seconds) else ""
    return Text(f"{run.done}/{run.steps}  {left if goes_on else ''}")


def rates(run: ReportRun) -> list[str]:
    """Seconds per step and tokens per second of the last steps; evaluations are not counted."""
    seconds = step_seconds(run)
    if not math.isfinite(seconds):
        return []
    known = (("samples", "sample_tokens_per_s"), ("learns", "learn_tokens_per_s"), ("learns", "tokens_per_s"))
    found = [(verb, recent(run, f"time/{name}")) for verb, name in known]
    parts = [f"{seconds:.3g} s/step", *(f"{verb} {rate:,.0f} tokens/s" for verb, rate in found if rate > 0)]
    return ["  ".join(parts)]


def step_seconds(run: ReportRun) -> float:
    """Seconds of one step, evaluations aside; NaN before the first."""
    waited = next((name for name in ("time/wait_s", "time/read_s") if values_of(run, name)), "time/sample_s")
    return recent(run, waited) + recent(run, "time/learn_s")


def on_texts(run: ReportRun) -> bool:
    """Whether it is a run of `zerolab pretrain`."""
    return "corpora" in run.config


def recent(run: ReportRun, metric: str) -> float:
    """Mean over the last steps that measured it, NaN where none did."""
    values = values_of(run, metric)[-RECENT:]
    return sum(values) / len(values) if values else math.nan


def values_of(run: ReportRun, metric: str) -> list[float]:
    return [float(row[metric]) for row in run.rows if is_number(row.get(metric))]


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def curves(run: ReportRun, width: int) -> list[str]:
    """First and last value of every metric that was measured, and its course."""
    lines = [f"{'':{LABEL}}{'first':>8}{'last':>8}"] if run.rows else []
    for metric, heading in TEXT_LINES if on_texts(run) else LINES:
        values = values_of(run, metric) if metric else []
        if values:
            shown = f"{heading:{LABEL}}{number(values[0]):>8}{number(values[-1]):>8}"
            lines.append(f"{shown}  {course(values, max(8, width - len(shown) - 3))}")
        elif not metric and run.rows:
            lines.append(heading)
    return lines


def course(values: Sequence[float], width: int) -> str:
    low, high = min(0.0, *values), max(values)
    return sparkline(values, width, low, high if high > low else low + 1)


def number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def has_stopped(run: ReportRun) -> bool:
    """Whether no process works on an unfinished run; a run without a lock file may go on."""
    return not finished(run) and is_running(run.folder) is False


def is_silent(run: ReportRun, silent_seconds: float) -> bool:
    """Whether the run has logged nothing for far longer than its steps take."""
    pace = step_seconds(run)
    return silent_seconds > max(SILENT_SECONDS, SILENT_STEPS * pace if math.isfinite(pace) else 0.0)


def status(run: ReportRun, silent_seconds: float) -> str:
    """Finished, running, not begun, stopped, or probably stopped."""
    if finished(run):
        return "finished"
    verb = "pretrain" if on_texts(run) else "train"
    resume = f"`zerolab {verb} ... --resume` goes on from its last checkpoint"
    if has_stopped(run):
        return f"stopped after step {run.done} of {run.steps}: {resume}"
    if is_silent(run, silent_seconds):
        return f"no news for {duration(silent_seconds)}: if the run has stopped, {resume}"
    return "running" if run.rows else "has not finished its first step"
