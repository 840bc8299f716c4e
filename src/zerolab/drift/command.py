"""`zerolab drift`: from the options to the probe, and its results as tables, CSV, JSON and a figure."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zerolab.config import RunConfig
from zerolab.drift.changes import METRICS, Change
from zerolab.drift.first_step import DriftOptions, first_step, function_loss, objective_losses, trl_loss
from zerolab.drift.probe import Loss, StepDrift
from zerolab.errors import UserError
from zerolab.evaluation.intervals import Interval
from zerolab.files import check_can_write
from zerolab.importing.trl_file import read_trl_file, whole_number
from zerolab.recipes import find_recipe, load, shipped
from zerolab.terminal import echo, make_console
from zerolab.toml import apply_overrides, parse

TRUNCATIONS = ("zero", "mask", "keep")
WIDTH = 150


@dataclass(frozen=True)
class Target:
    """What is probed. Settings that are None are those of the TRL configuration, of the recipe, or the defaults."""

    model: str  # with questions a model, without them the recipe of a run
    questions: str | None = None
    objectives: tuple[str, ...] = ("grpo", "dr_grpo")
    loss: str | None = None
    trl: Path | None = None
    truncations: tuple[str, ...] = ()
    template: str | None = None
    count: int | None = None
    samples: int | None = None
    budget: int | None = None
    lr: float | None = None
    seed: int | None = None
    data_dir: str | None = None
    overrides: Sequence[str] = ()


DEFAULTS = {
    "template.name": "none",
    "rollout.questions_per_step": 16,
    "rollout.max_new_tokens": 128,
    "learner.lr": 1e-5,
}


def run(target: Target, options: DriftOptions, out: Path | None) -> None:
    """Probe, print and write. Raises UserError for input that cannot be used, before anything is computed."""
    losses = losses_of(target)
    trl = read_trl_file(target.trl) if target.trl else {}
    config = run_config(target, trl)
    own = config.reward.truncation if not target.trl else "mask" if trl.get("mask_truncated_completions") else "keep"
    truncations = target.truncations or (own,)
    for name in truncations:
        if name not in TRUNCATIONS:
            raise UserError(f"--truncation {name}: choose among {', '.join(TRUNCATIONS)}")
    options = DriftOptions(**{**asdict(options), "truncations": truncations})
    folder = out or Path("runs/drift") / config.name
    if any((folder / name).exists() for name in FILES):
        raise UserError(f"{folder} holds a probe already: delete it, or give another folder with --out")
    check_can_write(folder / FILES[0], "--out")
    for loss in losses:
        if loss.about:
            echo(f"{loss.name}: {loss.about}", error=True)
    described = settings(config, options, losses)
    steps = first_step(
        config,
        losses,
        options,
        say=lambda line: echo(line, error=True),
        keep=lambda so_far: write_files(folder, so_far, described),
    )
    render(steps, make_console(WIDTH))
    for name in FILES:
        echo(f"wrote {folder / name}")


def names(text: str) -> tuple[str, ...]:
    """The names between commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def losses_of(target: Target) -> list[Loss]:
    """Every loss that was asked for. Raises UserError if there is none, or two have one name."""
    losses: list[Loss] = [*objective_losses(target.objectives)]
    losses += [function_loss(target.loss)] if target.loss else []
    losses += [trl_loss(target.trl)] if target.trl else []
    names = [loss.name for loss in losses]
    if not names or len(set(names)) < len(names):
        raise UserError("give every loss once, and at least one: --objectives, --loss or --trl")
    return losses


