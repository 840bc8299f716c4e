"""Pretraining on texts, from an existing model or from scratch, with the learner of RL.

Corpora -> mix of documents -> steps of a fixed number of tokens -> learner. Held-out loss and accuracy are measured
during the run. The result is a Hugging Face folder, from which `zerolab train` can start.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zerolab.build import make_grader, model_path
from zerolab.config import LearnerConfig, RewardConfig, RolloutConfig, TextRunConfig
from zerolab.data.questions import QuestionStream, load_questions
from zerolab.data.templates import make_encode, make_template
from zerolab.document_streams import Found, Mix, find_corpora, held_out_documents, make_mix
from zerolab.evaluation.evaluate import Evaluator, choose_questions, evaluation_parameters
from zerolab.inputs import Input, model_inputs, question_input
from zerolab.learner.checkpoint import check_checkpoint, load_state, save_checkpoint
from zerolab.learner.learner import Learner
from zerolab.learner.precision import COMPUTE
from zerolab.loop import run_steps
from zerolab.models.context import context_length, evaluation_room, piece_limit
from zerolab.models.hf import load_model, load_tokenizer, pick_device
from zerolab.models.tiny import tiny_qwen2, train_bpe
from zerolab.plan.shapes import measure
from zerolab.plan.throughput import store_rate
from zerolab.processes import GracefulStop
from zerolab.recipes import text_config
from zerolab.report.progress import Progress
from zerolab.rl.objective import PRESETS
from zerolab.rl.reward import make_group
from zerolab.rollout.stream import Stream
from zerolab.rollout.torch_engine import TorchEngine
from zerolab.rundir import RunDirectory, clear_errors
from zerolab.worlds.base_model import as_batch
from zerolab.worlds.corpus import Document

TOKENIZER_TEXTS = 20_000  # texts of each corpus from which a new tokenizer is trained
MODEL = "model"  # folder of the finished model, in the run's folder


@dataclass(frozen=True)
class TextRun:
    """The objects of a pretraining run."""

    config: TextRunConfig
    tokenizer: Any
    mix: Mix
    learner: Learner
    held_out: dict[str, list[Document]]
    evaluator: Evaluator | None

    @cached_property
    def evaluates(self) -> bool:
        return self.config.evaluation.every > 0

    def evaluate(self) -> dict[str, float]:
        """Held-out loss in nats per learned token, of each corpus and of all; accuracy if the run has questions."""
        measured: dict[str, float] = {}
        losses, tokens = 0.0, 0
        for name, documents in self.held_out.items():
            logprobs_T = self.learner.logprobs_of(as_batch(documents))
            measured[f"eval/loss/{name}"] = -float(logprobs_T.mean(dtype=np.float64))
            losses, tokens = losses - float(logprobs_T.sum(dtype=np.float64)), tokens + len(logprobs_T)
        if self.held_out:
            measured["eval/loss"] = losses / tokens
        if self.evaluator:
            self.evaluator.stream.publish(self.learner.version, self.learner.weights())
            measured |= self.evaluator()
        return measured

    def close(self) -> None:
        if self.evaluator:
            self.evaluator.stream.close()


def pretrain(
    recipe: TextRunConfig | Mapping[str, Any] | str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Run a pretraining recipe with corpora and return the Hugging Face folder of the model, OUT/model.

    Args:
        recipe: a TextRunConfig, a dict with the keys of a recipe, the path of a recipe, or the name of a shipped one.
        resume: go on from the last checkpoint. On a CPU with the same threads, the results are equal to the bit to
            those of an uninterrupted run.
        overwrite: delete an existing run in the run directory.

    Raises:
        UserError: for invalid settings, with a one-line message.
        Interrupted: after Ctrl-C or SIGTERM, when the current step has ended and a checkpoint is written.
    """
    config: TextRunConfig = text_config(recipe)
    directory = RunDirectory(config, resume, overwrite)
    run = build(config)
    try:
        directory.open(describe_inputs(run))
        with progress or Progress(config.name, config.steps) as shown, GracefulStop() as stop:
            first = restore(run, directory) if resume else 1
            run_steps(
                config,
                first,
                stop,
                step=partial(train_step, run),
                evaluate=run.evaluate if run.evaluates else None,
                log=partial(log, directory, shown),
                save=partial(save, run, directory),
                say=shown.message,
            )
        with clear_errors(directory.path):
            run.learner.export(run.tokenizer, directory.path / MODEL)
    finally:
        store_rate(config, measure(run.learner.model, "this run"), directory.session)
        run.close()
        directory.close()
    return directory.path / MODEL


def log(directory: RunDirectory, shown: Progress, record: dict[str, Any]) -> None:
    """Log and show the metrics of a step."""
    directory.log(record)
    shown.row(record["step"], record)


