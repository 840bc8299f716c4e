"""An experiment beyond the laptop: the commands that would run it, and their GPU hours by the cost model of the plan.

Nothing of it is run by the ledger; the commands are for whoever has the hardware.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zerolab.errors import UserError


@dataclass(frozen=True)
class Training:
    """Runs of a recipe: arms by name, each with its overrides; with controls beside each, under every seed."""

    recipe: str
    arms: Mapping[str, tuple[str, ...]]
    seeds: int = 1
    common: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()

    def runs(self) -> list[tuple[list[str], str | None]]:
        """(overrides, control) of every run."""
        return [
            ([f"name={name}", f"seed={seed}", *self.common, *changes], control)
            for name, changes in self.arms.items()
            for seed in range(self.seeds)
            for control in (None, *self.controls)
        ]

    def commands(self) -> list[str]:
        found = []
        for overrides, control in self.runs():
            words = ["zerolab", "train", self.recipe, *(w for item in overrides for w in ("--set", item))]
            found.append(shlex.join([*words, *(["--control", control] if control else [])]))
        return found

    def configs(self) -> list[Any]:
        """The resolved config of every run."""
        from zerolab.controls import controlled
        from zerolab.recipes import find_recipe, load

        found = []
        for overrides, control in self.runs():
            config = load(find_recipe(self.recipe), overrides, verb="train")
            found.append(controlled(config, control) if control else config)
        return found

    def gpu_hours(self, gpus: str) -> float:
        from zerolab.plan.cost import estimate
        from zerolab.plan.gpus import parse_cluster
        from zerolab.plan.job import Job
        from zerolab.plan.layout import choose

        cluster = parse_cluster(gpus)
        jobs = [Job(config, _shape(config.model.path), cluster) for config in self.configs()]
        return sum(estimate(job, choose(job.config, cluster, None, None, None)).gpu_hours for job in jobs)


@dataclass(frozen=True)
class Sampling:
    """Responses of models that are not trained: `zerolab analyze`, on one GPU."""

    models: tuple[str, ...]
    benchmarks: str
    templates: str = "r1,qwen-math,none"
    temperatures: str = "1"
    samples: int = 8
    budget: int = 3000
    limit: int | None = None
    judged: bool = False
    kv_gb: int = 40

    def commands(self) -> list[str]:
        words = ["--benchmarks", self.benchmarks, "--templates", self.templates, "--temperatures", self.temperatures]
        words += ["--samples", str(self.samples), "--budget", str(self.budget)]
        words += ["--limit", str(self.limit)] if self.limit else []
        words += ["--device", "cuda", "--precision", "bf16", "--kv-gb", str(self.kv_gb)]
        words += ["--judge", "http://localhost:8001/v1", "--judge-model", "JUDGE"] if self.judged else []
        return [shlex.join(["zerolab", "analyze", model, *words]) for model in self.models]

    def settings(self) -> list[tuple[int, int]]:
        """(responses, responses to a question) of every template and temperature; a greedy one has one a question."""
        from zerolab.data.builtin import BUILT_IN
        from zerolab.evaluation.benchmarks import benchmark_names

        sizes = [BUILT_IN[name].rows or 0 for name in benchmark_names(self.benchmarks)]
        questions = sum(min(size, self.limit) if self.limit else size for size in sizes)
        samples = [1 if float(t) == 0 else self.samples for t in self.temperatures.split(",")]
        return [(questions * k, k) for k in samples for _ in self.templates.split(",")]

    def gpu_hours(self, gpus: str) -> float:
        from zerolab.plan.assumptions import Assumptions
        from zerolab.plan.cost import HALF, Machine, sampling_seconds
        from zerolab.plan.gpus import parse_cluster
        from zerolab.plan.lengths import Lengths
        from zerolab.plan.workload import Sampled

        assumed = Assumptions()
        machine = Machine(parse_cluster(gpus).gpu, assumed, HALF)
        lengths = Lengths(assumed.response_share * self.budget, self.budget)
        seconds = 0.0
        for model in self.models:
            layers = _shape(model).layers
            for responses, samples in self.settings():
                share = Sampled(responses, samples, assumed.prompt_tokens, lengths)
                seconds += sampling_seconds(layers, machine, share, self.kv_gb * 2**30)
        return seconds / 3600


@dataclass(frozen=True)
class Pretraining:
    """Pretraining on texts before RL, on one GPU; its model lies in runs/NAME-seed0/model."""

    recipe: str

    def commands(self) -> list[str]:
        return [shlex.join(["zerolab", "pretrain", self.recipe])]

    def gpu_hours(self, gpus: str) -> float:
        from zerolab.plan.assumptions import Assumptions
        from zerolab.plan.gpus import parse_cluster
        from zerolab.plan.pretraining import operations
        from zerolab.recipes import find_recipe, load

        config = load(find_recipe(self.recipe), verb="pretrain")
        rate = parse_cluster(gpus).gpu.flops * Assumptions().learn_utilisation
        return operations(config, _shape(config.model.path)) / rate / 3600


Work = Training | Sampling | Pretraining


@dataclass(frozen=True)
class Larger:
    """What a claim takes at one scale. `choices`: what the paper does not state, and what we chose."""

    gpus: str  # as `zerolab plan --gpus` reads it; "" where no GPU is needed
    work: tuple[Work, ...]
    choices: str
    after: tuple[str, ...] = field(default=())  # commands that read the runs

    def commands(self) -> list[str]:
        return [command for work in self.work for command in work.commands()] + list(self.after)

    def gpu_hours(self) -> float:
        return sum(work.gpu_hours(self.gpus) for work in self.work)


def _shape(path: str) -> Any:
    """Of a published family, so that a cost is the same on every machine."""
    from zerolab.plan.shapes import published

    shape = published(path)
    if shape is None:
        raise UserError(f"the shape of {path} is not known, and so no cost: add its family to zerolab.plan.shapes")
    return shape
