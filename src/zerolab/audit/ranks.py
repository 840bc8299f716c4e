"""Two real processes under gloo, each with its share of a step: their gradients must sum to the whole one."""

import os
import socket
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch

from zerolab.audit.enumerate import EnumerablePolicy, tiny_qwen2
from zerolab.audit.splits import ascent, rank_gradient, relative_change, sampled
from zerolab.rl.batch import Batch
from zerolab.rl.objective import Objective

RANKS = 2
Job = tuple[Batch, Objective]


def rank_changes(policy: EnumerablePolicy, objectives: Sequence[Objective]) -> list[float]:
    """Largest relative change of every objective's gradient when RANKS processes share the step, evenly or not."""
    jobs: list[Job] = [(sampled(policy, objective)[0], objective) for objective in objectives]
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, args=(folder, policy.seed, jobs), nprocs=RANKS)
        with np.load(Path(folder) / "gradients.npz") as file:
            found = [file[str(number)] for number in range(len(jobs))]
    return [
        max(relative_change(gradient, ascent(policy.model, step, objective)) for gradient in gradients)
        for (step, objective), gradients in zip(jobs, found, strict=True)
    ]


def _rank(rank: int, folder: str, seed: int, jobs: Sequence[Job]) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)
    if any(name == "lo" for _, name in socket.if_nameindex()):  # a host name that resolves nowhere would stop gloo
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", meeting, timedelta(seconds=120), world_size=RANKS, rank=rank)
    model = tiny_qwen2(seed)
    found = {
        str(number): np.array([rank_gradient(model, step, objective, uneven) for uneven in (False, True)])
        for number, (step, objective) in enumerate(jobs)
    }
    if rank == 0:
        np.savez(Path(folder) / "gradients.npz", **found)  # type: ignore[arg-type]
    dist.destroy_process_group()