def run_config(target: Target, trl: Mapping[str, Any]) -> RunConfig:
    """The run whose first step is probed; its own objective and truncation policy do not matter. `trl`: the keys of a
    TRL configuration, whose group size is taken unless another is given."""
    given = {
        "template.name": target.template,
        "rollout.questions_per_step": target.count,
        "rollout.samples_per_question": target.samples,
        "rollout.max_new_tokens": target.budget,
        "learner.lr": target.lr,
        "seed": target.seed,
        "questions.data_dir": target.data_dir,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if target.questions is None:
        return recipe_config(target, given)
    size = {"rollout.samples_per_question": whole_number(trl, "num_generations", 8)}
    wanted = DEFAULTS | size | given
    base = {"base" if target.model in shipped() else "path": target.model}
    raw: dict[str, Any] = {
        "name": Path(target.model).stem or "model",
        "steps": 1,
        "objective": "dr_grpo",
        "model": base,
        "questions": {"path": target.questions},
    }
    for key, value in wanted.items():
        table, _, name = key.rpartition(".")
        (raw.setdefault(table, {}) if table else raw)[name] = value
    return parse(RunConfig, apply_overrides(raw, list(target.overrides)), "zerolab drift")


def recipe_config(target: Target, given: Mapping[str, Any]) -> RunConfig:
    """The run of a recipe, with what was given on the command line."""
    changes = [f"{key}={value!r}" for key, value in given.items()]
    if not target.model.endswith(".toml") and target.model not in shipped():
        raise UserError(f"{target.model} is no recipe: give --questions beside a model")
    return load(find_recipe(target.model), [*changes, *target.overrides], verb="train")


def settings(config: RunConfig, options: DriftOptions, losses: Sequence[Loss]) -> dict[str, Any]:
    """What the numbers depend on, as JSON values."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "zerolab": metadata.version("zerolab"),
        "config": config.model_dump(mode="json"),
        "options": asdict(options),
        "losses": {loss.name: loss.about for loss in losses},
    }


COLOURS = {"grpo": "#c44e52", "grpo_length_fix": "#dd8452", "grpo_std_fix": "#8172b3", "dr_grpo": "#4c72b0"}
OTHER_COLOURS = ("#55a868", "#937860", "#da8bc3", "#8c8c8c", "#ccb974", "#64b5cd")
TITLES = {
    "accuracy": "accuracy",
    "right": "tokens, right",
    "wrong": "tokens, wrong",
    "truncated": "truncated",
    "reward": "reward",
}
SHARES = ("accuracy", "truncated", "reward")
FILES = ("drift.csv", "drift.json", "drift.png")


def verdict(step: StepDrift) -> str:
    if not step.changes:
        return "no gradient"
    if step.not_linear:
        return "not linear"
    return "linear" if step.changes[0].plain is not None else "not sampled"


def render(steps: Sequence[StepDrift], console: Console) -> None:
    """A table of changes for every truncation policy, one of changes per reward, and why a step is not linear."""
    for truncation in dict.fromkeys(step.truncation for step in steps):
        chosen = [step for step in steps if step.truncation == truncation]
        console.print(_changes_table(truncation, chosen))
        if differences := _differences_table(chosen):
            console.print(differences)
        console.print(_per_reward_table(chosen) or "no step gains reward for certain, so nothing is given per reward")
        for step in chosen:
            for reason in step.not_linear:
                console.print(f"not linear: {step.loss} along {step.direction}: {reason}")
        console.print()


def _changes_table(truncation: str, steps: Sequence[StepDrift]) -> Table:
    table = _table(f"truncation {truncation}: change by one step, with its 95 % interval over questions")
    table.add_column("loss", no_wrap=True)
    table.add_column("step", no_wrap=True)
    for title in TITLES.values():
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("check", no_wrap=True)
    known = next((step for step in steps if step.changes), None)
    if known:
        before = [known.change(metric) for metric in TITLES]
        table.add_row("before", "", *("-" if c is None else _number(c.metric, c.before, "") for c in before), "")
    for step in steps:
        cells = [_cell(step.change(metric)) for metric in TITLES]
        table.add_row(step.loss, step.direction, *cells, Text(verdict(step), "red" if step.not_linear else ""))
    return table


def _differences_table(steps: Sequence[StepDrift]) -> Table | None:
    known = [step for step in steps if step.differences]
    if not known:
        return None
    first = next(step.loss for step in steps if step.changes)
    table = _table(f"the same minus that of {first}, paired on the same responses")
    for title in ("loss", "step"):
        table.add_column(title, no_wrap=True)
    for title in TITLES.values():
        table.add_column(title, justify="right", no_wrap=True)
    for step in known:
        found = [step.difference(metric) for metric in TITLES]
        cells = ["-" if d is None else _both(d.metric, d.difference, d.interval) for d in found]
        table.add_row(step.loss, step.direction, *cells)
    return table


def _per_reward_table(steps: Sequence[StepDrift]) -> Table | None:
    known = [step for step in steps if any(change.per_reward is not None for change in step.changes)]
    if not known:
        return None
    table = _table("the same for each unit of reward gained (Fieller), if the gain's interval excludes 0")
    table.add_column("loss", no_wrap=True)
    table.add_column("step", no_wrap=True)
    names = [metric for metric in TITLES if metric != "reward"]
    for metric in names:
        table.add_column(TITLES[metric], justify="right", no_wrap=True)
    for step in known:
        changes = [step.change(metric) for metric in names]
        cells = [
            "-" if c is None or c.per_reward is None else _both(c.metric, c.per_reward, c.per_reward_interval)
            for c in changes
        ]
        table.add_row(step.loss, step.direction, *cells)
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", padding=(0, 1))


def _cell(change: Change | None) -> str:
    return "-" if change is None else _both(change.metric, change.change, change.interval)


def _both(metric: str, value: float, interval: Interval | None) -> str:
    low, high = interval or (float("nan"),) * 2
    return f"{_number(metric, value)}\n[{_number(metric, low)}, {_number(metric, high)}]"


def _number(metric: str, value: float, sign: str = "+") -> str:
    return f"{value:{sign}.4f}" if metric in SHARES else f"{value:{sign}.2f}"


def rows(steps: Sequence[StepDrift]) -> list[dict[str, Any]]:
    """One record for every step and metric."""
    found = []
    for step in steps:
        own = {"loss": step.loss, "truncation": step.truncation, "step": step.direction, "norm": step.norm}
        own |= {"gradient_norm": step.gradient_norm, "kl": step.kl, "effective": step.effective}
        for change in step.changes:
            beyond = step.difference(change.metric)
            low, high = beyond.interval if beyond else (None, None)
            minus = {"minus_first": beyond.difference if beyond else None, "minus_low": low, "minus_high": high}
            found.append({**own, "check": verdict(step), **_flat(change), **minus})
    return found


def _flat(change: Change) -> dict[str, Any]:
    """The fields of a change, intervals as two columns each."""
    flat: dict[str, Any] = {}
    for name, value in change.__dict__.items():
        if name.endswith("interval"):
            low, high = value if value is not None else (None, None)
            prefix = "" if name == "interval" else name.removesuffix("interval")
            flat |= {f"{prefix}low": low, f"{prefix}high": high}
        elif name != "error":
            flat[name] = value
    return flat


def write_files(folder: Path, steps: Sequence[StepDrift], settings: Mapping[str, Any]) -> None:
    """Write CSV, JSON and figure, in the place of those of fewer steps."""
    folder.mkdir(parents=True, exist_ok=True)
    table, record, figure = (folder / name for name in FILES)
    found = rows(steps)
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found[0]) if found else ["loss"])
        writer.writeheader()
        writer.writerows(found)
    everything = {**settings, "metrics": METRICS, "steps": [asdict(step) for step in steps]}
    record.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
    draw(figure, steps)


def draw(path: Path, steps: Sequence[StepDrift]) -> None:
    """A row of panels for every truncation policy, a panel for every metric: filled dots are importance weights with
    their interval, rings plain sampling."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    truncations = list(dict.fromkeys(step.truncation for step in steps))
    colours = loss_colours([step.loss for step in steps])
    lines = max(sum(step.truncation == t for step in steps) for t in truncations)
    size = (14, 1.2 + len(truncations) * (0.8 + 0.34 * lines))
    figure, axes = plt.subplots(len(truncations), len(TITLES), figsize=size, squeeze=False, constrained_layout=True)
    for row, truncation in zip(axes, truncations, strict=True):
        chosen = [step for step in steps if step.truncation == truncation]
        for axis, metric in zip(row, TITLES, strict=True):
            _panel(axis, metric, chosen, colours)
            axis.set_title(f"{TITLES[metric]}, truncation {truncation}", fontsize=9)
        row[0].set_yticks(range(len(chosen)), [f"{step.loss}, {step.direction}" for step in chosen], fontsize=8)
    figure.suptitle(
        "Change by one step. Dots: importance weights with 95 % interval; rings: plain sampling", fontsize=10
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axis: Any, metric: str, steps: Sequence[StepDrift], colours: Mapping[str, str]) -> None:
    for place, step in enumerate(steps):
        change = step.change(metric)
        if change is None:
            continue
        colour = colours[step.loss]
        axis.plot(change.interval, (place, place), color=colour, linewidth=2)
        axis.plot(change.change, place, "o", color=colour, markersize=6)
        if change.plain is not None and change.plain_interval is not None:
            axis.plot(change.plain_interval, (place + 0.25,) * 2, color=colour, linewidth=0.8)
            axis.plot(change.plain, place + 0.25, "o", markerfacecolor="white", markeredgecolor=colour, markersize=5)
        if step.not_linear:
            axis.text(change.change, place - 0.18, "not linear", fontsize=6, ha="center", color="black")
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(steps)), [""] * len(steps))
    axis.set_ylim(len(steps) - 0.4, -0.6)
    axis.tick_params(axis="x", labelsize=8)
    axis.locator_params(axis="x", nbins=5)
    axis.grid(axis="x", alpha=0.25)


def loss_colours(names: Sequence[str]) -> dict[str, str]:
    """The colour of every loss; those of the paper's four arms are fixed."""
    others = [name for name in dict.fromkeys(names) if name not in COLOURS]
    return COLOURS | {name: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, name in enumerate(others)}
