"""The family `facts` and the extractor that it needs: the first name that occurs decides."""

import json
from itertools import permutations
from pathlib import Path

import pytest

from command import run
from zerolab.config.run_config import RunConfig
from zerolab.data.families import make_family
from zerolab.data.question_config import QuestionsConfig
from zerolab.data.questions import Pool, load_questions
from zerolab.datatypes import Question
from zerolab.errors import UserError
from zerolab.evaluation.responses import Response, grade_responses
from zerolab.grading import grade, grade_batch
from zerolab.grading.extract import first_mention, read_facts
from zerolab.toml import parse

KINDS = {"kinds": "capital,symbol,atomic-number"}


def all_questions(**options: object) -> list[Question]:
    family = make_family("facts", {**KINDS, **options})
    return [family.question(i) for i in range(family.size or 0)]


def is_right(response: str, gold: str, verifier: str = "capital") -> bool:
    return grade(response, gold, "mention", verifier=verifier).correct


def test_every_fact_is_asked_for_in_every_phrasing_and_its_answer_is_right() -> None:
    questions = all_questions()
    kinds = [fact.kind for fact in read_facts()]
    assert kinds.count("capital") > 170
    assert kinds.count("symbol") == kinds.count("atomic-number") == 118
    assert len(questions) == len({q.text for q in questions}) == 4 * len(kinds)
    for question in questions:
        assert is_right(f"The answer is {question.answers[0]}.", question.answers[0], question.verifier)


def test_every_spelling_in_the_table_is_an_answer_and_belongs_to_one_fact() -> None:
    owners: dict[tuple[str, str], str] = {}
    for fact in read_facts():
        verifier = "capital" if fact.kind == "capital" else "element"
        for name in fact.names:
            assert owners.setdefault((verifier, name), fact.names[0]) == fact.names[0]
            assert is_right(f"It is **{name}**, I think.", fact.names[0], verifier)


def test_no_question_names_any_answer_so_that_repeating_it_earns_nothing() -> None:
    assert [q.text for q in all_questions() if first_mention(q.text, q.verifier) is not None] == []


@pytest.mark.parametrize("kinds", ["capital", "symbol,atomic-number"])
def test_all_phrasings_of_a_fact_are_on_one_side_of_the_split(kinds: str) -> None:
    source = {"path": "synthetic:facts", "options": {"kinds": kinds}, "holdout": 0.3}
    found = load_questions(QuestionsConfig.model_validate(source))
    sides = [{q.answers for pool in side if isinstance(pool, Pool) for q in pool.questions} for side in
             (found.train, found.holdout)]  # fmt: skip
    assert sides[0].isdisjoint(sides[1])
    assert 0.15 < len(sides[1]) / len(sides[0] | sides[1]) < 0.45


def test_the_first_name_decides_so_that_listing_all_names_pays_at_most_once() -> None:
    names = sorted({fact.names[0] for fact in read_facts() if fact.kind == "capital"})
    paid = [gold for gold in names if is_right(", ".join(names), gold)]
    assert paid == names[:1]
    for order in permutations(["Paris", "Rome", "Oslo"]):
        assert [is_right(" or ".join(order), gold) for gold in order] == [True, False, False]


@pytest.mark.parametrize(
    "response",
    [
        "Parisian, comparison, romeo",  # inside of longer words
        "P a r i s", "Par-is", "pa\u200bris",  # cut up
        "the male of the species",  # an English word, not the capital of the Maldives
        "", "   ", "?", "\\boxed{}", "<answer></answer>", "\x00", "\ud800",
        "What is the capital of France?" * 3,
    ],
)  # fmt: skip
def test_what_is_no_name_earns_nothing_for_any_question(response: str) -> None:
    found = grade(response, "Paris", "mention", verifier="capital")
    assert (found.correct, found.formatted, found.reason) == (False, False, "unformatted")
    assert first_mention(response, "element") is None


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ("PARIS", "Paris"), ("paris's", "Paris"), ("_Paris_", "Paris"), ("Ｐａｒｉｓ", "Paris"),
        ("It is Bogota.", "Bogotá"), ("Bogota\u0301", "Bogotá"), ("Kiev", "Kyiv"), ("St. John's", "Saint John's"),
        ("N’Djamena", "N'Djamena"), ("NDjamena", "N'Djamena"), ("Port au\nPrince", "Port-au-Prince"),
        ("Washington DC", "Washington, D.C."), ("Malé", "Malé"), ("Male", "Malé"), ("Delhi", "New Delhi"),
        ("Ulan-Bator", "Ulaanbaatar"),
    ],
)  # fmt: skip
def test_accents_case_and_other_spellings_do_not_count(response: str, gold: str) -> None:
    assert is_right(response, gold)


def test_the_longest_name_at_a_place_is_the_one_that_is_meant() -> None:
    assert first_mention("New Delhi, not Delhi", "capital") == "New Delhi"
    assert first_mention("San Salvador", "capital") == "San Salvador"
    assert first_mention("Caesium, as sulphur", "element") == "cesium"


def test_a_name_counts_in_every_other_format_too() -> None:
    assert grade("so \\boxed{Kiev}", "Kyiv", "boxed", verifier="capital").correct
    assert not grade("Kiev", "Kyiv", "boxed", verifier="capital").formatted
    assert not grade("\\boxed{Oslo, Kyiv}", "Kyiv", "boxed", verifier="capital").correct


def test_mention_is_refused_for_answers_that_are_no_names() -> None:
    with pytest.raises(UserError, match="verifier math are none"):
        grade_batch(["5"], ["5"], "mention")


def test_a_recipe_that_looks_for_names_among_other_questions_is_refused(tmp_path: Path) -> None:
    raw = {
        "name": "facts", "steps": 1, "model": {"path": "m"}, "objective": "dr_grpo",
        "template": {"name": "chat", "extractor": "mention"}, "rollout": {"questions_per_step": 2},
    }  # fmt: skip
    parse(RunConfig, {**raw, "questions": {"path": "synthetic:facts"}}, "recipe")
    with pytest.raises(UserError, match="synthetic:modular does not ask for"):
        parse(RunConfig, {**raw, "questions": {"path": "synthetic:modular"}}, "recipe")


def test_the_lenient_reading_of_a_name_is_its_first_mention() -> None:
    response = Response("facts", "0", "Ukraine's capital?", ("Kyiv",), 0, "It is Kiev.", verifier="capital")
    (found,) = grade_responses([response], "boxed")
    assert found.grade is not None
    assert found.lenient is not None
    assert (found.grade.correct, found.lenient.correct) == (False, True)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(UserError, match="capital, symbol, atomic-number"):
        make_family("facts", {"kinds": "capital,rivers"})


def test_the_command_line_grades_names(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "responses.jsonl"
    file.write_text(json.dumps({"answer": "Kyiv", "responses": ["Kiev it is", "Oslo"]}))
    assert run("grade", file, "--mode", "mention", "--verifier", "capital") == 0
    assert "accuracy 0.5000" in capsys.readouterr().out
