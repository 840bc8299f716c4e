"""`zerolab report`: any runs side by side in one HTML file."""

import html
import math
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from zerolab.data.question_config import forced_note
from zerolab.errors import UserError
from zerolab.phrases import javascript_pattern
from zerolab.report.arms import Arm, ReportRun, as_text, differences, flatten, group_arms, name_of, numbers, read_run
from zerolab.report.curves import draw, has_bias, write_bias, write_csv
from zerolab.report.effects import as_json
from zerolab.report.page import Page, Section, render
from zerolab.report.transcripts import columns, histograms
from zerolab.rl.metrics import MEANINGS
from zerolab.rundir import OTHER_OUT, WINDOWS, clear_errors, step_windows, window_mean, write_atomically

MOST_RESPONSES = 50_000
STYLES = ("report.css", "reader.css")
SCRIPTS = (
    "arms.js",
    "curves.js",
    "bias.js",
    "lengths.js",
    "overview.js",
    "store.js",
    "marks.js",
    "list.js",
    "detail.js",
    "reader.js",
    "report.js",
)
SECTIONS = (
    Section("overview", "Overview"),
    Section(
        "curves",
        "Curves",
        "Lines are means over the seeds of an arm, bands reach from the lowest to the highest seed. Correct means "
        "right and finished within the budget.",
    ),
    Section(
        "bias",
        "Bias meter",
        "Where does length pressure come from, in each step? It is the covariance of a "
        "response's coefficient with its length within questions, in reward × tokens: above 0 the update lengthens. "
        "The reward part is what pays; the normaliser part is what the weighting of tokens adds, and is 0 where every "
        "token counts the same. It describes a step and predicts no growth.",
    ),
    Section("lengths", "Lengths", "Responses in transcripts.jsonl by length and by what became of them."),
    Section("config", "Config", "Keys in which the arms differ; seeds, folders and names aside."),
    Section("transcripts", "Transcripts"),
)


def write_report(
    folders: Sequence[Path], out: Path | None = None, most: int = MOST_RESPONSES, sentences: Sequence[str] = ()
) -> Path:
    """Writes the file and returns its path, by default beside the only run or in the folder of the first.

    Args:
        most: responses to embed, evenly over the steps.
        sentences: what the page says first, in words.
    """
    if most < 1:
        raise UserError("--responses is how many responses to embed: give 1 or more")
    runs = [read_run(folder) for folder in dict.fromkeys(folders)]
    target = out or (runs[0].folder if len(runs) == 1 else runs[0].folder.parent) / "report.html"
    if target.is_dir():
        raise UserError(f"--out {target} is a folder: give the name of a file in it, such as {target / 'report.html'}")
    text = build_report(runs, most, sentences)
    with clear_errors(target, OTHER_OUT):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, text)
    return target


def write_figures(folders: Sequence[Path], out: Path) -> list[Path]:
    """curves.png and bias.png with their CSVs in `out`; a figure of which nothing was logged is left out."""
    runs: dict[str, list[Any]] = {}
    for arm in group_arms([read_run(folder) for folder in dict.fromkeys(folders)]):
        runs[arm.label] = [run.rows for run in arm.runs if run.rows]
    runs = {arm: seeds for arm, seeds in runs.items() if seeds}
    if not runs:
        raise UserError("none of these runs has logged a step yet: there is nothing to draw")
    with clear_errors(out, OTHER_OUT):
        out.mkdir(parents=True, exist_ok=True)
        write_csv(out / "curves.csv", runs)
        draw(out / "curves.png", runs, "thin lines are single runs")
        if has_bias(runs):
            write_bias(out / "bias.png", runs, "bias meter, thin lines are single runs")
    return sorted(out.glob("curves.png")) + sorted(out.glob("bias.png"))


def build_report(runs: Sequence[ReportRun], most: int = MOST_RESPONSES, sentences: Sequence[str] = ()) -> str:
    """The report of these runs as the text of an HTML file."""
    arms = group_arms(runs)
    ordered = [run for arm in arms for run in arm.runs]
    found = columns(ordered, most)
    title = name_of(runs[0]) if len(runs) == 1 else " / ".join(_names(arms))
    summary = {
        "arms": [arm.label for arm in arms],
        "runs": [_run(run, number) for number, arm in enumerate(arms) for run in arm.runs],
        "effects": as_json(arms),
        "differences": [{"key": d.key, "values": list(d.values)} for d in differences(arms)],
        "histograms": _histograms(arms, ordered, found),
        "reflection": javascript_pattern("wide"),
        "thinned": found["thinned"],
        "windows": WINDOWS,
        "finding": finding(arms),
        "units": [(name, unit) for name, unit, _ in MEANINGS],
    }
    sizes = f"{_count(len(arms), 'arm')}, {_count(len(runs), 'run')}"
    notes = [f"{run.folder.name}: {note}" for run in ordered if (note := forced_note(run.config))]
    words = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
    page = Page(
        title=title,
        subtitle="; ".join([f"{sizes}; made by zerolab {metadata.version('zerolab')}", *notes]),
        sections=((Section("words", "In words", html=words),) if sentences else ()) + SECTIONS,
        data={"summary": summary},
        deflated={"metrics": [_metrics(run) for run in ordered], "responses": found},
        styles=STYLES,
        scripts=SCRIPTS,
    )
    return render(page)


