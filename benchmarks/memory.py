"""Peak memory of a run on one core, by what the run was doing: a few steps of a recipe. Linux only.

python benchmarks/memory.py laptop/smollm2-grpo [--set KEY=VALUE ...] [--steps 2] [--json FILE]

The kernel keeps the peak of a process. It is set back at the beginning of every phase (/proc/self/clear_refs), so that
a peak belongs to the phase in which it was reached. Seconds are CPU-seconds.
"""

import argparse
import functools
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import record

GIB = 2**20  # in KiB, the unit of /proc
PHASES = {  # what of zerolab.train a phase is
    "build": "build",
    "update": "learn",
    "save": "write a checkpoint",
}


class Peaks:
    """Peak memory and CPU-seconds of every phase; phases may be nested, and the inner one counts."""

    def __init__(self) -> None:
        self.kib: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)
        self._open = ["sample and the rest"]
        self._began = time.process_time()
        reset()

    def _close_part(self) -> None:
        name = self._open[-1]
        self.kib[name] = max(self.kib[name], high_water())
        self.seconds[name] += time.process_time() - self._began
        self._began = time.process_time()
        reset()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._close_part()
        self._open.append(name)
        try:
            yield
        finally:
            self._close_part()
            self._open.pop()

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            with self.phase(name):
                return function(*arguments, **options)

        return wrapped


def reset() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def high_water() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(recipe: str, overrides: list[str], steps: int, control: str | None) -> dict[str, Any]:
    """Train some steps and return GiB and seconds by phase. The last step writes a checkpoint."""
    import zerolab.learner.learner as learner
    import zerolab.train as loop
    from zerolab.recipes import controlled, find_recipe, load

    with tempfile.TemporaryDirectory() as out:
        changes = [*overrides, f"steps={steps}", f"out={json.dumps(out + '/run')}"]
        config = load(find_recipe(recipe), changes, verb="train")
        config = controlled(config, control) if control else config
        peaks = Peaks()
        with ExitStack() as patched:
            for function, phase in PHASES.items():
                patched.enter_context(mock.patch.object(loop, function, peaks.wrap(phase, getattr(loop, function))))
            step = peaks.wrap("optimizer step", learner.clip_and_step)
            patched.enter_context(mock.patch.object(learner, "clip_and_step", step))
            loop.train(config, overwrite=True)
        peaks._close_part()
    gib = {name: kib / GIB for name, kib in peaks.kib.items()}
    asked = {"recipe": recipe, "set": overrides, "control": control, "steps": steps}
    return asked | {"peak_gib": max(gib.values()), "phases_gib": gib, "seconds": dict(peaks.seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="laptop/smollm2-grpo")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--control", help="random-reward: nearly every response has a gradient, the worst case")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args()
    if not Path("/proc/self/clear_refs").exists():
        sys.exit("peaks by phase need /proc/self/clear_refs: Linux only")
    found = measure(chosen.recipe, chosen.overrides, chosen.steps, chosen.control)
    for name, gib in found["phases_gib"].items():
        print(f"{name:24}{gib:6.2f} GiB {found['seconds'][name]:7.1f} s")
    print(f"{'peak':24}{found['peak_gib']:6.2f} GiB")
    if chosen.json:
        record.write("memory", found, chosen.json)


if __name__ == "__main__":
    main()
