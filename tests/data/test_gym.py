"""reasoning-gym: questions that are the same everywhere, scorers that evaluate nothing and can be killed."""

import itertools
from pathlib import Path

import pytest

from zerolab.config import QuestionsConfig
from zerolab.data import sources
from zerolab.data.questions import QuestionStream, load_questions
from zerolab.errors import UserError
from zerolab.grading import grader
from zerolab.grading.grader import grade, verify_reasoning_gym
from zerolab.grading.gym_process import is_formula, read_literal
from zerolab.grading.sandbox import pool
from zerolab.toml import parse

pytest.importorskip("reasoning_gym")


def questions(path: str, **keys: object) -> QuestionsConfig:
    return parse(QuestionsConfig, {"path": f"reasoning_gym:{path}", **keys}, "test")


def answered(text: str, task: str, index: int = 0) -> str:
    """Reason of the grade of an answer to a question of a task."""
    question = sources.gym_family(task, {}, None).question(index)
    return grade(f"<answer>{text}</answer>", question.answers, "answer-tag-lenient", verifier=question.verifier).reason


def test_a_run_draws_the_same_questions_in_any_process_and_after_a_resume() -> None:
    """isomorphic_strings orders sets of letters, which another hash seed would order otherwise."""
    config = questions("isomorphic_strings", holdout=0.5)
    stream = QuestionStream(load_questions(config).train, seed=3)
    first = [draw.question for draw in stream.take(4)]
    state = stream.state_dict()
    rest = [draw.question for draw in stream.take(4)]
    pool().close()  # fresh worker processes
    again = QuestionStream(load_questions(config).train, seed=3)
    assert [draw.question for draw in again.take(4)] == first
    again.load_state_dict(state)
    assert [draw.question for draw in again.take(4)] == rest
    assert len({q.text for q in first + rest}) == 8
    held_out = QuestionStream(load_questions(config).holdout, seed=3).take(8)
    assert not {d.question.text for d in held_out} & {q.text for q in first + rest}


