"""`zerolab evaluate`: sample what is missing, grade everything, print and store the tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from zerolab.errors import UserError
from zerolab.evaluation import collect as stored
from zerolab.evaluation.collect import Settings
from zerolab.evaluation.endpoint import without_secrets
from zerolab.terminal import echo, make_console

if TYPE_CHECKING:
    from zerolab.data.templates import Template
    from zerolab.evaluation.benchmarks import Benchmarks
    from zerolab.evaluation.responses import Response
    from zerolab.evaluation.samplers import Machine, Resolver, Sampler
    from zerolab.evaluation.score import Score

RESULTS_JSON, RESULTS_CSV, FAILURES = "results.json", "results.csv", "failures.jsonl"


@dataclass(frozen=True)
class Options:
    """What the command line says; None where it does not."""

    target: str
    benchmarks: str = "paper"
    data_dir: str | None = None
    limit: int | None = None
    template: str = "none"
    extractor: str | None = None
    samples: int = 1
    temperature: float | None = None
    top_p: float = 1.0
    budget: int = 3000
    seed: int = 0
    until_width: float | None = None
    max_samples: int = 64
    out: Path | None = None
    several_checkpoints: bool = False
    top_k: int = 0
    min_tokens: int = 0


@dataclass(frozen=True)
class Served:
    """Where a model is served, if it is."""

    url: str | None = None
    api: str = "completions"
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 16
    timeout: float = 600.0


def run(options: Options, served: Served, machine: Machine, resolve: Resolver) -> bool:
    """Evaluates a model, or responses that are there already. False where responses are missing.

    Raises UserError on bad input and where nothing was sampled; what was sampled is kept.
    """
    recorded = recorded_at(options.target)
    if recorded is not None and served.url is None:
        settings = stored.load(recorded.parent)
        scores = score_all(regraded(recorded, options.extractor, settings), settings)
        show(scores, settings, options.out or (recorded.parent if settings else None))
        return True
    check(options, served)
    return sample_and_score(options, served, machine, resolve)


def recorded_at(target: str) -> Path | None:
    """The file of responses that a target names: itself, or that in the folder of an evaluation."""
    from zerolab.evaluation.responses import RESPONSES

    path = Path(target).expanduser()
    if path.is_dir() and (path / RESPONSES).is_file():
        return path / RESPONSES
    if path.is_file() or path.suffix in (".jsonl", ".json"):
        if not path.is_file():
            raise UserError(f"{path}: no such file; give recorded responses, a model's folder, or a hub id")
        return path
    return None


def regraded(file: Path, extractor: str | None, settings: Settings | None) -> list[Response]:
    """The recorded responses, all graded anew; where the answer stands follows from the template they name."""
    from zerolab.data.templates import TEMPLATES
    from zerolab.evaluation.collect import Bar
    from zerolab.evaluation.responses import grade_responses, read_responses
    from zerolab.grading.extract import MODE_NAMES

    if extractor is not None and extractor not in MODE_NAMES:
        raise UserError(f"--extractor {extractor!r} is unknown: choose one of {', '.join(MODE_NAMES)}")
    responses = read_responses(file)
    default = settings.extractor if settings else "boxed"

    def mode(response: Response) -> str:
        known = TEMPLATES.get(response.template)
        return extractor or (settings.extractor if settings else known.extractor if known else default)

    with Bar(f"grading {file.name}", len(responses), "responses") as bar:
        return grade_responses(responses, mode, progress=lambda done: bar.advance(by=done - bar.done))


def check(options: Options, served: Served) -> None:
    for wrong, message in (
        (options.samples < 1, "--samples must be at least 1"),
        (options.budget < 1, "--budget must be at least 1 token"),
        (options.limit is not None and options.limit < 1, "--limit must be at least 1 question"),
        (not 0 < options.top_p <= 1, "--top-p must be above 0 and at most 1"),
        (options.temperature is not None and not 0 <= options.temperature <= 100, "--temperature must be 0 to 100"),
        (options.top_k < 0, "--top-k must be at least 0 (all)"),
        (not 0 <= options.min_tokens <= options.budget, "--min-tokens must be between 0 and the budget"),
        (served.api not in ("completions", "chat"), f"--api {served.api!r} is unknown: choose completions or chat"),
        (served.concurrency < 1, "--concurrency must be at least 1"),
        (not served.timeout > 0, "--timeout must be above 0 seconds"),
        (
            options.until_width is not None and not 0 < options.until_width < 100,
            "--until-width is the width of an interval in percentage points, between 0 and 100",
        ),
        (
            temperature(options) == 0 and (options.samples > 1 or options.until_width is not None),
            "greedy responses repeat themselves: set --temperature above 0 for --samples and --until-width",
        ),
        (
            options.until_width is not None and options.max_samples < first_look(options),
            f"--max-samples {options.max_samples} is less than the first look's {first_look(options)} samples",
        ),
    ):
        if wrong:
            raise UserError(message)


def temperature(options: Options) -> float:
    """Greedy for one sample, 1 for several."""
    if options.temperature is not None:
        return options.temperature
    return 0.0 if options.samples == 1 and options.until_width is None else 1.0


def first_look(options: Options) -> int:
    """With a width to reach, the first look needs some samples to see the noise of sampling."""
    return options.samples if options.until_width is None else max(4, options.samples)


def sample_and_score(options: Options, served: Served, machine: Machine, resolve: Resolver) -> bool:
    from zerolab.evaluation.benchmarks import benchmark_names, load_benchmarks
    from zerolab.evaluation.collect import collect
    from zerolab.evaluation.responses import RESPONSES, ResponseFile
    from zerolab.evaluation.samplers import find_model

    benchmarks = load_benchmarks(benchmark_names(options.benchmarks), options.data_dir, options.limit)
    template = find_template(options)
    path, note = options.target, None
    if served.url is None:
        path, note = find_model(resolve(options.target), list(benchmarks), options.several_checkpoints)
    settings = make_settings(options, served, template, benchmarks, note)
    if Path(path).parent.name == "checkpoints":  # a run's newest one may be another tomorrow
        settings = replace(settings, model=path)
    folder = options.out or default_folder(settings)
    settings = stored.continued(stored.load(folder), settings, folder)
    file = ResponseFile(folder / RESPONSES)
    sampler, template = open_sampler(path, served, machine, template)
    stored.save(settings, folder)
    try:
        found = collect(sampler, benchmarks, template, settings, file)
    finally:
        sampler.close()
    record_failures(folder, found.failures)
    if not found.responses:
        last = found.failures[-1][1] if found.failures else "stopped before the first one"
        raise UserError(f"nothing was sampled ({last}); start again to go on")
    show(score_all(found.responses, settings), settings, folder, found.failures, partial=found.stopped)
    if found.stopped:
        raise KeyboardInterrupt
    return not found.failures


def find_template(options: Options) -> Template:
    """A built-in template by name, or the [template] table of a TOML file."""
    from zerolab.config import TemplateConfig
    from zerolab.data.templates import make_template
    from zerolab.toml import parse, read_toml

    if options.template.endswith(".toml"):
        raw = read_toml(options.template)
        config = parse(TemplateConfig, raw.get("template", raw), options.template)
    else:
        config = parse(TemplateConfig, {"name": options.template}, "--template")
    if options.extractor is not None:
        config = parse(TemplateConfig, {**config.model_dump(), "extractor": options.extractor}, "--extractor")
    return make_template(config)


def make_settings(
    options: Options, served: Served, template: Template, benchmarks: Benchmarks, note: str | None
) -> Settings:
    return Settings(
        model=options.target,
        template=template.name,
        prompt=template.text,
        stop=template.stop,
        extractor=template.extractor,
        samples=first_look(options),
        temperature=temperature(options),
        top_p=options.top_p,
        top_k=options.top_k,
        min_tokens=options.min_tokens,
        budget=options.budget,
        seed=options.seed,
        limit=options.limit,
        endpoint=without_secrets(served.url) if served.url else None,
        benchmarks={name: len(questions) for name, questions in benchmarks.items()},
        until_width=options.until_width,
        max_samples=options.max_samples,
        note=note,
    )


def default_folder(settings: Settings) -> Path:
    """runs/evaluate/MODEL-TEMPLATE-greedy-3000, say: another setting, another folder."""
    model = re.sub(r"[^\w.-]+", "-", settings.model.strip("/."))[-80:].strip("-")
    how = "greedy" if settings.temperature == 0 else f"t{settings.temperature:g}"
    first = f"-first{settings.limit}" if settings.limit else ""
    return Path("runs/evaluate") / f"{model}-{settings.template}-{how}-{settings.budget}{first}"


def open_sampler(path: str, served: Served, machine: Machine, template: Template) -> tuple[Sampler, Template]:
    """(sampler, the template with the model's chat template in it, where it needs one)."""
    if served.url is not None:
        from zerolab.evaluation.endpoint import Endpoint, EndpointSampler

        if template.chat is not None:
            raise UserError(
                "template chat needs the model's tokenizer: with --endpoint use --api chat and another template"
            )
        return (
            EndpointSampler(
                Endpoint(
                    served.url,
                    path,
                    "chat" if served.api == "chat" else "completions",
                    key_variable=served.key_variable,
                    concurrency=served.concurrency,
                    timeout=served.timeout,
                )
            ),
            template,
        )
    from zerolab.evaluation.samplers import load_sampler

    sampler, tokenizer = load_sampler(path, machine)
    return sampler, template.bound(tokenizer)


def score_all(responses: Sequence[Response], settings: Settings | None) -> list[Score]:
    """One score a benchmark, and their average where there are several."""
    from zerolab.evaluation.score import average, score, tables

    found = tables(responses)
    if settings and settings.benchmarks:  # responses stand in the file as they finished
        order = list(settings.benchmarks)
        found = dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))
    level = 0.95 if settings is None else settings.fixed_level
    scores = []
    for name, table in found.items():
        rows = [r for row in table.responses_QS for r in row]
        samples = settings.samples if settings and settings.until_width is None else int(table.samples_Q.max())
        scores.append(score(table, stored.missing(settings, name, rows, samples), level))
    mean = average(scores)
    return [*scores, mean] if mean else scores


