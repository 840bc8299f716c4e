"""`zerolab evaluate`: through an engine, through an endpoint, from recorded responses, stopped and continued."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import refusal, run, start
from endpoint_server import say, serve
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.datatypes import Grade
from zerolab.evaluation.collect import Settings
from zerolab.evaluation.command import regraded, score_all
from zerolab.evaluation.responses import Response, read_responses
from zerolab.evaluation.score import average, score, tables
from zerolab.models.hf import export_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    export_model(tiny_model("qwen2"), tiny_tokenizer(), folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two small benchmarks under names of real ones."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, size in (("aime24", 4), ("amc", 6)):
        lines = [json.dumps({"problem": f"{name} {i}?", "answer": str(i)}) for i in range(size)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


def evaluate(target: Any, data: Path, *more: Any, names: str = "aime24,amc") -> int:
    return run("evaluate", target, "--data-dir", data, "--benchmarks", names, *more)


def test_restrictions_reach_the_sampler(model: Path, data: Path, tmp_path: Path) -> None:
    """The most likely token alone is greedy whatever the temperature; a least length is kept."""
    greedy, narrow, long = (tmp_path / name for name in ("greedy", "narrow", "long"))
    assert evaluate(model, data, "--budget", 20, "--out", greedy) == 0
    assert evaluate(model, data, "--budget", 20, "--temperature", 5, "--top-k", 1, "--out", narrow) == 0
    assert evaluate(model, data, "--budget", 20, "--temperature", 5, "--min-tokens", 15, "--out", long) == 0
    texts = [[r.response for r in read_responses(folder)] for folder in (greedy, narrow)]
    assert texts[0] == texts[1]
    assert all(r.tokens and r.tokens >= 15 for r in read_responses(long))


def results(folder: Path) -> dict[str, Any]:
    return {row["name"]: row for row in json.loads((folder / "results.json").read_text())["scores"]}


def knows_some(body: dict[str, Any]) -> dict[str, Any]:
    """Right on even questions; on odd ones half the time, by the seed."""
    number = int(re.findall(r"(\d+)\?", body.get("prompt") or body["messages"][0]["content"])[-1])
    right = number % 2 == 0 or body["seed"] % 2 == 0
    return say(f"I think \\boxed{{{number if right else number + 100 + body['seed'] % 3}}}", tokens=10 + number)


# --- an engine -------------------------------------------------------------------------------------------------------


def test_a_model_is_evaluated_and_what_is_stored_says_the_same_again(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    arguments = ("--samples", 3, "--budget", 30, "--out", out)
    assert evaluate(model, data, *arguments) == 0
    first = capsys.readouterr().out
    assert "avg@3" in first
    assert "average" in first
    responses = read_responses(out)
    assert len(responses) == 30
    assert all(r.tokens and r.tokens <= 30 and r.finish_reason in ("stop", "length") and r.grade for r in responses)
    assert evaluate(model, data, *arguments) == 0  # everything is there: nothing is sampled
    assert read_responses(out) == responses
    assert run("evaluate", out) == 0
    again = capsys.readouterr().out
    assert again.count(first.split("\n\n")[0]) == 2
    more = ("--samples", 4, "--budget", 30, "--out", out)
    assert evaluate(model, data, *more) == 0
    grown = {r.key: r for r in read_responses(out)}
    assert len(grown) == 40
    assert all(grown[r.key] == r for r in responses)


def test_a_prompt_that_fills_the_context_is_missing_not_wrong(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    file.write_text('{"problem": "a?", "answer": "1"}\n' + json.dumps({"problem": "a b " * 300, "answer": "1"}))
    assert run("evaluate", model, "--benchmarks", file, "--budget", 5, "--out", tmp_path / "out") == 1
    row = results(tmp_path / "out")["long"]
    assert (row["questions"], row["missing"]) == (1, 1)
    assert "fills the context" in (tmp_path / "out" / "failures.jsonl").read_text()


# --- an endpoint -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_an_endpoint_is_evaluated_and_its_numbers_are_right(api: str, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with serve(knows_some) as server:
        arguments = ("--endpoint", server.url, "--api", api, "--samples", 8, "--out", out)
        assert evaluate("served", data, *arguments) == 0
        assert len(server.requests) == 80
    found = results(out)
    rows = read_responses(out)
    for name, size in (("aime24", 4), ("amc", 6)):
        right = np.array(
            [[r.grade.correct for r in rows if r.question_id == f"{name}:{i}" and r.grade] for i in range(size)]
        )
        assert found[name]["accuracy"] == pytest.approx(right.mean())
        assert found[name]["pass@8"] == right.any(1).mean() == 1.0
        assert found[name]["mean_length"] == pytest.approx(10 + (size - 1) / 2)
        assert found[name]["tokens_per_correct"] == pytest.approx(8 * sum(range(10, 10 + size)) / right.sum())
        assert right[::2].all()
        low, high = found[name]["fixed_set_low"], found[name]["fixed_set_high"]
        assert low < right.mean() < high
        assert high - low < found[name]["population_high"] - found[name]["population_low"]
    assert found["average"]["accuracy"] == pytest.approx((found["aime24"]["accuracy"] + found["amc"]["accuracy"]) / 2)


def test_failures_are_counted_and_asked_for_again(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    with serve(knows_some, *["400"] * 3, "good") as server:
        arguments = ("--endpoint", server.url, "--concurrency", 1, "--out", out)
        assert evaluate("served", data, *arguments) == 1
        printed = capsys.readouterr().out
        assert "3 responses failed" in printed
        assert "3 x HTTP 400" in printed
        assert "no number here counts them as wrong" in printed
        assert results(out)["aime24"]["questions"] == 1
        assert results(out)["aime24"]["accuracy"] in (0, 1)
        assert evaluate("served", data, *arguments) == 0
        assert len(server.requests) == 13
    assert results(out)["aime24"]["missing"] == 0
    assert not (out / "failures.jsonl").exists()


def test_a_server_that_only_fails_is_an_error_with_a_reason(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with serve(knows_some, "400") as server:
        line = refusal(
            capsys, "evaluate", "m", "--data-dir", data, "--benchmarks", "aime24", "--endpoint", server.url, "--out",
            tmp_path / "out",
        )  # fmt: skip
    assert "nothing was sampled (HTTP 400" in line


def test_until_width_stops_each_benchmark_when_it_is_narrow(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    with serve(knows_some) as server:
        arguments = ("--endpoint", server.url, "--until-width", 45, "--max-samples", 16, "--out", out)
        assert evaluate("served", data, *arguments) == 0
    found = results(out)
    for name in ("aime24", "amc"):
        wide = 100 * (found[name]["fixed_set_high"] - found[name]["fixed_set_low"])
        assert wide <= 45 or found[name]["samples"] == 16
        assert found[name]["samples"] in (4, 8, 16)
    assert found["amc"]["samples"] < 16
    printed = " ".join(capsys.readouterr().out.split())
    assert "98.33 % at each look" in printed
    assert "Bonferroni" in printed


def test_looking_again_and_again_keeps_its_level() -> None:
    """Simulated: sampled until narrow, the last interval covers the set's own mean at least 95 times in a hundred."""
    from zerolab.evaluation.intervals import fixed_set_interval

    settings = Settings("m", "none", "", samples=4, temperature=1.0, until_width=12.0, max_samples=64)
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        rate_Q = rng.beta(0.6, 0.8, 30)
        correct_Q, seen = np.zeros(30), 0
        for samples in settings.looks():
            correct_Q += rng.binomial(samples - seen, rate_Q)
            seen = samples
            interval = fixed_set_interval(correct_Q, np.full(30, samples), settings.fixed_level)
            if 100 * interval.width <= 12:
                break
        hits += interval.low <= rate_Q.mean() <= interval.high
    assert hits >= 0.95 * 300


