"""Memory that ran out: how it is recognised, and what is done about it."""

import gc
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from zerolab.errors import UserError
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
