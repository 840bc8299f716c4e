"""What a cluster costs and gains: the same steps in one process and over Ray on one host, and weights on their way.

The 15M model, 8 questions x 8 samples, up to 64 new tokens, Dr. GRPO, one AdamW step in fp32, one thread per process.

overhead   one engine and one rank that take turns, step by step in turn with the run in one process: seconds, and CPU
           seconds of all processes, Ray's own among them
push       publishing the weights: from the learner's process into the engine's
overlap    rollout.max_staleness = 1 against 0: the share of the possible gain, (sync - async) / (sync - longer part)

    python benchmarks/cluster.py [--steps 4] [--json FILE]
"""

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import record

TIMES = ("wall", "cpu")
BLOCKS = 3
SIZE, QUESTIONS, SAMPLES, TOKENS = "15M", 8, 8, 64


def main() -> None:
    options = arguments()
    record.begin_with(1)
    with tempfile.TemporaryDirectory() as folder, local_ray():
        raw = write_inputs(Path(folder))
        results: dict[str, Any] = known(options)
        for part in (overhead, overlap):
            if options.only not in (None, part.__name__):
                continue
            results |= part(raw, options.steps)
            print(json.dumps(record.rounded(results)), file=sys.stderr, flush=True)
    results["load_average"] = os.getloadavg()[0]
    print(json.dumps(record.rounded(results), indent=1))
    print(record.write("cluster", results, options.json))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4, help="steps of every case, after one that does not count")
    parser.add_argument("--only", choices=("overhead", "overlap"), help="keeps the other figures of the last results")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def known(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of the last results, where only a part of them is taken anew."""
    file = options.json or record.RESULTS / "cluster.json"
    return json.loads(file.read_text())["results"] if options.only and file.exists() else {}


@contextmanager
def local_ray() -> Any:
    import ray

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def write_inputs(folder: Path) -> dict[str, Any]:
    """Model, tokenizer and questions in a folder; the keys of a run on them."""
    import models

    model = models.make_model(SIZE)
    tokenizer = models.make_tokenizer(model.config.vocab_size)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = [
        {"problem": " ".join(f"t{i}" for i in prompt), "answer": "1"}
        for prompt in models.make_prompts(model.config.vocab_size)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "coin.py").write_text(
        "import zlib\n\n\ndef coin(completions, **_):\n"
        "    return [float(zlib.crc32(text.encode()) % 2) for text in completions]\n"
    )
    return {
        "name": "benchmark",
        "steps": 1000,
        "threads": 1,
        "model": {"path": str(folder / "model")},
        "questions": {"path": str(folder / "questions.jsonl")},
        "rollout": {"questions_per_step": QUESTIONS, "samples_per_question": SAMPLES, "max_new_tokens": TOKENS},
        "reward": {"functions": [{"path": f"{folder / 'coin.py'}:coin"}]},
        "objective": "dr_grpo",
        "learner": {"lr": 1e-6},
        "out": str(folder / "run"),
    }


class Steps:
    """A run whose steps are taken and timed one by one."""

    def __init__(self, raw: dict[str, Any], cluster: bool, staleness: int = 0) -> None:
        from zerolab.build import build
        from zerolab.config import RunConfig
        from zerolab.rundir import RunDirectory

        rollout = {**raw["rollout"], "max_staleness": staleness}
        config = RunConfig.model_validate({**raw, "rollout": rollout, **({"cluster": {}} if cluster else {})})
        self.run, self.directory, self.number = build(config), RunDirectory(config, overwrite=True), 0
        self.directory.open()

    def take(self) -> dict[str, float]:
        from zerolab.train import train_step

        self.number += 1
        wall, cpu = time.perf_counter(), cpu_seconds()
        row = train_step(self.run, self.directory, self.number)
        spent = {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}
        print(f"step {self.number}: {spent['wall']:.1f} s", file=sys.stderr, flush=True)
        return {**spent, "sample": row["time/wait_s"], "learn": row["time/learn_s"], "tokens": row["rollout/tokens"]}


def cpu_seconds() -> float:
    """Of this process and all that descend from it."""
    ticks, parents = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)], ticks[int(entry.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    family = {os.getpid()}
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    return sum(ticks.get(pid, 0) for pid in family) / os.sysconf("SC_CLK_TCK")


def overhead(raw: dict[str, Any], steps: int) -> dict[str, Any]:
    """Ratios of medians: on a busy machine a single pair says little."""
    local, remote = Steps(raw, False), Steps(raw, True)
    for each in (local, remote):
        each.take()
    pairs = [(local.take(), remote.take()) for _ in range(steps)]
    pushes = []
    for version in range(5):
        start = time.perf_counter()
        remote.run.stream.publish(100 + version, remote.run.learner.weights())
        pushes.append(time.perf_counter() - start)
    size = remote.run.stream.engine._parcel.length
    for each in (local, remote):
        each.run.close()
    return {
        "one process": {name: median(a[name] for a, _ in pairs) for name in pairs[0][0]},
        "ray": {name: median(b[name] for _, b in pairs) for name in pairs[0][0]},
        **{f"{name}_ratio": median(b[name] for _, b in pairs) / median(a[name] for a, _ in pairs) for name in TIMES},
        "push_s": median(pushes),
        "push_first_s": pushes[0],
        "push_mb": size / 1e6,
    }


def overlap(raw: dict[str, Any], steps: int) -> dict[str, Any]:
    """Blocks of steps in turn; the first of a block does not count, since what the other run left behind ends in it."""
    runs = {"sync": Steps(raw, True), "async": Steps(raw, True, staleness=1)}
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in runs}
    for _ in range(BLOCKS):
        for kind, each in runs.items():
            each.take()
            found[kind] += [each.take() for _ in range(steps)]
    for each in runs.values():
        each.run.close()
    kinds = {
        kind: {name: median(row[name] for row in rows) for name in ("wall", "sample", "learn")}
        for kind, rows in found.items()
    }
    sync, ideal = kinds["sync"], max(kinds["sync"]["sample"], kinds["sync"]["learn"])
    gain = (sync["wall"] - kinds["async"]["wall"]) / (sync["wall"] - ideal)
    return {**kinds, "ideal_step_s": ideal, "share_of_ideal_gain": gain}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
