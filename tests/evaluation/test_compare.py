"""`zerolab compare`: paired tests that find what is there and nothing else, the frontier, the paper's rows."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import refusal, run
from zerolab.datatypes import Grade
from zerolab.evaluation.benchmarks import published, rows_named, rows_of
from zerolab.evaluation.compare import budgets, cut, frontier
from zerolab.evaluation.intervals import clopper_pearson
from zerolab.evaluation.paired import bootstrap_p, compare, compare_average, holm_columns, pair_up, verdict
from zerolab.evaluation.responses import Response, write_responses
from zerolab.evaluation.score import Table
from zerolab.evaluation.significance import mcnemar


def response(benchmark: str, question: int, sample: int, right: bool, tokens: int | None = 10, **more: Any) -> Response:
    grade = Grade(right, True, "correct" if right else "wrong", "1")
    text = "x" * 7 * (tokens or 1) + f"\\boxed{{{int(right)}}}"
    name = f"{benchmark}:{question}"
    known = {"tokens": tokens, "finish_reason": "stop", "grade": grade, "lenient": grade, "temperature": 1.0}
    return Response(benchmark, name, f"{benchmark} question {question}", ("1",), sample, text, **{**known, **more})


def table(right_QS: np.ndarray, tokens_QS: np.ndarray | None = None, name: str = "b") -> Table:
    tokens_QS = np.full(right_QS.shape, 10) if tokens_QS is None else tokens_QS
    rows = [
        response(name, q, s, bool(right_QS[q, s]), int(tokens_QS[q, s])) for q, s in np.ndindex(*right_QS.shape)
    ]  # fmt: skip
    return Table.of(name, rows)


def one(a: Table, b: Table, margin: float = 0.02) -> Any:
    (pair,) = pair_up([a], [b])
    return compare(pair, ("a", "b"), margin)


# --- pairs and tests -------------------------------------------------------------------------------------------------


def test_greedy_models_are_compared_by_mcnemar() -> None:
    a, b = np.zeros((50, 1)), np.zeros((50, 1))
    a[:20], b[8:32] = 1, 1
    found = one(table(a), table(b))
    assert found.p_better == mcnemar(12, 8)
    assert found.difference == pytest.approx(4 / 50)
    assert found.interval.low < 0 < found.interval.high
    assert found.method == "McNemar 12:8"


def test_questions_are_paired_by_their_words_whatever_the_order() -> None:
    rng = np.random.default_rng(0)
    right = rng.random((30, 1)) < 0.5
    a = [response("aime24", q, 0, bool(right[q, 0])) for q in range(30)]
    b = [
        Response("mine", f"{q}", f"aime24  question {q}", ("1",), 0, "", grade=a[q].grade, lenient=a[q].lenient)
        for q in reversed(range(4, 30))
    ]
    (pair,) = pair_up([Table.of("aime24", a)], [Table.of("mine", b)])
    assert pair.left_out == 4
    assert len(pair.a.responses_QS) == 26
    assert (pair.a.correct_QS == pair.b.correct_QS).all()
    assert not pair_up([Table.of("aime24", a)], [table(right, name="b")])


def test_equal_words_are_paired_one_by_one() -> None:
    rows = []
    for i in range(2):
        grade = Grade(i == 0, True, "correct" if i == 0 else "wrong")
        rows.append(Response("b", f"b:{i}", "same?", ("1",), 0, "", grade=grade, lenient=grade))
    (pair,) = pair_up([Table.of("b", rows)], [Table.of("b", rows)])
    assert len(pair.a.responses_QS) == 2
    assert (pair.a.correct_QS == pair.b.correct_QS).all()


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("gain", [0.0, 0.15])
def test_a_difference_is_found_as_often_as_it_is_there(
    samples: int, gain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: of two models alike about one pair in twenty differs, and the interval holds the true difference."""
    monkeypatch.setattr("zerolab.evaluation.paired.REPLICATES", 1000)
    rng = np.random.default_rng(1)
    found, held = 0, 0
    for _ in range(80):
        p_Q1 = rng.beta(0.5, 0.5, (60, 1)) * 0.85
        a, b = rng.random((60, samples)) < p_Q1, rng.random((60, samples)) < p_Q1 + gain
        result = one(table(a), table(b))
        found += result.p_better < 0.05
        held += result.interval.low <= gain <= result.interval.high
    assert held >= 72
    assert found <= 10 if gain == 0 else found >= 25


def test_same_accuracy_with_fewer_tokens_is_two_claims() -> None:
    rng = np.random.default_rng(2)
    p_Q1 = rng.random((400, 1))
    a, b = (rng.random((400, 8)) < p_Q1 for _ in range(2))
    long, short = rng.integers(500, 1500, (400, 8)), rng.integers(200, 800, (400, 8))
    found = [one(table(a, long), table(b, short), 0.03), one(table(a, long), table(b, long), 0.03)]
    found.append(one(table(a, long), table(b, short), 0.0001))
    columns = holm_columns(found)
    words = [verdict(c, x or 0, y or 0, z) for c, x, y, z in zip(found, *columns.values(), strict=True)]
    assert words == ["same accuracy, fewer tokens", "same accuracy", "undecided, fewer tokens"]
    assert found[0].token_ratio == pytest.approx(0.5, abs=0.01)
    assert found[0].token_interval.low < 0.5 < found[0].token_interval.high


