"""`zerolab export`: write the model of a run as a Hugging Face folder with a model card.

The card has the complete recipe as JSON, which `zerolab train FOLDER/README.md` reads. Everything else in the card is
computed from the run's files. Texts from those files are escaped, because a run may come from somebody else.
"""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData

from zerolab.config import RunConfig
from zerolab.data.builtin import BUILT_IN
from zerolab.data.question_config import forced_note
from zerolab.errors import UserError
from zerolab.evaluation.intervals import Interval, population_interval_of
from zerolab.evaluation.samplers import read_looks
from zerolab.files import check_can_write, new_folder
from zerolab.learner.checkpoint_files import checkpoints, damage, folder_of, newest_whole, step_of
from zerolab.report.arms import ReportRun, Row, json_lines, read_run
from zerolab.report.effects import end, start
from zerolab.rundir import HEALTH, WINDOWS, clear_errors, texts_of
from zerolab.terminal import visible
from zerolab.toml import parse

CARD = "README.md"
# The files that transformers needs to load a model, and the adapter of a run with lora. Others are only for --resume.
EXPORTED = (
    *("model*.safetensors", "model.safetensors.index.json", "config.json", "generation_config.json", "adapter"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "spiece.model"),
    "chat_template*",
)
OF_THE_MACHINE = ("out", "track", "cluster", "control")  # keys that do not belong to another machine
MEASURED = {
    "accuracy": "accuracy in training",
    "length/mean": "length in tokens",
    "length/correct": "length of correct responses in tokens",
    "length/incorrect": "length of incorrect responses in tokens",
    "truncated": "truncated",
}
MOST_WARNINGS = 20
LONGEST = 300  # characters of a text in the card
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
FILES = (".json", ".jsonl", ".csv", ".parquet", ".gguf", ".txt")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """The data of a card: a run up to the step of one of its checkpoints."""

    run: ReportRun  # its rows end at the step
    config: RunConfig
    step: int
    looks: Sequence[tuple[str, str]]  # (checkpoint, test benchmark on which it was evaluated)
    warnings: Sequence[Row]


