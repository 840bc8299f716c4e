"""Does RL teach Countdown to a small base? recipes/laptop/countdown.toml and its random-reward control, over seeds.

python benchmarks/countdown.py [--seeds 3] [--steps 80] [--runs runs/works] [--out results/works/countdown]

Trains every arm and seed (a finished run is kept, an interrupted one goes on), then asks the base and every final
policy the same held-out questions: 8 samples at temperature 1 and one greedy response each. Writes curve.csv, cells.csv
and curve.png, and prints the table. Measured on 512 questions, of which the curve asks the first 256; nothing is chosen
by them. The same base under all seeds: an interval is over RL runs, not over bases.
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from zerolab.build import build, model_path
from zerolab.claims.verdict import interval
from zerolab.config import ModelConfig, RunConfig
from zerolab.evaluation.score import pass_at_k
from zerolab.learner.checkpoint import latest_checkpoint
from zerolab.recipes import controlled, run_config
from zerolab.report.curves import COLOURS, column, draw_arm, write_csv
from zerolab.rollout.engine import sample_graded
from zerolab.rundir import can_resume, read_metrics
from zerolab.train import train

RECIPE = "laptop/countdown"
ARMS = {"right answers": "", "random reward": "random-reward"}  # name -> control
QUESTIONS, SAMPLES = 512, 8
CURVE = ("eval/accuracy", "eval/standard_error", "accuracy", "entropy", "zero_variance_groups")
MEASURES = ("accuracy", "greedy", f"pass@{SAMPLES}", "formatted")


def configured(arm: str, seed: int, chosen: argparse.Namespace) -> RunConfig:
    recipe = run_config(RECIPE)
    changes = {"seed": seed, "out": str(chosen.runs / f"countdown-seed{seed}"), "steps": chosen.steps or recipe.steps}
    config = recipe.model_copy(update=changes)
    return controlled(config, ARMS[arm]) if ARMS[arm] else config


def trained(config: RunConfig) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl of a finished run."""
    folder = config.folder
    started = can_resume(folder)
    if not started or read_metrics(folder)[-1]["step"] < config.steps:
        train(config, resume=started, overwrite=not started)
    rows = read_metrics(folder)
    if rows[-1]["step"] < config.steps:
        raise SystemExit(f"stopped in {folder}; the same command goes on")
    return rows


def measure(config: RunConfig, folder: Path) -> dict[str, float]:
    """Share of right responses, of right greedy ones, pass@8, and share in the right format, of one policy."""
    evaluation = config.evaluation.model_copy(update={"max_questions": QUESTIONS, "samples_per_question": SAMPLES})
    run = build(config.model_copy(update={"model": ModelConfig(path=str(folder), base=None), "evaluation": evaluation}))
    assert run.evaluator is not None
    stream, parameters = run.stream, replace(run.evaluator.parameters, greedy=True)
    graded = sample_graded(stream.engine, stream.grader, stream.pool, run.evaluator.prompts, parameters)
    stream.close()
    correct_QS = np.array([[grade.correct for grade in grades] for _, grades in graded])
    samples_QS = correct_QS[:, :SAMPLES]
    formatted = np.mean([grade.formatted for _, grades in graded for grade in grades[:SAMPLES]])
    passed = pass_at_k(samples_QS.sum(1), SAMPLES, SAMPLES).mean()
    values = (samples_QS.mean(), correct_QS[:, SAMPLES].mean(), passed, formatted)
    return dict(zip(MEASURES, map(float, values), strict=True))


def write(out: Path, runs: dict[str, list[list[dict[str, Any]]]], cells: Sequence[dict[str, Any]]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "curve.csv", runs, CURVE)
    write_cells(out / "cells.csv", cells)
    draw(out / "curve.png", runs)


def write_cells(path: Path, cells: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["policy", "seed", *MEASURES])
        writer.writeheader()
        writer.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in cell.items()} for cell in cells)


def draw(path: Path, runs: dict[str, list[list[dict[str, Any]]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.2, 3.4), constrained_layout=True)
    for colour, (arm, seeds) in zip(COLOURS, runs.items(), strict=False):
        draw_arm(axis, arm, colour, [column(rows, "eval/accuracy") for rows in seeds])
    axis.set(xlabel="step", ylabel="held-out accuracy, temperature 1", ylim=(0, None), title="Countdown, three numbers")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def table(cells: Sequence[dict[str, Any]]) -> str:
    """One row per policy: mean over seeds, and the mean change from the base with its 95 % t interval."""
    base = cells[0]
    lines = ["| policy | " + " | ".join(MEASURES) + " |", "| --- " * (1 + len(MEASURES)) + "|"]
    for policy in dict.fromkeys(cell["policy"] for cell in cells):
        members = [cell for cell in cells if cell["policy"] == policy]
        row = []
        for name in MEASURES:
            values = np.array([cell[name] for cell in members])
            text = f"{values.mean():.3f}"
            if len(members) > 2:
                low, high = interval(values - base[name], 0.95)
                text += f" ({values.mean() - base[name]:+.3f} [{low:+.3f}, {high:+.3f}])"
            row.append(text)
        lines.append(f"| {policy} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of every run (default: the recipe's)")
    parser.add_argument("--runs", type=Path, default=Path("runs/works"))
    parser.add_argument("--out", type=Path, default=Path("results/works/countdown"))
    chosen = parser.parse_args()
    config = run_config(RECIPE)
    cells: list[dict[str, Any]] = [{"policy": "base", "seed": ""} | measure(config, Path(model_path(config.model)))]
    runs: dict[str, list[list[dict[str, Any]]]] = {}
    for arm in ARMS:
        for seed in range(chosen.seeds):
            of_arm = configured(arm, seed, chosen)
            runs.setdefault(arm, []).append(trained(of_arm))
            final = latest_checkpoint(of_arm.folder / "checkpoints")
            assert final is not None
            cells.append({"policy": arm, "seed": seed} | measure(of_arm, final))
        write(chosen.out, runs, cells)
    print(table(cells))


if __name__ == "__main__":
    main()
