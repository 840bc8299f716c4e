"""A decoding step as one recorded CUDA graph: the host launches one thing instead of a few hundred kernels.

A graph replays the same kernels on the same memory. So rows, prompts, rows per prompt and own positions are rounded up
to a bucket, inputs lie in buffers that are filled anew before each replay, and what exceeds the real rows computes
something that nobody reads: surplus rows are rows of the memory that are not alive, written at their first position,
which a row that is admitted there later overwrites before it reads.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from zerolab.rollout.attention import Layout, Own, arrange, prompt_bias
from zerolab.rollout.kv_cache import Plan, is_shortage

Body = Callable[[], object]
Forward = Callable[[torch.Tensor, torch.Tensor, Layout, Own], torch.Tensor]
MOST = 512  # recorded steps; beyond, all are forgotten


def round_up(count: int, most: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that is no smaller, but no more than `most`."""
    power = 1 << max(count - 1, 0).bit_length()
    middle = power * 3 // 4
    return min(middle if middle >= count else power, most)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Sizes that a recorded step serves."""

    rows: int
    prompts: int
    members: int
    places: int  # own positions looked at

    @classmethod
    def of(cls, rows: int, prompts: int, members: int, places: int, plan: Plan) -> Bucket:
        return cls(
            round_up(rows, plan.rows),
            round_up(prompts, plan.prompts),
            round_up(members, plan.rows),
            round_up(max(places, 64), plan.own_len),
        )


def cuda_recorder() -> Callable[[Body], Body]:
    """A function that records what a body launches and returns what replays it.

    All graphs take what they need in between from one pool: only one runs at a time, and none leaves anything there.
    """
    pool = torch.cuda.graph_pool_handle()

    def record(body: Body) -> Body:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            body()
        return graph.replay

    return record


class StepGraphs:
    """Steps of a decoder through recorded graphs. One block of own positions per row (Plan.blocks = 1) is needed."""

    def __init__(
        self,
        forward: Forward,
        kv_heads: int,
        *,
        device: torch.device,
        recorder: Callable[[], Callable[[Body], Body]] = cuda_recorder,
    ) -> None:
        self._forward, self._kv_heads, self._device, self._recorder = forward, kv_heads, device, recorder
        self._record: Callable[[Body], Body] | None = None
        self._recorded: dict[tuple[Plan, Bucket], Body | None] = {}
        self._inputs: dict[Plan, Inputs] = {}
        self._memory = 0
        self.off = False  # for good: recording failed for another reason than memory
        self.paused = False  # until the next `reserve`: memory ran out while a step was recorded
        self._said = False

    def reserve(self, plan: Plan, own_kv: torch.Tensor, prompt_kv: torch.Tensor) -> None:
        """Says where keys and values lie from now on. A graph is of use as long as they lie where it saw them."""
        self.paused = False
        if prompt_kv.data_ptr() != self._memory or len(self._recorded) > MOST:
            self.forget()
        self._memory = prompt_kv.data_ptr()
        self._plan, self._own_kv = plan, own_kv
        if plan not in self._inputs:
            self._inputs[plan] = Inputs(plan, self._kv_heads, self._device)
        self._now = self._inputs[plan]

    def forget(self) -> None:
        self._recorded.clear()
        self._inputs.clear()
        self._record = None
        self._memory = 0

    def arrange(self, slot_N: np.ndarray, lengths_Q: np.ndarray) -> None:
        """Rows came or went. The inputs are filled at the next step, which knows the bucket."""
        self._slot_N, self._lengths_Q = slot_N, lengths_Q
        self._members = int(np.bincount(slot_N, minlength=len(lengths_Q)).max())
        self._now.filled = None

    def step(self, tokens_N: np.ndarray, positions_N: np.ndarray, index_N: np.ndarray) -> torch.Tensor | None:
        """Logits of the real rows; they last until the next step. None where this step cannot be recorded.

        A bucket is run as it is at its first use, which also warms up what must not be set up while recording, recorded
        at its second, and replayed from then on.
        """
        if self.off or self.paused:
            return None
        n = len(tokens_N)
        bucket = Bucket.of(n, len(self._lengths_Q), self._members, int(index_N.max()) + 1, self._plan)
        inputs, key = self._now, (self._plan, bucket)
        inputs.fill_layout(bucket, self._slot_N, self._lengths_Q)
        inputs.fill_step(tokens_N, positions_N, index_N)
        if key not in self._recorded:
            self._recorded[key] = None
            self._body(bucket)()
        elif not self._replay(key):
            return None
        assert inputs.logits is not None
        return inputs.logits[:n]

    def _replay(self, key: tuple[Plan, Bucket]) -> bool:
        """Replays a bucket and records it before if need be. False if that fails; this rollout then has no graphs."""
        replay = self._recorded[key]
        if replay is None:
            try:
                self._record = self._record or self._recorder()
                replay = self._recorded[key] = self._record(self._body(key[1]))
            except RuntimeError as error:
                self._give_up(error)
                return False
        replay()
        return True

    def _give_up(self, error: RuntimeError) -> None:
        """No graphs until the next rollout if memory ran out, and none at all otherwise. Says so once."""
        self.paused = is_shortage(error)
        self.off = not self.paused
        self.forget()
        reason = " ".join(str(error).split())[:300]
        if self.off:
            warnings.warn(f"sampling goes on without CUDA graphs, as recording failed: {reason}", stacklevel=4)
        elif not self._said:
            self._said = True
            warnings.warn(
                f"memory ran out while a decoding step was recorded ({reason}): this rollout goes on without CUDA "
                "graphs, and the next one tries again (to make room, lower rollout.kv_gb)",
                stacklevel=4,
            )

    def _body(self, bucket: Bucket) -> Body:
        """The step of a bucket: everything it reads is in the buffers and memory of now."""
        inputs, own_kv, n = self._now, self._own_kv, bucket.rows
        tokens, positions, index = inputs.step[:, :n]
        layout = inputs.layout(bucket)
        rows, places = inputs.numbers[:n], inputs.numbers[: bucket.places]

        def write(i: int, k: torch.Tensor, v: torch.Tensor) -> None:
            own_kv[i, 0, 0][rows, :, index] = k
            own_kv[i, 1, 0][rows, :, index] = v

        def read(part: int) -> Callable[[int], list[torch.Tensor]]:
            return lambda i: [own_kv[i, part, 0, :n].flatten(0, 1)[:, : bucket.places]]

        def body() -> None:
            hidden = places > index[:, None]
            bias = torch.zeros(hidden.shape, device=self._device).masked_fill_(hidden, -torch.inf)
            bias = bias.repeat_interleave(self._kv_heads, 0)[:, None, :]
            logits = self._forward(tokens, positions, layout, Own(write, read(0), read(1), bias=bias))
            if inputs.logits is None:
                inputs.logits = logits.new_empty(self._plan.rows, logits.shape[1])
            inputs.logits[:n] = logits

        return body


class Inputs:
    """The buffers of one plan, at addresses that stay: what recorded steps read and write."""

    def __init__(self, plan: Plan, kv_heads: int, device: torch.device) -> None:
        self._plan, self._kv_heads, self._device = plan, kv_heads, device
        # tokens, positions and places in the response, one row each
        self.step = torch.zeros((3, plan.rows), dtype=torch.int64, device=device)
        self.numbers = torch.arange(max(plan.rows, plan.own_len), device=device)
        self.logits: torch.Tensor | None = None  # [rows, V], which every bucket writes to
        self._place = torch.zeros(plan.rows * kv_heads, dtype=torch.int64, device=device)
        self._bias = torch.zeros((plan.prompts, 1, plan.prompt_len), device=device)
        self._sources: dict[tuple[int, int], torch.Tensor] = {}
        self.filled: tuple[int, int] | None = None  # prompts and members that place and source are arranged for

    def layout(self, bucket: Bucket) -> Layout:
        size = bucket.prompts, bucket.members
        return Layout(
            prompts=bucket.prompts,
            members=bucket.members,
            prompt_len=self._plan.prompt_len,
            place=self._place[: bucket.rows * self._kv_heads],
            source=self._source(size),
            prompt_bias=self._bias[: bucket.prompts],
        )

    def _source(self, size: tuple[int, int]) -> torch.Tensor:
        if size not in self._sources:
            length = size[0] * size[1] * self._kv_heads
            self._sources[size] = torch.zeros(length, dtype=torch.int64, device=self._device)
        return self._sources[size]

    def fill_layout(self, bucket: Bucket, slot_N: np.ndarray, lengths_Q: np.ndarray) -> None:
        """Copies the arrangement of the rows for a bucket, unless it is there already."""
        size = bucket.prompts, bucket.members
        if self.filled == size:
            return
        place, source, _ = arrange(slot_N, bucket.prompts, self._kv_heads, bucket.members)
        whole = np.zeros(len(self._place), dtype=np.int64)  # rows that are not alive read the first place
        whole[: len(place)] = place
        self._place.copy_(torch.from_numpy(whole))
        self._source(size).copy_(torch.from_numpy(source))
        self._bias[: len(lengths_Q)].copy_(torch.from_numpy(prompt_bias(lengths_Q, self._plan.prompt_len)))
        self.filled = size

    def fill_step(self, tokens_N: np.ndarray, positions_N: np.ndarray, index_N: np.ndarray) -> None:
        whole = np.zeros(self.step.shape, dtype=np.int64)
        whole[:, : len(tokens_N)] = tokens_N, positions_N, index_N
        self.step.copy_(torch.from_numpy(whole))
