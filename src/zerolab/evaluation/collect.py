"""Sample the responses of an evaluation that are still missing, and store each as it comes.

The settings of the evaluation are written before the first response and checked before it goes on; every table reads
them. Progress goes to stderr: a bar in a terminal, a line every ten seconds elsewhere. Tables go to stdout.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from zerolab.data.templates import Template
from zerolab.datatypes import Question
from zerolab.errors import UserError
from zerolab.evaluation.benchmarks import Benchmarks
from zerolab.evaluation.intervals import fixed_set_interval
from zerolab.evaluation.responses import Response, ResponseFile, grade_responses, write_responses
from zerolab.evaluation.samplers import Ask, Failed, Sampler
from zerolab.processes import GracefulStop
from zerolab.rollout.engine import request_seed
from zerolab.rundir import OTHER_OUT, clear_errors, write_atomically
from zerolab.terminal import echo, make_console

SETTINGS = "evaluation.json"
MAY_GROW = {"samples", "benchmarks", "until_width", "max_samples", "note"}


@dataclass(frozen=True)
class Settings:
    model: str
    template: str
    prompt: str  # the template's text
    stop: tuple[str, ...] = ()
    extractor: str = "boxed"
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_tokens: int = 0
    budget: int = 3000  # tokens
    seed: int = 0
    limit: int | None = None
    endpoint: str | None = None
    benchmarks: Mapping[str, int] | None = None  # name -> questions
    until_width: float | None = None  # percentage points
    max_samples: int = 64
    note: str | None = None  # what every table of it has to say

    def looks(self) -> list[int]:
        """Samples per question at each look: twice as many at each, `max_samples` at most. One look without a width."""
        if self.until_width is None:
            return [self.samples]
        found = [self.samples]
        while found[-1] < self.max_samples:
            found.append(min(2 * found[-1], self.max_samples))
        return found

    @property
    def fixed_level(self) -> float:
        """Level of the fixed-set interval at each look, so that all looks hold together at .95 (Bonferroni)."""
        return 1 - 0.05 / len(self.looks())


def save(settings: Settings, folder: Path) -> None:

    with clear_errors(folder, OTHER_OUT):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / SETTINGS, json.dumps(asdict(settings), indent=2) + "\n")


def load(folder: Path) -> Settings | None:
    """The settings of an evaluation's folder; None where there are none. UserError for a file that is none of ours."""
    file = folder / SETTINGS
    if not file.is_file():
        return None
    try:
        raw: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Settings)}
        return Settings(**{**{k: v for k, v in raw.items() if k in known}, "stop": tuple(raw.get("stop", ()))})
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is not the settings of an evaluation ({error}): use another --out") from error


def continued(old: Settings | None, new: Settings, folder: Path) -> Settings:
    """The settings to go on with. UserError where responses of both could not stand in one table."""
    if old is None:
        return new
    changed = [f.name for f in fields(Settings) if getattr(old, f.name) != getattr(new, f.name)]
    if fixed := [name for name in changed if name not in MAY_GROW]:
        before, now = (str(getattr(s, fixed[0]))[:60] for s in (old, new))
        raise UserError(
            f"{folder} was evaluated with {fixed[0]} {before!r}, not {now!r}: use the same, or another --out"
        )
    benchmarks = {**(old.benchmarks or {}), **(new.benchmarks or {})}
    return replace(new, benchmarks=benchmarks, note=new.note or old.note)


def missing(settings: Settings | None, name: str, responses: Sequence[Any], samples: int) -> int:
    """Responses of a benchmark that were asked for and are not there."""
    if settings is None or not settings.benchmarks or name not in settings.benchmarks:
        return 0
    return max(0, settings.benchmarks[name] * samples - len(responses))


PLAIN_SECONDS = 10.0


class Bar:
    def __init__(self, name: str, total: int, unit: str):
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self._bar: Any = None
        self._printed = time.monotonic()

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            label = TextColumn("{task.description}", markup=False)
            columns = (label, BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=make_console(error=True))
            self._task = self._bar.add_task(self.name, total=self.total)
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, remark: str = "", by: int = 1) -> None:
        self.done += by
        text = f"{self.name} {remark}".strip()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, description=text)
        elif time.monotonic() - self._printed > PLAIN_SECONDS:
            self._printed = time.monotonic()
            echo(f"{text}: {self.done} of {self.total} {self.unit}", error=True)


@dataclass
class Collected:
    responses: list[Response]
    failures: list[tuple[str, str]] = field(default_factory=list)  # (question, why)
    stopped: bool = False


