"""The bias meter as a figure: its bars are means of the last third, and its CSV holds what was logged."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from run_folders import metric_row, write_run

from command import refusal, run
from zerolab.report.curves import has_bias, last_means, measured


def rows(slope: float, steps: int = 9) -> list[dict]:
    return [
        metric_row(
            step,
            **{"bias/length_normaliser/incorrect": slope * step, "bias/truncated/75-100": slope if step > 6 else 0.0},
            # the mean of three runs that agree on this number is not exactly that number
            **({"bias/clipped/00-25": math.nan, "bias/question_share/40-60": 0.8132702392002724} if step == 9 else {}),
        )
        for step in range(1, steps + 1)
    ]


def test_bars_are_means_over_the_last_third_of_the_steps_of_each_run() -> None:
    means = last_means("bias/truncated", ("50-75", "75-100"), [rows(0.5), rows(0.25), []])
    np.testing.assert_array_equal(means, [[math.nan, 0.5], [math.nan, 0.25], [math.nan, math.nan]])


def test_what_was_not_measured_gets_no_panel() -> None:
    runs = {"a": [rows(1.0)], "b": [[metric_row(1)]]}
    assert measured("bias/truncated", runs)
    assert not measured("mismatch/removed", runs)
    assert has_bias(runs)
    assert not has_bias({"b": [[metric_row(1)]]})


def test_figures_of_runs_with_their_numbers(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folders = [write_run(tmp_path / f"{p}", rows(s), changes=[f"objective={p}"]) for p, s in (("grpo", 2), ("rloo", 0))]
    folders += [write_run(tmp_path / f"grpo{n}", rows(2), changes=["objective=grpo", f"seed={n}"]) for n in (1, 2)]
    empty = write_run(tmp_path / "empty", changes=["objective=dapo"])
    out = tmp_path / "figures"
    assert run("report", *folders, empty, "--out", tmp_path / "r.html", "--figures", out) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "r.html"), str(out / "curves.png"), str(out / "bias.png")]
    for name in ("curves", "bias"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    with (out / "bias.csv").open() as file:
        table = list(csv.DictReader(file))
    found = {(row["arm"], int(row["step"])): row["bias/length_normaliser/incorrect"] for row in table}
    assert found == {(arm, s): str(slope * s) for arm, slope in (("grpo", 2), ("rloo", 0)) for s in range(1, 10)}
    assert {row["bias/question_weight/40-60"] for row in table} == {""}


def test_runs_without_a_step_have_no_figure(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_run(tmp_path / "a")
    assert "nothing to draw" in refusal(capsys, "report", folder, "--figures", tmp_path / "f")
