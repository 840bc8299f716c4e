"""`zerolab start`: try every template on a few questions, and write a recipe with the best one.

GRPO and similar objectives learn from groups with right and wrong responses. So the template with the most such groups
is chosen. If no template has one, no recipe is written.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zerolab.build import make_grader, make_learner, model_path
from zerolab.config import ModelConfig, QuestionsConfig, RewardConfig, RunConfig, TemplateConfig, load_run_config
from zerolab.data.question_config import tests_among
from zerolab.data.questions import Pool, QuestionStream, load_questions
from zerolab.data.templates import TEMPLATES, make_encode, make_template
from zerolab.datatypes import Group, Prompt, Question
from zerolab.errors import UserError
from zerolab.evaluation.intervals import wilson
from zerolab.files import check_can_write
from zerolab.grading.extract import NAMES_ARE_ANSWERS
from zerolab.models.context import context_length
from zerolab.models.hf import load_config, load_model, load_tokenizer, pick_device
from zerolab.plan.shapes import model_shape
from zerolab.recipes import shipped
from zerolab.rl.batch import make_batch
from zerolab.rl.reward import has_right_and_wrong, make_group
from zerolab.rollout.engine import SamplingParameters, sample_graded
from zerolab.rollout.torch_engine import TorchEngine
from zerolab.rundir import make_parent, write_atomically
from zerolab.terminal import echo
from zerolab.toml import parse

KV_BYTES = 2**30
SHOWN = ("template", "right", "in format", "truncated", "mixed", "tokens", "s/step")
MIXED_GROUPS = 4  # groups with right and wrong responses that a step should have on average
FEWEST, MOST = 4, 64  # questions of a step
HELD_OUT_FROM = 20  # questions; with fewer, none is held out
STEPS = 30
ON_A_CPU = ("micro_batch_tokens = 256  # on a CPU as fast as the default, and takes less memory", "logits_mb = 32")
FULL_PARAMETERS = 300e6  # largest model with a learning rate of 1e-5; larger ones get the paper's 1e-6
MEMORY_SHARE = 0.7  # largest share of the memory for weights, gradients and moments; activations need the rest


@dataclass(frozen=True)
class StartOptions:
    model: str
    questions: str
    out: Path | None = None
    templates: tuple[str, ...] = ()  # none: all
    count: int = 8  # questions
    samples: int = 8  # responses to each
    budget: int = 128  # tokens of a response
    data_dir: str | None = None
    seed: int = 0
    temperature: float = 1.0


@dataclass(frozen=True)
class Trial:
    """The responses of a model to the questions under one template."""

    template: TemplateConfig
    groups: Sequence[Group] = field(repr=False)
    seconds: float  # of sampling and grading

    @property
    def name(self) -> str:
        return self.template.name

    def share(self, of: str) -> float:
        """Share of the responses that are `correct`, `formatted` or `truncated`."""
        if of == "truncated":
            return float(np.mean([c.truncated for g in self.groups for c in g.completions]))
        return float(np.mean([getattr(grade, of) for g in self.groups for grade in g.grades]))

    @cached_property
    def mixed(self) -> float:
        """Share of the groups with right and wrong responses."""
        return float(np.mean([has_right_and_wrong(group) for group in self.groups]))

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.array([len(c) for g in self.groups for c in g.completions])

    @property
    def prompt_tokens(self) -> int:
        return sum(len(g.prompt.token_ids) * len(g.completions) for g in self.groups)

    @property
    def tokens(self) -> int:
        """Tokens of prompts and responses together, as a learner counts them."""
        return int(self.lengths.sum()) + self.prompt_tokens

    @property
    def longest_right(self) -> int:
        """Tokens within which 95 % of the right responses end."""
        right = [len(c) for g in self.groups for c, grade in zip(g.completions, g.grades, strict=True) if grade.correct]
        return math.ceil(float(np.quantile(right, 0.95))) if right else 0


def start(options: StartOptions) -> Path | None:
    """Try every template, print the table, and write a recipe. Returns its path.

    Returns None and writes nothing if RL would have nothing to learn from. Raises UserError for invalid input.
    """
    model = as_model_config(options.model)
    out = options.out or Path(f"{Path(options.model).stem or 'model'}-start.toml")
    if out.exists():
        raise UserError(f"{out} is already there: delete it, or give another file with --out")
    check_can_write(out, "--out")
    make_parent(out)
    source = as_questions(options)
    questions = choose(source, options)
    device = pick_device("auto")
    path = model_path(model)
    if options.budget >= (context := context_length(load_config(path))):
        raise UserError(
            f"{options.budget} new tokens leave no room for a prompt in a context of {context}: lower --budget"
        )
    tokenizer = load_tokenizer(path)
    templates = usable_templates(options, questions, tokenizer)
    policy = load_model(path, dtype=torch.float32, device=device)
    trials = try_templates(options, templates, questions, policy, tokenizer, device)
    best = max(trials, key=lambda trial: (trial.mixed, trial.share("correct")))
    if best.mixed == 0:
        echo("\n".join(table(trials, {})))
        echo(verdict(trials))
        return None
    text = recipe(options, model, source, best, parameters(model, path))
    write_atomically(out, text)
    config = load_run_config(out)
    rate = learner_seconds_per_token(config, best, policy, device)
    rows = config.rollout.questions_per_step * config.rollout.samples_per_question
    seconds = {t.name: (t.seconds + rate * t.tokens) * rows / len(t.lengths) for t in trials}
    echo("\n".join(table(trials, seconds)))
    note = f"a step of {rows} responses takes about {seconds[best.name]:.0f} s here"
    echo(f"template {best.name}: {best.mixed:.0%} of the groups have right and wrong responses; {note}")
    echo(f"recipe: {out}    next: zerolab train {out}")
    return out


def as_model_config(target: str) -> ModelConfig:
    """The model table of the recipe. `target` is the recipe of a laptop base, or any model.path."""
    return parse(ModelConfig, {"base" if target in shipped() else "path": target}, "zerolab start")


def as_questions(options: StartOptions) -> QuestionsConfig:
    """The questions table of the recipe. Raises UserError for a test benchmark."""
    raw: dict[str, Any] = {"path": options.questions}
    if options.data_dir:
        raw["data_dir"] = options.data_dir
    config = parse(QuestionsConfig, raw, "zerolab start")
    if found := tests_among(config.sources):
        raise UserError(
            f"{found[0]} is a test benchmark, and a model that was trained on it cannot be tested by it: give training "
            "questions (zerolab questions list)"
        )
    pools = load_questions(config).train
    finite = [pool for pool in pools if isinstance(pool, Pool)]
    few = len(finite) == len(pools) and sum(len(pool.questions) for pool in finite) < HELD_OUT_FROM
    return config if few else parse(QuestionsConfig, {**raw, "holdout": 0.1}, "zerolab start")


def choose(source: QuestionsConfig, options: StartOptions) -> list[Question]:
    """Draw questions of the training side by seed, each at most once."""
    stream = QuestionStream(load_questions(source).train, options.seed, "shuffle")
    drawn = {draw.question.id: draw.question for draw in stream.take(options.count)}
    return list(drawn.values())


def usable_templates(options: StartOptions, questions: Sequence[Question], tokenizer: Any) -> list[TemplateConfig]:
    """The templates to try. One that does not work with the tokenizer is left out with a line on the screen.

    Raises UserError for such a template if the user asked for it.
    """
    names_wanted = all(question.verifier in NAMES_ARE_ANSWERS for question in questions)
    found = []
    for name in options.templates or tuple(TEMPLATES):
        raw = {"name": name} | ({"extractor": "mention"} if names_wanted else {})
        config = parse(TemplateConfig, raw, "zerolab start")
        try:
            make_template(config).bound(tokenizer)
        except UserError as error:
            if options.templates:
                raise
            echo(f"without template {name}: {error}", error=True)
            continue
        found.append(config)
    return found


def try_templates(
    options: StartOptions,
    templates: Sequence[TemplateConfig],
    questions: Sequence[Question],
    policy: Any,
    tokenizer: Any,
    device: torch.device,
) -> list[Trial]:
    """Sample under every template whose prompts fit in the model's context. Raises UserError if there is none."""
    context = context_length(policy.config)
    encode = make_encode(tokenizer, context)
    engine = TorchEngine(policy, tokenizer, device=device, dtype=torch.float32, kv_bytes=KV_BYTES)
    trials = []
    try:
        with ThreadPoolExecutor(2) as pool:
            for number, config in enumerate(templates, 1):
                template = make_template(config).bound(tokenizer)
                texts = [template.render(question.text) for question in questions]
                prompts = [
                    Prompt(question, text, tuple(encode(text))) for question, text in zip(questions, texts, strict=True)
                ]
                if max(len(prompt.token_ids) for prompt in prompts) + options.budget > context:
                    echo(f"without template {config.name}: no room in a context of {context} tokens", error=True)
                    continue
                asked = SamplingParameters(
                    options.samples, options.budget, options.temperature, template.stop, options.seed
                )
                echo(f"template {config.name} ({number} of {len(templates)})", error=True)
                began = time.perf_counter()
                graded = sample_graded(
                    engine, make_grader(template), pool, [(prompt, i) for i, prompt in enumerate(prompts)], asked
                )
                seconds = time.perf_counter() - began
                groups = [
                    make_group(prompt, *found, RewardConfig(), options.budget)
                    for prompt, found in zip(prompts, graded, strict=True)
                ]
                trials.append(Trial(config, groups, seconds))
    finally:
        engine.close()
    if not trials:
        raise UserError(f"no template leaves room for {options.budget} new tokens: lower --budget")
    return trials