def test_options_levels_and_size_are_those_of_the_task() -> None:
    options = {"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1, "operators": ["+"], "seed": 5}
    family = sources.gym_family("basic_arithmetic", {**options, "allow_negation": False, "size": 3}, None)
    assert family.size == 3
    assert all(family.question(i).text.count("+") == 2 for i in range(3))
    other = sources.gym_family("basic_arithmetic", {"size": 3}, None)
    assert {other.question(i).text for i in range(3)}.isdisjoint(family.question(i).text for i in range(3))
    loaded = load_questions(questions("basic_arithmetic", levels=[0, 2], limit=6)).train[0].questions
    assert [q.level for q in loaded] == [0, 1, 2, 0, 1, 2]
    lengths = [max(len(q.text) for q in loaded if q.level == level) for level in (0, 2)]
    assert lengths[0] < lengths[1]


@pytest.mark.parametrize(
    ("task", "right", "nearly"),
    [
        ("basic_arithmetic", None, "it is {}"),
        ("countdown", None, "{} + 1"),
        ("string_insertion", None, "{}A"),
        ("n_queens", None, "{}_"),
        ("number_sorting", None, "['1']"),
        ("simple_integration", None, "{} + x"),
    ],
)
def test_right_is_what_the_tasks_own_scorer_gives_one(task: str, right: None, nearly: str) -> None:
    question = sources.gym_family(task, {}, None).question(1)
    gold = question.columns["answer"]
    assert answered(gold, task, 1) == "correct"
    assert answered(nearly.format(gold), task, 1) == "wrong"  # where the scorer gives part of a point
    assert answered(gold, task, 2) == "wrong"


@pytest.mark.parametrize("task", ["string_insertion", "n_queens", "countdown", "simple_integration", "number_sorting"])
def test_no_answer_is_evaluated(task: str, tmp_path: Path) -> None:
    touch = f"__import__('pathlib').Path('{tmp_path}/evaluated').touch()"
    for text in (touch, f"[{touch}]", f"sin({touch})", "().__class__.__bases__[0].__subclasses__()", "exit()"):
        assert answered(text, task) in ("wrong", "error")
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_hangs_a_scorer_is_a_timeout_and_the_next_one_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answered("1", "simple_integration") == "wrong"  # everything is loaded
    monkeypatch.setattr(grader, "GYM_SECONDS", 0.3)
    assert answered("7**(9 + 1)**9", "simple_integration") == "timeout"
    monkeypatch.undo()
    assert answered("x" * (grader.LONGEST_GYM_ANSWER + 1), "simple_integration") == "wrong"
    assert answered(sources.gym_family("ab", {}, None).question(0).columns["answer"], "ab") == "correct"


def test_an_exception_of_a_scorer_is_an_error_and_no_wrong_answer() -> None:
    assert answered("no idea", "prime_factorization") == "error"


@pytest.mark.parametrize(
    ("path", "keys", "words"),
    [
        ("basic_arithmetik", {}, ["no such task", "did you mean reasoning_gym:basic_arithmetic?"]),
        ("basic_arithmetic", {"options": {"max_term": 3}}, ["no option max_term", "max_terms"]),
        ("basic_arithmetic", {"options": {"min_terms": 0}}, ["min_terms must be positive"]),
        ("basic_arithmetic", {"levels": [0, 99]}, ["its levels are 0 to"]),
        ("game_of_life_halting", {}, ["cannot be used", "any text for a right answer"]),
    ],
)
def test_what_a_task_does_not_have_is_one_line(path: str, keys: dict, words: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        load_questions(questions(path, **keys))
    assert "\n" not in str(refused.value)
    assert all(word in str(refused.value) for word in [f"reasoning_gym:{path}", *words]), refused.value


def test_without_the_extra_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r'pip install "zerolab\[reasoning-gym\]"'):
        load_questions(questions("basic_arithmetic"))


def test_formulas_and_literals_are_all_that_is_read() -> None:
    formulas = ["3*(4 + 5)/2", "x**2*sin(x) + C", "-exp(2*x)*cos(x)/4", "1.5*y", "10**3", "2**x"]
    assert all(map(is_formula, formulas))
    others = [
        "x.real",
        "x .real",
        "(x).real",
        "__import__",
        "a_b",
        "x[0]",
        "'x'",
        "lambda: 1",
        "1;2",
        "9**9**9",
    ]
    others += ["10**99999", "Symbol(x)", "x" * 3000, "é", "Integral(x)"]
    assert not any(map(is_formula, others))
    assert read_literal("[[1, 'a'], {2: None}]") == [[1, "a"], {2: None}]
    assert read_literal("(0x1f + 3) << 2 ^ ~1") == ((0x1F + 3) << 2 ^ ~1)
    for text in ("f()", "x", "[].append", "9**9", "1 << 99999", "().__class__", "1/0", "[" * 500):
        with pytest.raises(ValueError):
            read_literal(text)


@pytest.mark.slow
def test_every_task_makes_questions_that_its_scorer_accepts_the_answer_of() -> None:
    tasks = pool().request({"do": "describe", "task": "?", "options": {}, "levels": None}, 60)["tasks"]
    without_answer = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
    unsolved = {"intermediate_integration"}  # some of its answers are integrals that it leaves standing
    for task in tasks:
        family = sources.gym_family(task, {}, None)
        made = [family.question(i) for i in range(4)]
        right = [verify_reasoning_gym(q.columns["answer"], q.answers[0]) for q in made]
        if task not in without_answer | unsolved:
            assert all(right), task
        for one, other in itertools.permutations(made, 2):  # no answer that fits everything
            a, b = one.columns["answer"], other.columns["answer"]
            assert a == b or not verify_reasoning_gym(a, other.answers[0]) or task in ("jugs", "n_queens"), task