def finding(arms: Sequence[Arm]) -> str:
    """One sentence on what happened to lengths and accuracy, arm by arm, from the start and the end of the runs."""
    accuracy = "eval/accuracy" if any(_move(arm, "eval/accuracy") for arm in arms) else "accuracy"
    parts = []
    for arm in arms:
        wrong, right = _move(arm, "length/incorrect"), _move(arm, accuracy)
        words = [_grown("incorrect responses", wrong, "{:.1f}", " tokens")] if wrong else []
        if right:
            name = "held-out accuracy" if accuracy == "eval/accuracy" else "accuracy in training"
            words.append(_grown(name, right, "{:.1%}"))
        if words:
            parts.append(f"under {arm.label} {' and '.join(words)}")
    if not parts:
        return "Nothing was measured yet."
    few = min(len(arm.runs) for arm in arms) < 3
    note = " With fewer than 3 seeds an arm this is an illustration." if few else ""
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}.{note}"


def _move(arm: Arm, metric: str) -> tuple[float, float] | None:
    """Means over the runs of an arm at the start and at the end; None if one of them was not measured."""
    ends: list[list[float]] = [[], []]
    for run in arm.runs:
        pairs = [(row["step"], row[metric]) for row in map(numbers, run.rows) if row.get(metric) is not None]
        windows = step_windows(run.done)
        for values, window in zip(ends, (windows["start"], windows["end"]), strict=True):
            values.append(window_mean([s for s, _ in pairs], [v for _, v in pairs], window))
    means = [float(np.mean(values)) for values in ends]
    return (means[0], means[1]) if all(map(math.isfinite, means)) else None


def _grown(what: str, move: tuple[float, float], digits: str, unit: str = "") -> str:
    """`what` went from .. to .., or stayed at .. if both read the same."""
    before, after = (digits.format(value) for value in move)
    return f"{what} stayed at {after}{unit}" if before == after else f"{what} went from {before} to {after}{unit}"


def _names(arms: Sequence[Arm]) -> list[str]:
    shown = [arm.label for arm in arms[:4]]
    return shown if len(arms) <= 4 else [*shown, f"{len(arms) - 4} more"]


def _run(run: ReportRun, arm: int) -> dict[str, Any]:
    last = run.sessions[-1] if run.sessions else {}
    versions = last.get("versions")
    facts = {
        "started": run.sessions[0].get("started") if run.sessions else None,
        "sessions": len(run.sessions),
        "git revision": last.get("git_revision"),
        "python": last.get("python"),
        **(versions if isinstance(versions, dict) else {}),
        "platform": last.get("platform"),
        "gpus": last.get("gpus"),
    }
    return {
        "arm": arm,
        "folder": str(run.folder),
        "seed": as_text(run.seed),
        "steps": run.steps,
        "done": run.done,
        "windows": {**step_windows(run.done), "whole run": (0, run.done)},
        "budget": run.budget,
        "facts": {key: as_text(value) for key, value in facts.items() if value not in (None, [], {})},
        "config": {key: as_text(value) for key, value in flatten(run.config).items()},
    }


def _metrics(run: ReportRun) -> dict[str, list[float | None]]:
    """Columns over the logged steps; null where a metric was not measured. Six digits are more than a plot shows."""
    rows = [numbers(row) for row in run.rows]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [_rounded(row.get(name)) for row in rows] for name in names}


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _histograms(arms: Sequence[Arm], ordered: Sequence[ReportRun], found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """One per arm, on one scale."""
    budget = max((run.budget for run in ordered), default=0)
    place = {id(run): number for number, run in enumerate(ordered)}
    return [histograms(dict(found), {place[id(run)]: run.done for run in arm.runs}, budget) for arm in arms]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def data_of(text: str, block: str) -> str:
    """What stands in a block of a finished page."""
    match = re.search(rf'<script type="[^"]*" id="{block}">(.*?)</script>', text, re.DOTALL)
    assert match is not None, block
    return match[1]
