"""A report's data: arms, thinning, histograms, and a page that can hold any text."""

import base64
import hashlib
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from run_folders import metric_row, response, write_run

from command import refusal, run
from zerolab.report.arms import differences, group_arms, read_run
from zerolab.report.html_report import build_report, data_of, finding
from zerolab.report.page import Page, Section, render
from zerolab.report.transcripts import columns, histograms


def unpacked(text: str, block: str) -> list | dict:
    return json.loads(zlib.decompress(base64.b64decode(data_of(text, block))))


def test_runs_that_differ_only_in_seed_are_one_arm_named_by_what_sets_it_apart(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / f"{preset}{seed}", changes=[f"objective={preset}", f"seed={seed}", f"out=r{preset}{seed}"])
        for preset in ("grpo", "dr_grpo")
        for seed in (0, 1)
    ]
    arms = group_arms([read_run(f) for f in (folders[0], folders[2], folders[1], folders[3])])
    assert [arm.label for arm in arms] == ["grpo", "dr_grpo"]
    assert [[run.folder.name for run in arm.runs] for arm in arms] == [["grpo0", "grpo1"], ["dr_grpo0", "dr_grpo1"]]
    found = {d.key: list(d.values) for d in differences(arms)}
    assert found["objective.aggregation"] == ["response_mean", "constant"]
    assert "seed" not in found
    assert "out" not in found


def test_arms_of_one_preset_are_named_by_key_and_value(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / lr, changes=[f"learner.lr={lr}"]) for lr in ("1e-4", "2e-4")]
    assert [arm.label for arm in group_arms([read_run(f) for f in folders])] == ["lr 0.0001", "lr 0.0002"]


def test_arms_with_many_differences_keep_their_names_apart(tmp_path: Path) -> None:
    changes = ["learner.lr=1e-4", "rollout.temperature=0.9", "rollout.max_new_tokens=32", "reward.format=0.5"]
    folders = [write_run(tmp_path / "a"), write_run(tmp_path / "b", changes=changes)]
    assert [arm.label for arm in group_arms([read_run(f) for f in folders])] == ["grpo (1)", "grpo (2)"]


def test_a_run_that_was_killed_is_read_as_far_as_it_got(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [metric_row(1), metric_row(2)], [response(1, "x")])
    for name in ("metrics.jsonl", "transcripts.jsonl"):
        with (folder / name).open("a") as file:
            file.write('[1]\nnull\n{"step": "three"}\n{"step": 3, "rewa')
    found = read_run(folder)
    assert found.done == 2
    assert len(unpacked(build_report([found]), "responses")["response"]) == 2  # one of them an empty row
    (folder / "metrics.jsonl").unlink()
    (folder / "transcripts.jsonl").unlink()
    assert "Overview" in build_report([read_run(folder)])


def test_a_long_run_is_thinned_by_whole_groups_evenly(tmp_path: Path) -> None:
    rows = [response(step, f"{step}-{i}", i) for step in range(1, 41) for i in range(4)]
    found = columns([read_run(write_run(tmp_path / "a", [metric_row(40)], rows))], most=40)
    assert found["thinned"] == 4
    assert found["response"] == [f"{step}-{i}" for step in range(1, 41, 4) for i in range(4)]


def test_histograms_count_every_response_of_their_window_once(tmp_path: Path) -> None:
    rows = [
        response(1, "a", tokens=1, correct=True),
        response(1, "b", tokens=64, correct=True, finish_reason="length"),
        response(5, "c", tokens=33),
        response(9, "d", tokens=2),
        response(9, "e", tokens=0),
    ]
    found = columns([read_run(write_run(tmp_path / "a", [metric_row(9)], rows))], most=99)
    counted = histograms(found, {0: 9}, budget=64)
    first, last = counted["counts"]["start"], counted["counts"]["end"]
    assert {kind: sum(n) for kind, n in first.items()} == {"correct": 1, "incorrect": 0, "truncated": 1}
    assert {kind: sum(n) for kind, n in last.items()} == {"correct": 0, "incorrect": 2, "truncated": 0}
    assert first["correct"][0] == 1
    assert first["truncated"][-1] == 1
    assert counted["edges"][-1] == 64


