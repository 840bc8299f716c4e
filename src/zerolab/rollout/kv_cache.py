"""Keys and values of the fused decoder: planned under a budget, laid out for streaming; and what follows a shortage.

The keys and values of a prompt are stored once, however many rows sample from it. Those of a row's own tokens lie in
blocks of consecutive positions, [block, row, head, position in block, channel]. At every step a block is read from its
first row to its last without a gap. On a CPU this is two to three times faster than rows that reserve their full length
side by side.
"""

import gc
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from zerolab.errors import UserError
from zerolab.rollout import kv_cache
from zerolab.rollout.engine import Request

# PyTorch has a type for this on an accelerator only: its CPU allocator and cuBLAS raise a plain RuntimeError.
SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_shortage(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def free_bytes(proc: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Main memory that can still be had, by the kernel and by the limit of a container. None where nobody says.

    Asked before a large allocation: the kernel grants more than there is, and kills the process when it is touched.
    """
    try:
        lines = dict(line.split(":", 1) for line in proc.read_text(encoding="utf-8").splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None
    try:
        limit, used = (int((group / name).read_text(encoding="utf-8")) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
        return min(free, limit - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):  # no such limit ("max"), or another kind of system
        return free


def fewer_rows(rows: int, requests: Sequence[Request]) -> int:
    """Half as many rows at once, said in a warning. UserError where one response was already too much.

    To be called when the exception is gone: as long as it lives, its frames hold the tensors that were in the way.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if rows <= 1:
        prompt, new = max(len(r.prompt_ids) for r in requests), max(r.max_new_tokens for r in requests)
        raise UserError(
            f"memory ran out with one response at a time ({prompt} prompt + {new} new tokens): lower "
            'rollout.max_new_tokens, set model.precision = "bf16", or use a smaller model'
        )
    warnings.warn(
        f"memory ran out with {rows} responses at once; sampling goes on with {rows // 2} "
        "(to have that from the start, lower rollout.kv_gb)",
        stacklevel=2,
    )
    return rows // 2


@dataclass(frozen=True, slots=True)
class Plan:
    """rows and prompts that fit at once; the longest prompt; own positions = blocks x block."""

    rows: int
    prompts: int
    prompt_len: int
    block: int
    blocks: int

    @property
    def own_len(self) -> int:
        return self.block * self.blocks

    @property
    def tokens(self) -> int:
        return self.rows * self.own_len + self.prompts * self.prompt_len


def plan_memory(
    requests: Sequence[Request],
    *,
    bytes_per_token: int,
    budget_bytes: int,
    max_rows: int,
    block: int | None,
    prompt_unit: int = 1,
) -> Plan:
    """The largest batch for these requests under the budget; `block=None` means one block over all positions.

    The room of a prompt is rounded up to a multiple of `prompt_unit` where the budget has room for one such.

    Raises UserError when not even one request fits.
    """
    prompt_len = max(len(r.prompt_ids) for r in requests)
    longest = max(r.max_new_tokens for r in requests)
    block = longest if block is None else min(block, longest)
    blocks = -(-longest // block)
    distinct = len({r.prompt_ids for r in requests})
    row_tokens, room = block * blocks, budget_bytes // bytes_per_token
    rounded = -(-prompt_len // prompt_unit) * prompt_unit
    if row_tokens + rounded <= room:
        prompt_len = rounded
    if row_tokens + prompt_len > room:
        need, have = ((t * bytes_per_token) / 2**20 for t in (row_tokens + prompt_len, room))
        raise UserError(
            f"one response ({prompt_len} prompt + {longest} new tokens) needs {need:.1f} MiB of key/value memory, "
            f"the budget is {have:.1f} MiB; raise rollout.kv_gb or lower rollout.max_new_tokens"
        )
    if len(requests) * row_tokens + distinct * prompt_len <= room and len(requests) <= max_rows:
        return Plan(len(requests), distinct, prompt_len, block, blocks)
    # Rows of one prompt finish at different times, so about twice as many prompts are alive as full groups would need.
    prompts_per_row = min(1.0, 2 * distinct / len(requests))
    rows = max(1, min(int(room / (row_tokens + prompts_per_row * prompt_len)), max_rows, len(requests)))
    while rows > 1 and rows * row_tokens + prompt_len > room:
        rows -= 1
    prompts = max(1, min(distinct, rows, (room - rows * row_tokens) // prompt_len))
    return Plan(rows, prompts, prompt_len, block, blocks)


class Memory:
    """One flat tensor, kept between calls and cut anew for each plan.

    prompt [layers, 2, prompts, kv_heads, prompt_len, head_dim]
    own    [layers, 2, blocks, rows, kv_heads, block, head_dim]
    """

    def __init__(self, layers: int, kv_heads: int, head_dim: int, *, device: torch.device, dtype: torch.dtype) -> None:
        self._layers, self._heads, self._dim = layers, kv_heads, head_dim
        self._flat = torch.empty(0, device=device, dtype=dtype)
        self.bytes_per_token = 2 * layers * kv_heads * head_dim * dtype.itemsize

    def cut(self, plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
        """(prompt, own) for this plan; what was stored is lost."""
        per_token = 2 * self._layers * self._heads * self._dim
        if self._flat.numel() < plan.tokens * per_token:
            self._flat = self._flat.new_empty(0)  # given back before the larger one is asked for
            size = plan.tokens * self.bytes_per_token
            free = kv_cache.free_bytes() if self._flat.device.type == "cpu" else None
            if free is not None and size > free:
                raise MemoryError(f"{size / 2**20:.0f} MiB for keys and values, {free / 2**20:.0f} MiB are free")
            # Zeros: what was never written is masked, but 0 x NaN would still be NaN.
            self._flat = self._flat.new_zeros(plan.tokens * per_token)
        split = plan.prompts * plan.prompt_len * per_token
        prompt = self._flat[:split].view(self._layers, 2, plan.prompts, self._heads, plan.prompt_len, self._dim)
        own = self._flat[split : plan.tokens * per_token].view(
            self._layers, 2, plan.blocks, plan.rows, self._heads, plan.block, self._dim
        )
        return prompt, own

    def release(self) -> None:
        self._flat = self._flat.new_empty(0)