def train_step(run: TextRun, step: int) -> dict[str, Any]:
    """Take one optimizer step on the mean cross-entropy of all learned tokens. Returns the metrics."""
    started = time.perf_counter()
    documents = run.mix.step(run.config.tokens_per_step)
    read = time.perf_counter()
    stats = run.learner.forward_backward(as_batch(documents), PRESETS["cross_entropy"]) | run.learner.optim_step()
    tokens = sum(len(ids) for ids, _ in documents)
    ended = time.perf_counter()
    return {
        "step": step,
        "version": run.learner.version,
        "loss": stats["nll"],
        "tokens/step": tokens,
        "tokens/learned": stats["tokens"],
        "documents": len(documents),
        **run.mix.metrics(),
        **{name: stats[name] for name in ("grad_norm", "grad_clipped", "lr", "padding")},
        **{name: value for name, value in stats.items() if name.startswith("scale/")},
        "time/read_s": read - started,
        "time/learn_s": ended - read,
        "time/tokens_per_s": tokens / (ended - started),
    }


def build(config: TextRunConfig) -> TextRun:
    """Open the corpora, load or make the model, check that they fit, and make the objects of the run."""
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    found = find_corpora(config)
    device = pick_device(config.model.device)
    model, tokenizer = start(config, found, device)
    check_checkpoint(config, model.config, tokenizer)
    context, begin = piece_limit(config, context_length(model.config)), make_encode(tokenizer)
    evaluates = config.evaluation.every > 0
    evaluator = make_evaluator(config, model, tokenizer, device) if evaluates and config.evaluation.questions else None
    asked = evaluates and config.holds_out
    held_out = held_out_documents(config, found, tokenizer, begin, context) if asked else {}
    settings = config.learner.model_dump(exclude={"packing"})
    learner = Learner(
        model,
        LearnerConfig(**settings, old_logprobs="detach", share_prompts="off"),
        budget=context,
        total_steps=config.steps,
        precision=config.model.precision,
    )
    packs = config.learner.packing == "on" or (config.learner.packing == "auto" and device.type != "cpu")
    learner.policy.enable_packing(context if packs else 0)
    return TextRun(config, tokenizer, make_mix(config, found, tokenizer, begin, context), learner, held_out, evaluator)


def start(config: TextRunConfig, found: list[Found], device: torch.device) -> tuple[Any, Any]:
    """(model, tokenizer) of a folder, the hub or a base recipe, or new ones for `architecture`."""
    if config.architecture is None:
        path = model_path(config.model)
        return load_model(path, dtype=COMPUTE[config.model.weights], device=device), load_tokenizer(path)
    if config.model.tokenizer:
        tokenizer = load_tokenizer(config.model.tokenizer)
    else:
        texts = (t.prompt + t.rest for entry in found for t in entry.first(TOKENIZER_TEXTS))
        tokenizer = train_bpe(texts, config.model.vocab_size or 0)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    model: Any = tiny_qwen2(
        len(tokenizer),
        **config.architecture.model_dump(),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
        seed=config.seed,
    )
    return model.to(device=device, dtype=COMPUTE[config.model.weights]).eval(), tokenizer


def describe_inputs(run: TextRun) -> dict[str, Input]:
    """The inputs of the run for its manifest, without the corpora, whose state is in the checkpoints."""
    config = run.config
    found: dict[str, Input] = {}
    if config.architecture is None or config.model.tokenizer:
        path = model_path(config.model) if config.architecture is None else str(config.model.tokenizer)
        found = model_inputs(path, config)
    if run.evaluator:
        found["questions"] = question_input((prompt.question for prompt, _ in run.evaluator.prompts), "evaluation")
    return found


def make_evaluator(config: TextRunConfig, model: Any, tokenizer: Any, device: torch.device) -> Evaluator:
    """Make an evaluator with a separate engine. Its weights are those of the learner at the time of an evaluation."""
    evaluation = config.evaluation
    assert evaluation.questions is not None
    assert evaluation.max_new_tokens is not None
    room = evaluation_room(config, context_length(model.config))
    template = make_template(evaluation.template).bound(tokenizer)
    source = QuestionStream(load_questions(evaluation.questions).train, seed=0, order="shuffle")
    parameters = evaluation_parameters(evaluation, template, config.seed, evaluation.max_new_tokens)
    dtype, kv_bytes = COMPUTE[config.model.precision], int(evaluation.kv_gb * 2**30)
    stream = Stream(
        TorchEngine(model, tokenizer, device=device, dtype=dtype, kv_bytes=kv_bytes),
        make_encode(tokenizer, room),
        source,
        template,
        make_grader(template),
        RolloutConfig(max_new_tokens=evaluation.max_new_tokens, max_prompt_tokens=room),
        partial(make_group, config=RewardConfig(), budget=evaluation.max_new_tokens),
        parameters,
    )
    return Evaluator(stream, choose_questions(source, evaluation.max_questions), parameters)


def save(run: TextRun, directory: RunDirectory, step: int) -> None:
    def write(folder: Path) -> None:
        run.learner.export(run.tokenizer, folder)
        run.learner.save(folder)

    save_checkpoint(directory.checkpoints, step, write, {"mix": run.mix.state_dict()}, run.config.checkpoint.keep)


def restore(run: TextRun, directory: RunDirectory) -> int:
    """Load the last checkpoint, if there is one. Returns the next step."""
    folder = directory.newest_checkpoint()
    state = load_state(folder) if folder else None
    directory.cut_after(state["step"] if state else None)
    if folder is None or state is None:
        return 1
    run.learner.load(folder)
    run.mix.load_state_dict(state["mix"])
    return state["step"] + 1
