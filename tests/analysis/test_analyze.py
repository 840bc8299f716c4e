"""`zerolab analyze`, `zerolab overlap`: recorded responses, a model here, a served one with a judge, stopped runs."""

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from command import refusal, run, start
from endpoint_server import say, serve
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.analysis.command import Bars
from zerolab.models.hf import export_model

LONG = "A box holds {n} red pens and some blue pens. How many pens are in the box if {n} of them are blue?"


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take a second or two; they are looked at elsewhere."""
    monkeypatch.setattr("zerolab.analysis.study.draw", lambda found, folder: [])


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    rows = [{"problem": LONG.format(n=n), "answer": str(2 * n)} for n in range(5)]
    file = tmp_path / "pens.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def rows(out: Path, table: str) -> list[dict[str, Any]]:
    return json.loads((out / "analysis.json").read_text())["tables"][table]["rows"]


def solve(body: dict[str, Any]) -> dict[str, Any]:
    """Without a template it goes on asking, under r1 it solves, and reflects at an even seed; it has read all."""
    prompt = body["prompt"]
    whole = next(text for n in range(5) if (text := LONG.format(n=n)) in prompt or text.startswith(prompt))
    number = 2 * int(re.findall(r"\d+", whole)[0])
    if "<think>" in prompt:
        doubt = " Wait, let me double-check." if body["seed"] % 2 == 0 else ""
        return say(f" We add them.{doubt} </think> <answer> {number} </answer>")
    if prompt != whole:
        return say(whole.removeprefix(prompt) + f" \\boxed{{{number}}}")
    return say("\n\nQuestion: What is the next one?")


def judge(body: dict[str, Any]) -> dict[str, Any]:
    """Strict about the two rubrics; every seventh first reply is no verdict."""
    text = body["messages"][0]["content"]
    response = text.split(" response]\n")[1]
    if body["temperature"] == 0 and sum(map(ord, response)) % 7 == 0:
        return say("It depends.")
    if '"continues"' in text:
        return say(json.dumps({"category": "continues" if "Question:" in response else "answers", "evidence": ""}))
    doubts = "double-check" in response
    return say(json.dumps({"category": "reflection" if doubts else "none", "evidence": "let me double-check" * doubts}))


def test_a_served_base_model_is_studied_with_a_judge(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with serve(solve) as model, serve(judge) as judging:
        arguments = ("base", "--endpoint", model.url, "--benchmarks", asked, "--templates", "r1,none", "--samples", 4)
        arguments += ("--temperatures", "1", "--prefix", "--judge", judging.url, "--judge-model", "j", "--out", out)
        assert run("analyze", *arguments) == 0
        printed = capsys.readouterr().out
        sampled, verdicts = len(model.requests), len(judging.requests)
        assert sampled == 2 * 5 * 4 + 3 * 5  # two templates; the probe, greedy
        monkeypatch.setattr("zerolab.analysis.study.draw", lambda found, folder: [])  # it takes a second or two
        assert run("analyze", *arguments) == 0
        assert (len(model.requests), len(judging.requests)) == (sampled, verdicts)  # all is stored, all is cached
    answering = {(r["template"], r["temperature"]): r for r in rows(out, "answering")}
    assert [answering[t, 1.0]["answers (rules)"] for t in ("r1", "none")] == [1, 0]
    assert [answering[t, 1.0]["answers (judge)"] for t in ("r1", "none")] == [1, 0]
    grid = {(r["template"], r["temperature"]): r for r in rows(out, "grid")}
    assert grid["r1", 1.0]["strict"] == 1
    assert [key for key, row in grid.items() if row["row"] == "best"] == [("r1", 1.0)]
    reflection = {(r["template"], r["temperature"], r["detector"]): r for r in rows(out, "reflection")}
    both = reflection["r1", 1.0, "both"]
    assert 0 < both["reflecting"] == reflection["r1", 1.0, "keywords"]["reflecting"] < 20
    assert reflection["none", 1.0, "both"]["reflecting"] == 0
    assert [(r["given"], r["exact"], r["answered"]) for r in rows(out, "completion")] == [
        (s, 1, 1) for s in (0.4, 0.6, 0.8)
    ]
    counts = json.loads((out / "analysis.json").read_text())["judge_counts"]
    assert all((c["missing"], c["failed"]) == (0, 0) for c in counts.values())
    assert "double-check" in printed
    page = (out / "examples.html").read_text()
    assert page.count("<mark>") >= 1
    assert "&lt;answer&gt;" in page
    assert {path.name for path in out.glob("*.png")} >= {"completion.png", "reflection.png", "exploration.png"}
    # The folder is an analysis of recorded responses of its own.
    assert run("analyze", out, "--out", tmp_path / "again") == 0
    assert rows(tmp_path / "again", "grid") == rows(out, "grid")


@pytest.mark.usefixtures("undrawn")
def test_a_judge_that_only_talks_is_missing_not_a_category(asked: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with serve(solve) as model, serve(lambda body: say("Well, it depends.")) as judging:
        arguments = ("base", "--endpoint", model.url, "--benchmarks", asked, "--templates", "r1", "--temperatures", "0")
        arguments += ("--judge", judging.url, "--judge-model", "j", "--out", out)
        assert run("analyze", *arguments) == 1
        assert len(judging.requests) == 2 * 3 * 5  # rubrics, attempts, responses
    (count,) = {c["missing"] for c in json.loads((out / "analysis.json").read_text())["judge_counts"].values()}
    assert count == 5
    judged = [r for r in rows(out, "reflection") if r["detector"] == "both"]
    assert [(r["responses"], r["of responses"]) for r in judged] == [(0, None)]


@pytest.mark.usefixtures("undrawn")
def test_a_dead_judge_leaves_the_tables_that_need_none(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    recorded = tmp_path / "recorded.jsonl"
    recorded.write_text(json.dumps({"problem": "1 + 1?", "answer": "2", "response": "I recheck: \\boxed{2}"}))
    with serve(judge, "401") as judging:
        line = refusal(capsys, "analyze", recorded, "--judge", judging.url, "--judge-model", "j", "--out", out)
    assert "refuses the key" in line
    assert [(r["detector"], r["reflecting"]) for r in rows(out, "reflection")] == [("keywords", 1)]


def test_progress_of_a_judge_is_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Bars(4) as bars:
        for what in ("answering", "reflection"):
            for done in range(5):
                bars(what, done)
    assert [bar.done for bar in bars.bars.values()] == [4, 4]


def test_the_example_of_the_document_runs(shared: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text(encoding="utf-8")
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "read_responses" in b]
    space: dict[str, Any] = {"path": shared / "responses/gsm8k_gpt3_solutions_dev.jsonl"}
    exec(compile(block, "docs/analysis.md", "exec"), space)
    assert space["exploration"](space["responses"], ks=[4])[0].value == pytest.approx(0.648, abs=0.001)


@pytest.mark.usefixtures("undrawn")
def test_a_tiny_model_is_studied_on_this_machine(asked: Path, tmp_path: Path) -> None:
    export_model(tiny_model("qwen2"), tiny_tokenizer(), tmp_path / "model")
    out = tmp_path / "out"
    arguments = (tmp_path / "model", "--benchmarks", asked, "--limit", 2, "--templates", "none", "--samples", 2)
    assert run("analyze", *arguments, "--budget", 8, "--prefix", "--out", out) == 0
    assert [r["responses"] for r in rows(out, "lengths") if r["kind"] == "all"] == [4]
    assert {r["unit"] for r in rows(out, "lengths")} == {"tokens"}
    assert [r["exact"] for r in rows(out, "completion")] == [0, 0, 0]


@pytest.mark.usefixtures("undrawn")
def test_a_stopped_analysis_goes_on(asked: Path, tmp_path: Path) -> None:
    """A signal while responses are in flight: the tables of what is there, exit code 130; the same command finishes."""
    out = tmp_path / "out"
    with serve(solve, "slow") as model:
        arguments = ["base", "--endpoint", model.url, "--benchmarks", asked, "--templates", "r1,none", "--samples", 6]
        arguments += ["--concurrency", 1, "--out", out]
        process = start("analyze", *arguments)
        deadline = time.monotonic() + 60
        while len(model.requests) < 20 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
        assert process.returncode == 130, printed
        assert "the same command goes on" in printed
        kept = sum(1 for file in out.rglob("responses.jsonl") for _ in file.open())
        assert 0 < kept < 60
        before = len(model.requests)
        assert run("analyze", *arguments) == 0
        assert len(model.requests) - before == 60 - kept
    assert sum(r["responses"] for r in rows(out, "lengths") if r["kind"] == "all") == 60


@pytest.mark.usefixtures("undrawn")
def test_recorded_responses_of_somebody_else(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file, out = shared / "responses/gsm8k_gpt3_solutions_dev.jsonl", tmp_path / "out"
    assert run("analyze", file, "--out", out) == 0
    assert "--extractor says which is theirs" in capsys.readouterr().err
    assert rows(out, "grid")[0]["format gap"] > 0.3
    assert run("analyze", file, "--extractor", "last-number", "--out", out) == 0
    assert rows(out, "grid")[0]["strict"] == pytest.approx(0.386)
    assert [r["k"] for r in rows(out, "exploration")] == [1, 2, 4]


def documented(word: str) -> set[str]:
    """Rows of numbers of the tables in docs/analysis.md that hold a word."""
    page = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    return {" ".join(line.split()) for block in blocks for line in block.splitlines() if line.startswith(f" {word}")}


@pytest.mark.usefixtures("undrawn")
def test_the_document_shows_what_is_printed(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = {
        "gsm8k_gpt3_solutions_dev": ("--extractor", "last-number"),
        "qwen_math_cot_100x8_dev": ("--words", "wide"),
    }
    for name, more in options.items():
        assert run("analyze", shared / f"responses/{name}.jsonl", *more, "--out", tmp_path / name) == 0
        printed = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
        assert len(documented(name)) >= 5
        assert documented(name) <= printed


@pytest.mark.slow
def test_the_document_shows_the_overlap_that_is_found(shared: Path, capsys: pytest.CaptureFixture) -> None:
    names = ("gsm_8k", "aime_1983_2023", "asdiv_2k")
    files = [shared / f"train/{name}.jsonl" for name in names]
    assert run("overlap", *files, "--benchmarks", "paper,gsm8k", "--data-dir", shared / "eval") == 0
    printed = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    rows_ = {row for name in names for row in documented(name)}
    assert len(rows_) == 18
    assert rows_ <= printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.jsonl"], ["none.jsonl", "no such file"]),
        (["{asked}", "--words", "all"], ["--words 'all'", "paper or wide"]),
        (["{asked}", "--extractor", "box"], ["--extractor 'box'", "choose one of"]),
        (["{asked}"], ["pens.jsonl", "response"]),
        (["{recorded}", "--judge", "http://x/v1"], ["--judge-model"]),
        (["{recorded}", "--judge-model", "j"], ["--judge URL"]),
        (["{recorded}", "{recorded}"], ["given twice"]),
        (["m", "--endpoint", "http://x/v1", "--temperatures", "hot"], ["--temperatures 'hot'", "0.6,1"]),
        (["m", "--endpoint", "http://x/v1", "--templates", ","], ["--templates is empty"]),
        (["m", "--endpoint", "http://x/v1", "--templates", "r2", "--benchmarks", "{asked}"], ["'r2'", "choose one of"]),
        (["{recorded}", "--out", "/proc/none"], ["cannot write"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(
    arguments: list[str], says: list[str], asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    recorded = tmp_path / "recorded.jsonl"
    recorded.write_text(json.dumps({"problem": "1 + 1?", "answer": "2", "response": "\\boxed{2}"}))
    filled = [argument.format(asked=asked, recorded=recorded) for argument in arguments]
    line = refusal(capsys, "analyze", *filled)
    assert all(word in line for word in says), line


def test_overlap_lists_every_match(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "bench.jsonl").write_text(
        "\n".join(json.dumps({"problem": LONG.format(n=n), "answer": "1"}) for n in (3, 4))
    )
    talk = [{"role": "user", "content": LONG.format(n=3)}, {"role": "assistant", "content": "6"}]
    lines = [{"text": "nothing"}, {"messages": talk}, {"text": "He says: " + LONG.format(n=3) + " So six."}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    bench = tmp_path / "bench.jsonl"
    assert run("overlap", tmp_path / "train.jsonl", "--benchmarks", bench, "--ngram", 8, "--out", tmp_path / "out") == 0
    (row,) = json.loads((tmp_path / "out" / "overlap.json").read_text())["rows"]
    assert (row["rows"], row["touched"], row["contained"], row["copied"]) == (3, 2, 1, 1)
    listed = (tmp_path / "out" / "overlap_matches.csv").read_text().splitlines()
    assert listed[1].startswith("train,2,bench,bench:0,1.0,True")
    assert "Fullest matches" in capsys.readouterr().out
    assert "no such training file" in refusal(capsys, "overlap", "none.jsonl", "--benchmarks", bench)
    assert "--ngram 0" in refusal(capsys, "overlap", bench, "--benchmarks", bench, "--ngram", 0)
