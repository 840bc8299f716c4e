"""`zerolab analyze`: from recorded responses, or from a model sampled first, to tables, figures and one JSON."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from zerolab.analysis.contamination import share_of
from zerolab.analysis.judge import Judge, VerdictCache, ask_through
from zerolab.analysis.reflection import rich_examples
from zerolab.analysis.result_table import WIDTH, show
from zerolab.analysis.sample_plan import Plan, sample_model, slug, stored_below
from zerolab.analysis.study import Study, study, write
from zerolab.data.templates import TEMPLATES
from zerolab.errors import UserError
from zerolab.evaluation.collect import Bar, failure_lines
from zerolab.evaluation.command import Served, recorded_at
from zerolab.evaluation.endpoint import Endpoint, EndpointSampler
from zerolab.evaluation.local_model import Machine, Parts
from zerolab.evaluation.responses import Response, grade_responses, read_responses
from zerolab.grading.extract import MODE_NAMES
from zerolab.phrases import SCOPES, Scope
from zerolab.terminal import echo, make_console

JUDGE_CACHE = "judge.jsonl"
FEW = 0.5  # share of formatted responses below which the extractor is likely not theirs
LISTED = 4  # names of targets in the default folder


@dataclass(frozen=True)
class JudgeOptions:
    """Where the judge is served, what it is called there, where its verdicts are kept (OUT/judge.jsonl by default)."""

    url: str | None = None
    model: str | None = None
    cache: Path | None = None
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 16


@dataclass(frozen=True)
class Options:
    """What is analysed. A target is a file or folder of recorded responses, or a model to sample."""

    targets: tuple[str, ...]
    extractor: str | None = None
    words: str = "paper"
    judge: JudgeOptions = JudgeOptions()
    out: Path | None = None


def run(options: Options, plan: Plan, served: Served, machine: Machine, parts: Parts) -> bool:
    """Samples what has to be, measures everything, shows the tables and writes all of it into a folder.

    False where responses or verdicts are missing. Raises UserError on bad input, KeyboardInterrupt, after the tables,
    where sampling was stopped; the same command goes on.
    """
    if options.words not in SCOPES:
        raise UserError(f"--words {options.words!r} is unknown: choose {' or '.join(SCOPES)}")
    if options.extractor is not None and options.extractor not in MODE_NAMES:
        raise UserError(f"--extractor {options.extractor!r} is unknown: choose one of {', '.join(MODE_NAMES)}")
    out = options.out or default_folder(options.targets)
    judge = open_judge(options.judge, out)
    responses: list[Response] = []
    failures: list[tuple[str, str]] = []
    stopped = False
    for target in options.targets:
        if files := recorded_files(target, served):
            responses += [r for file in files for r in load(file)]
        elif not stopped:
            mine = replace(plan, options=replace(plan.options, target=target, extractor=options.extractor))
            sampled = sample_model(mine, served, machine, parts, out / "responses" / slug(target))
            responses, failures, stopped = responses + sampled.responses, failures + sampled.failures, sampled.stopped
    graded = with_grades(refuse_repeats(responses), options.extractor)
    scope: Scope = "wide" if options.words == "wide" else "paper"
    lost: UserError | None = None
    try:
        with Bars(len(graded)) as bars:
            found = study(graded, judge, scope, bars)
    except UserError as error:  # of the judge: what needs none is worth having, its verdicts so far are kept
        lost, found = error, study(graded, None, scope)
    _report(found, failures, stopped, out)
    if lost:
        raise lost
    if stopped:
        raise KeyboardInterrupt
    return not failures and not any(counts.missing for counts in found.judge_counts.values())


def _report(found: Study, failures: Sequence[tuple[str, str]], stopped: bool, out: Path) -> None:
    show(found.tables())
    if found.examples:
        make_console(WIDTH).print("Reflecting responses, the passage marked:", rich_examples(found.examples))
    if failures:
        echo(f"{len(failures)} responses failed; the same command asks for them again:")
        failure_lines(list(failures), echo)
    if stopped:
        echo("stopped: these are the responses so far; the same command goes on", error=True)
    written = write(found, out)
    echo(f"{out}: {len(written)} files; analysis.json has every number, examples.html the marked passages")


def recorded_files(target: str, served: Served) -> list[Path]:
    """Files of responses that a target names: one, or those of an earlier analysis; none where it is a model."""
    if served.url is not None:
        return []
    if (file := recorded_at(target)) is not None:
        return [file]
    return list(stored_below(Path(target).expanduser()))


def default_folder(targets: Sequence[str]) -> Path:
    names = [slug(Path(t).stem if t.endswith((".jsonl", ".json")) else t) for t in targets]
    more = f"-and-{len(names) - LISTED}-more" if len(names) > LISTED else ""
    return Path("runs/analyze") / ("-".join(names[:LISTED])[:120] + more)


def load(file: Path) -> list[Response]:
    """Recorded responses; where a file names no model, its own name stands for it."""
    return [r if r.model else replace(r, model=file.stem) for r in read_responses(file)]


def refuse_repeats(responses: Sequence[Response]) -> list[Response]:
    """UserError where two files hold the same sample of the same question under the same setting."""
    seen = Counter((r.model, r.template, r.temperature, r.key) for r in responses)
    if repeated := [key for key, count in seen.items() if count > 1]:
        model, template, _, key = repeated[0]
        label = " ".join(filter(None, (model, template)))
        raise UserError(f"sample {key.sample} of question {key.question_id} under {label} is given twice: name it once")
    return list(responses)


def with_grades(responses: Sequence[Response], extractor: str | None = None) -> list[Response]:
    """Graded by `extractor` where it is given; else as recorded, and where nothing is, by the template's own format."""
    missing = [i for i, r in enumerate(responses) if extractor is not None or r.grade is None or r.lenient is None]
    graded = list(responses)
    new = grade_responses([responses[i] for i in missing], lambda r: extractor or extractor_of(r.template))
    for i, response in zip(missing, new, strict=True):
        recorded = responses[i].grade if extractor is None else None
        graded[i] = replace(response, grade=recorded or response.grade)
    if extractor is None:
        _hint([r for r in graded if share_of(r.template) is None])
    return graded


