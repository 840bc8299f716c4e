"""Train recipes for some steps at another commit and here, and compare their metrics.

Run: python -m tools.same_metrics COMMIT [RECIPE ...] [--steps N]

Both commits run in this environment and on this machine, each from its own checkout. Metrics that the published key map
(CHANGELOG) renames are compared under their new name; `time/*` is left out. Exit 1 if a value differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Old key -> new key, and the keys whose meaning was changed on purpose.
RENAMED = {"entropy": "learned/entropy", "nll": "learned/nll"}
REDEFINED = {"entropy"}
RECIPES = ("laptop/smoke", "laptop/grpo")

Rows = list[dict[str, object]]


def train(checkout: Path, recipe: str, steps: int, out: Path) -> Rows:
    """The metrics of a run of the checkout's own code."""
    changes = [f"steps={steps}", "evaluation.every=0", "checkpoint.every=0", f"out={out}"]
    command = [sys.executable, "-m", "zerolab", "train", recipe, *(w for c in changes for w in ("--set", c))]
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def differences(old: Rows, new: Rows) -> list[str]:
    """Every metric of a step that one side lacks or that has another value, as a line."""
    found = [] if len(old) == len(new) else [f"{len(old)} and {len(new)} steps"]
    for before, after in zip(old, new, strict=False):
        before = {RENAMED.get(key, key): value for key, value in before.items() if not key.startswith("time/")}
        for key, value in before.items():
            if after.get(key) != value:
                found.append(f"step {before['step']}: {key} was {value}, is {after.get(key, 'not there')}")
        added = set(after) - set(before) - REDEFINED
        found += [f"step {before['step']}: {key} is new" for key in sorted(added) if not key.startswith("time/")]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit")
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "checkout"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "-q", "--detach", checkout, options.commit], check=True)
        try:
            for number, recipe in enumerate(options.recipes):
                sides = [
                    train(place, recipe, options.steps, Path(folder) / f"run{number}-{side}")
                    for side, place in enumerate((checkout, ROOT))
                ]
                found = differences(*sides)
                wrong += bool(found)
                keys = len([key for key in sides[1][0] if not key.startswith("time/")]) if sides[1] else 0
                print(f"{recipe}: {len(sides[1])} steps, {keys} metrics a step, {len(found)} differences")
                print("".join(f"    {line}\n" for line in found[:40]), end="")
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", checkout], check=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
