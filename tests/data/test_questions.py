"""Question files as they are found, the split, the mix, and a stream that can be put down and taken up again."""

import json
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from zerolab.config import QuestionsConfig
from zerolab.data import sources
from zerolab.data.builtin import BUILT_IN
from zerolab.data.questions import QuestionSet, QuestionStream, load_questions, overlap, side_of
from zerolab.errors import UserError
from zerolab.toml import parse

ROWS = [{"problem": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(200)]


def load(**keys: Any) -> QuestionSet:
    return load_questions(parse(QuestionsConfig, keys, "test"))


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return str(path)


def questions(found: QuestionSet) -> list[Any]:
    return list(found.train[0].questions)  # type: ignore[union-attr]


def ids(stream: QuestionStream, count: int) -> list[str]:
    return [draw.question.id for draw in stream.take(count)]


# Real files


@pytest.mark.parametrize(
    ("name", "count", "first_answers"),
    [
        ("eval/aime24", 30, ("204",)),
        ("eval/amc", 83, ("142.0",)),
        ("eval/math500", 500, ("\\left( 3, \\frac{\\pi}{2} \\right)",)),
        ("eval/minerva", 272, ("9.6\n",)),
        ("eval/olympiadbench", 675, ("2",)),
        ("eval/gsm8k_test", 1319, ("18",)),
        ("train/gsm_8k", 8792, ("18",)),
        ("train/asdiv_2k", 1788, ("65",)),
        ("train/aime_1983_2023", 975, ("60",)),
        ("text/gsm8k_train_solutions", 7473, ("72",)),
    ],
)
def test_real_files(shared: Path, name: str, count: int, first_answers: tuple[str, ...]) -> None:
    found = questions(load(path=str(shared / f"{name}.jsonl")))
    assert len(found) == count
    assert found[0].answers == first_answers
    assert found[0].id == f"{name.split('/')[1]}:0"
    assert len({question.id for question in found}) == count


def test_lists_are_alternatives(shared: Path) -> None:
    rows = [json.loads(line) for line in (shared / "eval/minerva.jsonl").read_text().splitlines()]
    found = questions(load(path="minerva", data_dir=str(shared / "eval")))
    assert [list(question.answers) for question in found] == [row["answer"] for row in rows]
    assert max(len(question.answers) for question in found) > 1


def test_a_local_folder_serves_built_in_names(shared: Path) -> None:
    for name in ("aime24", "amc", "math500", "minerva", "olympiadbench", "gsm8k_test"):
        assert name in BUILT_IN
        assert questions(load(path=name, data_dir=str(shared / "eval")))
    assert len(questions(load(path="asdiv_2k", data_dir=str(shared / "train")))) == 1788


def test_rows_of_sets_that_were_checked_against_files(shared: Path) -> None:
    files = {path.stem: path for path in [*shared.glob("eval/*.jsonl"), *shared.glob("text/*.jsonl")]}
    checked = {name: b for name, b in BUILT_IN.items() if b.checked == "files"}
    for name, built_in in checked.items():
        file = files["gsm8k_train_solutions" if name == "gsm_8k" else name]
        assert built_in.rows == file.read_bytes().count(b"\n"), name


def test_the_papers_gsm_8k_holds_the_test_split(shared: Path) -> None:
    train = load(path="gsm_8k", data_dir=str(shared / "train")).train
    test = questions(load(path=str(shared / "eval/gsm8k_test.jsonl")))
    assert overlap(train, test) == len(test) == 1319
    assert overlap(load(path=str(shared / "text/gsm8k_train_solutions.jsonl")).train, test) == 0


# Formats, columns, answers


def test_the_row_of_a_question_is_kept_for_reward_functions(tmp_path: Path) -> None:
    row = {"problem": "1+1?", "answer": "2", "source": {"book": 3}}
    (found,) = questions(load(path=write(tmp_path / "a.jsonl", row)))
    assert found.columns == row


def test_sets_whose_rows_repeat_hold_each_question_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(hub_id: str, subset: str | None, split: str) -> Any:
        for i in range(9):
            turn = {"role": "user", "content": f"What is {i % 3}?"}
            yield f"row {i}", {"prompt": [turn], "reward_model": {"ground_truth": str(i % 3)}}

    monkeypatch.setattr(sources, "hub_rows", rows)
    found = questions(load(path="dapo-math"))
    assert [(q.text, q.answers) for q in found] == [(f"What is {i}?", (str(i),)) for i in range(3)]


def test_a_set_of_texts_is_no_set_of_questions() -> None:
    with pytest.raises(UserError, match="finemath is a set of texts"):
        load(path="finemath")


def test_every_format_gives_the_same_questions(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [*ROWS[:3], {"problem": 'a "quoted",\nbroken line é', "answer": "x, y"}]
    write(tmp_path / "q.jsonl", *rows[:2], "\n  \n", *rows[2:])
    (tmp_path / "q.json").write_text("\ufeff" + json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    quoted = ['"{}","{}"'.format(row["problem"].replace('"', '""'), row["answer"]) for row in rows]
    (tmp_path / "q.csv").write_text("\n".join(["problem,answer", *quoted]))
    expected = [(f"q:{i}", row["problem"], (row["answer"],)) for i, row in enumerate(rows)]
    for suffix in ("jsonl", "json", "parquet", "csv"):
        found = questions(load(path=str(tmp_path / f"q.{suffix}")))
        assert [(q.id, q.text, q.answers) for q in found] == expected, suffix


@pytest.mark.parametrize(
    ("row", "keys", "text", "answers"),
    [
        ({"question": "q", "final_answer": 3}, {}, "q", ("3",)),
        ({"prompt": "q", "answer": 142.0}, {}, "q", ("142.0",)),
        ({"problem": "q", "answer": [1, "one", 1.5]}, {}, "q", ("1", "one", "1.5")),
        ({"question": "q", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}, {}, "q", ("4",)),
        ({"problem": "q", "solution": "First \\boxed{1}, then \\boxed{\\frac{1}{2}}."}, {}, "q", ("\\frac{1}{2}",)),
        ({"problem": "q", "answer": None, "solution": "#### 7"}, {}, "q", ("7",)),
        ({"problem": "q", "answer": "$x$\n"}, {}, "q", ("$x$\n",)),
        ({"a": "q", "b": "7"}, {"problem_key": "a", "answer_key": "b"}, "q", ("7",)),
        (
            {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], "gold": {"value": "7"}},
            {"answer_key": "gold.value"},
            "q",
            ("7",),
        ),
        (
            [{"from": "human", "value": "q"}, {"from": "assistant", "ground_truth": {"value": "7"}}],
            {"problem_key": "0.value", "answer_key": "1.ground_truth.value"},
            "q",
            ("7",),
        ),
    ],
)
def test_columns_and_answers(tmp_path: Path, row: Any, keys: dict, text: str, answers: tuple[str, ...]) -> None:
    (found,) = questions(load(path=write(tmp_path / "q.jsonl", row), **keys))
    assert (found.text, found.answers) == (text, answers)


def test_filters_and_limit(tmp_path: Path) -> None:
    levels = ["Level 1", "Level 3", 5, "Level ?", "4", None, 3]
    rows = [{"problem": "q" * (i + 1), "answer": "1", "level": level} for i, level in enumerate(levels)]
    path = write(tmp_path / "q.jsonl", *rows)
    assert [q.level for q in questions(load(path=path))] == [1, 3, 5, None, 4, None, 3]
    assert [q.level for q in questions(load(path=path, levels=[3, 5]))] == [3, 5, 4, 3]
    assert [q.level for q in questions(load(path=path, levels=[3, 5], limit=2))] == [3, 5]
    assert [q.level for q in questions(load(path=path, levels=[3, 5], max_chars=4))] == [3, 5]
    with pytest.raises(UserError, match="left by levels"):
        load(path=path, levels=[6, 9])


# Bad input: one line that names file and line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"problem": "q", "answer": "1"}\n{"problem": "q", ', r"q\.jsonl:2: not valid JSON"),
        ('{"problem": "q", "answer": "1"}\n\n[1, 2]\n', r"q\.jsonl:3: expected an object .* found list"),
        ('{"problem": "q"}\n', r"q\.jsonl:1: no answer .*the row has problem.*questions\.answer_key"),
        ('{"problem": "q", "answer": ""}\n', r"q\.jsonl:1: a question without an answer"),
        ('{"problem": "q", "answer": []}\n', r"q\.jsonl:1: a question without an answer"),
        ('{"problem": "q", "answer": ["1", " "]}\n', r"q\.jsonl:1: a question without an answer"),
        ('{"problem": "q", "answer": null}\n', r"q\.jsonl:1: no answer"),
        ('{"problem": "q", "answer": true}\n', r"q\.jsonl:1: the answer is a bool"),
        ('{"problem": "q", "answer": {"x": 1}}\n', r"q\.jsonl:1: the answer is a dict"),
        ('{"problem": "q", "answer": NaN}\n', r"q\.jsonl:1: the answer is not a finite number"),
        ('{"problem": "q", "solution": "it is seven"}\n', r"q\.jsonl:1: no answer: the solution holds neither"),
        ('{"problem": "q", "answer": "\\\\boxed{1"}\n', r"q\.jsonl:1: a question without an answer"),
        ('{"answer": "1"}\n', r"q\.jsonl:1: no question .*questions\.problem_key"),
        ('{"problem": "  ", "answer": "1"}\n', r"q\.jsonl:1: the question is empty"),
        ('{"problem": 7, "answer": "1"}\n', r"q\.jsonl:1: the question is empty or no text"),
        ('{"problem": "\\ud800", "answer": "1"}\n', r"q\.jsonl:1: holds a lone surrogate"),
        ('{"problem": "q", "answer": ' + "9" * 5000 + "}\n", r"q\.jsonl:1: not readable JSON"),
        ("[" * 100_000 + "\n", r"q\.jsonl:1: not readable JSON"),
        ("", r"q\.jsonl: no questions"),
        ("\n\n", r"q\.jsonl: no questions"),
    ],
)
def test_malformed_rows_are_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(path=write(tmp_path / "q.jsonl", content))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_files_that_are_no_question_files(tmp_path: Path) -> None:
    (tmp_path / "bytes.jsonl").write_bytes(b'{"problem": "\xff"}\n')
    (tmp_path / "q.txt").write_text("q")
    (tmp_path / "dict.json").write_text("{}")
    (tmp_path / "not.parquet").write_text("no")
    (tmp_path / "short.csv").write_text("problem,answer\na,b\nc\n")
    (tmp_path / "empty.csv").write_text("")
    for name, message in (
        ("bytes.jsonl", r"bytes\.jsonl:1: not UTF-8"),
        ("q.txt", "questions are read from"),
        ("dict.json", "expected a list"),
        ("not.parquet", "not a readable Parquet file"),
        ("short.csv", r"short\.csv:3: does not have the 2 columns"),
        ("empty.csv", "no questions"),
        ("missing.jsonl", "no such file"),
        ("", "is a folder"),
    ):
        with pytest.raises(UserError, match=message):
            load(path=str(tmp_path / name) if name else str(tmp_path))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"path": "gsm8k_tes"}, "did you mean gsm8k_test"),
        ({"path": "nothing"}, "built in are math12k"),
        ({"path": "math500", "data_dir": "/no/such/folder"}, "no such folder"),
        ({"path": "synthetic:modula"}, "choose one of modular, arithmetic, chain, countdown"),
        ({"path": "synthetic:modular", "options": {"modulo": 7}}, "did you mean modulus"),
        ({"path": "synthetic:modular", "options": {"modulus": 1}}, "greater than or equal to 2"),
        ({"path": "synthetic:arithmetic", "options": {"operations": "+/"}}, "draw from some of"),
        ({"path": "q.jsonl", "options": {"digits": 2}}, "takes none"),
        ({"path": "q.jsonl", "levels": [5, 3]}, "is empty"),
        ({"path": "synthetic:arithmetic", "levels": [7, 7], "limit": 5}, "left by levels"),
    ],
)
def test_sources_that_are_not_there(keys: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(**keys)


@pytest.mark.parametrize("path", ["math12k", "orz_57k", "someone/some-data"])
def test_an_unreachable_hub_is_one_clear_line(path: str) -> None:
    with pytest.raises(UserError, match=r"cannot reach the hub for .* give a local file") as caught:
        load(path=path)
    assert "\n" not in str(caught.value)


# The split


def test_the_split_follows_the_text_alone(tmp_path: Path) -> None:
    twice = [*ROWS, *({"problem": f"  {row['problem']} ", "answer": row["answer"]} for row in ROWS)]
    found = load(
        sources=[{"path": write(tmp_path / "a.jsonl", *twice)}, {"path": write(tmp_path / "b.jsonl", *ROWS[50:])}],
        holdout=0.25,
    )
    sides = [{q.text.strip() for pool in pools for q in pool.questions} for pools in (found.train, found.holdout)]  # type: ignore[union-attr]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 200
    assert 25 < len(sides[1]) < 75


def test_the_split_of_an_endless_family_never_mixes() -> None:
    found = load(path="synthetic:arithmetic", options={"digits": 1}, holdout=0.3)
    streams = [QuestionStream(pools, seed=0) for pools in (found.train, found.holdout)]
    train, held_out = ({draw.question.text for draw in stream.take(2000)} for stream in streams)
    assert not train & held_out
    assert 0.2 < len(held_out) / len(train | held_out) < 0.4


def test_a_larger_holdout_contains_the_smaller(tmp_path: Path) -> None:
    small, large = (
        {row["problem"] for row in ROWS if side_of(row["problem"], share) == "holdout"} for share in (0.1, 0.3)
    )
    assert small < large


def test_a_side_without_questions_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", ROWS[0])
    with pytest.raises(UserError, match="leaves no question for"):
        load(path=path, holdout=0.5)
    with pytest.raises(UserError, match="no questions to draw from"):
        QuestionStream(load(path=path).holdout, seed=0)


# The stream


def test_epochs_hold_every_question_once_in_new_orders(tmp_path: Path) -> None:
    stream = QuestionStream(load(path=write(tmp_path / "q.jsonl", *ROWS)).train, seed=1)
    epochs = [ids(stream, 200) for _ in range(3)]
    assert all(sorted(epoch) == sorted(epochs[0]) and len(set(epoch)) == 200 for epoch in epochs)
    assert all(a != b for a, b in pairwise(epochs))


def test_sequential_keeps_file_order(tmp_path: Path) -> None:
    stream = QuestionStream(load(path=write(tmp_path / "q.jsonl", *ROWS)).train, seed=1, order="sequential")
    assert ids(stream, 400) == [f"q:{i}" for i in range(200)] * 2


@pytest.mark.parametrize("path", ["file", "synthetic:modular", "synthetic:arithmetic", "synthetic:countdown"])
def test_seeds_decide_the_order(tmp_path: Path, path: str) -> None:
    path = write(tmp_path / "q.jsonl", *ROWS) if path == "file" else path
    streams = [QuestionStream(load(path=path).train, seed=seed) for seed in (0, 0, 1)]
    first, again, other = ([d.question.text for d in stream.take(30)] for stream in streams)
    assert first == again
    assert first != other


def test_counters_number_the_draws() -> None:
    stream = QuestionStream(load(path="synthetic:modular").train, seed=0)
    assert [draw.counter for _ in range(4) for draw in stream.take(300)] == list(range(1200))


def test_a_mix_keeps_its_weights_in_every_stretch(tmp_path: Path) -> None:
    found = load(
        sources=[
            {"path": write(tmp_path / "a.jsonl", *ROWS), "weight": 3},
            {"path": "synthetic:arithmetic"},
            {"path": "synthetic:arithmetic", "options": {"digits": 5}, "weight": 2},
        ]
    )
    stream = QuestionStream(found.train, seed=0)
    for _ in range(5):
        counts = Counter(name.split(":")[0] for name in ids(stream, 60))
        for name, share in (("a", 30), ("arithmetic", 10), ("arithmetic#2", 20)):
            assert abs(counts[name] - share) <= 1


def test_same_names_get_different_ids(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    paths = [write(tmp_path / "q.jsonl", *ROWS[:5]), write(tmp_path / "x" / "q.jsonl", *ROWS[5:10])]
    found = load(sources=[{"path": path} for path in paths])
    assert len(set(ids(QuestionStream(found.train, seed=0), 10))) == 10


@pytest.mark.parametrize("taken", [0, 7, 199, 200, 431])
def test_a_cursor_goes_on_as_if_nothing_had_happened(tmp_path: Path, taken: int) -> None:
    sources = [{"path": write(tmp_path / "q.jsonl", *ROWS), "weight": 2}, {"path": "synthetic:countdown"}]
    whole, first = (QuestionStream(load(sources=sources, holdout=0.1).train, seed=3) for _ in range(2))
    whole.take(taken)
    first.take(taken)
    state = json.loads(json.dumps(first.state_dict()))
    second = QuestionStream(load(sources=sources, holdout=0.1).train, seed=3)
    second.load_state_dict(state)
    assert second.take(50) == whole.take(50)


def test_a_cursor_of_other_questions_is_refused(tmp_path: Path) -> None:
    state = QuestionStream(load(path=write(tmp_path / "q.jsonl", *ROWS)).train, seed=0).state_dict()
    changed = [*ROWS[:-1], {**ROWS[-1], "answer": "0"}]
    stream = QuestionStream(load(path=write(tmp_path / "q.jsonl", *changed)).train, seed=0)
    with pytest.raises(UserError, match="not those of the checkpoint"):
        stream.load_state_dict(state)


def test_the_stream_is_the_same_in_another_process() -> None:
    code = (
        "from zerolab.config import QuestionsConfig; from zerolab.data.questions import *\n"
        "found = load_questions(QuestionsConfig.model_validate("
        "{'sources': [{'path': 'synthetic:modular'}, {'path': 'synthetic:countdown'}], 'holdout': 0.2}))\n"
        "print([(d.counter, d.question.id, d.question.text) for d in QuestionStream(found.train, seed=5).take(40)])"
    )
    found = load(sources=[{"path": "synthetic:modular"}, {"path": "synthetic:countdown"}], holdout=0.2)
    here = [(d.counter, d.question.id, d.question.text) for d in QuestionStream(found.train, seed=5).take(40)]
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str(here)
