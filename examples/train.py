"""Train from Python: python examples/train.py [MODEL]"""

import sys

import zerolab
from zerolab.rundir import read_metrics


def main(model: str | None = None) -> None:
    config = {
        "name": "api",
        "steps": 4,
        "model": {"path": model} if model else {"base": "laptop/smoke-base"},
        "questions": {"path": "synthetic:modular"},
        "rollout": {"questions_per_step": 8, "samples_per_question": 4, "max_new_tokens": 16},
        "objective": "dr_grpo",
        "learner": {"lr": 2e-4},
    }
    folder = zerolab.train(config, overwrite=True)
    for row in read_metrics(folder):
        print(row["step"], f"reward {row['reward/mean']:.3f}", f"length {row['length/mean']:.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
