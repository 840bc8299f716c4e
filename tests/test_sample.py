"""`zerolab sample`: what is shown, and that no text of a model reaches the terminal as a command."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from command import refusal, run
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.config import SampleConfig
from zerolab.data.templates import TEMPLATES
from zerolab.datatypes import Completion, Question
from zerolab.models.hf import export_model
from zerolab.rollout.engine import Request
from zerolab.sample import Model, Screen, show, visible

EVIL = "\x1b]0;title\x07\x1b[2J[red]x[/red]\u202e\x9b31m:smile:\nline\ttab é"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    export_model(tiny_model("qwen2"), tiny_tokenizer(), folder)
    return folder


def on_terminal() -> tuple[Screen, io.StringIO]:
    screen, out = Screen(), io.StringIO()
    options: Any = {"highlight": False, "markup": False, "emoji": False, "soft_wrap": True}
    screen.console = Console(file=out, force_terminal=True, color_system="truecolor", width=80, **options)
    return screen, out


def completion(text: str, probabilities: list[float], finish: str = "stop") -> Completion:
    size = len(probabilities)
    return Completion(0, text, np.arange(2, 2 + size), np.log(probabilities, dtype=np.float32), finish, 0)  # type: ignore[arg-type]


def test_tokens_are_coloured_by_their_probability() -> None:
    screen, out = on_terminal()
    screen.legend()
    screen.response("[1 of 1]", ["sure ", "likely ", "perhaps ", "rare"], completion("", [0.95, 0.6, 0.3, 0.01]), "v")
    legend, _, body, facts, *_ = out.getvalue().split("\n")
    assert "p >= .9" in legend
    assert re.findall(r"(?:\x1b\[([\d;]+)m)?(\w+) ?(?:\x1b\[0m)?", body) == [
        ("", "sure"), ("32", "likely"), ("33", "perhaps"), ("1;31", "rare"),
    ]  # fmt: skip
    assert "4 tokens, ended by itself, mean log p -1.59; v" in facts


def test_no_text_of_a_model_acts_on_the_terminal() -> None:
    screen, out = on_terminal()
    screen.prompt(EVIL, EVIL)
    screen.response("[1 of 1]", [EVIL], completion(EVIL, [0.95]), f"answer {EVIL}")
    screen.line(EVIL)
    ours = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())  # colours of our own
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", ours)
    assert "[red]x[/red]" in ours
    assert ":smile:" in ours
    assert visible("a\x1b\u202e\U000e0001\n\té") == "a\\x1b\\u202e\\U000e0001\n\té"


class KnownEngine:
    def __init__(self, *texts: str):
        self.texts = texts

    def generate(self, requests: list[Request]) -> Any:
        for request in reversed(requests):
            text = self.texts[request.id]
            finish: Any = "stop" if "}" in text else "length"
            ids = np.array(tiny_tokenizer().encode(text))
            yield Completion(request.id, text, ids, np.full(len(ids), -0.1, np.float32), finish, 0)


def test_answers_are_judged_where_one_is_known() -> None:
    texts = ("\\boxed{7}", "\\boxed{8}", "nothing")
    asked = Model(tiny_tokenizer(), TEMPLATES["none"], KnownEngine(*texts), 256)  # type: ignore[arg-type]
    config = SampleConfig(model={"path": "x"}, samples=3, max_new_tokens=9)
    for answers, words in (
        (("7",), ["correct: answer 7", "wrong: answer 8", "no answer in the format", "1 of 3 right, 1 truncated"]),
        ((), ["answer 7", "answer 8", "no answer in the format"]),
    ):
        screen, out = on_terminal()
        show(asked, Question("q", "3+4?", answers), 0, config, screen)
        text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", out.getvalue())
        places = [text.index(word) for word in words]
        assert places == sorted(places)
        assert ("right" in text) == bool(answers)
        assert all(response in text for response in texts)


def test_the_answer_of_a_reasoning_gym_question_is_shown_without_what_its_scorer_needs() -> None:
    asked = Model(tiny_tokenizer(), TEMPLATES["none"], KnownEngine("x"), 256)  # type: ignore[arg-type]
    gold = '{"index": 0, "level": null, "options": {}, "task": "ab"}'
    for answer, shown in (("A# #B", "answer A# #B"), ("", "answer not unique")):
        screen, out = on_terminal()
        question = Question("ab:0", "?", (gold,), "reasoning_gym", columns={"answer": answer})
        show(asked, question, 0, SampleConfig(model={"path": "x"}), screen)
        assert shown in out.getvalue()
        assert "options" not in out.getvalue()


def test_a_question_a_set_and_standard_input(
    model: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("--max-new-tokens", 4)
    assert run("sample", model, "--question", "1+1?", "--answer", "2", "-n", 3, *few) == 0
    one = capsys.readouterr().out
    assert one.count(" of 3]") == 3
    assert "question under none, answer 2" in one
    assert "\x1b" not in one  # no terminal, no colours
    assert run("sample", model, "--question", "1+1?", "--answer", "2", "-n", 3, *few) == 0
    assert capsys.readouterr().out == one  # the same seed
    assert run("sample", model, "--questions", "synthetic:modular", "--limit", 2, *few) == 0
    assert capsys.readouterr().out.count("mod") == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("first\n\n" + "long " * 300 + "\nlast\n"))
    assert run("sample", model, *few) == 0
    typed = capsys.readouterr().out
    assert typed.count("[1 of 1]") == 2
    assert "fills the model's context of 256" in typed  # said, and gone on


def test_a_laptop_base_can_be_looked_at(
    model: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zerolab.worlds.base_model.base_model", {"laptop/smoke-base": model}.__getitem__)
    small = ("--set", "model.precision=fp32", "--max-new-tokens", 4, "--question", "1 + 1 = ?", "--temperature", 0)
    assert run("sample", "--base", "laptop/smoke-base", *small) == 0
    assert "1 + 1 = ?" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["set exactly one of model.path", "model.base"]),
        (("m", "--question", "a", "--questions", "b"), ["exclude each other"]),
        (("m", "--answer", "a"), ["--answer belongs to --question"]),
        (("m", "-n", "2", "--temperature", "0"), ["same response again"]),
        (("m", "--template", "r2"), ["template.name 'r2' is unknown"]),
        (("nowhere/at/all", "--question", "a"), ["nowhere/at/all"]),
        (("m", "--questions", "none.jsonl"), ["none.jsonl: no such file"]),
    ],
)
def test_what_cannot_be_asked_is_one_line(arguments: tuple, words: list[str], capsys: pytest.CaptureFixture) -> None:
    line = refusal(capsys, "sample", *arguments)
    assert all(word in line for word in words), line


def test_a_chat_template_needs_a_model_that_has_one(model: Path, capsys: pytest.CaptureFixture) -> None:
    assert "has no chat template" in refusal(capsys, "sample", model, "--template", "chat", "--question", "a")
