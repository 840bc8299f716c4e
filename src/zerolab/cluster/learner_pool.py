"""The ranks of a learner as one learner."""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from zerolab.cluster.actors import ActorDied, PlacementGroup, Process, Resources, end_process, gather
from zerolab.cluster.learner_worker import Rank, RankActor
from zerolab.cluster.weight_transfer import WeightTransfer
from zerolab.config import ClusterConfig, LearnerConfig
from zerolab.errors import LearnerLost, UserError
from zerolab.rl.batch import Batch
from zerolab.rl.objective import Objective


class RemoteLearner:
    """The verbs of learner.Learner over all ranks; what rank 0 answers counts.

    A rank that dies or is late takes the others with it: new ones start from the model as it came, and LearnerLost says
    that a checkpoint is to be loaded.
    """

    def __init__(
        self,
        new_rank: Callable[[], Any],
        config: ClusterConfig,
        learner: LearnerConfig,
        needs: Resources,
        *,
        budget: int,
        threads: int,
        dtype: torch.dtype,
    ) -> None:
        self.new_rank, self.cluster, self.config, self.needs = new_rank, config, learner, needs
        self.budget, self.threads, self.dtype = budget, threads, dtype
        self.version = self.losses = 0  # losses since the last checkpoint
        self.ranks: list[Any] = []
        self.processes: list[Process] = []
        self._lock = threading.Lock()
        self._transfer: WeightTransfer | None = None
        self._room: PlacementGroup | None = PlacementGroup(
            needs, config.learner_ranks
        )  # asked for before the engines take what is left

    def start(self) -> None:
        """Raises UserError where there is no room, and what a rank raises."""
        count = self.cluster.learner_ranks
        self._room = self._room or PlacementGroup(self.needs, count)
        try:
            self._room.wait(self.cluster.placement_s)
            self.ranks = [self._room.make(RankActor, i) for i in range(count)]
            self.processes = gather([rank.process.remote() for rank in self.ranks], self.cluster.placement_s)
            host, port = gather([self.ranks[0].listen.remote()], self.cluster.placement_s)[0] if count > 1 else ("", 0)
            where = [Rank(i, count, host, port) for i in range(count)]
            own = self.threads, self.cluster.learner_deadline_s, self.dtype
            starts = [
                actor.start.remote(self.new_rank, own[0], rank, *own[1:])
                for actor, rank in zip(self.ranks, where, strict=True)
            ]
            self.version = gather(starts, self.cluster.placement_s)[0]
        except ActorDied as gone:
            self.close()
            raise UserError(f"the learner did not start: {gone}; see `ray status`") from gone

    def forward_backward(self, batch: Batch, objective: Objective) -> dict[str, float]:
        return self._call("forward_backward", batch, objective)

    def optim_step(self) -> dict[str, float]:
        return self._call("optim_step")

    def logprobs_of(self, batch: Batch) -> np.ndarray:
        return self._call("logprobs_of", batch)

    def reference_logprobs_of(self, batch: Batch) -> np.ndarray:
        return self._call("reference_logprobs_of", batch)

    def values_of(self, batch: Batch) -> np.ndarray:
        return self._call("values_of", batch)

    def weights(self, changed_only: bool = False) -> WeightTransfer:
        """The current policy, on its way: an iterable of (name, tensor), which remote engines read by themselves."""
        first = self.ranks[0]
        refs = [rank.send_weights.remote(first if rank is first else None, changed_only) for rank in self.ranks]
        self._transfer = self._answers(refs)[0]
        return self._transfer

    def export(self, tokenizer: Any, folder: Path) -> None:
        self._answers([rank.write.remote("export", folder.absolute(), tokenizer) for rank in self.ranks])

    def save(self, folder: Path) -> None:
        self._answers([rank.write.remote("save", folder.absolute()) for rank in self.ranks])
        self.losses = 0

    def load(self, folder: Path) -> None:
        self._call("load", folder.absolute())

    def loaded(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _call(self, verb: str, *arguments: Any) -> Any:
        shared = [ray.put(argument) for argument in arguments] if len(self.ranks) > 1 else arguments
        answers = self._answers([rank.call.remote(verb, *shared) for rank in self.ranks])
        result, self.version = answers[0]
        return result

    def _answers(self, refs: Sequence[Any]) -> list[Any]:
        ranks = self.ranks
        try:
            return gather(refs, self.cluster.learner_deadline_s)
        except ActorDied as gone:
            self._restart(ranks, str(gone))
            raise LearnerLost(f"the learner was lost ({gone}) and starts again from the last checkpoint") from gone

    def lose(self, transfer: WeightTransfer) -> None:
        """The weights of a transfer were lost with their sender. Raises LearnerLost."""
        reason = "its weights were lost"
        if transfer is self._transfer:
            self._restart(self.ranks, reason)
        raise LearnerLost(f"the learner was lost ({reason}) and starts again from the last checkpoint")

    def _restart(self, ranks: list[Any], reason: str) -> None:
        """New ranks in the place of these, unless that was done already."""
        with self._lock:
            if ranks is not self.ranks:
                return
            self.losses += 1
            if self.losses > self.cluster.restarts:
                raise UserError(
                    f"the learner was lost {self.losses} times since the last checkpoint, the last time because "
                    f"{reason}; the checkpoint is untouched: see `ray status`, then use --resume"
                )
            self.close()
            self.start()

    def close(self) -> None:
        for i, actor in enumerate(self.ranks):
            end_process(actor, self.processes[i] if self.processes else None)
        self.ranks, self.processes = [], []
        if self._room:
            self._room.leave()
            self._room = None
