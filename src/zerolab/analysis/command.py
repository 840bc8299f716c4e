"""`zerolab analyze`: tables, figures and one JSON from recorded responses, or from a model that is sampled first.
`zerolab overlap`: which questions of the benchmarks stand in training sets.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from zerolab.analysis.contamination import CONTAINED, Overlap, overlap, share_of
from zerolab.analysis.judge import Judge, VerdictCache, ask_through
from zerolab.analysis.reflection import rich_examples
from zerolab.analysis.result_table import WIDTH, Table, show
from zerolab.analysis.study import Plan, Study, sample_model, slug, stored_below, study, write
from zerolab.data.builtin import BUILT_IN
from zerolab.data.readers import READERS, Row, hub_rows, read_rows
from zerolab.data.templates import TEMPLATES
from zerolab.datatypes import Question
from zerolab.errors import UserError
from zerolab.evaluation.benchmarks import benchmark_names, load_benchmarks
from zerolab.evaluation.collect import Bar, failure_lines
from zerolab.evaluation.command import Served, recorded_at
from zerolab.evaluation.endpoint import Endpoint, EndpointSampler
from zerolab.evaluation.responses import Response, grade_responses, read_responses
from zerolab.evaluation.samplers import Machine, Resolver
from zerolab.files import check_can_write
from zerolab.grading.extract import MODE_NAMES
from zerolab.phrases import SCOPES, Scope
from zerolab.rundir import OTHER_OUT, clear_errors, write_atomically
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


def run(options: Options, plan: Plan, served: Served, machine: Machine, resolve: Resolver) -> bool:
    """Samples what has to be, measures everything, shows the tables and writes all of it into a folder.

    False where responses or verdicts are missing. Raises UserError on bad input, KeyboardInterrupt, after the tables,
    where sampling was stopped; the same command goes on.
    """
    if options.words not in SCOPES:
        raise UserError(f"--words {options.words!r} is unknown: choose {' or '.join(SCOPES)}")
    if options.extractor is not None and options.extractor not in MODE_NAMES:
        raise UserError(f"--extractor {options.extractor!r} is unknown: choose one of {', '.join(MODE_NAMES)}")
    out = options.out or default_folder(options.targets)
    check_can_write(out / "analysis.json", "--out")
    judge = open_judge(options.judge, out)
    responses: list[Response] = []
    failures: list[tuple[str, str]] = []
    stopped = False
    for target in options.targets:
        if files := recorded_files(target, served):
            responses += [r for file in files for r in load(file)]
        elif not stopped:
            mine = replace(plan, options=replace(plan.options, target=target, extractor=options.extractor))
            sampled = sample_model(mine, served, machine, resolve, out / "responses" / slug(target))
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


SHOWN_MATCHES = 8
SHOWN_CHARS = 60


def run_overlap(training: Sequence[str], benchmarks: str, data_dir: str | None, ngram: int, out: Path | None) -> None:
    """Compares every training set with every benchmark; prints a table and the fullest matches; writes all of them into
    `out`. Raises UserError on bad input."""
    if ngram < 1:
        raise UserError(f"--ngram {ngram} is no number of words: set it to 1 or more")
    if out is not None:
        check_can_write(out / "overlap.csv", "--out")
    asked = load_benchmarks(benchmark_names(benchmarks), data_dir)
    summary, listed = [], []
    for path, name in zip(training, short_names(training), strict=True):
        numbers, texts = _texts_of(path, data_dir)
        for benchmark, questions in asked.items():
            found = overlap([question.text for question in questions], texts, ngram)
            summary.append((name, len(set(numbers)), benchmark, found))
            listed += _matches(name, numbers, benchmark, questions, found)
    tables = [summary_table(summary, ngram), _fullest(listed)]
    show([table for table in tables if table.rows])
    if out is not None:
        _write(out, tables[0], listed)


def _texts_of(name: str, data_dir: str | None) -> tuple[list[int], list[str]]:
    """(row of each text, texts): every column of text is one, conversations turn by turn."""
    numbers, texts = [], []
    for number, (_, row) in enumerate(training_rows(name, data_dir), 1):
        for text in strings(row):
            numbers.append(number)
            texts.append(text)
    if not texts:
        raise UserError(f"{name} holds no text")
    return numbers, texts


def training_rows(name: str, data_dir: str | None) -> Iterator[Row]:
    """Rows of a file, a built-in set (NAME in the data folder first) or a hub data set. Unlike questions they need no
    answer: any training text can be looked through."""
    path = Path(name).expanduser()
    local = (
        [Path(data_dir).expanduser() / f"{name}{suffix}" for suffix in READERS] if data_dir and "/" not in name else []
    )
    for file in (*local, path):
        if file.is_file():
            return read_rows(file)
    if name in BUILT_IN:
        return hub_rows(BUILT_IN[name].hub_id, BUILT_IN[name].subset, BUILT_IN[name].split)
    if path.suffix in READERS or path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"{name}: no such training file ({', '.join(READERS)}), built-in name or hub id")
    return hub_rows(name, None, "train")


def strings(value: Any, depth: int = 4) -> Iterator[str]:
    """Every text in a row, however it is nested (to a few levels)."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping) and depth:
        for inner in value.values():
            yield from strings(inner, depth - 1)
    elif isinstance(value, list | tuple) and depth:
        for inner in value:
            yield from strings(inner, depth - 1)


