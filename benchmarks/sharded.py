"""One optimizer step by two sharded ranks beside the same step by one process, in turn, and the bytes that each holds.

    python benchmarks/sharded.py [--size 15M] [--rows 32] [--repeats 4]

Every process has one thread. With two idle cores two ranks can take half the time at best; what gathering weights and
summing gradients costs shows in the CPU seconds of both ranks over those of the one.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from statistics import median
from typing import Any

import numpy as np
import torch

from models import make_model
from record import begin_with, write

RANKS = 2
PROMPT, SHORT, LONG = 32, 32, 128  # tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="15M")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()
    begin_with(1)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, (folder, options), nprocs=RANKS)


def _rank(rank: int, folder: str, options: argparse.Namespace) -> None:
    import torch.distributed as dist

    from zerolab.config import LearnerConfig
    from zerolab.learner.learner import Learner
    from zerolab.learner.sharded import ShardedLearner

    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", f"file://{folder}/meeting", timedelta(minutes=10), world_size=RANKS, rank=rank)
    config, own = LearnerConfig(share_prompts="off"), {"budget": LONG, "total_steps": 100}
    sharded = ShardedLearner(make_model(options.size), config, **own)
    one = Learner(make_model(options.size), config, **own) if rank == 0 else None
    step = make_step(options.rows)
    seconds: dict[str, list[float]] = {"one process": [], "two ranks": []}
    cpu: dict[str, list[float]] = {name: [] for name in seconds}
    for repeat in range(options.repeats + 1):  # the first one is left out
        for name, learner in (("one process", one), ("two ranks", sharded)):
            taken = _timed(learner, step)
            if repeat:
                seconds[name].append(taken[0])
                cpu[name].append(taken[1])
    held = {"one process": bytes_held(one) if one else {}, "two ranks": bytes_held(sharded.learner)}
    push = _timed_call(lambda: [None for _ in sharded.weights()])
    if rank == 0:
        _report(options, seconds, cpu, held, push)
    dist.destroy_process_group()


def make_step(rows: int) -> Any:
    """Responses of SHORT to LONG tokens, all of which contribute."""
    from zerolab.rl.batch import pack

    generator = np.random.default_rng(0)
    lengths = generator.integers(SHORT, LONG + 1, rows)
    tokens = [generator.integers(2, 4000, PROMPT + length) for length in lengths]
    columns = [(PROMPT, length, row // 8, float(row % 2), row % 2 - 0.5, 0) for row, length in enumerate(lengths)]
    return pack(tokens, [np.full(length, -8.0, np.float32) for length in lengths], columns)


def _timed(learner: Any, step: Any) -> tuple[float, float]:
    """(wall seconds, CPU seconds of all ranks) of one optimizer step; a rank without a learner waits."""
    from zerolab.rl.objective import PRESETS

    def work() -> None:
        if learner:
            learner.forward_backward(step, PRESETS["dr_grpo"])
            learner.optim_step()

    return _timed_call(work)


def _timed_call(work: Callable[[], Any]) -> tuple[float, float]:
    import torch.distributed as dist

    dist.barrier()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    spent = torch.tensor([time.process_time() - cpu])
    dist.barrier()
    wall = time.perf_counter() - wall
    dist.all_reduce(spent)
    return wall, float(spent)


def bytes_held(learner: Any) -> dict[str, int]:
    """Parameters, gradients and moments of a process, in bytes."""
    parameters = list(learner.model.parameters())
    moments = [tensor for entry in learner.optimizer.state.values() for tensor in entry.values() if tensor.dim()]
    kinds = {"weights": parameters, "gradients": [p.grad for p in parameters], "moments": moments}
    return {kind: sum(_local(tensor).nbytes for tensor in tensors) for kind, tensors in kinds.items()}


def _local(tensor: Any) -> torch.Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _report(options: argparse.Namespace, seconds: Any, cpu: Any, held: Any, push: tuple[float, float]) -> None:
    results = {
        "size": options.size,
        "rows": options.rows,
        "ranks": RANKS,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "wall_ratio": median(seconds["two ranks"]) / median(seconds["one process"]),
        "cpu_ratio": median(cpu["two ranks"]) / median(cpu["one process"]),
        "bytes": held,
        "bytes_ratio": sum(held["two ranks"].values()) / sum(held["one process"].values()),
        "gather_all_weights_s": push[0],
        "load_average": os.getloadavg()[0],
    }
    print(
        f"{options.size}, {options.rows} rows, two ranks over one process: wall {results['wall_ratio']:.2f}, ", end=""
    )
    print(f"CPU {results['cpu_ratio']:.2f}, bytes of a rank {results['bytes_ratio']:.3f}")
    print(f"all weights gathered on every rank: {push[0]:.2f} s; load of the machine {results['load_average']:.1f}")
    print(write("sharded", results))


if __name__ == "__main__":
    main()
