"""The study of a model: everything that its responses say, as tables, figures and one JSON.

The responses are recorded ones, for which no model is needed, or those of a plan: the model is sampled under every
template and temperature of the plan, and responses that are stored already are not sampled again.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from zerolab.analysis import plots
from zerolab.analysis.answering import AnsweringRow, answering, answering_table
from zerolab.analysis.contamination import (
    SHARES,
    Completion,
    completion,
    completion_table,
    cut,
    probes,
    share_of,
    template_name,
)
from zerolab.analysis.exploration import (
    GridRow,
    Lengths,
    PassAtK,
    benchmark_table,
    exploration,
    exploration_table,
    grid,
    grid_table,
    lengths,
    lengths_table,
)
from zerolab.analysis.judge import ANSWERING, REFLECTION, Judge, JudgeCounts, Rubric, Verdict
from zerolab.analysis.reflection import (
    Example,
    Reflection,
    accuracy_table,
    examples,
    page,
    phrase_table,
    reflection,
    reflection_table,
)
from zerolab.analysis.result_table import Table
from zerolab.data.templates import Template
from zerolab.errors import UserError
from zerolab.evaluation import collect as stored
from zerolab.evaluation.benchmarks import Benchmarks, benchmark_names, load_benchmarks
from zerolab.evaluation.collect import Settings, collect
from zerolab.evaluation.command import Options, Served, check, find_template, make_settings, open_sampler
from zerolab.evaluation.endpoint import without_secrets
from zerolab.evaluation.responses import RESPONSES, Response, ResponseFile
from zerolab.evaluation.samplers import EngineSampler, Machine, Resolver, Sampler, find_model
from zerolab.phrases import Scope
from zerolab.rundir import OTHER_OUT, clear_errors, write_atomically

Progress = Callable[[str, int], None]  # what is being judged, how many are


@dataclass(frozen=True)
class Study:
    responses: tuple[Response, ...]
    scope: Scope
    grid: list[GridRow]
    answering: list[AnsweringRow]
    exploration: list[PassAtK]
    reflection: list[Reflection]
    lengths: list[Lengths]
    examples: list[Example]
    completion: list[Completion]
    judge: str | None = None
    judge_counts: dict[str, JudgeCounts] = field(default_factory=dict)

    def tables(self) -> list[Table]:
        found = []
        if self.grid:
            found.append(grid_table(self.grid))
            if any(len(row.benchmarks) > 1 for row in self.grid):
                found.append(benchmark_table(self.grid))
            found += [answering_table(self.answering), exploration_table(self.exploration)]
            found += [reflection_table(self.reflection), accuracy_table(self.reflection)]
            phrases = phrase_table(self.reflection, self.scope)
            found += [phrases] if phrases.rows else []
            found.append(lengths_table(self.lengths))
        if self.completion:
            found.append(completion_table(self.completion))
        if self.judge_counts:
            found.append(judge_table(self.judge or "", self.judge_counts))
        return found


def ordinary(responses: Sequence[Response]) -> list[Response]:
    """Without those to a part of a question."""
    return [r for r in responses if share_of(r.template) is None]


def study(
    responses: Sequence[Response],
    judge: Judge | None = None,
    scope: Scope = "paper",
    progress: Progress = lambda what, done: None,
) -> Study:
    """Measures graded responses. With a judge, every response is judged for answering and for reflection."""
    asked = ordinary(responses)
    verdicts: dict[str, Sequence[Verdict | None] | None] = {}
    counts: dict[str, JudgeCounts] = {}
    for rubric in (ANSWERING, REFLECTION):
        verdicts[rubric.name] = None
        if judge is not None and asked:
            pairs = [(r.problem, r.response) for r in asked]
            verdicts[rubric.name], counts[rubric.name] = judge(rubric, pairs, _named(progress, rubric))
    reflecting = verdicts[REFLECTION.name]
    found = reflection(asked, reflecting, scope)
    marked = {id(r) for part in found for r in part.marked}
    shown = [i for i, r in enumerate(asked) if id(r) in marked]  # only these need to be looked through for examples
    return Study(
        tuple(responses),
        scope,
        grid(asked),
        answering(asked, verdicts[ANSWERING.name]),
        exploration(asked),
        found,
        lengths(asked),
        examples([asked[i] for i in shown], [reflecting[i] for i in shown] if reflecting else None, scope),
        completion(responses),
        judge.name if judge else None,
        counts,
    )


def _named(progress: Progress, rubric: Rubric) -> Callable[[int], None]:
    return lambda done: progress(f"judging {rubric.name}", done)


def judge_table(judge: str, counts: dict[str, JudgeCounts]) -> Table:
    columns = ("judge", "question", "replies asked", "from cache", "new verdicts", "garbage", "failed", "missing")
    rows = tuple(
        (judge, name, c.asked, c.cached, c.judged, c.garbage, c.failed, c.missing, c.unquoted)
        for name, c in counts.items()
    )
    note = "missing: no verdict after all attempts, left out of every share; unquoted: evidence not in the response"
    return Table("judge", "The judge", (*columns, "unquoted"), rows, note)


def write(found: Study, out: Path) -> list[Path]:
    """CSV of every table, figures, examples.html and analysis.json into `out`. UserError where it cannot be written."""
    with clear_errors(out, OTHER_OUT):
        out.mkdir(parents=True, exist_ok=True)
        tables = found.tables()
        written = [table.write_csv(out) for table in tables]
        written += draw(found, out)
        page_file, json_file = out / "examples.html", out / "analysis.json"
        if found.grid:
            write_atomically(page_file, page(found.examples))
            written.append(page_file)
        content = {
            "responses": len(found.responses),
            "words": found.scope,
            "judge": found.judge,
            "judge_counts": {name: asdict(counts) for name, counts in found.judge_counts.items()},
            "tables": {t.name: {"title": t.title, "note": t.note, "rows": t.records()} for t in tables},
        }
        write_atomically(json_file, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return [*written, json_file]


def draw(found: Study, out: Path) -> list[Path]:
    """The figures, each with its CSV beside it (that of the table, or of the histogram)."""
    return [*(_draw_settings(found, out) if found.grid else ()), *(_draw_probe(found, out) if found.completion else ())]


def _draw_settings(found: Study, out: Path) -> list[Path]:
    named = plots.with_short_names([row.setting for row in found.grid])
    accuracies: dict[str, list[plots.Point]] = {
        "strict": [(named[r.setting].label, r.strict.value, r.strict.interval) for r in found.grid],
        "lenient": [(named[r.setting].label, r.lenient.value, r.lenient.interval) for r in found.grid],
    }
    shares: dict[str, list[plots.Point]] = {
        "rules": [(named[r.setting].label, r.rules.value, r.rules.interval) for r in found.answering],
    }
    judged = [(named[r.setting].label, r.judge) for r in found.answering if r.judge]
    if judged:
        shares["judge"] = [(label, rate.value, rate.interval) for label, rate in judged]
    effects: dict[str, list[plots.Point]] = {"within questions": [], "pooled (confounded)": []}
    for r in found.reflection:
        if r.detector == ("both" if judged else "keywords"):
            label, a = named[r.setting].label, r.accuracy
            effects["within questions"].append((label, a.difference, a.interval))
            effects["pooled (confounded)"].append((label, a.pooled_difference, None))
    detected = "keywords and judge" if judged else "keywords"
    title, axis = f"Accuracy of reflecting minus other responses ({detected})", "difference of accuracy"
    return [
        plots.dots(out / "grid.png", "Templates x models", "accuracy with 95 % interval", accuracies),
        plots.dots(out / "answering.png", "Answering", "share that answers, 95 % interval", shares),
        plots.draw_exploration(out / "exploration.png", found.exploration),
        plots.draw_reflection(out / "reflection.png", found.reflection),
        plots.dots(out / "reflection_accuracy.png", title, axis, effects, zero=True),
        plots.draw_lengths(out / "lengths_histogram.png", found.lengths),
        plots.histogram(found.lengths).write_csv(out),
    ]


def _draw_probe(found: Study, out: Path) -> list[Path]:
    points: dict[str, list[plots.Point]] = {"exact": [], "ROUGE-L": [], "answered": []}
    for c in found.completion:
        label = f"{plots.short(c.model)} {c.benchmark}, {c.share:.0%} given".strip()
        points["exact"].append((label, c.exact.value, c.exact.interval))
        points["ROUGE-L"].append((label, c.rouge, c.rouge_interval))
        points["answered"].append((label, c.answered.value, c.answered.interval))
    title = "The rest of a question from its beginning"
    return [plots.dots(out / "completion.png", title, "share or ROUGE-L, 95 % interval", points)]


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


def sample_model(plan: Plan, served: Served, machine: Machine, resolve: Resolver, folder: Path) -> Sampling:
    """All settings of the plan, each in a folder of its own below `folder`, like an evaluation's.

    Ctrl-C ends it with what is stored; the same call goes on. Raises UserError on bad input and where nothing came.
    """
    for options in plan.settings():
        check(options, served)
    benchmarks = load_benchmarks(benchmark_names(plan.options.benchmarks), plan.options.data_dir, plan.options.limit)
    jobs = [(options, find_template(options)) for options in plan.settings()]
    target = plan.options.target
    path, note = (target, None) if served.url else find_model(resolve(target))
    sampler, _ = open_sampler(path, served, machine, jobs[0][1])
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