def test_better_is_worse_the_other_way_round() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random((300, 4)) < 0.3, rng.random((300, 4)) < 0.5
    better, worse = one(table(a), table(b)), one(table(b), table(a))
    assert worse.difference == -better.difference
    assert [verdict(c, c.p_better, 1.0, None) for c in (better, worse)] == ["better", "worse"]


def test_the_average_weighs_benchmarks_alike() -> None:
    ones, zeros = np.ones((10, 1)), np.zeros((90, 1))
    a = [table(np.zeros((10, 1)), name="small"), table(zeros, name="large")]
    b = [table(ones, name="small"), table(zeros, name="large")]
    mean = compare_average(pair_up(a, b), ("a", "b"), 0.02)
    assert mean is not None
    assert mean.difference == 0.5
    assert mean.interval == (0.5, 0.5)
    assert compare_average(pair_up(a[:1], b[:1]), ("a", "b"), 0.02) is None


def test_models_that_answer_alike_are_not_different_and_equal_only_with_enough_questions() -> None:
    few, many = (np.indices((size, 2))[0] % 2 for size in (20, 300))
    assert one(table(few), table(few)).p_better == 1.0
    assert one(table(few), table(few), 0.02).equal.p > 0.5
    assert one(table(many), table(many), 0.02).equal.p < 0.01
    assert bootstrap_p(np.full(99, 0.1)) == 0.02


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("verdict_of_all", [0, 1])
def test_equality_is_not_concluded_from_a_constant(verdict_of_all: int, samples: int) -> None:
    right_QS = np.full((500, samples), verdict_of_all)
    found = one(table(right_QS), table(right_QS), 0.1)
    assert found.equal.p == 1
    assert found.interval.low < 0 < found.interval.high
    assert verdict(found, found.p_better, found.equal.p, found.p_shorter) == "undecided"
    tables = [table(right_QS, name="x"), table(right_QS, name="y")]
    mean = compare_average(pair_up(tables, tables), ("a", "b"), 0.1)
    assert mean is not None
    assert mean.equal.p == 1
    assert mean.interval.low < 0 < mean.interval.high


# --- accuracy against token budget -----------------------------------------------------------------------------------


def test_a_cut_response_ends_where_its_token_ended() -> None:
    text = "abc" * 64 + "d" * 64 + "\\boxed{1}"
    known = Response("b", "b:0", "q", ("1",), 0, text, tokens=133, cuts=(192, 256))
    assert cut(known, 128)[0].response == "abc" * 64 + "d" * 64
    assert cut(known, 128)[1]
    assert cut(known, 133) == (known, True)
    guessed, exact = cut(known, 100)
    assert not exact
    assert len(guessed.response) == len(text) * 100 // 133


