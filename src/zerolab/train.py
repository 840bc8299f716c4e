"""The RL loop. Start reading here: this file has the steps of a paper's method section.

Questions -> template -> prompts -> the engine samples G responses to each -> grader -> rewards -> advantages -> batch
-> learner -> new weights to the engine. `build.py` makes the objects from a config; this file only calls them.
"""

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from zerolab.build import EngineFactory, Run, build, describe_inputs, make_engine
from zerolab.config import RunConfig
from zerolab.errors import LearnerLost, UserError
from zerolab.learner.checkpoint import load_state, save_checkpoint
from zerolab.learner.prepare import prepare
from zerolab.loop import run_steps
from zerolab.plan.shapes import model_shape
from zerolab.plan.throughput import store_rate
from zerolab.processes import GracefulStop
from zerolab.recipes import run_config
from zerolab.report.health import Health
from zerolab.report.progress import Progress
from zerolab.rl.batch import Batch
from zerolab.rl.bias_meter import bias_metrics
from zerolab.rl.metrics import rollout_metrics, update_metrics
from zerolab.rollout.engine import request_seed
from zerolab.rundir import RunDirectory


def train(
    recipe: RunConfig | Mapping[str, Any] | str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    engine: EngineFactory = make_engine,
) -> Path:
    """Run a recipe and return the run directory. The final policy is the newest checkpoint.

    Args:
        recipe: a RunConfig, a dict with the keys of a recipe, the path of a recipe, or the name of a shipped one.
        resume: go on from the last checkpoint. On a CPU with the same threads, the results are equal to the bit to
            those of an uninterrupted run.
        overwrite: delete an existing run in the run directory.
        engine: makes the engine from (config, model, tokenizer, device).

    Raises:
        UserError: for invalid settings, with a one-line message.
        Interrupted: after Ctrl-C or SIGTERM, when the current step has ended and a checkpoint is written.
    """
    config: RunConfig = run_config(recipe)
    directory = RunDirectory(config, resume, overwrite)
    run = build(config, engine)
    try:
        directory.open(describe_inputs(run))
        with progress or Progress(config.name, config.steps) as shown, GracefulStop() as stop:
            first = restore(run, directory) if resume else 1
            while first:
                try:
                    steps(run, directory, first, shown, stop)
                    first = 0
                except LearnerLost as lost:
                    first = restore(run, directory)
                    shown.message(f"{lost}; going on with step {first}")
    finally:
        with suppress(UserError):  # the folder of the model is gone
            store_rate(config, model_shape(config.model), directory.session)
        run.close()
        directory.close()
    return directory.path


def steps(run: Run, directory: RunDirectory, first: int, shown: Progress, stop: GracefulStop) -> None:
    """Take the steps from `first` to the last one. Raises Interrupted if a stop is requested."""
    health = Health(run.config, *directory.history())
    run_steps(
        run.config,
        first,
        stop,
        step=partial(train_step, run, directory),
        evaluate=run.evaluator,
        log=partial(log, directory, shown, health),
        save=partial(save, run, directory),
        say=shown.message,
    )


def log(directory: RunDirectory, shown: Progress, health: Health, record: dict[str, Any]) -> None:
    """Log and show the metrics of a step, and every warning of the run's health that is new."""
    directory.log(record)
    shown.row(record["step"], record)
    for warning in health.check(record):
        directory.log_warning(warning.row())
        shown.message(str(warning))


def train_step(run: Run, directory: RunDirectory, step: int) -> dict[str, Any]:
    """Take one training step: a rollout and its optimizer steps. Returns the metrics."""
    started = time.perf_counter()
    rollout = next(run.stream)
    waited = time.perf_counter()
    with run.learning():
        groups, batch, measured = prepare(rollout.groups, run.learner, run.objective)  # A_i, over the whole rollout
        updates = update(run, batch, step)
    checked = run.publish()  # pi_old <- pi
    learned = time.perf_counter()
    directory.log_consumed(step, rollout.draws, groups)
    directory.log_transcripts(step, groups[: run.config.transcripts_per_step])
    return {
        "step": step,
        "version": run.learner.version,
        **rollout_metrics(groups),
        **update_metrics(updates),
        **measured,
        **checked,
        **bias_metrics(groups, batch, run.objective, run.learner.budget),
        **{f"rollout/{name}": count for name, count in rollout.counts.items()},
        "time/wait_s": waited - started,  # less than time/sample_s if sampling runs ahead
        "time/sample_s": rollout.seconds,
        "time/learn_s": learned - waited,
        "time/sample_tokens_per_s": rollout.counts["tokens"] / rollout.seconds,
        "time/learn_tokens_per_s": int(batch.response_len_N.sum()) / (learned - waited),
    }


def update(run: Run, batch: Batch, step: int) -> list[dict[str, float]]:
    """Take the optimizer steps of one rollout, each with its own denominators. Returns the metrics of each."""
    seed = request_seed(run.config.seed, "minibatches", step)
    return [
        {**run.learner.forward_backward(part, run.objective), **run.learner.optim_step()}
        for part in batch.optimizer_steps(run.config.learner.updates_per_rollout, seed)
    ]


def save(run: Run, directory: RunDirectory, step: int) -> None:
    def write(folder: Path) -> None:
        run.learner.export(run.tokenizer, folder)
        run.learner.save(folder)

    save_checkpoint(directory.checkpoints, step, write, {"stream": run.stream.state_dict()}, run.config.checkpoint.keep)


def restore(run: Run, directory: RunDirectory) -> int:
    """Load the last checkpoint, or the initial state if there is none. Returns the next step."""
    folder = directory.newest_checkpoint()
    state: dict[str, Any] = load_state(folder) if folder else {"step": 0, "stream": run.stream.beginning}
    directory.cut_after(state["step"] if folder else None)
    if folder:
        run.learner.load(folder)
    run.stream.load_state_dict(state["stream"])
    run.publish()
    return state["step"] + 1


class _Loop(ModuleType):
    """Makes this module callable, so that `zerolab.train(config)` runs `train`."""

    def __call__(self, *arguments: Any, **options: Any) -> Path:
        return train(*arguments, **options)


sys.modules[__name__].__class__ = _Loop