HOSTILE = "</script><script>hacked()</script><!--<img src=x onerror=hacked()>\ud800\u2028\0"


def test_no_text_of_a_run_is_markup(tmp_path: Path) -> None:
    rows = [response(1, HOSTILE, question=HOSTILE, question_id=HOSTILE, reason=HOSTILE, extracted=HOSTILE)]
    folder = write_run(tmp_path / "a", [metric_row(1, **{HOSTILE: 1.0})], rows, name=HOSTILE)
    text = build_report([read_run(folder)])
    assert "hacked()</script>" not in text
    assert "<img" not in text
    assert len(re.findall(r"<script[ >]", text)) == len(re.findall(r"</script>", text)) == 4  # three blocks, one script
    assert unpacked(text, "responses")["response"] == [HOSTILE]


def test_the_policy_names_what_runs_and_allows_no_address() -> None:
    text = render(Page("a", "b", [Section("one", "One & only")], {"data": {"x": "<b>"}}, scripts=(), styles=()))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert policy is not None
    assert len(script) == len(style) == 1
    for kind, (content,) in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy[1]
    assert "unsafe" not in policy[1]
    assert "http" not in policy[1]
    assert json.loads(data_of(text, "data")) == {"x": "<b>"}
    assert not re.search(r"(src|href)=\"?(https?:)?//|url\(|@import", text)
    assert "One &amp; only" in text


def test_the_command_writes_one_file_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_run(tmp_path / "a", [metric_row(1)], [response(1, "hello")])
    assert run("report", folder) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert run("report", folder, write_run(tmp_path / "b"), "--out", tmp_path / "deep" / "x.html") == 0
    assert (tmp_path / "deep" / "x.html").read_text().startswith("<!DOCTYPE html>")


def test_bad_input_to_report(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_run(tmp_path / "a")
    assert "no readable run.json" in refusal(capsys, "report", tmp_path / "none")
    assert "is a folder" in refusal(capsys, "report", folder, "--out", tmp_path)
    assert "give 1 or more" in refusal(capsys, "report", folder, "--responses", 0)
    assert "cannot write" in refusal(capsys, "report", folder, "--out", folder / "run.json" / "r.html")


def test_the_example_of_the_document_makes_a_page(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    subprocess.run([sys.executable, "-c", block], cwd=tmp_path, check=True)
    shown = json.loads(data_of((tmp_path / "claim.html").read_text(), "figures"))
    assert [item["kind"] for item in shown] == ["lines", "table"]
    assert shown[0]["series"][0]["values"] == [0.3, 0.36, 0.42]


def test_the_report_says_first_what_happened_to_lengths_and_accuracy(tmp_path: Path) -> None:
    folders = [
        write_run(
            tmp_path / preset,
            [metric_row(s, 10.0 if s <= 10 else end, **{"eval/accuracy": 0.25 if s <= 10 else 0.5}) for s in range(31)],
            changes=[f"objective={preset}"],
        )
        for preset, end in (("grpo", 30.0), ("dr_grpo", 10.0))
    ]
    sentence = finding(group_arms([read_run(folder) for folder in folders]))
    assert sentence.startswith(
        "Under grpo incorrect responses went from 11.0 to 31.0 tokens and held-out accuracy went"
    )
    assert "from 25.0% to 50.0%; under dr_grpo incorrect responses stayed at 11.0 tokens" in sentence
    assert "illustration" in sentence  # one seed an arm
    assert finding(group_arms([read_run(write_run(tmp_path / "empty"))])) == "Nothing was measured yet."


def test_a_run_without_a_name_is_called_by_its_folder(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "my-experiment", [metric_row(1)], name="run")
    assert [arm.label for arm in group_arms([read_run(folder)])] == ["my-experiment"]
    assert "<title>my-experiment" in build_report([read_run(folder)])