def test_a_killed_evaluation_goes_on(data: Path, tmp_path: Path) -> None:
    """Ctrl-C ends it with a table of what is there; a kill loses what was in flight; both go on."""
    out = tmp_path / "out"
    with serve(knows_some, "slow") as server:
        command = ["evaluate", "served", "--data-dir", data, "--benchmarks", "aime24,amc", "--out", out]
        command += ["--endpoint", server.url, "--concurrency", 2, "--samples", 12]
        for how, least in ((signal.SIGKILL, 15), (signal.SIGINT, 45)):
            process = start(*command)
            deadline = time.monotonic() + 60
            while len(server.requests) < least and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(how)
            output, _ = process.communicate(timeout=60)
            if how == signal.SIGINT:
                assert process.returncode == 130, output
                assert "the same command goes on" in output
            stored = len((out / "responses.jsonl").read_text().splitlines())
            assert stored >= len(server.requests) - 2 * 2
        assert run(*command) == 0
        assert len(server.requests) <= 120 + 2 * 2
    assert len(read_responses(out)) == 120


# --- recorded responses ----------------------------------------------------------------------------------------------


def make(benchmark: str, question: int, sample: int, correct: bool, **more: Any) -> Response:
    grade = Grade(correct, True, "correct" if correct else "wrong", "1" if correct else str(sample + 5))
    return Response(
        benchmark, f"{benchmark}:{question}", f"q{question}", ("1",), sample, "", grade=grade, lenient=grade, **more
    )


def test_greedy_has_no_sampling_noise_and_one_unknown_pass_has_a_safe_bound() -> None:
    right = np.arange(30) < 13
    greedy = [make("b", q, 0, bool(c), temperature=0.0) for q, c in enumerate(right)]
    unknown = [make("b", q, 0, bool(c)) for q, c in enumerate(right)]
    a, b = (score(tables(rows)["b"]) for rows in (greedy, unknown))
    assert a.fixed_set is None
    assert b.fixed_set == pytest.approx((0.2546, 0.6257), abs=1e-3)
    assert a.population == pytest.approx((0.255, 0.626), abs=0.012)
    assert a.detectable == pytest.approx(0.31, abs=0.02)
    assert (a.mean_length, a.truncated) == (None, None)
    assert not a.pass_at


