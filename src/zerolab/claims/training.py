"""A cell that is a training run: a recipe with changes, its metrics in, the numbers of the cell out."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zerolab.config import PretrainConfig, RunConfig
from zerolab.errors import UserError

QUIET = ("threads=1", "evaluation.every=0", "checkpoint.every=0", "transcripts_per_step=0")


def run_config(recipe: str, base: PretrainConfig, overrides: Sequence[str]) -> RunConfig:
    """The recipe on a base model, which lies in the cache. Its run has no folder yet: `place_in` gives it one."""
    from zerolab.recipes import find_recipe, load
    from zerolab.worlds.base_model import cache_folder

    model = f"model={{path='{cache_folder(base)}'}}"
    return load(find_recipe(recipe), [*QUIET, model, *overrides], verb="train")


def untrained(config: RunConfig, steps: int) -> RunConfig:
    """The same run with a learning rate of 0 and so many steps: samples of the base before training."""
    return config.model_copy(update={"steps": steps, "learner": config.learner.model_copy(update={"lr": 0.0})})


def place_in(folder: Path, config: RunConfig) -> RunConfig:
    """The same run, in a cell's folder."""
    return config.model_copy(update={"out": str(folder / "run")})


def trained(config: RunConfig, look: Callable[[Path], None] = lambda policy: None) -> Mapping[str, list[float]]:
    """Trains, or goes on where a killed cell stopped; the metrics of every step, NaN where nothing was measured.

    `look` sees the folder of the final policy before it is deleted. Raises Interrupted if a signal ended the run early,
    and UserError if a step is missing: an unfinished run is never the result of a cell.
    """
    from zerolab.learner.checkpoint import latest_checkpoint
    from zerolab.report.progress import Progress
    from zerolab.rundir import can_resume, read_metrics
    from zerolab.train import train

    going_on = can_resume(config.folder)
    train(config, resume=going_on, overwrite=not going_on, progress=Progress(config.name, config.steps, quiet=True))
    rows = [row for row in read_metrics(config.folder) if row["step"] > 0]
    if [row["step"] for row in rows] != list(range(1, config.steps + 1)):
        raise UserError(
            f"{config.folder} holds {len(rows)} of the {config.steps} steps of its run: delete that folder and run the "
            "cell again"
        )
    policy = latest_checkpoint(config.folder / "checkpoints")
    assert policy is not None  # a run ends with one
    look(policy)
    shutil.rmtree(config.folder / "checkpoints")
    return {name: [_number(row.get(name)) for row in rows] for name in {key for row in rows for key in row}}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def laptop_base(seed: int, recipe: str = "laptop/base", **options: Any) -> PretrainConfig:
    """A laptop base with another seed and other options of its corpus, whose gate is then reported alone."""
    from zerolab.recipes import find_recipe, load

    base = load(find_recipe(recipe), verb="pretrain")
    corpus = base.corpus.model_copy(update={"options": {**base.corpus.options, **options}})
    gate = base.gate.model_copy(update={"marker_accuracy": None}) if options else base.gate
    return base.model_copy(update={"seed": seed, "corpus": corpus, "gate": gate})


def finite_mean(values: Sequence[float]) -> float:
    array = np.asarray(values, float)
    array = array[np.isfinite(array)]
    return float(array.mean()) if len(array) else float("nan")


def held_out_numbers(config: RunConfig, path: str, most: int, samples: int) -> dict[str, float]:
    """Accuracy, lengths and truncation of a policy on at most `most` held-out questions, sampled as the run samples."""
    from zerolab.data.questions import QuestionStream, load_questions
    from zerolab.models.hf import load_model, load_tokenizer, pick_device
    from zerolab.start import StartOptions, try_templates

    stream = QuestionStream(load_questions(config.questions).holdout, 0, "shuffle")
    questions = list({draw.question.id: draw.question for draw in stream.take(most)}.values())
    device, tokenizer = pick_device(config.model.device), load_tokenizer(path)
    options = StartOptions(path, "", samples=samples, budget=config.rollout.max_new_tokens, seed=config.seed)
    [trial] = try_templates(options, [config.template], questions, load_model(path, device=device), tokenizer, device)
    solved = np.array([grade.correct for group in trial.groups for grade in group.grades])

    def mean(lengths: np.ndarray) -> float:
        return float(lengths.mean()) if len(lengths) else float("nan")

    return {
        "accuracy": float(solved.mean()),
        "incorrect": mean(trial.lengths[~solved]),
        "correct": mean(trial.lengths[solved]),
        "tokens": mean(trial.lengths),
        "truncated": trial.share("truncated"),
    }