def table(trials: Sequence[Trial], seconds: dict[str, float]) -> list[str]:
    """The lines of the table. `seconds` has the seconds of a step by template; empty if no recipe is written."""
    rows: list[tuple[str, ...]] = [SHOWN]
    for t in trials:
        shares = (f"{value:.0%}" for value in (*map(t.share, ("correct", "formatted", "truncated")), t.mixed))
        step = f"{seconds[t.name]:.0f}" if seconds else "-"
        rows.append((t.name, *shares, f"{t.lengths.mean():.0f}", step))
    widths = [max(len(row[i]) for row in rows) for i in range(len(SHOWN))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def verdict(trials: Sequence[Trial]) -> str:
    """A sentence with the reason why RL would learn nothing, and with a remedy."""
    responses = sum(len(trial.lengths) for trial in trials)
    right = sum(int(grade.correct) for t in trials for g in t.groups for grade in g.grades)
    if right == 0:
        bound = wilson(0, len(trials[0].lengths)).high
        return (
            f"no template gives any reward: none of {responses} responses is right (under each template at most "
            f"{bound:.1%}, with 95 % confidence). RL would learn nothing: try easier questions, another model, or a "
            "larger --budget if many responses are truncated"
        )
    if right == responses:
        return f"all {responses} responses are right already: RL would learn nothing; try harder questions"
    return (
        f"{right} of {responses} responses are right, but no question has right and wrong ones, which RL compares: try "
        "more --count or --samples, or questions of another difficulty"
    )


def parameters(model: ModelConfig, path: str) -> float:
    """The number of parameters of a model; 0 if it is not known, so that the recipe has the settings of a small one."""
    shape = model_shape(model) or model_shape(ModelConfig(path=path, base=None))
    return float(shape.parameters) if shape else 0.0


def recipe(options: StartOptions, model: ModelConfig, source: QuestionsConfig, best: Trial, size: float) -> str:
    """The recipe as TOML, with a comment that gives the reason of every chosen value."""
    questions = min(MOST, max(FEWEST, math.ceil(MIXED_GROUPS / best.mixed)))
    budget = max(16, 16 * math.ceil(best.longest_right / 16))
    lr, why = (1e-5, "small models take this") if size <= FULL_PARAMETERS else (1e-6, "the paper's, for full training")
    adapters = 16 * size > MEMORY_SHARE * machine_bytes()
    lines = [
        f"# Written by `zerolab start {options.model} {options.questions}`.",
        f"name = {json.dumps(Path(options.model).stem or 'start')}",
        f"steps = {STEPS}",
        "",
        "[model]",
        f"base = {json.dumps(model.base)}" if model.base else f"path = {json.dumps(model.path)}",
        "",
        "[questions]",
        f"path = {json.dumps(options.questions)}",
        *([f"data_dir = {json.dumps(options.data_dir)}"] if options.data_dir else []),
        *(["holdout = 0.1  # asked before, during and after training, never learned from"] if source.holdout else []),
        "",
        "[template]",
        f'name = "{best.name}"  # of those tried, the one with the most groups of right and wrong responses',
        *([f'extractor = "{best.template.extractor}"  # the answers are names'] if best.template.extractor else []),
        "",
        "[rollout]",
        f"questions_per_step = {questions}  # {best.mixed:.0%} of the groups are mixed: about "
        f"{questions * best.mixed:.0f} of these",
        f"samples_per_question = {options.samples}",
        f"max_new_tokens = {budget}  # 95 % of the right responses end within {best.longest_right} tokens",
        "",
        "[objective]",
        'preset = "dr_grpo"  # no bias towards long wrong answers: see docs/algorithms.md',
        "",
        "[learner]",
        f"lr = {lr:.0e}  # {why}" if not adapters else "lr = 1e-5  # adapters take ten times that of full training",
        *([] if torch.cuda.is_available() else ON_A_CPU),
        "",
    ]
    if adapters:
        need, have = 16 * size / 2**30, machine_bytes() / 2**30
        lines += ["[lora]", f"rank = 32  # full training needs {need:.0f} GiB and more, of {have:.0f}", ""]
    if source.holdout:
        lines += ["[evaluation]", f"every = {STEPS // 3}", "max_questions = 64", ""]
    return "\n".join(lines)


def machine_bytes() -> int:
    """Bytes of memory of the GPU if there is one, else of this machine."""
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def learner_seconds_per_token(config: RunConfig, trial: Trial, policy: Any, device: torch.device) -> float:
    """Measured seconds of one gradient on the trial's responses, per token of prompts and responses."""
    learner = make_learner(config, policy, device)
    batch = make_batch(list(trial.groups), config.objective)
    began = time.perf_counter()
    learner.forward_backward(batch, config.objective)
    return (time.perf_counter() - began) / trial.tokens
