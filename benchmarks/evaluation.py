"""What evaluation costs without a model: re-grading stored responses, and a bootstrap of the size of the paper's set.

python benchmarks/evaluation.py [--responses 100000] [--json FILE]

The responses are made up: numbers, fractions, radicals and tuples as answers, a third of them right, in texts of some
eighty words. They go through `zerolab evaluate FILE` in a process of its own, so that reading, grading and the table
all count; the bootstrap is that of 1,560 questions x 8 samples with 10,000 replicates.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import record
from zerolab.evaluation.intervals import Level, bootstrap

SAMPLES = 8
TEXT = "We look at what is asked and write down what we know. " * 7


def answer(rng: random.Random) -> str:
    a, b, c = (rng.randint(2, 999) for _ in range(3))
    return rng.choice(
        [str(a), f"\\frac{{{a}}}{{{b}}}", f"{a}.{b}", f"{a}\\sqrt{{{b}}}", f"({a}, {b}, {c})", f"{a}x + {b}"]
    )


def write_responses(path: Path, count: int, rng: random.Random) -> None:
    golds = [answer(rng) for _ in range(count // SAMPLES)]
    with path.open("w", encoding="utf-8") as file:
        for number, gold in enumerate(golds):
            said = [gold if rng.random() < 1 / 3 else rng.choice(golds) for _ in range(SAMPLES)]
            row = {
                "problem": f"Question number {number}?",
                "answer": gold,
                "responses": [f"{TEXT}So the answer is \\boxed{{{text}}}." for text in said],
            }
            file.write(json.dumps(row) + "\n")


def regrade(count: int) -> dict[str, float]:
    """Wall-clock seconds of `zerolab evaluate` on a file of so many responses, all cores."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "responses.jsonl"
        write_responses(path, count, random.Random(0))
        command = [sys.executable, "-m", "zerolab", "evaluate", str(path), "--out", f"{folder}/out"]
        started = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return {"stored responses": count, "re-evaluated in, s": time.monotonic() - started}


def resample() -> dict[str, float]:
    """CPU-seconds of the bootstrap over questions and samples, and over questions alone."""
    values = (np.random.default_rng(0).random((1560, SAMPLES)) < 0.4).astype(float)
    found: dict[str, float] = {}
    levels: dict[str, tuple[Level, ...]] = {
        "questions and samples": ("questions", "samples"),
        "questions": ("questions",),
    }
    for name, over in levels.items():
        started = time.process_time()
        bootstrap(values, replicates=10_000, over=over)
        found[f"bootstrap of {name}, CPU-s"] = time.process_time() - started
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--responses", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="write the figures here, not into benchmarks/results")
    options = parser.parse_args()
    found = {**resample(), **regrade(options.responses)}
    for name, value in found.items():
        print(f"{name:<45} {value:>12,.2f}")
    record.write("evaluation", found, options.json)


if __name__ == "__main__":
    main()
