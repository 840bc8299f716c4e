"""The corpora are what their docstrings say, counted."""

import re
from collections import defaultdict
from functools import cache
from typing import Any

import numpy as np
import pytest

from zerolab.config import CorpusConfig
from zerolab.data.questions import side_of
from zerolab.errors import UserError
from zerolab.grading.grader import grade
from zerolab.phrases import find_phrases
from zerolab.worlds.corpora import make_corpus

DOCUMENT = re.compile(r"(\d+ [-+*] \d+ = \?) \\boxed\{(\d+)\} (sure|unsure)((?: so| hmm)*)<eos>")


def corpus(name: str = "marked-arithmetic", seed: int = 0, **options: Any) -> Any:
    return make_corpus(CorpusConfig(name=name, options=options), seed)


@cache
def sample(seed: int = 0, **options: Any) -> tuple[Any, list[tuple[str, bool, bool, str]]]:
    """A corpus and (question, right, sure, fillers) of 200 steps' documents."""
    made = corpus(seed=seed, **options)
    right = {q.text: q.answers[0] for q in made.questions}
    rows = []
    for step in range(200):
        for text in made.tokenizer.batch_decode([ids for ids, _ in made.batch(step, 128)]):
            match = DOCUMENT.fullmatch(text)
            assert match, text
            rows.append((match[1], match[2] == right[match[1]], match[3] == "sure", match[4]))
    return made, rows


def test_the_marker_agrees_with_the_truth_as_often_as_stated() -> None:
    for accuracy in (0.85, 0.5):
        rows = sample(marker_accuracy=accuracy)[1]
        for truth in (True, False):
            agreed = np.mean([sure == right for _, right, sure, _ in rows if right == truth])
            assert agreed == pytest.approx(accuracy, abs=0.015)


def test_fillers_are_geometric_and_independent_of_marker_and_truth() -> None:
    rows = sample()[1]
    counts = np.array([len(fillers.split()) for *_, fillers in rows])
    assert counts.mean() == pytest.approx(8, abs=0.2)
    assert np.mean(counts == 0) == pytest.approx(1 / 9, abs=0.01)
    assert np.var(counts) == pytest.approx(72, rel=0.05)
    for column in (1, 2):
        groups = [counts[[row[column] == value for row in rows]].mean() for value in (True, False)]
        assert groups[0] == pytest.approx(groups[1], abs=0.4)


def test_the_filler_word_follows_the_marker_unless_asked_otherwise() -> None:
    assert {(sure, word) for _, _, sure, fillers in sample()[1] for word in fillers.split()} == {
        (True, "so"),
        (False, "hmm"),
    }
    assert {word for *_, fillers in sample(same_filler=True)[1] for word in fillers.split()} == {"so"}


def test_questions_are_easy_middling_or_never_right() -> None:
    made, rows = sample()
    verdicts: dict[str, list[bool]] = defaultdict(list)
    for question, right, _, _ in rows:
        verdicts[question].append(right)
    assert len(verdicts) == len(made.questions) == 507
    rates = np.array([np.mean(v) for v in verdicts.values()])
    # About 50 documents per question, so a rate above .85 tells .95 from .75 nearly always.
    assert np.mean(rates == 0) == pytest.approx(0.25, abs=0.002)
    assert np.mean(rates > 0.85) == pytest.approx(0.15, abs=0.02)
    assert np.mean([right for _, right, *_ in rows]) == pytest.approx(0.15 * 0.95 + 0.6 * 0.5, abs=0.02)


def test_a_wrong_answer_is_always_the_same_one() -> None:
    made = corpus()
    wrong: dict[str, set[str]] = defaultdict(set)
    right = {q.text: q.answers[0] for q in made.questions}
    for step in range(50):
        for text in made.tokenizer.batch_decode([ids for ids, _ in made.batch(step, 128)]):
            match = DOCUMENT.fullmatch(text)
            assert match
            if match[2] != right[match[1]]:
                wrong[match[1]].add(match[2])
    assert {len(answers) for answers in wrong.values()} == {1}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("marked-arithmetic", {}),
        ("marked-arithmetic", {"modulus": 100}),
        ("arithmetic", {"digits": 3, "terms": 3}),
        ("countdown", {"numbers": 3}),
    ],
)
def test_documents_are_what_the_tokenizer_makes_of_their_text(name: str, options: dict) -> None:
    """A policy that is asked the question's text starts from exactly the tokens it was trained on."""
    made = corpus(name, **options)
    texts = {q.text for q in made.questions}
    for ids, prompt in made.batch(3, 64):
        text = made.tokenizer.decode(ids)
        assert made.tokenizer(text)["input_ids"] == ids.tolist()
        asked, answer = (made.tokenizer.decode(part) for part in (ids[:prompt], ids[prompt:]))
        assert made.tokenizer(asked)["input_ids"] == ids[:prompt].tolist()
        assert answer.startswith(" \\boxed{")
        assert answer.endswith("<eos>")
        assert name != "marked-arithmetic" or asked in texts


