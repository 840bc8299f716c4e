"""Claim L1 without markers at 87M parameters on one GPU: bases from scratch, both arms, five seeds. Never run so far.

Pretrains `gpu1/chain-gsm8k-base` under every base seed, runs `gpu1/chain-gsm8k` under GRPO and Dr. GRPO from each, and
judges the statements of the ledger's L1.natural. Goes on where it stopped; 7 H200 hours are our estimate.

    python benchmarks/length_natural.py [--folder FOLDER] [--bases 2] [--seeds 5] [--dry-run]
    ... --base-set KEY=VALUE --set KEY=VALUE      other keys of the two recipes: the same code anywhere, in small
"""

import argparse
import json
from pathlib import Path
from typing import Any

from zerolab.claims.experiments.length_statements import (
    length_numbers,
    main_statements,
    measure_step_use,
    meter_statements,
)
from zerolab.claims.results import write_table
from zerolab.claims.training import trained
from zerolab.claims.verdict import judge
from zerolab.recipes import find_recipe, load

ARMS = ("grpo", "dr_grpo")
BASE, RUN = "gpu1/chain-gsm8k-base", "gpu1/chain-gsm8k"
ALWAYS = ("checkpoint.keep=1", "transcripts_per_step=64")


def base_folder(folder: Path, seed: int, overrides: list[str]) -> Path:
    """The base of this seed, pretrained unless it is there."""
    from zerolab.pretrain import pretrain

    out = folder / f"base-{seed}"
    if not (out / "model" / "config.json").is_file():
        config = load(find_recipe(BASE), [*overrides, f"seed={seed}", f"out='{out}'"], verb="pretrain")
        pretrain(config, resume=(out / "checkpoints").is_dir(), overwrite=not (out / "checkpoints").is_dir())
    return out / "model"


def cell(folder: Path, base: Path, factors: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """The numbers of one run, from its file where it has run."""
    out = folder / "-".join(map(str, factors.values()))
    stored = out / "numbers.json"
    if stored.is_file():
        return {**factors, **json.loads(stored.read_text())}
    own = [f"out='{out / 'run'}'", f"model.path='{base}'", f"seed={factors['seed']}", f"objective={factors['arm']!r}"]
    config = load(find_recipe(RUN), [*ALWAYS, *overrides, *own], verb="train")
    numbers = {**length_numbers(trained(config)), **measure_step_use(config.folder)}
    stored.write_text(json.dumps(numbers))
    return {**factors, **numbers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/length-natural"))
    parser.add_argument("--bases", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--base-set", action="append", default=[])
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    plan: list[dict[str, Any]] = [
        {"condition": "reference", "arm": arm, "base": base, "seed": seed}
        for base in range(options.bases)
        for seed in range(options.seeds)
        for arm in ARMS
    ]
    if options.dry_run:
        print(f"{options.bases} bases of {BASE}, {len(plan)} runs of {RUN}")
        return
    rows: list[dict[str, Any]] = []
    for factors in plan:
        base = base_folder(options.folder, factors["base"], options.base_set)
        rows.append(cell(options.folder, base, factors, options.set))
        write_table(options.folder / "cells.csv", rows)
    for statement in (*main_statements("reference", ARMS), *meter_statements("reference")):
        found = judge(statement, statement.values(rows))
        print(f"{found.text}: {found.estimate:.3g} [{found.low:.3g}, {found.high:.3g}] {found.unit}: {found.verdict}")


if __name__ == "__main__":
    main()
