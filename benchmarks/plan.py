"""Measures what the cost model of `zerolab plan` predicts, where there is hardware to measure: one CPU core.

Random Qwen2-shaped models in fp32, in CPU-seconds of one thread: rollouts of the torch engine with few and with many
rows, and optimizer steps of the learner over whole rows (no shared prompts, every response has an advantage), beside
the core's own speed in a large matrix product and in a read from memory. Three constants of the model are fitted to
three of the points, and the others are predicted: docs/scaling.md has the table (`make docs`).

    python benchmarks/plan.py [--json FILE]
"""

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

import record
from models import NEW_TOKENS, SAMPLES, PlainTokenizer, make_model, make_prompts
from sampling import machine, run_engine
from zerolab.config import LearnerConfig
from zerolab.learner.learner import Learner
from zerolab.plan.shapes import measure
from zerolab.rl.batch import Batch, pack
from zerolab.rl.objective import PRESETS
from zerolab.rollout.torch_engine import TorchEngine

SAMPLING = (("1M", 32), ("1M", 4), ("15M", 32), ("15M", 4), ("100M", 4))  # questions, 8 responses to each
LEARNING = (("1M", 256), ("15M", 64), ("100M", 16))  # responses
PROMPT, RESPONSE = 48, 54  # tokens of a learned row
REPEATS = 2


def sampling_points() -> list[dict[str, Any]]:
    found = []
    for size, questions in SAMPLING:
        model = make_model(size)
        prompts = make_prompts(model.config.vocab_size)[:questions]
        engine = TorchEngine(model, PlainTokenizer())
        run_engine(engine, prompts, 0)
        runs = [run_engine(engine, prompts, seed) for seed in range(1, REPEATS + 1)]
        lengths, seconds = min(runs, key=lambda run: run[1])
        rows = {"responses": len(lengths), "group": SAMPLES, "prompt": float(np.mean([len(p) for p in prompts]))}
        found.append({"kind": "sampling", "size": size, **rows, "mean": float(np.mean(lengths)), "budget": NEW_TOKENS,
                      "seconds": seconds, "shape": shape(model)})  # fmt: skip
        print(found[-1], flush=True)
    return found


def learning_points() -> list[dict[str, Any]]:
    found = []
    for size, responses in LEARNING:
        model = make_model(size)
        config = LearnerConfig(lr=1e-6, share_prompts="off", micro_batch_tokens=4096)
        learner = Learner(model, config, budget=NEW_TOKENS, total_steps=10)
        step = make_step(responses, model.config.vocab_size)
        times = []
        for _ in range(REPEATS + 1):  # the first allocates gradients and moments
            start = time.process_time()
            learner.forward_backward(step, PRESETS["dr_grpo"])
            learner.optim_step()
            times.append(time.process_time() - start)
        rows = {"responses": responses, "group": SAMPLES, "prompt": float(PROMPT), "mean": float(RESPONSE)}
        found.append({"kind": "learning", "size": size, **rows, "budget": RESPONSE, "seconds": min(times[1:]),
                      "shape": shape(model)})  # fmt: skip
        print(found[-1], flush=True)
    return found


def make_step(responses: int, vocabulary: int) -> Batch:
    rng = np.random.default_rng(0)
    rows = [(PROMPT, RESPONSE, i // SAMPLES, float(i % 2), i % 2 - 0.5, 0) for i in range(responses)]
    tokens = [rng.integers(1, vocabulary, PROMPT + RESPONSE) for _ in rows]
    return pack(tokens, [np.full(RESPONSE, -7.0, np.float32)] * responses, rows)


def shape(model: Any) -> dict[str, int]:
    found = measure(model, "")
    assert found.layers is not None
    return {"parameters": found.parameters, **dataclasses.asdict(found.layers)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here (default: benchmarks/results/plan.json)")
    args = parser.parse_args()
    record.begin_with(threads=1)
    flops, bandwidth = machine()
    print(f"one core: {flops / 1e9:.0f} GFLOP/s in a large product, {bandwidth / 1e9:.1f} GB/s in a read")
    points = [*sampling_points(), *learning_points()]
    results = {"flops": flops, "bandwidth": bandwidth, "points": points}
    print(f"written to {record.write('plan', results, args.json)}")


if __name__ == "__main__":
    main()