def test_the_frontier_rises_when_answers_fit_and_ends_at_the_accuracy() -> None:
    lengths = [50 + 10 * q for q in range(20)]
    cuts = [tuple(448 * (i + 1) for i in range(length // 64)) for length in lengths]  # a token is 7 characters
    rows = [response("b", q, 0, True, lengths[q], cuts=cuts[q]) for q in range(20)]
    points = frontier([Table.of("b", rows)], "boxed")
    for point in points:
        assert point.accuracy == pytest.approx(np.mean([50 + 10 * q <= point.budget for q in range(20)]))
        assert point.tokens == pytest.approx(np.mean([min(50 + 10 * q, point.budget) for q in range(20)]))
        assert point.exact == 1.0
    assert points[-1].budget == 240
    assert points[-1].accuracy == 1.0
    assert budgets(3000)[:5] == [64, 128, 192, 256, 384]
    unknown = response("b", 0, 0, True, None)
    assert frontier([Table.of("b", [unknown])], "boxed") == []


# --- the paper's rows ------------------------------------------------------------------------------------------------


def test_published_averages_are_those_of_the_cells() -> None:
    for row in published():
        mean = np.mean([row.scores[name] for name in row.sizes])
        if row.note and "implies" in row.note:
            mean += (20.0 - row.scores["aime24"]) / 5  # the cell that cannot be right
        assert row.scores["average"] == pytest.approx(mean, abs=0.07), row.title


def test_a_published_number_gets_the_interval_it_deserves() -> None:
    (oat,) = rows_of("sail/Qwen2.5-Math-7B-Oat-Zero", "qwen-math")
    assert oat.solved("aime24") == 13
    assert oat.interval("aime24") == clopper_pearson(13, 30)
    assert oat.interval("average") is not None
    distill = rows_of("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", None)
    assert rows_named("r1-distill-qwen-1.5b") == distill[:1]
    assert len(distill) == 2
    assert all(row.interval(name) is None for row in distill for name in row.scores)
    (base,) = rows_of("/models/Qwen2.5-Math-7B", "none")
    assert base.interval("aime24") is None  # 0.2 is no share of 30
    assert base.interval("amc") == clopper_pearson(38, 83)
    (shots,) = rows_of("Qwen/Qwen2.5-Math-1.5B", "4-shot")
    assert shots.interval("amc") == clopper_pearson(8, 40)
    greedy = [row for row in published() if row.greedy]
    none = [(row.title, name) for row in greedy for name in row.sizes if row.interval(name) is None]
    assert none == [("Qwen2.5-Math-7B (none)", "aime24"), ("Qwen2.5-Math-1.5B-Instruct", "olympiadbench")]


# --- the command -----------------------------------------------------------------------------------------------------


def write(path: Path, seed: int, ability: float, tokens: int | None, model: str = "") -> Path:
    rng = np.random.default_rng(seed)
    asked = [(name, q, s) for name in ("aime24", "amc") for q in range(20) for s in range(2)]
    more = {"model": model, "template": "none"}
    rows = [
        response(name, q, s, bool(rng.random() < ability * (q + 1) / 20), tokens and tokens + q, **more)
        for name, q, s in asked
    ]
    write_responses(path, rows)
    return path


def test_three_models_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    a = write(tmp_path / "a.jsonl", 0, 0.9, 300, "hub/Qwen2.5-Math-1.5B")
    b = write(tmp_path / "b.jsonl", 1, 0.9, 100)
    c = write(tmp_path / "c.jsonl", 2, 0.1, None)
    out = tmp_path / "out"
    assert run("compare", a, b, c, "--margin", 30, "--out", out, "--published", "Oat-Zero-1.5B") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "paper: Qwen2.5-Math-1.5B (none) aime24 30 16.7" in printed
    assert "paper: Oat-Zero-1.5B average 42.1 38.4 .. 46.7" in printed
    assert "c: no lengths in tokens, so no frontier" in printed
    assert "some places are estimated" in printed
    rows = list(csv.DictReader((out / "compare.csv").open()))
    names = ("aime24", "amc", "average")
    assert [(row["b"], row["benchmark"]) for row in rows] == [(m, n) for m in "bc" for n in names]
    assert rows[5]["verdict"] == "worse"
    assert rows[5]["token_ratio"] == ""
    assert rows[2]["verdict"].endswith("fewer tokens")
    assert all(float(row["p_holm"]) >= float(row["p"]) for row in rows)
    assert {row["model"] for row in csv.DictReader((out / "frontier.csv").open())} == {"Qwen2.5-Math-1.5B (none)", "b"}
    assert (out / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_against_itself_is_never_different(shared: Path, tmp_path: Path) -> None:
    file = shared / "responses" / "qwen_math_cot_100x8_dev.jsonl"
    assert run("compare", file, file, "--out", tmp_path) == 0
    (row,) = csv.DictReader((tmp_path / "compare.csv").open())
    assert (row["difference"], row["p"], row["questions"]) == ("0.0", "1.0", "25")
    assert row["verdict"] == "undecided"  # 25 questions do not make two models equal to 2 points


def test_two_files_of_which_nothing_is_in_the_format(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, answer in (("a", 7), ("b", 8)):
        rows = [{"problem": f"p{i}", "answer": "7", "response": f"The answer is {answer}"} for i in range(300)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    assert run("compare", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--extractor", "boxed", "--out", out) == 0
    printed = " ".join(capsys.readouterr().out.split())
    (row,) = csv.DictReader((out / "compare.csv").open())
    assert row["verdict"] == "undecided"
    assert float(row["low"]) < 0 < float(row["high"])
    assert "a: WARNING a: no response is in the format; accuracy is 0.0 % in the format and 100.0 %" in printed
    assert "b: WARNING b: no response is in the format" in printed


BAD = {
    "one model": (["a.jsonl"], ["compare needs two or more"]),
    "no file": (["a.jsonl", "none.jsonl"], ["none.jsonl: no such file"]),
    "a model": (["a.jsonl", "folder"], ["folder: no recorded responses there", "zerolab evaluate"]),
    "nothing in common": (["a.jsonl", "other.jsonl"], ["share no question"]),
    "no margin": (["a.jsonl", "a.jsonl", "--margin", "0"], ["--margin"]),
    "no such row": (["a.jsonl", "a.jsonl", "--published", "GPT-5"], ["--published 'GPT-5'", "Oat-Zero-7B"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", 0, 0.5, 10)
    (tmp_path / "folder").mkdir()
    (tmp_path / "other.jsonl").write_text(json.dumps({"problem": "another", "answer": "1", "response": "x"}))
    arguments, words = BAD[case]
    line = refusal(capsys, "compare", *arguments)
    for word in words:
        assert word in line
