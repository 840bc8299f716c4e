"""An objective of your own is a row of coordinates: python examples/objective.py [MODEL]"""

import sys

import zerolab
from zerolab.rl.objective import PRESETS, Objective

# Dr. GRPO without its clip from below, and with a bonus for entropy.
ROW = {**PRESETS["dr_grpo"].model_dump(), "name": "mine", "clip": "cispo", "clip_low": None, "clip_high": 2.0}
MINE = Objective(**{**ROW, "entropy": 0.001})


def main(model: str | None = None) -> None:
    print(MINE.formula())
    config = {
        "name": "own-objective",
        "steps": 2,
        "model": {"path": model} if model else {"base": "laptop/smoke-base"},
        "questions": {"path": "synthetic:modular"},
        "rollout": {"questions_per_step": 8, "samples_per_question": 4, "max_new_tokens": 16},
        "objective": MINE,
    }
    print(zerolab.train(config, overwrite=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
