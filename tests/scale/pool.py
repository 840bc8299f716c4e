"""Real processes that are torch.distributed ranks of each job in turn. They start once; no wait is without an end."""

import multiprocessing
import os
import socket
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

PATIENCE = 120  # seconds for one job
# Imported once for all ranks.
PRELOADED = (
    "zerolab.learner.sharded",
    "torch.distributed.fsdp",
    *(f"transformers.models.{name}.modeling_{name}" for name in ("auto", "qwen2", "llama", "gemma3")),
)


class Pool:
    """`size` processes; a job takes the first so many of them. After a failure they are replaced."""

    def __init__(self, size: int):
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([*PRELOADED])
        self.folder = tempfile.TemporaryDirectory()
        self.jobs, self.size = 0, size
        self._start()

    def _start(self) -> None:
        self.pipes: list[Connection] = []
        self.processes = []
        for _ in range(self.size):
            mine, theirs = self.context.Pipe()
            process = self.context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            self.pipes.append(mine)
            self.processes.append(process)

    def run(self, ranks: int, job: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
        """What the job returned on every rank. Raises what a rank raised first, as text."""
        self.jobs += 1
        meeting = f"file://{Path(self.folder.name) / str(self.jobs)}"
        for rank, pipe in enumerate(self.pipes[:ranks]):
            pipe.send((meeting, rank, ranks, job, arguments, options))
        waiting, found = dict(zip(self.pipes, range(ranks), strict=False)), {}
        while waiting:
            ready: list[Any] = wait(list(waiting), PATIENCE)
            answers = {waiting.pop(pipe): pipe.recv() for pipe in ready}
            wrong = [f"rank {rank} of {ranks}:\n{result}" for rank, (fine, result) in answers.items() if not fine]
            if wrong or not answers:
                self._end()  # the others may wait for it
                self._start()
                raise AssertionError(wrong[0] if wrong else f"ranks {[*waiting.values()]} do not answer")
            found |= {rank: result for rank, (_, result) in answers.items()}
        return [found[rank] for rank in range(ranks)]

    def _end(self) -> None:
        for process in self.processes:
            process.kill()

    def close(self) -> None:
        self._end()
        self.folder.cleanup()


def _serve(pipe: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    if any(name == "lo" for _, name in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            return
        pipe.send(_answer(*order))


def _answer(
    meeting: str, rank: int, ranks: int, job: Callable[..., Any], arguments: tuple, options: dict[str, Any]
) -> tuple[bool, Any]:
    import torch.distributed as dist

    try:
        dist.init_process_group("gloo", meeting, timedelta(seconds=PATIENCE), world_size=ranks, rank=rank)
        return True, job(*arguments, **options)
    except BaseException:
        return False, traceback.format_exc()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
