"""The commands that train and that show runs. They have no logic, and import heavy modules when they run."""

from pathlib import Path
from typing import Annotated

import typer

from zerolab.cli.help import NO_OVERRIDES, SHOW, START, TRAIN, Overrides, Recipe, example
from zerolab.terminal import echo

app = typer.Typer()
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved config and estimates, and do not train.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume from the last checkpoint.")]


@app.command(rich_help_panel=START, epilog=example("demo"))
def demo(
    out: Annotated[Path, typer.Option(help="Folder for runs, figure and table.")] = Path("runs/demo"),
    recipe: Annotated[str, typer.Option(help="Demo recipe.")] = "laptop/demo",
    overrides: Overrides = NO_OVERRIDES,
    resume: Resume = False,
) -> None:
    """Train GRPO and Dr. GRPO from one base model with the same seeds, in about five minutes on two cores."""
    from zerolab.demo import run
    from zerolab.recipes import find_recipe, load

    run(load(find_recipe(recipe), overrides, verb="demo"), out, resume=resume)


@app.command(rich_help_panel=TRAIN, epilog=example("train mine.toml --dry-run"))
def train(
    recipe: Recipe,
    overrides: Overrides = NO_OVERRIDES,
    dry_run: DryRun = False,
    resume: Resume = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an existing run in the folder.")] = False,
    control: Annotated[
        str | None,
        typer.Option(help="Run a control instead: random-reward, format-reward, shuffled-labels, no-clip, ..."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster, auto or HOST:PORT; short for --set cluster.address.")
    ] = None,
) -> None:
    """Train a model by RL with the settings of a recipe."""
    from zerolab.recipes import find_recipe, load

    overrides = overrides + [f'cluster.address="{address}"'] * bool(address)
    config = load(find_recipe(recipe), overrides, verb="train")
    if control:
        from zerolab.recipes import controlled

        config = controlled(config, control)
    if dry_run:
        from zerolab.plan.command import describe

        echo(describe(config))
        return
    from zerolab.train import train as run

    echo(run(config, resume=resume, overwrite=overwrite))


@app.command(rich_help_panel=TRAIN, epilog=example("sweep laptop/grpo --seeds 0-4 --set objective=grpo,dr_grpo"))
def sweep(
    recipe: Recipe,
    seeds: Annotated[str, typer.Option(help="Seeds of every arm: 0-4, or 0,2,5.")] = "0-2",
    settings: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE,...", help="Override a key. Each of several values is one arm."),
    ] = NO_OVERRIDES,
    out: Annotated[Path | None, typer.Option(help="Folder of runs and report (default: runs/NAME-sweep).")] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Runs at a time (default: one per core, or one on a GPU).", min=1)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Train finished and started runs again.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs and their progress, and do not train.")
    ] = False,
) -> None:
    """Train every combination of settings with every seed, and report them with intervals.

    The same command resumes an interrupted sweep. A comma in quotes or brackets is part of a value.
    """
    from zerolab.sweep import SweepOptions
    from zerolab.sweep import sweep as run

    run(SweepOptions(recipe, seeds, tuple(settings), out, jobs, overwrite, dry_run))


@app.command(rich_help_panel=TRAIN, epilog=example("pretrain mine-text.toml"))
def pretrain(
    recipe: Recipe,
    overrides: Overrides = NO_OVERRIDES,
    dry_run: DryRun = False,
    resume: Resume = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an existing run in the folder.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Train a laptop base again although it is cached.")] = False,
) -> None:
    """Pretrain on texts, from a model or from scratch.

    A recipe with a [corpus] trains a laptop base model, which is kept in a cache.
    """
    from zerolab.recipes import load_pretraining

    config, on_texts = load_pretraining(recipe, overrides, resume or overwrite, force)
    if dry_run:
        from zerolab.plan.command import describe_pretraining

        echo(describe_pretraining(config))
    elif on_texts:
        from zerolab.pretrain import pretrain as run

        echo(run(config, resume=resume, overwrite=overwrite))
    else:
        from zerolab.worlds.base_model import pretrain as make_base

        echo(make_base(config, force=force))


@app.command(rich_help_panel=TRAIN, epilog=example("plan paper/qwen2.5-math-7b --gpus 8xA100-80"))
def plan(
    recipe: Recipe,
    gpus: Annotated[str, typer.Option(help="GPUS x NAME or NODES x GPUS x NAME: 1xH100, 8xA100-80, 2x8xH100.")],
    engines: Annotated[int | None, typer.Option(help="GPUs that only sample.")] = None,
    learner_ranks: Annotated[int | None, typer.Option(help="GPUs that learn; the others sample.")] = None,
    staleness: Annotated[int | None, typer.Option(help="rollout.max_staleness, in updates.", min=0)] = None,
    assume: Annotated[
        list[str], typer.Option(metavar="NAME=VALUE", help="Change an assumption of the cost model.")
    ] = NO_OVERRIDES,
    overrides: Overrides = NO_OVERRIDES,
    json: Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file.")] = None,
) -> None:
    """Estimate the memory, tokens per second and hours of a recipe on GPUs.

    If it does not fit, the output says what to change.
    """
    from zerolab.plan.command import run
    from zerolab.recipes import find_recipe, load

    config = load(find_recipe(recipe), overrides, verb="train")
    if not run(config, gpus, assume, (engines, learner_ranks, staleness), json):
        raise typer.Exit(1)


@app.command(rich_help_panel=SHOW, epilog=example("watch runs/demo/grpo-seed0"))
def watch(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, which may be running, finished, killed or not yet started.")
    ],
    once: Annotated[bool, typer.Option("--once", help="Show one frame and stop.")] = False,
) -> None:
    """Follow a run in the terminal: progress, rates, curves, bias meter, time left."""
    from zerolab.report.watch import watch as follow

    follow(run, once=once)


@app.command(rich_help_panel=SHOW, epilog=example("export runs/demo/grpo-seed0 folder/exported"))
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    folder: Annotated[Path, typer.Argument(help="New folder in the Hugging Face format.")],
    step: Annotated[int | None, typer.Option(help="Step of the checkpoint (default: the newest).", min=0)] = None,
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload the folder; a new repository is private.")
    ] = None,
) -> None:
    """Write the model of a run as a Hugging Face folder with a model card.

    `zerolab train FOLDER/README.md` repeats the run from its model card.
    """
    from zerolab.export import export as write

    echo(write(run, folder, step, push, echo))


@app.command(rich_help_panel=SHOW, epilog=example("report runs/demo/grpo-seed0 runs/demo/dr-grpo-seed0"))
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs; runs that differ only in seed are one arm.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file (default: report.html, in the run or next to the runs).")
    ] = None,
    responses: Annotated[int, typer.Option(help="Most responses in the file, evenly over the steps.")] = 50_000,
    figures: Annotated[Path | None, typer.Option(help="Folder for curves and bias meter as PNG with CSV.")] = None,
) -> None:
    """Compare runs in one HTML file: curves, bias meter, transcripts. The file needs no network."""
    from zerolab.report.html_report import write_figures, write_report

    echo(write_report(runs, out, responses))
    if figures:
        for path in write_figures(runs, figures):
            echo(path)
