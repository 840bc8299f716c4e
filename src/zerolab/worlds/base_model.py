"""Pretrain a laptop base model, cache it, and check it against the gate of its recipe.

The learner is that of RL, with cross-entropy as its objective. The result is a Hugging Face folder. Its name has a hash
of everything that its content depends on. The gate is measured and reported after training.
"""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zerolab.config import LearnerConfig, PretrainConfig
from zerolab.errors import Interrupted, UserError
from zerolab.grading.grader import grade
from zerolab.learner.checkpoint import latest_checkpoint, load_state, save_checkpoint
from zerolab.learner.learner import Learner
from zerolab.models.fetch import cache_root
from zerolab.models.hf import export_model, load_model, load_tokenizer
from zerolab.models.tiny import tiny_qwen2
from zerolab.processes import GracefulStop
from zerolab.recipes import base_recipe
from zerolab.report.progress import Progress
from zerolab.rl.batch import Batch, pack
from zerolab.rl.objective import PRESETS
from zerolab.rollout.engine import Request, generate_all, request_seed
from zerolab.rollout.torch_engine import TorchEngine
from zerolab.run_lock import RunLock
from zerolab.rundir import clear_errors, write_atomically
from zerolab.terminal import echo
from zerolab.worlds.corpora import make_corpus
from zerolab.worlds.corpus import Corpus, Document

CACHE_REMEDY = "free space, or set ZEROLAB_CACHE to another folder"
LOOK_SECONDS = 1.0  # between two looks at a base that another process makes
MARKER = re.compile(r"\b(un)?sure\b")


