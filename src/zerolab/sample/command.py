"""The loop of `zerolab sample`: a question, its responses, the next question."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from zerolab.build import make_grader, model_path, pick_device
from zerolab.config import SampleConfig
from zerolab.data.questions import QuestionStream, load_questions
from zerolab.data.templates import Template, make_encode, make_template
from zerolab.errors import UserError
from zerolab.models.context import context_length
from zerolab.models.hf import load_model, load_tokenizer
from zerolab.rollout.engine import Request, generate_all
from zerolab.rollout.sampling import request_seed
from zerolab.rollout.stops import token_pieces
from zerolab.rollout.torch_engine import TorchEngine
from zerolab.sample.show import Screen, named_pieces, verdict_of
from zerolab.terminal import echo
from zerolab.types import Completion, Grade, Question

KV_BYTES = 2**30


@dataclass(frozen=True)
class Model:
    """A model that can be asked under a template."""

    tokenizer: Any
    template: Template
    engine: TorchEngine
    context: int

    def ask(self, text: str, number: int, config: SampleConfig) -> list[Completion]:
        """Responses to a prompt. UserError where it leaves no room in the model's context."""
        ids = tuple(make_encode(self.tokenizer)(text))
        room = self.context - len(ids)
        if room < 1:
            raise UserError(f"a prompt of {len(ids)} tokens fills the model's context of {self.context}: shorten it")
        requests = [
            Request(
                id=sample,
                prompt_ids=ids,
                seed=request_seed(config.seed, number, text, sample),
                max_new_tokens=min(config.max_new_tokens, room),
                temperature=config.temperature,
                stop=self.template.stop,
            )
            for sample in range(config.samples)
        ]
        return generate_all(self.engine, requests)


def run(config: SampleConfig) -> None:
    """Asks and shows until the questions end. Ctrl-C gives a question up; at the prompt it ends the program."""
    given = list(_given(config))  # whatever is wrong with them shows before a model is loaded
    model = open_model(config)
    screen = Screen()
    screen.legend()
    try:
        for number, question in enumerate(given or typed(sys.stdin.isatty())):
            try:
                show(model, question, number, config, screen)
            except KeyboardInterrupt:
                screen.line("given up")
            except UserError as error:
                if given:
                    raise
                screen.line(f"zerolab: {error}")
    finally:
        model.engine.close()


def open_model(config: SampleConfig) -> Model:
    path, device = model_path(config.model), pick_device(config.model.device)
    tokenizer = load_tokenizer(path)
    template = make_template(config.template).bound(tokenizer)
    model = load_model(path, dtype=torch.float32, device=device)
    dtype = torch.bfloat16 if config.model.precision == "bf16" else torch.float32
    context = context_length(model.config)
    return Model(
        tokenizer, template, TorchEngine(model, tokenizer, device=device, dtype=dtype, kv_bytes=KV_BYTES), context
    )


def _given(config: SampleConfig) -> Iterator[Question]:
    if config.question is not None:
        yield Question("question", config.question, () if config.answer is None else (config.answer,))
    elif config.questions is not None:
        pools = load_questions(config.questions).train
        stream = QuestionStream(pools, config.seed, "sequential")
        total = sum(len(getattr(pool, "questions", range(config.limit))) for pool in pools)
        yield from (draw.question for draw in stream.take(min(config.limit, total)))


def typed(prompt: bool) -> Iterator[Question]:
    """Questions from standard input, one a line, until it ends."""
    number = 0
    if prompt:
        echo("a question, then Enter; Ctrl-D ends", error=True)
    while True:
        try:
            line = input("> " if prompt else "")
        except EOFError:
            return
        if line.strip():
            yield Question(f"typed:{number}", line, ())
            number += 1


def _gold(question: Question) -> str:
    """The answer as a reader wants it: a task of reasoning-gym is judged by more than that."""
    if question.verifier == "reasoning_gym":
        return str(question.columns.get("answer")) or "not unique"
    return ", ".join(question.answers)


def show(model: Model, question: Question, number: int, config: SampleConfig, screen: Screen) -> None:
    """The prompt, the responses, and how many of them are right where that is known."""
    text = model.template.render(question.text)
    known = bool(question.answers)
    gold = f", answer {_gold(question)}" if known else ""
    screen.prompt(text, f"{question.id} under {model.template.name}{gold}")
    with screen.waiting():
        completions = model.ask(text, number, config)
    asked = question if known else Question(question.id, question.text, ("",))
    grade = make_grader(model.template)
    grades: list[Grade] = []
    for i, completion in enumerate(completions, 1):
        grades.append(grade(completion.text, asked))
        pieces = token_pieces(model.tokenizer, completion.token_ids_L, model.template.stop)
        named = named_pieces(model.tokenizer, pieces, completion.token_ids_L)
        screen.response(f"[{i} of {len(completions)}]", named, completion, verdict_of(grades[-1], known))
    if known and len(grades) > 1:
        right = sum(g.correct for g in grades)
        cut = sum(c.truncated for c in completions)
        screen.line(f"{right} of {len(grades)} right, {cut} truncated")
