"""The demo end to end on a small scale, and its sentences on numbers whose meaning is known."""

import csv
import json
from pathlib import Path

import pytest

from zerolab.config import DemoConfig
from zerolab.demo import run, sentences, summarise
from zerolab.report.progress import sparkline

CONFIG = DemoConfig(arms=("a", "b"), seeds=(0, 1))


def rows(lengths: list[float], accuracy: float = 0.5) -> list[dict]:
    return [
        {
            "step": step + 1,
            "accuracy": accuracy,
            "length/mean": length,
            "length/correct": 5.0,
            "length/incorrect": length,
            "truncated": 0.0,
            "tokens_per_solved": 2 * length,
            "rollout/tokens": 100,
        }
        for step, length in enumerate(lengths)
    ]


def test_windows_are_the_start_and_the_end() -> None:
    arms = summarise(CONFIG, {"a": [rows([1, 3, 9, 9, 20, 30]), rows([3, 3, 9, 20, 30, 40])], "b": [rows([4] * 6)] * 2})
    assert arms[0].windows["length/incorrect"] == [(2.0, 25.0), (3.0, 35.0)]
    assert arms[1].growth("length/incorrect") == [0.0, 0.0]
    assert arms[0].tokens == [600, 600]


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ([[5, 5, 30, 30], [5, 5, 40, 40]], [[5, 5, 5, 5], [5, 5, 6, 6]], "was seen"),
        ([[5, 5, 5, 5], [5, 5, 5, 5]], [[5, 5, 5, 5], [5, 5, 6, 6]], "was not seen"),
        ([[5, 5, 30, 30], [5, 5, 5, 5]], [[5, 5, 6, 6], [5, 5, 6, 6]], "was mixed"),
    ],
)
def test_sentences_say_what_the_numbers_say(first: list, second: list, verdict: str) -> None:
    runs = {"grpo": [rows(x) for x in first], "dr-grpo": [rows(x, 0.6) for x in second]}
    lines = sentences(CONFIG, summarise(CONFIG, runs))
    assert verdict in lines[0]
    assert "grpo 0.500, dr-grpo 0.600 (10.0 points lower, in every seed)" in lines[1]
    assert any("built into" in line for line in lines)


def test_sparkline_averages_into_blocks_and_leaves_gaps() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8, 0, 7) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 0, 8, 8], 2, 0, 8) == "▁█"
    assert sparkline([None, 4.0, float("nan")], 3, 0, 8) == " ▅ "
    assert sparkline([], 5, 0, 1) == ""


ARM = """
name = "{name}"
steps = 6
threads = 1
[model]
base = "laptop/smoke-base"
[questions]
path = "synthetic:modular"
[rollout]
questions_per_step = 4
samples_per_question = 4
max_new_tokens = 16
kv_gb = 0.1
[objective]
preset = "{preset}"
[learner]
lr = 1e-4
"""


def test_a_small_demo_leaves_table_figure_and_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "cache"))
    for name, preset in (("one", "grpo"), ("two", "dr_grpo")):
        (tmp_path / f"{name}.toml").write_text(ARM.format(name=name, preset=preset))
    arms = (str(tmp_path / "one.toml"), str(tmp_path / "two.toml"))
    out = tmp_path / "demo"
    run(DemoConfig(arms=arms, seeds=(0,)), out)
    printed = capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())
    with (out / "curves.csv").open() as file:
        table = list(csv.DictReader(file))
    assert {(row["arm"], row["step"]) for row in table} == {(a, str(s)) for a in ("one", "two") for s in range(1, 7)}
    for figure in ("curves", "bias"):
        assert (out / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert f"{figure}.png" in printed
    assert "<title>grpo / dr_grpo</title>" in (out / "report.html").read_text()
    with (out / "bias.csv").open() as file:
        pressure = {row["arm"]: row["bias/length_normaliser/incorrect"] for row in csv.DictReader(file)}
    assert float(pressure["two"] or 0) == 0  # no normaliser under Dr. GRPO
    assert all(sentence.split(":")[0] in printed for sentence in summary["sentences"])
    assert "start -> end" in printed