def extractor_of(template: str) -> str:
    """Where the answer stands under a template by name; boxed where the name is unknown."""
    known = TEMPLATES.get(template)
    return known.extractor if known else "boxed"


def _hint(responses: Sequence[Response]) -> None:
    """Says so where no known template names the format, and most responses hold an answer in another one."""
    for model in dict.fromkeys(r.model for r in responses):
        mine = [r for r in responses if r.model == model and r.grade and r.lenient and r.template not in TEMPLATES]
        strict = sum(bool(r.grade and r.grade.formatted) for r in mine)
        loose = sum(bool(r.lenient and r.lenient.formatted) for r in mine)
        if mine and strict < FEW * len(mine) < loose:
            echo(
                f"zerolab: {strict} of {len(mine)} responses of {model} are in the format looked for, {loose} in some "
                f"format: --extractor says which is theirs ({', '.join(MODE_NAMES)})",
                error=True,
            )


def open_judge(options: JudgeOptions, out: Path) -> Judge | None:
    """A judge behind an OpenAI-compatible endpoint, or None where none is asked for."""
    if options.url is None:
        if options.model or options.cache:
            raise UserError("--judge-model and --judge-cache need --judge URL, the judge's endpoint")
        return None
    if not options.model:
        raise UserError("--judge needs --judge-model, the judge's name at that endpoint")
    endpoint = Endpoint(
        options.url,
        options.model,
        api="chat",
        key_variable=options.key_variable,
        concurrency=options.concurrency,
        timeout=120.0,
        patience=60.0,
    )
    return Judge(
        options.model, ask_through(EndpointSampler(endpoint)), VerdictCache(options.cache or out / JUDGE_CACHE)
    )


class Bars:
    """A bar for each thing that is judged, closed when all is over."""

    def __init__(self, total: int):
        self.total = total
        self.bars: dict[str, Bar] = {}
        self.open = ExitStack()

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.open.close()

    def __call__(self, what: str, done: int) -> None:
        if what not in self.bars:
            self.open.close()  # one at a time: a terminal has one live line
            self.bars[what] = self.open.enter_context(Bar(what, self.total, "responses"))
        self.bars[what].advance(by=done - self.bars[what].done)