def collect(
    sampler: Sampler, benchmarks: Benchmarks, template: Template, settings: Settings, file: ResponseFile
) -> Collected:
    """Asks what `file` lacks, look by look, until every benchmark is narrow enough or has all its samples.

    Responses are stored ungraded as they come and graded after each look. Ctrl-C ends it with what is stored.
    """
    found = Collected(file.found)
    open_names = list(benchmarks)
    with file, GracefulStop() as stop:
        for samples in settings.looks():
            wanted = {name: benchmarks[name] for name in open_names}
            asks = _asks(wanted, template, settings, samples, {r.key for r in file.found})
            _round(sampler, asks, settings, file, found, stop)
            if stop.requested:
                found.stopped = True
                break
            if settings.until_width is None:
                continue
            found.responses = file.found = _graded(file.found, settings)
            open_names = [name for name in open_names if _width(found.responses, name, settings) > settings.until_width]
            if not open_names:
                break
    found.responses = _graded(file.found, settings)
    write_responses(file.path, found.responses)
    return found


def _graded(responses: list[Response], settings: Settings) -> list[Response]:
    """All of them with grades; those that have one keep it."""
    new = [i for i, r in enumerate(responses) if r.grade is None or r.lenient is None]
    graded = dict(zip(new, grade_responses([responses[i] for i in new], settings.extractor), strict=True))
    return [graded.get(i, r) for i, r in enumerate(responses)]


def _width(responses: list[Response], name: str, settings: Settings) -> float:
    """Of the fixed-set interval, in percentage points; nothing sampled is as wide as it gets."""
    by_question: dict[str, list[bool]] = {}
    for r in responses:
        if r.benchmark == name and r.grade is not None:
            by_question.setdefault(r.question_id, []).append(r.grade.correct)
    if not by_question:
        return 100.0
    correct_Q, samples_Q = (np.array([f(v) for v in by_question.values()]) for f in (sum, len))
    return 100 * fixed_set_interval(correct_Q, samples_Q, settings.fixed_level).width


Asked = tuple[Ask, str, Question, int]


def _asks(
    benchmarks: Benchmarks, template: Template, settings: Settings, samples: int, there: set[tuple[str, str, int]]
) -> list[Asked]:
    """What is missing up to `samples` of each question; samples of one question side by side, which share a prefill."""
    asks: list[Asked] = []
    for name, questions in benchmarks.items():
        for question in questions:
            for sample in range(samples):
                if (name, question.id, sample) in there:
                    continue
                ask = Ask(
                    id=len(asks),
                    prompt=template.render(question.text),
                    seed=request_seed(settings.seed, name, question.id, sample),
                    max_new_tokens=settings.budget,
                    temperature=settings.temperature,
                    stop=settings.stop,
                    top_p=settings.top_p,
                    top_k=settings.top_k,
                    min_tokens=settings.min_tokens,
                )
                asks.append((ask, name, question, sample))
    return asks


def _round(
    sampler: Sampler, asks: list[Asked], settings: Settings, file: ResponseFile, found: Collected, stop: GracefulStop
) -> None:
    """Samples and stores; a failure is noted and its place left empty, so that the next start asks again."""
    if not asks:
        return
    with Bar(settings.model, len(asks), "responses") as bar, _watching(stop, sampler):
        for outcome in sampler.sample([ask for ask, *_ in asks]):
            _, name, question, sample = asks[outcome.id]
            if isinstance(outcome, Failed):
                found.failures.append((question.id, outcome.why))
            else:
                file.append(
                    Response(
                        benchmark=name,
                        question_id=question.id,
                        problem=question.text,
                        answers=question.answers,
                        sample=sample,
                        response=outcome.text,
                        tokens=outcome.tokens,
                        finish_reason=outcome.finish_reason,
                        model=settings.model,
                        template=settings.template,
                        temperature=settings.temperature,
                        budget=outcome.budget,
                        seed=asks[outcome.id][0].seed,
                        verifier=question.verifier,
                        cuts=outcome.cuts,
                    )
                )
            bar.advance(f"{len(found.failures)} failed" if found.failures else "")


@contextmanager
def _watching(stop: GracefulStop, sampler: Sampler) -> Iterator[None]:
    """Ends what is in flight when a stop is requested, without waiting for the next response."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            if stop.requested:
                return sampler.stop()
        return None

    thread = threading.Thread(target=watch, name="stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def failure_lines(failures: list[tuple[str, str]], line: Callable[[str], None]) -> None:
    """The reasons with their counts, most frequent first."""
    counts: dict[str, int] = {}
    for _, why in failures:
        counts[why] = counts.get(why, 0) + 1
    for why, count in sorted(counts.items(), key=lambda item: -item[1])[:5]:
        line(f"  {count} x {why}")