def test_the_average_is_that_of_benchmarks_not_of_questions() -> None:
    rows = [make("small", q, 0, True) for q in range(2)] + [make("large", q, 0, False) for q in range(8)]
    scores = [score(table) for table in tables(rows).values()]
    mean = average(scores)
    assert mean is not None
    assert mean.accuracy == 0.5
    assert mean.population.low < 0.5 < mean.population.high
    assert average(scores[:1]) is None


def test_a_majority_is_of_equivalent_answers() -> None:
    texts = ["1/2", "0.5", "3", "4", "5", "\\frac{2}{4}"]
    rows = [
        Response("b", f"b:{gold}", "q", (gold,), i, f"\\boxed{{{text}}}")
        for gold in ("7", "0.5")
        for i, text in enumerate(texts)
    ]
    from zerolab.evaluation.responses import grade_responses

    graded = grade_responses(rows, "boxed")
    found = tables(graded)["b"]
    assert [len(set(row)) for row in found.classes_QS.tolist()] == [4, 4]
    assert score(found).maj_at[6] == 0.5  # wrong by majority on the first question, right on the second
    assert score(found).accuracy == pytest.approx(0.25)


def test_strict_and_lenient_part_by_the_format(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    texts = ["\\boxed{4}", "it is 4", "<answer>4</answer>", "nothing", "it is 5"]
    file.write_text(
        "\n".join(json.dumps({"problem": f"q{i}", "answer": "4", "response": t}) for i, t in enumerate(texts))
    )
    (found,) = score_all(regraded(file, None, None), None)
    assert (found.accuracy, found.formatted) == (pytest.approx(0.2), pytest.approx(0.2))
    assert (found.lenient, found.answered) == (pytest.approx(0.6), pytest.approx(0.8))


@pytest.mark.parametrize(("name", "extractor", "low", "high"), [
    ("qwen_math_cot_100x8_dev", "boxed", 0.9, 1.0), ("gsm8k_gpt3_solutions_dev", "last-number", 0.2, 0.7),
])  # fmt: skip
def test_somebody_elses_responses(
    shared: Path, name: str, extractor: str, low: float, high: float, capsys: pytest.CaptureFixture
) -> None:
    assert run("evaluate", shared / "responses" / f"{name}.jsonl", "--extractor", extractor) == 0
    assert name in capsys.readouterr().out
    (found,) = score_all(regraded(shared / "responses" / f"{name}.jsonl", extractor, None), None)
    assert low < found.accuracy < high


BAD = {
    "no such benchmark": (["--benchmarks", "aime42"], ["aime42", "did you mean aime25?"]),
    "no such file": (["--benchmarks", "none.jsonl"], ["none.jsonl", "no such file"]),
    "greedy samples": (["--samples", "4", "--temperature", "0"], ["set --temperature above 0"]),
    "no budget": (["--budget", "0"], ["--budget must be at least 1 token"]),
    "negative top-k": (["--top-k", "-1"], ["--top-k must be at least 0"]),
    "longer than the budget": (["--min-tokens", "4000"], ["--min-tokens must be between 0 and the budget"]),
    "unknown engine": (["--engine", "steam"], ["--engine 'steam'", "torch or vllm"]),
    "unknown template": (["--template", "qwen"], ["'qwen'", "choose one of r1, qwen-math"]),
    "unknown api": (["--api", "telnet"], ["--api 'telnet'", "completions or chat"]),
    "width of nothing": (["--until-width", "0"], ["--until-width", "between 0 and 100"]),
    "unknown place": (["--extractor", "bottom"], ["extractor"]),
    "no model": ([], ["./none", "give a model folder or a hub id"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    extra, words = BAD[case]
    names = [] if "--benchmarks" in extra else ["--benchmarks", "aime24"]
    line = refusal(capsys, "evaluate", "./none", "--data-dir", data, *names, *extra, "--out", tmp_path / "out")
    for word in words:
        assert word in line
    assert not (tmp_path / "out").exists()


def test_responses_of_two_settings_do_not_mix(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with serve(knows_some) as server:
        common = ("--endpoint", server.url, "--out", tmp_path / "out", "--data-dir", data, "--benchmarks", "aime24")
        assert run("evaluate", "served", *common) == 0
        line = refusal(capsys, "evaluate", "served", *common, "--budget", 100)
    assert "was evaluated with budget '3000', not '100'" in line
    assert "another --out" in line


def test_evaluating_recorded_responses_needs_no_torch(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text('{"problem": "q", "answer": "4", "response": "\\\\boxed{4}"}\n')
    code = "import sys; from zerolab.evaluation.command import regraded, score_all; from pathlib import Path\n"
    code += f"score_all(regraded(Path({str(file)!r}), None, None), None); import zerolab.evaluation.endpoint; "
    code += "print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
