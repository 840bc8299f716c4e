"""What `zerolab watch` shows of a run that goes on, is finished, was killed or has not begun."""

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from run_folders import metric_row, write_run

from command import refusal, run
from zerolab.report.watch import watch

TIMES = {
    "time/wait_s": 2.0,
    "time/sample_s": 2.5,
    "time/learn_s": 1.0,
    "time/sample_tokens_per_s": 5000.0,
    "time/learn_tokens_per_s": 900.0,
}


def rows(first: int, last: int) -> list[dict]:
    return [
        metric_row(step, 10 + step, **TIMES, **{"bias/length_normaliser/incorrect": 0.25 * step})
        for step in range(first, last + 1)
    ]


def add_rows(folder: Path, first: int, last: int) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(first, last))


def live(folder: Path, sleep: Callable[[float], None]) -> str:
    """What a watch writes to a terminal of 100 columns."""
    out = io.StringIO()
    watch(folder, console=Console(file=out, force_terminal=True, width=100, height=40), sleep=sleep)
    return out.getvalue()


def test_one_frame_of_a_run_that_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_run(tmp_path / "a", rows(1, 8), changes=["steps=20"])
    assert run("watch", folder) == 0  # no terminal here: one frame
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("grpo  grpo")
    assert lines[1].endswith("8/20  about 36 s left")
    assert lines[2] == "3 s/step  samples 5,000 tokens/s  learns 900 tokens/s"
    (incorrect,) = [line.split() for line in lines if line.startswith("of incorrect")]
    assert incorrect[2:5] == ["12.0", "19.0", "▆▆▆▇▇███"]
    (pressure,) = [line.split() for line in lines if line.startswith("incorrect, by the loss")]
    assert pressure[-3:-1] == ["0.250", "2.0"]
    assert lines[-1] == "running"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: add_rows(folder, 9, 20), "finished"),
        (lambda folder: os.utime(folder / "metrics.jsonl", (time.time() - 900,) * 2), "no news for 15 min"),
        (lambda folder: (folder / "metrics.jsonl").unlink(), "has not finished its first step"),
    ],
)
def test_status(change: Callable, said: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_run(tmp_path / "a", rows(1, 8), changes=["steps=20"])
    change(folder)
    assert run("watch", folder, "--once") == 0
    out = capsys.readouterr().out
    assert said in out
    assert " left" not in out


def test_a_live_watch_waits_follows_and_ends_with_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    happens = iter(
        [
            lambda: write_run(folder, changes=["steps=20"]),
            lambda: add_rows(folder, 1, 12),
            lambda: add_rows(folder, 13, 20),
        ]
    )
    out = live(folder, lambda _: next(happens)())
    for said in ("to begin", "0/20", "12/20", "20/20", "finished"):
        assert said in out
    assert next(happens, None) is None


def test_ctrl_c_ends_the_watch_and_says_that_the_run_goes_on(tmp_path: Path) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    out = live(write_run(tmp_path / "a", rows(1, 2)), interrupt)
    assert out.rstrip().endswith("no longer watching; the run goes on")
    assert out.count("\x1b[?25h") == 1  # the cursor is back


def test_a_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "holds no run yet" in refusal(capsys, "watch", tmp_path)
    (tmp_path / "run.json").write_text("[]")
    assert "no readable run.json" in refusal(capsys, "watch", tmp_path)


def test_a_name_is_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_run(tmp_path / "a", rows(1, 2), name="[red]x[/red]")
    assert run("watch", folder) == 0
    assert "[red]x[/red]" in capsys.readouterr().out