def show(
    scores: Sequence[Score],
    settings: Settings | None,
    folder: Path | None,
    failures: Sequence[tuple[str, str]] = (),
    partial: bool = False,
) -> None:
    """Prints the tables and writes them as CSV and JSON into the folder."""
    from zerolab.evaluation.collect import failure_lines
    from zerolab.evaluation.tables import WIDTH, csv_text, json_text, render
    from zerolab.rundir import OTHER_OUT, clear_errors, write_atomically

    console = make_console(WIDTH)
    render(scores, settings, console)
    if failures:
        echo(f"{len(failures)} responses failed; the same command asks for them again:")
        failure_lines(list(failures), echo)
    if partial:
        echo("stopped: these are the responses so far; the same command goes on", error=True)
    if folder is not None:
        with clear_errors(folder, OTHER_OUT):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / RESULTS_CSV, csv_text(scores))
            write_atomically(folder / RESULTS_JSON, json_text(scores, settings))
        echo(f"{folder}: responses, {RESULTS_CSV}, {RESULTS_JSON}")


def record_failures(folder: Path, failures: Sequence[tuple[str, str]]) -> None:
    """failures.jsonl: what is missing now and why; no file where nothing is."""
    import json

    from zerolab.rundir import write_atomically

    file = folder / FAILURES
    if failures:
        write_atomically(file, "".join(json.dumps({"question_id": q, "why": w}) + "\n" for q, w in failures))
    else:
        file.unlink(missing_ok=True)
