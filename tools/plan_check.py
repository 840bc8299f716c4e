"""The cost model beside what was measured on one CPU core: benchmarks/results/plan.json and rl_step.json.

Three constants are fitted to three points, which is said of them: the share of the matrix peak in learning, that in
sampling, and the host's time per decoding step. Every other point is predicted. Bandwidth is taken as measured. The
whole RL steps of rl_step.json are another benchmark, run at another time.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tools.markdown import table

from zerolab.plan.cost import FULL, Machine, forward_flops, sampling_seconds
from zerolab.plan.gpus import Gpu
from zerolab.plan.job import Assumptions, Lengths, Sampled
from zerolab.plan.shapes import Layers

FITTED = (("sampling", "15M", 256), ("sampling", "1M", 32), ("learning", "15M", 64))
ROOM = 1e12  # bytes: no rollout of the benchmark waits for memory
RESPONSES, GROUP, PROMPT, BUDGET = 256, 8, 48.0, 128  # of benchmarks/rl_step.py


@dataclass(frozen=True)
class Point:
    kind: str
    size: str
    rows: Sampled
    layers: Layers
    parameters: int
    seconds: float  # measured, of one core
    of: str = "alone"  # or a part of something larger

    @property
    def key(self) -> tuple[str, str, int]:
        return self.kind, self.size, self.rows.responses


@dataclass(frozen=True)
class Checked:
    point: Point
    predicted: float
    fitted: bool

    @property
    def ratio(self) -> float:
        return self.predicted / self.point.seconds


def read(path: Path) -> tuple[Gpu, list[Point]]:
    """The core as the model sees it, and what was measured on it."""
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    core = Gpu("core", ROOM, results["flops"], results["flops"], results["bandwidth"], ROOM, "measured")
    return core, [_point(raw) for raw in results["points"]]


def _point(raw: Mapping[str, Any]) -> Point:
    rows = Sampled(raw["responses"], raw["group"], raw["prompt"], Lengths(raw["mean"], raw["budget"]))
    shape = dict(raw["shape"])
    parameters = shape.pop("parameters")
    return Point(raw["kind"], raw["size"], rows, Layers(**shape), parameters, raw["seconds"])


def read_steps(path: Path, points: list[Point]) -> list[Point]:
    """Sampling and learning of the whole RL steps on one thread, with the shapes of `points`.

    What the learner spares is what the benchmark measured: the tokens that it forwarded, and a group's prompt once.
    """
    shapes = {point.size: point for point in points}
    found = []
    for raw in json.loads(path.read_text(encoding="utf-8"))["results"]["steps"]:
        if raw["threads"] != 1:
            continue
        ours, like = raw["zerolab"], shapes[raw["size"]]
        lengths = Lengths(ours["length"], BUDGET)
        sampled = Sampled(RESPONSES, GROUP, PROMPT, lengths)
        learned = Sampled(round(RESPONSES * ours["coverage"]), GROUP, PROMPT / GROUP, lengths)
        name = f"RL step, {raw['rewards']}, {raw['updates']} update" + "s" * (raw["updates"] > 1)
        found.append(replace(like, kind="sampling", rows=sampled, seconds=ours["sample"], of=name))
        found.append(replace(like, kind="learning", rows=learned, seconds=ours["learn"], of=name))
    return found


def predict(point: Point, core: Gpu, assumed: Assumptions) -> float:
    """Seconds of a rollout, or of an optimizer step on one rank."""
    machine = Machine(core, assumed, FULL)
    if point.kind == "sampling":
        return sampling_seconds(point.layers, machine, point.rows, ROOM)
    products = 3 * point.rows.responses * forward_flops(point.layers, point.rows)
    return products / (core.flops * assumed.learn_utilisation) + optimizer_seconds(point, machine)


def optimizer_seconds(point: Point, machine: Machine) -> float:
    return point.parameters * 8 * FULL / machine.bytes_per_s


def fit(core: Gpu, points: list[Point]) -> Assumptions:
    """Where products bound every step, a rollout takes A / utilisation + n x host time, and an optimizer step takes
    B / utilisation + the optimizer's time: two rollouts and one step give all three."""
    plain = replace(Assumptions(), bandwidth_utilisation=1, prefill_utilisation=1, host_ms=0, learn_utilisation=1)
    *rollouts, learned = (next(p for p in points if p.key == key) for key in FITTED)
    products = np.array([predict(p, core, plain) for p in rollouts])
    hosts = np.array([predict(p, core, replace(plain, host_ms=1)) for p in rollouts]) - products
    inverse, host_ms = np.linalg.solve(np.stack([products, hosts], 1), [p.seconds for p in rollouts])
    optimizer = optimizer_seconds(learned, Machine(core, plain, FULL))
    share = (predict(learned, core, plain) - optimizer) / (learned.seconds - optimizer)
    return replace(plain, prefill_utilisation=1 / float(inverse), host_ms=float(host_ms), learn_utilisation=share)


def check(path: Path) -> tuple[Assumptions, list[Checked]]:
    core, points = read(path)
    fitted = fit(core, points)
    steps = read_steps(path.with_name("rl_step.json"), points)
    alone = [Checked(point, predict(point, core, fitted), point.key in FITTED) for point in points]
    return fitted, alone + [Checked(point, predict(point, core, fitted), fitted=False) for point in steps]


def check_tables(path: Path) -> dict[str, str]:
    """For docs/scaling.md: every point, and the constants that were fitted."""
    fitted, found = check(path)
    rows = [
        [
            row.point.kind,
            row.point.of,
            row.point.size,
            f"{row.point.rows.responses}",
            f"{row.point.seconds:.2f}",
            f"{row.predicted:.2f}",
            "fitted" if row.fitted else f"{row.ratio:.2f}",
        ]
        for row in found
    ]
    heads = ("what", "of", "parameters", "responses", "measured, CPU-seconds", "model", "model / measured")
    words = (
        f"Fitted: {fitted.learn_utilisation:.0%} of the matrix peak in learning, {fitted.prefill_utilisation:.0%} in "
        f"sampling, {fitted.host_ms:.1f} ms of the host per decoding step.\n"
    )
    return {"cpu": table(heads, rows) + "\n" + words}