def short_names(paths: Sequence[str]) -> list[str]:
    """A file's name without folder and ending, where no other has it."""
    stems = [Path(path).stem if Path(path).suffix in READERS else path for path in paths]
    return [stem if stems.count(stem) == 1 else path for stem, path in zip(stems, paths, strict=True)]


Listed = tuple[str, int, str, str, float, bool, str, str]
LISTED_MATCHES = ("training set", "row", "benchmark", "question", "share", "copied", "shared words", "question text")


def _matches(
    name: str, numbers: Sequence[int], benchmark: str, questions: Sequence[Question], found: Overlap
) -> list[Listed]:
    return [
        (
            name,
            numbers[match.text],
            benchmark,
            questions[match.question].id,
            match.coverage,
            match.question in found.exact,
            match.shared,
            questions[match.question].text,
        )
        for match in found.matches
    ]


def summary_table(rows: Sequence[tuple[str, int, str, Overlap]], ngram: int) -> Table:
    columns = ("training set", "rows", "benchmark", "questions", "touched", "contained", "copied", "share contained")
    cells = tuple(
        (name, count, benchmark, o.questions, o.touched, o.contained, len(o.exact), o.contained / o.questions)
        for name, count, benchmark, o in rows
    )
    note = (
        f"touched: shares at least one run of {ngram} words; contained: at least {CONTAINED:.0%} of its runs stand in "
        "the training set; copied: a training text has the same words and no others"
    )
    return Table("overlap", "Benchmarks in training sets", columns, cells, note)


def _fullest(listed: Sequence[Listed]) -> Table:
    """The fullest matches of every pair of training set and benchmark."""
    shown: dict[tuple[str, str], list[Listed]] = {}
    for row in listed:
        shown.setdefault((row[0], row[2]), []).append(row)
    each = max(1, SHOWN_MATCHES // max(1, len(shown)))
    rows = tuple((*row[:6], row[6][:SHOWN_CHARS]) for group in shown.values() for row in group[:each])
    note = f"{len(rows)} of {len(listed)}; overlap_matches.csv of --out has them all"
    return Table("fullest", "Fullest matches", LISTED_MATCHES[:7], rows, note)


def _write(out: Path, table: Table, listed: Sequence[Listed]) -> None:
    import json

    with clear_errors(out, OTHER_OUT):
        out.mkdir(parents=True, exist_ok=True)
        table.write_csv(out)
        with (out / "overlap_matches.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(LISTED_MATCHES)
            writer.writerows(listed)
        write_atomically(
            out / "overlap.json", json.dumps({"note": table.note, "rows": table.records()}, indent=1) + "\n"
        )
    echo(f"{out}: overlap.csv, overlap.json, overlap_matches.csv ({len(listed)} matches)")
