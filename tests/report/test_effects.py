"""Numbers of arms with Student's interval over seeds: by themselves, minus the first arm, net of controls."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import pytest
from run_folders import metric_row, write_run

from zerolab import demo
from zerolab.claims import protocol
from zerolab.report.arms import group_arms, read_run
from zerolab.report.curves import last_means
from zerolab.report.effects import Effect, arm_means, end, over_controls, over_first, unmatched
from zerolab.report.html_report import build_report, data_of
from zerolab.rundir import FIRST_STEPS, step_windows, window_mean

STEPS = 9


def rows(accuracy: float) -> list[dict]:
    """Rises to `accuracy` in the last third of the steps."""
    return [metric_row(step, accuracy=accuracy if step > 6 else 0.1) for step in range(1, STEPS + 1)]


def folders(place: Path, seeds: Iterable[int], accuracies: dict[str, list[float]]) -> list[Path]:
    """An arm named run and its controls by name, moved away from where they were trained."""
    found = []
    for name, values in accuracies.items():
        for seed, accuracy in zip(seeds, values, strict=True):
            changes = [f"seed={seed}"]
            if name != "run":
                changes += ["reward.random=1", "reward.correctness=0", f"control.name={name}"]
                changes += [f"control.run='runs/run-seed{seed}'", f"name=run-{name}", f"out=runs/run-seed{seed}-{name}"]
            else:
                changes += ["name=run"]
            found.append(write_run(place / f"{name}{seed}", rows(accuracy), changes=changes))
    return found


def test_an_arm_is_compared_with_the_control_of_its_own_seed(tmp_path: Path) -> None:
    accuracies = {"run": [0.5, 0.7, 0.9], "random-reward": [0.4, 0.5, 0.5]}
    arms = group_arms([read_run(f) for f in folders(tmp_path, (0, 1, 2), accuracies)])
    (found,) = over_controls(arms)
    assert (found.over, found.seeds) == ("random-reward", 3)
    net = {n.metric: n for n in found.effects}["accuracy"]
    assert net.values == pytest.approx((0.1, 0.2, 0.4))
    assert net.mean == pytest.approx(0.7 / 3)
    half = 4.302653 * 0.1527525 / 3**0.5  # t of 2 degrees of freedom, standard deviation of .1, .2, .4
    assert net.interval == pytest.approx((0.7 / 3 - half, 0.7 / 3 + half), abs=1e-5)
    assert unmatched(arms) == []


def test_two_seeds_have_no_interval_and_a_control_without_its_run_is_named(tmp_path: Path) -> None:
    assert Effect("accuracy", (0.1, 0.2)).interval is None
    paths = folders(tmp_path, (0, 1), {"run": [0.5, 0.7], "random-reward": [0.4, 0.5]})
    arms = group_arms([read_run(f) for f in paths if f.name != "run1"])
    assert over_controls(arms)[0].seeds == 1
    assert unmatched(arms) == ["random-reward1"]


def test_runs_without_controls_have_no_such_table_and_a_control_is_an_arm_of_its_own(tmp_path: Path) -> None:
    alone = folders(tmp_path / "a", (0, 1), {"run": [0.5, 0.7]})
    assert over_controls(group_arms([read_run(f) for f in alone])) == []
    both = folders(tmp_path / "b", (0, 1), {"run": [0.5, 0.7], "random-reward": [0.4, 0.5]})
    arms = group_arms([read_run(f) for f in both])
    assert len(arms) == 2
    text = build_report([read_run(f) for f in both])
    assert '"controls":{"heads":["accuracy"' in text
    assert "+0.150" in text


def test_later_arms_are_compared_with_the_first_over_the_seeds_that_both_have(tmp_path: Path) -> None:
    paths = []
    for preset, accuracies in {"grpo": [0.5, 0.7, 0.6], "dr_grpo": [0.6, 0.9, 0.9, 0.1]}.items():
        for seed, accuracy in enumerate(accuracies):
            changes = [f"objective={preset}", f"seed={seed}"]
            paths.append(write_run(tmp_path / f"{preset}{seed}", rows(accuracy), changes=changes))
    arms = group_arms([read_run(path) for path in paths])
    means = [{e.metric: e for e in row.effects}["accuracy"] for row in arm_means(arms)]
    assert [effect.mean for effect in means] == pytest.approx([0.6, 0.625])
    (found,) = over_first(arms)
    difference = {e.metric: e for e in found.effects}["accuracy"]
    assert (found.arm, found.over, found.seeds) == ("dr_grpo", "grpo", 3)
    assert difference.values == pytest.approx((0.1, 0.2, 0.3))
    assert difference.interval == pytest.approx((0.2 - 0.248414, 0.2 + 0.248414), abs=1e-5)  # t is 4.302653


@pytest.mark.parametrize("table", ["control='x'", "control={name=1}", "control={run='a'}"])
def test_a_table_that_is_no_control_is_passed_over(table: str, tmp_path: Path) -> None:
    import json
    import tomllib

    folder = write_run(tmp_path / "a", rows(0.5))
    config = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**config, **tomllib.loads(table)}))
    assert over_controls(group_arms([read_run(folder)])) == []


def test_report_demo_and_claims_have_one_start_and_one_end(tmp_path: Path) -> None:
    """The same 40 steps through the code of each: the means agree."""
    values = [float(step * step % 17) for step in range(1, 41)]
    steps = [metric_row(step, accuracy=value) for step, value in enumerate(values, 1)]
    folder = write_run(tmp_path / "a", steps, changes=["steps=40"])
    read = read_run(folder)
    start, at_end = sum(values[:10]) / 10, sum(values[27:]) / 13
    assert demo.window(steps, "accuracy") == protocol.window(values) == pytest.approx((start, at_end))
    assert end(read, "accuracy") == pytest.approx(at_end)
    bars = last_means("bias/truncated", ["x"], [[{"step": n, "bias/truncated/x": v} for n, v in enumerate(values, 1)]])
    assert bars.item() == pytest.approx(at_end)
    text = build_report([read])
    (run,) = json.loads(data_of(text, "summary"))["runs"]
    assert run["windows"] == {"start": [0, 10], "end": [28, 40], "whole run": [0, 40]}
    page = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
    assert "the start is the first\n10 steps" in page


def test_start_and_end_of_a_run_never_overlap_and_are_the_first_ten_steps_and_the_last_third() -> None:
    assert step_windows(240) == {"start": (0, 10), "end": (161, 240)}
    assert step_windows(100) == {"start": (0, 10), "end": (68, 100)}
    assert step_windows(6) == {"start": (0, 2), "end": (5, 6)}
    for steps in range(2, 400):
        (zero, early), (late, last) = step_windows(steps).values()
        assert zero == 0 < early < late <= last == steps
        assert early <= FIRST_STEPS
        assert abs((last - late + 1) - steps / 3) < 1
    assert window_mean([0, 1, 2, 3], [9.0, 1.0, float("nan"), 3.0], (1, 3)) == 2
    assert math.isnan(window_mean([], [], step_windows(0)["end"]))
