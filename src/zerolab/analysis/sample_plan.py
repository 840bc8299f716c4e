"""A model sampled under every template and temperature of a plan; what is stored already is not sampled again."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zerolab.analysis.contamination import SHARES, cut, probes, template_name
from zerolab.data.templates import Template
from zerolab.errors import UserError
from zerolab.evaluation import settings as stored
from zerolab.evaluation.benchmarks import Benchmarks, benchmark_names, load_benchmarks
from zerolab.evaluation.collect import collect
from zerolab.evaluation.command import Options, Served, check, find_template, make_settings, open_sampler
from zerolab.evaluation.endpoint_limits import without_secrets
from zerolab.evaluation.local_model import Machine, Parts, find_model
from zerolab.evaluation.responses import RESPONSES, Response, ResponseFile
from zerolab.evaluation.samplers import EngineSampler, Sampler
from zerolab.evaluation.settings import Settings


@dataclass(frozen=True)
class Plan:
    """`options` says what all settings share: benchmarks, samples, budget, seed. A greedy setting has one sample."""

    options: Options
    templates: tuple[str, ...]
    temperatures: tuple[float, ...]
    prefix: bool = False  # also the contamination probe

    def settings(self) -> list[Options]:
        return [
            replace(self.options, template=t, temperature=T, samples=self.options.samples if T > 0 else 1)
            for t in self.templates
            for T in self.temperatures
        ]


@dataclass
class Sampling:
    responses: list[Response] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)  # (question, why)
    stopped: bool = False


def floats(text: str, option: str) -> tuple[float, ...]:
    """Numbers of a comma-separated list."""
    try:
        found = tuple(dict.fromkeys(float(part) for part in text.split(",") if part.strip()))
    except ValueError:
        raise UserError(f"{option} {text!r} is no list of numbers: write 0.6,1") from None
    if not found:
        raise UserError(f"{option} is empty: write 0.6,1")
    return found


def names(text: str, option: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))
    if not found:
        raise UserError(f"{option} is empty: write r1,none")
    return found


def slug(name: str) -> str:
    """A name as a folder."""
    return re.sub(r"[^\w.-]+", "-", name.strip("/."))[-80:].strip("-") or "model"


def sample_model(plan: Plan, served: Served, machine: Machine, parts: Parts, folder: Path) -> Sampling:
    """All settings of the plan, each in a folder of its own below `folder`, like an evaluation's.

    Ctrl-C ends it with what is stored; the same call goes on. Raises UserError on bad input and where nothing came.
    """
    for options in plan.settings():
        check(options, served)
    benchmarks = load_benchmarks(benchmark_names(plan.options.benchmarks), plan.options.data_dir, plan.options.limit)
    jobs = [(options, find_template(options)) for options in plan.settings()]
    target = plan.options.target
    path, note = (target, None) if served.url else find_model(parts().resolve(target))
    sampler, _ = open_sampler(path, served, machine, parts, jobs[0][1])
    found = Sampling()
    try:
        for options, template in jobs:
            settings = make_settings(options, served, template, benchmarks, note)
            if not found.stopped:
                _sample(sampler, benchmarks, _bound(template, sampler), settings, folder, found)
        for share in SHARES if plan.prefix else ():
            if not found.stopped:
                settings = _probe_settings(plan.options, served, share, note)
                _sample(sampler, _probed(benchmarks, share), _Prefix(share), settings, folder, found)
    finally:
        sampler.close()
    if not found.responses:
        last = found.failures[-1][1] if found.failures else "stopped before the first one"
        raise UserError(f"nothing was sampled from {target} ({last}); start again to go on")
    return found


def _sample(
    sampler: Sampler, benchmarks: Benchmarks, template: Any, settings: Settings, folder: Path, found: Sampling
) -> None:
    """One setting: what its folder lacks is sampled into it."""
    here = folder / f"{slug(settings.template)}-t{settings.temperature:g}"
    settings = replace(settings, benchmarks={name: len(questions) for name, questions in benchmarks.items()})
    settings = stored.continued(stored.load(here), settings, here)
    file = ResponseFile(here / RESPONSES)
    stored.save(settings, here)
    collected = collect(sampler, benchmarks, template, settings, file)
    found.responses += collected.responses
    found.failures += collected.failures
    found.stopped = collected.stopped


def _bound(template: Template, sampler: Sampler) -> Template:
    """With the model's own chat template in it, where the template wants that."""
    if isinstance(sampler, EngineSampler):
        return template.bound(sampler.tokenizer)
    if template.chat is not None:
        raise UserError(
            "template chat needs the model's tokenizer: with --endpoint use --api chat and another template"
        )
    return template


@dataclass(frozen=True)
class _Prefix:
    """Renders the beginning of a question and nothing else."""

    share: float

    def render(self, question: str) -> str:
        return cut(question, self.share)[0]


def _probed(benchmarks: Benchmarks, share: float) -> Benchmarks:
    """The questions whose hidden part is long enough."""
    return {name: [q for _, q, _ in probes(questions, (share,))] for name, questions in benchmarks.items()}


def _probe_settings(options: Options, served: Served, share: float, note: str | None) -> Settings:
    return Settings(
        model=options.target,
        template=template_name(share),
        prompt=f"the first {share:.0%} of {{question}}",
        budget=options.budget,
        seed=options.seed,
        limit=options.limit,
        endpoint=without_secrets(served.url) if served.url else None,
        note=note,
    )


def stored_below(folder: Path) -> Sequence[Path]:
    """Files of responses of an earlier analysis."""
    return sorted((folder / "responses").rglob(RESPONSES)) if (folder / "responses").is_dir() else []