@pytest.mark.parametrize("name", ["arithmetic", "countdown"])
def test_worked_answers_are_right_and_leave_the_holdout_alone(name: str) -> None:
    made = corpus(name, holdout=0.2)
    assert {side_of(q.text, 0.2) for q in made.questions} == {"holdout"}
    golds = {}
    for step in range(3):
        for i, question in made._numbered(step, "train"):
            golds[question.text] = question
            if i % 2**20 > 200:
                break
        for ids, prompt in made.batch(step, 50):
            question = golds[made.tokenizer.decode(ids[:prompt])]
            assert side_of(question.text, 0.2) == "train"
            response = made.tokenizer.decode(ids[prompt:])
            assert grade(response, question.answers, verifier=question.verifier).correct


@pytest.mark.parametrize("name", ["marked-arithmetic", "arithmetic", "countdown"])
def test_documents_depend_on_seed_and_step_alone(name: str) -> None:
    def batch(seed: int, step: int) -> list[list[int]]:
        return [ids.tolist() for ids, _ in corpus(name, seed).batch(step, 16)]

    assert batch(0, 5) == batch(0, 5)
    assert batch(0, 5) != batch(0, 6)
    assert batch(0, 5) != batch(1, 5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("marked", {}, "choose one of marked-arithmetic, styled-arithmetic, arithmetic, countdown"),
        ("marked-arithmetic", {"marker_acuracy": 0.5}, "did you mean marker_accuracy"),
        ("marked-arithmetic", {"marker_accuracy": 1.5}, "less than or equal to 1"),
        ("arithmetic", {"digits": "two"}, "corpus.options of arithmetic"),
    ],
)
def test_unknown_corpora_and_options_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        corpus(name, **options)


def test_styled_documents_have_the_shares_of_their_options_and_answer_only_where_they_should() -> None:
    options = {"answered": 0.3, "conversation": 0.4, "unboxed": 0.2, "reflection": 0.5}
    styled = corpus("styled-arithmetic", seed=1, **options)
    read = styled.tokenizer.decode
    texts = [(read(ids[:n]), read(ids[n:-1])) for ids, n in styled.batch(0, 3000)]
    kinds = {"conversation": 0, "answered": 0, "exercise": 0}
    golds = {question.text: question.answers[0] for question in styled.questions}
    boxed = checked = right = 0
    for prompt, rest in texts:
        question = prompt.removeprefix("User: ").removesuffix("\nAssistant:")
        assert question in golds
        if rest.startswith("\n"):
            kinds["exercise"] += 1
            assert all(line in golds for line in rest.strip().split("\n"))
            continue
        kinds["conversation" if prompt.startswith("User") else "answered"] += 1
        boxed += "\\boxed{" in rest
        checked += bool(find_phrases(rest, "paper"))
        right += golds[question] in re.findall(r"\d+", rest)[-1:]
    answers = kinds["conversation"] + kinds["answered"]
    assert kinds["answered"] / 3000 == pytest.approx(0.3, abs=0.03)
    assert kinds["conversation"] / 3000 == pytest.approx(0.4, abs=0.03)
    assert boxed / answers == pytest.approx(0.8, abs=0.03)
    assert checked / boxed == pytest.approx(0.5, abs=0.04)
    assert right / answers == pytest.approx(0.15 * 0.95 + 0.6 * 0.5, abs=0.05)


def test_a_reflection_in_the_styled_corpus_does_not_change_how_often_the_answer_is_right() -> None:
    styled = corpus("styled-arithmetic", reflection=0.5, unboxed=0.0)
    read = styled.tokenizer.decode
    golds = {question.text: question.answers[0] for question in styled.questions}
    found: dict[bool, list[bool]] = {True: [], False: []}
    for step in range(2):
        for ids, n in styled.batch(step, 2500):
            prompt, rest = read(ids[:n]), read(ids[n:-1])
            question = prompt.removeprefix("User: ").removesuffix("\nAssistant:")
            found["check again" in rest].append(rest.endswith(f"\\boxed{{{golds[question]}}}"))
    rates = {kind: sum(hits) / len(hits) for kind, hits in found.items()}
    assert rates[True] == pytest.approx(rates[False], abs=0.05)


def test_shares_above_one_are_refused() -> None:
    with pytest.raises(UserError, match="above 1"):
        corpus("styled-arithmetic", answered=0.9, conversation=0.3)