def export(run: Path, folder: Path, step: int | None, push: str | None, say: Say) -> Path:
    """Write the folder, push it if asked, and return the path of its card.

    Args:
        step: step of the checkpoint (default: the newest whole one).
        push: repository on the hub. A new one is private.

    Raises UserError if the run has no such checkpoint, or if the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir()) or folder.samefile(".")):
        raise UserError(f"{folder} already exists: give a new folder")
    check_can_write(folder / CARD, "folder")
    if push is not None and not REPOSITORY.fullmatch(push):
        raise UserError(f"--push {push!r} is no repository: write OWNER/NAME")
    source = read_exported(run, step)
    checkpoint = folder_of(run / "checkpoints", source.step)
    text = card(source)
    with clear_errors(folder, "free space, or give another folder"), new_folder(folder) as partial:
        for path in exported_files(checkpoint):
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, partial / path.name)
        (partial / CARD).write_text(text, encoding="utf-8")
    if local := local_paths(source.config):
        say(f"the card names files that exist only on this machine: {', '.join(local)}")
    if push is not None:
        say(f"pushed to {push_folder(folder, push)}")
    return folder / CARD


def read_exported(folder: Path, step: int | None) -> Exported:
    """Read a run up to a checkpoint. Raises UserError if there is none, or if the folder has no RL run."""
    run = read_run(folder)
    if "corpora" in run.config:
        raise UserError(f"{folder} is a run on texts: its folder model is in the Hugging Face format already")
    config = parse(RunConfig, dict(run.config), str(folder))
    found = chosen_checkpoint(folder, step)
    return Exported(
        run=replace(run, rows=[row for row in run.rows if row["step"] <= step_of(found)]),
        config=config,
        step=step_of(found),
        looks=sorted(read_looks(folder)),
        warnings=list(json_lines(folder / HEALTH))[:MOST_WARNINGS],
    )


def chosen_checkpoint(run: Path, step: int | None) -> Path:
    """The checkpoint of a step, or the newest whole one. Raises UserError with all steps if there is none."""
    root = run / "checkpoints"
    if step is None:
        found, skipped = newest_whole(root)
        if found is None:
            raise UserError(f"{run} has no whole checkpoint to export{': ' * bool(skipped)}{'; '.join(skipped)}")
        return found
    chosen = folder_of(root, step)
    if not chosen.is_dir():
        steps = ", ".join(str(step_of(path)) for path in checkpoints(root)) or "none"
        raise UserError(f"{run} has no checkpoint of step {step}: there are those of {steps}")
    if reason := damage(chosen):
        raise UserError(f"{chosen} is damaged ({reason}): choose another --step")
    return chosen


def exported_files(checkpoint: Path) -> list[Path]:
    return sorted({path for pattern in EXPORTED for path in checkpoint.glob(pattern)})


def local_paths(config: RunConfig) -> list[str]:
    """Files and folders of this machine that are named in the recipe."""
    texts = texts_of(config.model_dump(mode="json", exclude={"name", *OF_THE_MACHINE}))
    candidates = dict.fromkeys(part for text in texts for part in (text, text.rpartition(":")[0]))
    return [text for text in candidates if ("/" in text or "." in text) and _exists(text)]


def _exists(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def push_folder(folder: Path, repository: str) -> str:
    """Upload an exported folder and return its address. Raises UserError with the error of the hub in one line."""
    try:
        ModelCard.load(folder / CARD).validate()
        api = HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="zerolab export")
    except Exception as error:  # every HTTP client has its own exceptions
        line = " ".join(str(error).split())[:LONGEST]
        raise UserError(
            f"the hub does not take {repository} ({line}); {folder} is complete: log in with `hf auth login`, then "
            f"`hf upload {repository} {folder}`"
        ) from error
    return f"https://huggingface.co/{repository}"


# The card


def card(source: Exported) -> str:
    """The text of the model card: metadata, facts about the model, results, the complete recipe."""
    config = source.config
    facts = {
        "base": base_of(config),
        "objective": config.objective.name,
        "questions": ", ".join(s.path for s in config.questions.sources),
        "template": config.template.name,
        "rollout": f"{config.rollout.questions_per_step} questions x {config.rollout.samples_per_question} responses "
        f"of up to {config.rollout.max_new_tokens} tokens, temperature {config.rollout.temperature:g}",
        "reward": reward_of(config),
        "optimizer": f"learning rate {config.learner.lr:g}, {config.learner.updates_per_rollout} updates per rollout"
        + ("; LoRA, merged into the weights" if config.lora else ""),
        "steps": f"{source.step} of {config.steps}",
        "seed": f"{config.seed}; the results are of one run, and another seed gives other results",
        **({"control": config.control.name} if config.control else {}),
    }
    parts = [
        f"# {escaped(config.name)}",
        f"A language model after reinforcement learning with zerolab, from {escaped(base_of(config))}.",
        table(("", ""), facts.items()),
        "The loss:",
        f"```text\n{visible(config.objective.formula()).replace('`', chr(39))}\n```",
        "## Results",
        *results(source),
        "## Test benchmarks",
        "\n".join(benchmarks_seen(source)),
        "## Versions",
        table(("", ""), versions(source.run).items()),
        "## Train it again",
        f"`zerolab train {CARD}` reads the complete recipe from this file; `--set seed=1` takes another seed.",
        f"<details><summary>The complete recipe</summary>\n\n```json\n{recipe_text(config)}\n```\n\n</details>",
    ]
    return f"---\n{metadata(source).to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def results(source: Exported) -> Iterator[str]:
    """Accuracies and lengths at the start and at the end, and the warnings of the run."""
    rows = []
    for metric, label in MEASURED.items():
        numbers = [window(source.run, metric) for window in (start, end)]
        if all(map(math.isfinite, numbers)):
            rows.append((label, *(f"{number:.{1 if 'tokens' in label else 3}f}" for number in numbers)))
    held_out = evaluations(source)
    if held_out:
        cells = [f"{accuracy:.3f} ({low:.3f} to {high:.3f}), step {step}" for step, accuracy, (low, high) in held_out]
        rows.append(("held-out accuracy (95 % interval)", *([""] * (2 - len(cells))), *cells))
    yield table(("", "start", "end"), rows) if rows else "No step was logged."
    yield f"{WINDOWS[0].upper()}{WINDOWS[1:]}."
    if held_out:
        count = int(evaluated_rows(source)[-1]["eval/questions"])
        yield (
            f"Held-out accuracy is over {count} questions. Its interval is for a population of such questions under "
            "this one seed."
        )
    if note := forced_note(source.run.config):
        yield escaped(note)
    if source.warnings:
        yield "Warnings of the run:"
        yield "\n".join(f"* step {escaped(row.get('step'))}: {escaped(row.get('message'))}" for row in source.warnings)


def evaluated_rows(source: Exported) -> list[Row]:
    wanted = ("eval/accuracy", "eval/standard_error", "eval/questions")
    found = [row for row in source.run.rows if all(isinstance(row.get(name), int | float) for name in wanted)]
    return [row for row in found if 0 <= row["eval/accuracy"] <= 1 and row["eval/questions"] >= 1]


def evaluations(source: Exported) -> list[tuple[int, float, Interval]]:
    """(step, held-out accuracy, interval) of the first and the last evaluation."""
    rows = evaluated_rows(source)
    samples = source.config.evaluation.samples_per_question
    found = []
    for row in [rows[0], rows[-1]] if len(rows) > 1 else rows:
        accuracy, questions = float(row["eval/accuracy"]), int(row["eval/questions"])
        interval = population_interval_of(accuracy, float(row["eval/standard_error"]), questions, questions * samples)
        found.append((int(row["step"]), accuracy, interval))
    return found


def benchmarks_seen(source: Exported) -> Iterator[str]:
    """The test benchmarks on which checkpoints of this run were evaluated.

    A reader sees from them whether this model is the best of several on a benchmark.
    """
    if not source.looks:
        yield "No checkpoint of this run was evaluated on a test benchmark with `zerolab evaluate` before this export."
    for checkpoint, benchmark in source.looks:
        mine = " (this model)" if checkpoint == f"step_{source.step:06d}" else ""
        yield f"* {escaped(benchmark)}: {escaped(checkpoint)}{mine}"


def versions(run: ReportRun) -> dict[str, Any]:
    last = run.sessions[-1] if run.sessions else {}
    known = last.get("versions")
    found = {"python": last.get("python"), **(known if isinstance(known, dict) else {})}
    found |= {"git revision": last.get("git_revision"), "platform": last.get("platform")}
    return {name: value for name, value in found.items() if value}


def recipe_text(config: RunConfig) -> str:
    """The resolved config as JSON. It is ASCII, and no line of it can end the code block around it."""
    raw = config.model_dump(mode="json", exclude=set(OF_THE_MACHINE))
    return json.dumps(raw, indent=1, ensure_ascii=True)


def reward_of(config: RunConfig) -> str:
    """The terms of the reward with their weights, and the rule for truncated responses."""
    terms = {
        name: weight for name, weight in config.reward.model_dump().items() if isinstance(weight, float) and weight
    }
    terms.pop("timeout_s", None)
    own = [function.path for function in config.reward.functions] + ["cosine"] * (config.reward.cosine is not None)
    words = [*(f"{name} {weight:g}" for name, weight in terms.items()), *own]
    return f"{', '.join(words)}; truncated responses: {config.reward.truncation}"


def base_of(config: RunConfig) -> str:
    """The name of the initial model; for a local folder or file, only its last part."""
    name = str(config.model.path or config.model.base)
    return Path(name).name if _exists(name) else name


def metadata(source: Exported) -> Any:
    """The metadata of the card. The classes of huggingface_hub check it, without network."""
    config = source.config
    paths = [BUILT_IN[s.path].hub_id if s.path in BUILT_IN else s.path for s in config.questions.sources]
    sets = [path for path in paths if is_hub_id(path)]
    held_out = [
        EvalResult(
            task_type="text-generation",
            dataset_type=sets[0] if sets else "held-out",
            dataset_name="held-out questions",
            metric_type="accuracy",
            metric_name=f"accuracy, 95 % interval {low:.3f} to {high:.3f}",
            metric_value=round(accuracy, 6),
        )
        for _, accuracy, (low, high) in evaluations(source)[-1:]
    ]
    base = str(config.model.path or "")
    return ModelCardData(
        base_model=base if is_hub_id(base) else None,
        datasets=list(dict.fromkeys(sets)) or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["zerolab", "reinforcement-learning", re.sub(r"[^\w.+-]+", "-", config.objective.name)[:50]],
        model_name=config.name,
        eval_results=held_out or None,
    )


def is_hub_id(text: str) -> bool:
    """Whether a name can be OWNER/NAME on the hub and is not a local file."""
    return bool(REPOSITORY.fullmatch(text)) and not text.endswith(FILES) and not _exists(text)


def table(heads: Sequence[str], rows: Any) -> str:
    """A Markdown table of escaped texts."""
    lines = [heads, ["---"] * len(heads), *([escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(value: Any) -> str:
    """The text as one line of Markdown without markup, HTML and links, shortened to LONGEST characters."""
    text = visible(" ".join(str(value).split()))
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return re.sub(r"([\\`*{}\[\]<>|#~&$!])|(?<![^\W_])_|_(?![^\W_])", lambda found: "\\" + found[0], text)
