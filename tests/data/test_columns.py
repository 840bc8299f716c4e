"""Worked additions are what they say, and corpora of two stages differ in the text of the second alone."""

import re
from functools import cache
from typing import Any

import numpy as np
import pytest

from zerolab.build import evaluation_questions
from zerolab.config import CorpusConfig
from zerolab.data.questions import load_questions, side_of
from zerolab.grading.grader import grade
from zerolab.recipes import find_recipe, load
from zerolab.worlds.columns import FRAMES, TEXT_TOKENS, WORDS
from zerolab.worlds.corpora import make_corpus

QUESTION = re.compile(r"(\d+) \+ (\d+) = \?")
COLUMN = re.compile(r" ((?:\d\+)+\d)=(\d+)")
TEXTS = ("plain", "other", "domain", "qa")


@cache
def corpus(name: str, **options: Any) -> Any:
    return make_corpus(CorpusConfig(name=name, options=options), 7)


def texts(made: Any, steps: range) -> list[tuple[str, str]]:
    """(prompt, response) of every document of these steps."""
    decode = made.tokenizer.decode
    return [(decode(ids[:n]), decode(ids[n:])) for step in steps for ids, n in made.batch(step, 64)]


def framed(made: Any, steps: range) -> list[tuple[str, str, str]]:
    """(frame, question, response)."""
    found = []
    for prompt, response in texts(made, steps):
        match = QUESTION.search(prompt)
        assert match
        [name] = [n for n, frame in FRAMES.items() if frame.template.format(question=match[0]) == prompt]
        found.append((name, match[0], response.removesuffix("<eos>")))
    return found


def test_a_speaker_without_errors_is_right_in_the_format_of_every_frame() -> None:
    rows = framed(corpus("columns", error=0.0, turns=0.3, r1=0.3, rambling=1.0), range(4))
    assert {name for name, _, _ in rows} == set(FRAMES)
    for name, question, response in rows:
        x, y = map(int, QUESTION.fullmatch(question).groups())  # type: ignore[union-attr]
        verdict = grade(response, (str(x + y),), FRAMES[name].extractor)
        assert verdict.correct, (name, question, response)
        assert all(sum(map(int, terms.split("+"))) == int(total) for terms, total in COLUMN.findall(response))


def test_errors_are_as_many_as_stated_off_by_one_and_the_last_number_follows_from_what_was_written() -> None:
    off = []
    for _, _, response in framed(corpus("columns", error=0.2), range(10)):
        columns = [(sum(map(int, terms.split("+"))), int(total)) for terms, total in COLUMN.findall(response)]
        assert len(columns) == 3
        off += [said - true for true, said in columns]
        digits = [total % 10 for _, total in columns[:2]] + [columns[2][1]]
        assert response.endswith(f"{{{sum(d * 10**k for k, d in enumerate(digits))}}}") or "<answer>" in response
    assert set(off) == {-1, 0, 1}
    assert np.mean(np.array(off) != 0) == pytest.approx(0.2, abs=0.03)


def test_frames_come_as_often_as_stated_and_held_out_questions_never() -> None:
    made = corpus("columns", turns=0.25, r1=0.1)
    rows = framed(made, range(20))
    assert np.mean([name == "turns" for name, _, _ in rows]) == pytest.approx(0.25, abs=0.04)
    assert np.mean([name == "r1-like" for name, _, _ in rows]) == pytest.approx(0.1, abs=0.03)
    assert {side_of(question, 0.1) for _, question, _ in rows} == {"train"}
    assert {side_of(question.text, 0.1) for question in made.questions} == {"holdout"}


def test_a_policy_that_is_asked_starts_from_the_tokens_that_it_was_trained_on() -> None:
    made = corpus("columns", turns=0.3, r1=0.3)
    for ids, prompt in made.batch(0, 64):
        whole, asked = (made.tokenizer.decode(part) for part in (ids, ids[:prompt]))
        assert made.tokenizer(whole)["input_ids"] == ids.tolist()
        assert made.tokenizer(asked)["input_ids"] == ids[:prompt].tolist()
    assert len(made.tokenizer) == 2 + 94 + 2 + sum(len(word) > 1 for word in WORDS)


@pytest.mark.parametrize("step", [0, 3])  # of the first stage and of the second
def test_stages_have_the_same_tokens_and_the_same_conversations_whatever_the_text(step: int) -> None:
    batches = {text: corpus("staged-columns", text=text, first_steps=2).batch(step, 64) for text in TEXTS}
    sizes = {text: [(len(ids), prompt) for ids, prompt in batch] for text, batch in batches.items()}
    assert len({tuple(size) for size in sizes.values()}) == 1
    for rows in zip(*batches.values(), strict=True):
        same = len({ids.tobytes() for ids, _ in rows}) == 1
        assert same == (step == 0 or rows[0][1] > 1)
        assert rows[0][1] > 1 or len(rows[0][0]) == TEXT_TOKENS


def test_no_text_holds_the_form_that_rl_asks_for_and_domain_text_asks_nothing() -> None:
    for text in TEXTS:
        made = corpus("staged-columns", text=text, first_steps=0, framed=0.2, error=0.0)
        documents = texts(made, range(5))
        free = [prompt + response for prompt, response in documents if not prompt.startswith("User: ")]
        assert len(free) / len(documents) == pytest.approx(0.8, abs=0.07)
        assert not any(word in document for document in free for word in ("boxed", "User", "Assistant", "answer"))
        assert any("= ?" in document for document in free) == (text == "qa")
        assert any("+" in document for document in free) == (text in ("domain", "qa"))
        said = [re.search(r"gives (\d+) \+ (\d+) = (\d+)\n", document) for document in free]
        assert all(int(m[1]) + int(m[2]) == int(m[3]) for m in said if m)
        assert any(said) == (text == "domain")


def test_an_evaluation_with_a_holdout_of_its_own_asks_the_questions_held_out() -> None:
    wide = "evaluation.questions={path='synthetic:arithmetic', options={digits=3, operations='+'}, holdout=0.1}"
    config = load(find_recipe("laptop/columns"), [wide, "questions.limit=20"])
    [pool] = evaluation_questions(config, load_questions(config.questions))
    drawn = [pool.draw(position, 0, "shuffle")[0] for position in range(20)]
    assert {side_of(question.text, 0.1) for question in drawn} == {"holdout"}