def measure(config: PretrainConfig, folder: Path, corpus: Corpus) -> dict[str, Any]:
    """Measure accuracy at temperature 1, marker accuracy, length and truncation; list the missed bounds of the gate."""
    gate = config.gate
    tokenizer = load_tokenizer(folder)
    engine = TorchEngine(load_model(folder), tokenizer, dtype=torch.float32)
    questions = corpus.questions
    requests = [
        Request(
            id=number * gate.responses + sample,
            prompt_ids=tuple(tokenizer(question.text)["input_ids"]),
            seed=request_seed(config.seed, "gate", number, sample),
            max_new_tokens=gate.max_new_tokens,
        )
        for number, question in enumerate(questions)
        for sample in range(gate.responses)
    ]
    completions = generate_all(engine, requests)
    asked = [questions[c.request_id // gate.responses] for c in completions]
    verdicts = [
        grade(c.text, question.answers, "boxed", verifier=question.verifier).correct
        for c, question in zip(completions, asked, strict=True)
    ]
    markers = [(MARKER.search(c.text), correct) for c, correct in zip(completions, verdicts, strict=True)]
    agreed = [(match.group(1) is None) == correct for match, correct in markers if match]
    measured = {
        "responses": len(completions),
        "accuracy": sum(verdicts) / len(verdicts),
        "marker_accuracy": sum(agreed) / len(agreed) if agreed else None,
        "mean_length": sum(len(c) for c in completions) / len(completions),
        "truncated": sum(c.truncated for c in completions) / len(completions),
    }
    return {**measured, "missed": missed(config, measured)}


def missed(config: PretrainConfig, measured: dict[str, Any]) -> list[str]:
    """One sentence for each bound of the gate that was not met."""
    sentences = []
    for name in ("accuracy", "marker_accuracy"):
        bounds, value = getattr(config.gate, name), measured[name]
        if bounds and not (value is not None and bounds[0] <= value <= bounds[1]):
            shown = "not measurable" if value is None else f"{value:.3f}"
            sentences.append(f"{name} is {shown}, outside {bounds[0]} .. {bounds[1]}")
    return sentences


CODE_VERSION = "1"  # raise it if the same config gives another model
CHECKPOINT_EVERY = 400
METRICS = "pretrain.jsonl"


def cache_folder(config: PretrainConfig) -> Path:
    """The folder of the model of this config. Its name has a hash of the config and of the versions of the code."""
    content = config.model_dump(exclude={"name", "threads", "gate"})
    if config.optimizer.decay_share is None:
        del content["optimizer"]["decay_share"]
    key = json.dumps([CODE_VERSION, make_corpus(config.corpus, config.seed).version, content], sort_keys=True)
    return cache_root() / "bases" / f"{config.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def base_model_is_cached(recipe: str) -> bool:
    return is_complete(cache_folder(base_recipe(recipe)))


def is_complete(folder: Path) -> bool:
    """Whether the folder has a finished model. The gate is measured last, before the folder gets its name."""
    return (folder / "gate.json").is_file()


def base_model(recipe: str) -> Path:
    """The folder of a base model. It is pretrained now unless it is in the cache."""
    return pretrain(base_recipe(recipe))


def pretrain(config: PretrainConfig, *, force: bool = False) -> Path:
    """Train the base model of a recipe and return its Hugging Face folder. A killed run is resumed.

    The folder also has the recipe, the loss curve and the measurement of the gate, even if a bound was missed. If
    another process makes the same base, this one waits for it.

    Args:
        force: train again although the model is in the cache.
    """
    folder = cache_folder(config)
    work = folder.with_name(folder.name + ".work")
    lock = RunLock(work)
    try:
        if not (is_complete(folder) and not force) and take_turn(lock, folder, config.name, force):
            _make(config, folder, work)
    finally:
        lock.release()
    return folder


def take_turn(lock: RunLock, folder: Path, name: str, force: bool) -> bool:
    """Wait until no other process makes this base, and lock its working folder. False if the base is there by then."""
    said = False
    while True:
        with clear_errors(folder, CACHE_REMEDY):
            lock.folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
            break
        except FileNotFoundError:  # the other process was done at that moment, and deleted the working folder
            continue
        except UserError:
            if not said:
                echo(f"{name}: another process makes this base model; waiting for it", error=True)
            said = True
            time.sleep(LOOK_SECONDS)
    if is_complete(folder) and not force:
        shutil.rmtree(lock.folder, ignore_errors=True)  # its maker may have deleted it
        return False
    if force:
        for path in lock.folder.iterdir():
            if path != lock.file:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return True


def _make(config: PretrainConfig, folder: Path, work: Path) -> None:
    """Train in `work`, then give the model the name `folder`."""
    if config.threads:
        torch.set_num_threads(config.threads)
    corpus = make_corpus(config.corpus, config.seed)
    learner = make_learner(config, corpus)
    _train(config, corpus, learner, work)
    export_model(learner.model, corpus.tokenizer, work / "model")
    write_atomically(work / "model" / "recipe.json", config.model_dump_json(indent=2) + "\n")
    shutil.move(work / METRICS, work / "model" / METRICS)
    report = measure(config, work / "model", corpus)
    write_atomically(work / "model" / "gate.json", json.dumps(report, indent=2) + "\n")
    with clear_errors(folder, CACHE_REMEDY):
        shutil.rmtree(folder, ignore_errors=True)
        (work / "model").rename(folder)
        shutil.rmtree(work)


def make_learner(config: PretrainConfig, corpus: Corpus) -> Learner:
    tokenizer = corpus.tokenizer
    model = tiny_qwen2(
        len(tokenizer),
        **config.architecture.model_dump(),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        seed=config.seed,
    )
    optimizer = LearnerConfig(**config.optimizer.model_dump(), old_logprobs="detach")
    return Learner(model, optimizer, budget=config.architecture.context, total_steps=config.steps)


def _train(config: PretrainConfig, corpus: Corpus, learner: Learner, work: Path) -> None:
    checkpoints, curve = work / "checkpoints", work / METRICS
    saved = latest_checkpoint(checkpoints)
    rows: list[str] = []
    if saved:
        learner.load(saved)
        rows = load_state(saved)["curve"]

    def write(folder: Path) -> None:
        export_model(learner.model, corpus.tokenizer, folder)
        learner.save(folder)

    with Progress(f"pretraining {config.name}", config.steps) as shown, GracefulStop() as stop:
        for step in range(learner.version, config.steps):
            documents = corpus.batch(step, config.documents_per_step)
            stats = learner.forward_backward(as_batch(documents), PRESETS["cross_entropy"]) | learner.optim_step()
            shown.row(step + 1, {"loss": stats["nll"]})
            if step % 20 == 0 or step + 1 == config.steps:
                rows.append(json.dumps({"step": step + 1, "loss": stats["nll"], "tokens": stats["tokens"]}))
            if stop.requested or (step + 1) % CHECKPOINT_EVERY == 0:
                save_checkpoint(checkpoints, step + 1, write, {"curve": rows}, keep=1)
            if stop.requested and step + 1 < config.steps:
                raise Interrupted(
                    f"pretraining stopped after step {step + 1} of {config.steps}; the same command resumes it"
                )
    write_atomically(curve, "".join(row + "\n" for row in rows))


def as_batch(documents: Sequence[Document]) -> Batch:
    """A batch in which the rest of a document is a response with advantage 1, so that the loss is cross-entropy."""
    rows = [(prompt, len(ids) - prompt, i, 1.0, 1.0, 0) for i, (ids, prompt) in enumerate(documents)]
    unused = [np.zeros(len(ids) - prompt, np.float32) for ids, prompt in documents]
    return pack([ids for ids, _ in documents], unused, rows)
