"""`zerolab sample`: ask a model questions and show its responses, with tokens coloured by probability.

Text of a model or a file can have any character, so characters on which a terminal acts are shown as escapes.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.text import Text

from zerolab.build import make_grader, model_path
from zerolab.config import SampleConfig
from zerolab.data.questions import QuestionStream, load_questions
from zerolab.data.templates import Template, make_encode, make_template
from zerolab.datatypes import Completion, Grade, Question
from zerolab.errors import UserError
from zerolab.models.context import context_length
from zerolab.models.hf import load_model, load_tokenizer, pick_device
from zerolab.rollout.engine import Request, generate_all, request_seed
from zerolab.rollout.stop_strings import token_pieces
from zerolab.rollout.torch_engine import TorchEngine
from zerolab.terminal import echo, make_console, visible

# (probability at least, style, in words)
BANDS = (
    (0.9, "", "p >= .9"),
    (0.5, "green", ">= .5"),
    (0.2, "yellow", ">= .2"),
    (0.05, "dark_orange", ">= .05"),
    (0.0, "bold red", "less"),
)


def style_of(probability: float) -> str:
    return next(style for least, style, _ in BANDS if probability >= least or least == 0.0)


class Screen:
    """The output of responses. There are colours only on a terminal that has them."""

    def __init__(self) -> None:
        self.console = make_console(soft_wrap=True, file=sys.stdout)

    def legend(self) -> None:
        """Print the meaning of the colours, if there are colours."""
        if self.console.is_terminal and not self.console.no_color:
            parts = [("tokens by probability:  ", "dim"), *((f"{words}  ", style) for _, style, words in BANDS)]
            self.console.print(Text.assemble(*parts))

    def waiting(self) -> AbstractContextManager[Any]:
        """A context that shows a spinner while the model samples, on a terminal."""
        return self.console.status("sampling") if self.console.is_terminal else nullcontext()

    def prompt(self, text: str, heading: str) -> None:
        self.console.rule(Text(visible(heading), style="bold"), align="left")
        self.console.print(Text(visible(text), style="dim"))

    def response(self, number: str, pieces: Sequence[str], completion: Completion, verdict: str) -> None:
        """Print one response. `pieces` has the text of each token, and the name of each special token."""
        probabilities = np.exp(completion.logprobs_L.astype(float))
        body = Text()
        for piece, probability in zip(pieces, probabilities, strict=True):
            body.append(visible(piece), style=style_of(probability))
        self.console.print(Text(number, style="bold cyan"))
        self.console.print(body)
        self.console.print(Text(facts(completion, verdict), style="cyan"))

    def line(self, text: str) -> None:
        self.console.print(Text(visible(text), style="cyan"))


def facts(completion: Completion, verdict: str) -> str:
    """A line with the number of tokens, the end, the mean log p per token (in nats) and the verdict."""
    mean = float(completion.logprobs_L.mean()) if len(completion) else 0.0
    ended = "truncated" if completion.truncated else "ended by itself"
    return visible(f"{len(completion)} tokens, {ended}, mean log p {mean:.2f}; {verdict}")


def verdict_of(grade: Grade, known: bool) -> str:
    """The verdict in words, with the extracted answer. `known`: whether the right answer is known."""
    if grade.reason == "unformatted":
        return "no answer in the format of the template"
    answer = f"answer {_short(grade.extracted or '')}"
    return f"{grade.reason}: {answer}" if known else answer


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."


def named_pieces(tokenizer: Any, pieces: Sequence[str], token_ids_L: np.ndarray) -> list[str]:
    """The pieces, with the name of every special token that has no text."""
    special = set(tokenizer.all_special_ids)
    named = zip(pieces, token_ids_L.tolist(), strict=True)
    return [tokenizer.convert_ids_to_tokens(i) if i in special and not piece else piece for piece, i in named]


KV_BYTES = 2**30


@dataclass(frozen=True)
class Model:
    """A model with an engine and a template."""

    tokenizer: Any
    template: Template
    engine: TorchEngine
    context: int

    def ask(self, text: str, number: int, config: SampleConfig) -> list[Completion]:
        """Sample responses to a prompt. Raises UserError if it leaves no room in the model's context."""
        ids = tuple(make_encode(self.tokenizer, self.context)(text))
        room = self.context - len(ids)
        if room < 1:
            raise UserError(
                f"a prompt of {len(ids)} tokens or more fills the model's context of {self.context}: shorten it"
            )
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
    """Ask the questions one after another and show the responses.

    Ctrl-C skips the current question. At the prompt for a question it ends the program.
    """
    given = list(_given(config))  # first, so that an error shows before the model is loaded
    model = open_model(config)
    screen = Screen()
    screen.legend()
    try:
        for number, question in enumerate(given or typed(sys.stdin.isatty())):
            try:
                show(model, question, number, config, screen)
            except KeyboardInterrupt:
                screen.line("skipped")
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
    """Questions from standard input, one per line, until it ends."""
    number = 0
    if prompt:
        echo("type a question, then Enter; Ctrl-D ends", error=True)
    while True:
        try:
            line = input("> " if prompt else "")
        except EOFError:
            return
        if line.strip():
            yield Question(f"typed:{number}", line, ())
            number += 1


def _gold(question: Question) -> str:
    """The answer to show. For reasoning-gym it is in the columns, because `answers` has data of the scorer."""
    if question.verifier == "reasoning_gym":
        return str(question.columns.get("answer")) or "not unique"
    return ", ".join(question.answers)


def show(model: Model, question: Question, number: int, config: SampleConfig, screen: Screen) -> None:
    """Show the prompt, the responses, and the number of right ones if the answer is known."""
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
