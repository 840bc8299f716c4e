"""A rank of the learner in a process of its own."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
import torch

from zerolab.cluster.actors import Process, this_process
from zerolab.cluster.weight_transfer import Sender, WeightTransfer
from zerolab.errors import UserError


@dataclass(frozen=True)
class Rank:
    """Which of how many, and where rank 0 waits for the others."""

    number: int
    count: int
    host: str = ""
    port: int = 0


@ray.remote(concurrency_groups={"control": 1})
class RankActor:
    learner: Any

    @ray.method(concurrency_group="control")
    def process(self) -> Process:
        return this_process()

    def listen(self) -> tuple[str, int]:
        """Opens the meeting point of all ranks, at a port that is free; returns where it is."""
        host = ray.util.get_node_ip_address()
        self.store = torch.distributed.TCPStore(host, 0, is_master=True, wait_for_workers=False)
        return host, self.store.port

    def start(self, new_rank: Callable[[], Any], threads: int, rank: Rank, seconds: float, dtype: torch.dtype) -> int:
        """Joins the others and makes the learner; returns its version."""
        torch.set_num_threads(threads)
        if rank.count > 1:
            self._join(rank, timedelta(seconds=seconds))
        self.weight_sender = Sender(dtype)
        self.learner = new_rank()
        return self.learner.version

    def _join(self, rank: Rank, timeout: timedelta) -> None:
        distributed = torch.distributed
        store = getattr(self, "store", None) or distributed.TCPStore(rank.host, rank.port, is_master=False)
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank.number, world_size=rank.count, timeout=timeout)

    def call(self, verb: str, *arguments: Any) -> tuple[Any, int]:
        """A verb of the learner; its result and the version that it leaves."""
        return getattr(self.learner, verb)(*arguments), self.learner.version

    def write(self, verb: str, folder: Path, *arguments: Any) -> None:
        """A verb that writes into a folder which the driver made."""
        if not folder.is_dir():
            raise UserError(
                f"node {socket.gethostname()} of the learner does not see {folder}: put `out` on storage that all "
                "nodes of the cluster share"
            )
        getattr(self.learner, verb)(*arguments, folder)

    def send_weights(self, sender: Any, changed_only: bool) -> WeightTransfer | None:
        """The weights, ready to be sent; every rank takes part, rank 0 (which gets a sender) has them."""
        tensors = self.learner.weights(changed_only)
        if sender is not None:
            return self.weight_sender.pack(tensors, sender)
        for _ in tensors:
            pass
        return None

    @ray.method(concurrency_group="control")
    def put(self, transfer: WeightTransfer) -> tuple[Any, ...]:
        return self.weight_sender.put(transfer)
