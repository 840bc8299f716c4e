"""Weights on their way from the learner to the engines.

The learner writes them into memory without a name of its own (memfd). Engines on its host map that memory; engines on
other hosts get it in buckets through Ray's object store. There are two places, used in turn: the one that was announced
last stays as it is while the next version is being written, so that an engine started meanwhile can read it.
"""

import math
import mmap
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
import torch

ALIGNMENT = 64  # bytes
BUCKET_BYTES = 2**28
WRITE_BYTES = 2**30  # a single write takes less than 2 GiB


class TransferLost(Exception):
    """Nobody has these weights any more."""


@dataclass(frozen=True)
class Entry:
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int  # byte, within a place


@dataclass(frozen=True)
class WeightTransfer:
    """A version of the weights that can be sent to other processes."""

    entries: tuple[Entry, ...]
    length: int  # bytes of a place
    place: int = 0
    memory: tuple[int, int, bytes] | None = None  # process and descriptor of the memory, and what stands at its start
    sender: Any = None  # the actor that hands out buckets
    buckets: tuple[Any, ...] = ()  # object references, where they are there already
    sent: int = 0  # counts the sender's transfers

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        return Receiver().unpack(self)


class Sender:
    """The memory that the learner writes to."""

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype  # of floating point weights on their way; None: as they are
        self.mark = uuid.uuid4().bytes
        self.descriptor = -1
        self.sent = 0
        self.entries: tuple[Entry, ...] = ()
        self.length = 0
        self._map: mmap.mmap | None = None
        self._buckets: tuple[int, tuple[Any, ...]] = (-1, ())

    def pack(self, tensors: Iterable[tuple[str, torch.Tensor]], sender: Any = None) -> WeightTransfer:
        """Copies the tensors, one by one, to the place whose turn it is."""
        given = ((name, self._as_sent(tensor.detach())) for name, tensor in tensors)
        place = self.sent % 2
        self.sent += 1
        if self._map is None:
            self._open(given)
        else:
            for entry, (_, tensor) in zip(self.entries, given, strict=True):
                view(self._map, entry, self._base(place)).copy_(tensor)
        memory = os.getpid(), self.descriptor, self.mark
        return WeightTransfer(self.entries, self.length, place, memory, sender, (), self.sent)

    def _as_sent(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.dtype) if self.dtype and tensor.is_floating_point() else tensor

    def _open(self, given: Iterable[tuple[str, torch.Tensor]]) -> None:
        """The first transfer: only when all of it was seen is it known how large the memory has to be."""
        entries = []
        self.descriptor = os.memfd_create("zerolab-weights")
        os.pwrite(self.descriptor, self.mark, 0)
        for name, tensor in given:
            entries.append(Entry(name, tensor.dtype, tuple(tensor.shape), self.length))
            flat = tensor.contiguous().cpu().flatten().view(torch.uint8).numpy()
            for at in range(0, len(flat), WRITE_BYTES):
                os.pwrite(self.descriptor, flat[at : at + WRITE_BYTES].data, ALIGNMENT + self.length + at)
            self.length += -(-len(flat) // ALIGNMENT) * ALIGNMENT
        self.entries = tuple(entries)
        size = ALIGNMENT + 2 * self.length
        os.ftruncate(self.descriptor, size)
        self._map = mmap.mmap(self.descriptor, size)

    def _base(self, place: int) -> int:
        return ALIGNMENT + place * self.length

    def put(self, transfer: WeightTransfer) -> tuple[Any, ...]:
        """The transfer as objects of Ray's store. TransferLost where its place has been written again."""
        if transfer.sent <= self.sent - 2 or self._map is None:
            raise TransferLost("the weights asked for were overwritten")
        if self._buckets[0] != transfer.sent:
            base = self._base(transfer.place)
            whole = torch.frombuffer(self._map, dtype=torch.uint8, count=transfer.length, offset=base).numpy()
            starts = range(0, transfer.length, BUCKET_BYTES)
            self._buckets = transfer.sent, tuple(ray.put(whole[i : i + BUCKET_BYTES]) for i in starts)
        return self._buckets[1]


class Receiver:
    """An engine's side. `shared` False: never by shared memory."""

    def __init__(self, shared: bool = True) -> None:
        self.shared = shared
        self._maps: dict[bytes, mmap.mmap] = {}

    def unpack(self, transfer: WeightTransfer) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, tensor); the tensors are views that hold until the transfer after the next. Raises TransferLost."""
        memory = self._open(transfer) if self.shared else None
        if memory is not None:
            base = ALIGNMENT + transfer.place * transfer.length
            for entry in transfer.entries:
                yield entry.name, view(memory, entry, base)
            return
        whole = bytearray(transfer.length)
        start = 0
        for bucket in self._buckets(transfer):
            whole[start : start + len(bucket)] = bucket.data
            start += len(bucket)
        for entry in transfer.entries:
            yield entry.name, view(whole, entry, 0)

    def _buckets(self, transfer: WeightTransfer) -> Iterator[Any]:
        try:
            refs = transfer.buckets or ray.get(transfer.sender.put.remote(transfer))
            for ref in refs:
                yield ray.get(ref)
        except ray.exceptions.RayError as error:
            raise TransferLost("the weights were lost with the learner") from error

    def _open(self, transfer: WeightTransfer) -> mmap.mmap | None:
        """The sender's memory; None where this process does not see it."""
        if transfer.memory is None:
            return None
        process, descriptor, mark = transfer.memory
        if mark not in self._maps:
            try:
                handle = os.open(f"/proc/{process}/fd/{descriptor}", os.O_RDWR)
            except OSError:
                return None
            try:
                found = mmap.mmap(handle, ALIGNMENT + 2 * transfer.length)
            except (OSError, ValueError):
                return None
            finally:
                os.close(handle)
            if found[: len(mark)] != mark:
                return None
            self._maps = {mark: found}  # a former sender is gone
        return self._maps[mark]


def store(tensors: Iterable[tuple[str, torch.Tensor]]) -> WeightTransfer:
    """A transfer of tensors of this process, for engines anywhere."""
    weight_sender = Sender()
    transfer = weight_sender.pack(tensors)
    buckets = weight_sender.put(transfer)
    os.close(weight_sender.descriptor)
    return WeightTransfer(transfer.entries, transfer.length, buckets=buckets)


def view(memory: Any, entry: Entry, base: int) -> torch.Tensor:
    """The tensor in a buffer whose entries begin at byte `base`."""
    count = math.prod(entry.shape)
    if not count:
        return torch.empty(entry.shape, dtype=entry.dtype)
    return torch.frombuffer(memory, dtype=entry.dtype, count=count, offset=base + entry.start).view(entry.shape)
