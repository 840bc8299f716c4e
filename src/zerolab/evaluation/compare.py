"""`zerolab compare`: test recorded responses of several models against the first one, also under smaller budgets.

Accuracy at a smaller token budget is computed from the stored responses. A response that fits keeps its grade; a longer
one is graded on the text that it had by then. If the file has `cuts`, that text is known at multiples of 64 tokens;
otherwise characters are taken to be spread evenly over the tokens. A model that knew its budget might have answered in
time, so this is a lower bound for such a model.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table as RichTable

from zerolab.data.templates import TEMPLATES
from zerolab.errors import UserError
from zerolab.evaluation import collect as stored
from zerolab.evaluation.benchmarks import Row, rows_named, rows_of
from zerolab.evaluation.collect import Settings
from zerolab.evaluation.command import recorded_at, regraded
from zerolab.evaluation.intervals import Interval, weighted_interval
from zerolab.evaluation.paired import Comparison, Pair, compare, compare_average, holm_columns, pair_up, verdict
from zerolab.evaluation.responses import Response, grade_responses
from zerolab.evaluation.samplers import CUT_TOKENS
from zerolab.evaluation.score import Score, Table, average, population_of, score, tables
from zerolab.evaluation.tables import WIDTH, count, format_warnings, percent, span
from zerolab.rundir import OTHER_OUT, clear_errors, write_atomically
from zerolab.terminal import echo, make_console

FEWEST = CUT_TOKENS


@dataclass(frozen=True)
class Point:
    """Averages over benchmarks, at one budget in tokens."""

    budget: int
    accuracy: float
    interval: Interval
    tokens: float  # spent on a response
    exact: float  # share of the cut responses whose cut is known to the token


def budgets(longest: int) -> list[int]:
    """64, 128, 256 .. and halfway between, up to the longest response: multiples of CUT_TOKENS, and the longest."""
    steps = [int(FEWEST * 2**i * f) for i in range(12) for f in (1, 1.5)]
    return sorted({b for b in steps if b < longest and b % CUT_TOKENS == 0} | {longest})


def cut(response: Response, budget: int) -> tuple[Response, bool]:
    """(the response as it would have been, whether the place is known to the token)."""
    tokens = response.tokens
    if tokens is None:
        raise ValueError(f"{response.key} has no length")
    if tokens <= budget:
        return response, True
    number = budget // CUT_TOKENS
    exact = budget % CUT_TOKENS == 0 and 0 < number <= len(response.cuts)
    end = response.cuts[number - 1] if exact else int(len(response.response) * budget / tokens)
    text = response.response[:end]
    return replace(response, response=text, tokens=budget, finish_reason="length", grade=None, lenient=None), exact


def frontier(tables: Sequence[Table], extractor: Mapping[str, str] | str) -> list[Point]:
    """One point a budget. `extractor` by template name, or one for all. Empty where lengths are not known."""
    responses = [r for table in tables for row in table.responses_QS for r in row]
    if not responses or any(r.tokens is None for r in responses):
        return []

    def mode(response: Response) -> str:
        return extractor if isinstance(extractor, str) else extractor.get(response.template, "boxed")

    points = []
    for budget in budgets(max(r.tokens or 0 for r in responses)):
        made = [cut(r, budget) for r in responses]
        shorter = [i for i, (r, _) in enumerate(made) if r.grade is None]
        graded = dict(zip(shorter, grade_responses([made[i][0] for i in shorter], mode), strict=True))
        now = [graded.get(i, r) for i, (r, _) in enumerate(made)]
        cuts_known = [made[i][1] for i in shorter]
        points.append(_point(budget, now, float(np.mean(cuts_known)) if cuts_known else 1.0))
    return points


def _point(budget: int, responses: Sequence[Response], exact: float) -> Point:
    by_name: dict[str, list[Response]] = {}
    for r in responses:
        by_name.setdefault(r.benchmark, []).append(r)
    cut_tables = [Table.of(name, rows) for name, rows in by_name.items()]
    accuracies = [float(np.nanmean(t.correct_QS, 1).mean()) for t in cut_tables]
    interval = weighted_interval(accuracies, [population_of(t) for t in cut_tables])
    tokens = float(np.mean([np.nanmean(t.tokens_QS, 1).mean() for t in cut_tables]))
    return Point(budget, float(np.mean(accuracies)), interval, tokens, exact)


def write_csv(path: Path, curves: Mapping[str, Sequence[Point]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "budget", "accuracy", "low", "high", "mean_tokens", "cut_exactly"])
        for name, points in curves.items():
            for p in points:
                writer.writerow([name, p.budget, p.accuracy, p.interval.low, p.interval.high, p.tokens, p.exact])


def draw(path: Path, curves: Mapping[str, Sequence[Point]]) -> None:
    """Left: accuracy against the budget. Right: accuracy against the tokens really spent."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True, sharey=True)
    for name, points in curves.items():
        accuracy = [100 * p.accuracy for p in points]
        for axis, x in zip(axes, ([p.budget for p in points], [p.tokens for p in points]), strict=True):
            (line,) = axis.plot(x, accuracy, marker="o", markersize=3, label=name)
            low, high = ([100 * p.interval[side] for p in points] for side in (0, 1))
            axis.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    for axis, label in zip(axes, ("token budget (responses cut there)", "mean tokens of a response"), strict=True):
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.set_xlabel(label)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("accuracy, %, mean over benchmarks")
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle("Accuracy against token budget; bands: 95 % for a population of such questions", fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)


@dataclass(frozen=True)
class Entry:
    """One of the models that are compared."""

    name: str
    tables: tuple[Table, ...]
    settings: Settings | None
    published: tuple[Row, ...]

    @property
    def extractor(self) -> str | dict[str, str]:
        known = {name: template.extractor for name, template in TEMPLATES.items()}
        return self.settings.extractor if self.settings else known

    def scores(self, shared: Sequence[str]) -> list[Score]:
        """Of the benchmarks that all have, and their average."""
        level = self.settings.fixed_level if self.settings else 0.95
        found = [score(table, fixed_level=level) for table in self.tables if table.name in shared]
        mean = average(found)
        return [*found, mean] if mean else found


def run(
    targets: Sequence[str], margin: float, extractor: str | None, published: Sequence[str], out: Path | None, png: bool
) -> None:
    """Prints the tables, writes compare.csv, frontier.csv and frontier.png. `margin` in percentage points.

    Raises UserError for bad input, and where two models share no question.
    """
    if len(targets) < 2:
        raise UserError("compare needs two or more: folders of evaluations, or files of responses")
    if not 0 < margin < 100:
        raise UserError("--margin is a difference in percentage points that would not matter, between 0 and 100")
    rows = [row for name in published for row in rows_named(name)]
    entries = [load(target, extractor) for target in targets]
    entries = [Entry(name, e.tables, e.settings, e.published) for name, e in zip(unique(entries), entries, strict=True)]
    comparisons, left_out = compare_all(entries, margin / 100)
    console = make_console(WIDTH)
    show_scores(entries, {c.benchmark for c in comparisons}, rows, console)
    show_comparisons(comparisons, margin, left_out, console)
    folder = out or Path("runs/compare") / "-vs-".join(entry.name for entry in entries)[:120].replace("/", "-")
    curves = {e.name: frontier([t for t in e.tables if _shared(t.name, comparisons)], e.extractor) for e in entries}
    write(folder, comparisons, margin, {name: points for name, points in curves.items() if points}, png)
    show_frontier(curves, console)
    echo(f"{folder}: compare.csv" + ("" if not any(curves.values()) else ", frontier.csv" + ", frontier.png" * png))


def load(target: str, extractor: str | None) -> Entry:
    file = recorded_at(target)
    if file is None:
        raise UserError(f"{target}: no recorded responses there; make them with `zerolab evaluate`")
    settings = stored.load(file.parent)
    found = tables(regraded(file, extractor, settings))
    first = next(iter(found.values())).responses_QS[0][0]
    model = settings.model if settings else first.model
    template = settings.template if settings else first.template or None
    name = model.rstrip("/").rsplit("/", 1)[-1] + (f" ({template})" if template else "") if model else file.stem
    return Entry(name, tuple(found.values()), settings, tuple(rows_of(model, template)) if model else ())


def unique(entries: Sequence[Entry]) -> list[str]:
    """Names, numbered where two are the same."""
    names = [entry.name for entry in entries]
    return [n if names.count(n) == 1 else f"{n} #{names[: i + 1].count(n)}" for i, n in enumerate(names)]


def compare_all(entries: Sequence[Entry], margin: float) -> tuple[list[Comparison], dict[str, int]]:
    """(each of the others against the first, on every benchmark and on average; questions left out, by benchmark)."""
    first = entries[0]
    found: list[Comparison] = []
    left_out: dict[str, int] = {}
    for other in entries[1:]:
        pairs: list[Pair] = pair_up(first.tables, other.tables)
        if not pairs:
            raise UserError(f"{first.name} and {other.name} share no question: evaluate both on the same benchmarks")
        names = (first.name, other.name)
        found += [compare(pair, names, margin) for pair in pairs]
        left_out |= {f"{p.benchmark}, {other.name}": p.left_out for p in pairs if p.left_out}
        mean = compare_average(pairs, names, margin)
        found += [mean] if mean else []
    return found, left_out


def _shared(name: str, comparisons: Sequence[Comparison]) -> bool:
    benchmarks = {c.benchmark for c in comparisons}
    return name in benchmarks or len(benchmarks) == 1


def show_scores(entries: Sequence[Entry], shared: set[str], named: Sequence[Row], console: Any) -> None:
    """Every model's own scores, the published rows under the model they are of."""
    header = ["model", "benchmark", "n x k", "accuracy", "such questions", "lenient", "tokens", "cut"]
    table = _table("accuracy, %", header)
    notes = []
    for entry in entries:
        names = [t.name for t in entry.tables if t.name in shared or len(entry.tables) == 1]
        scores = entry.scores(names)
        notes += [f"{entry.name}: {line}" for line in format_warnings(scores)]
        for s in scores:
            table.add_row(
                entry.name, s.name, f"{s.questions} x {s.samples}", percent(s.accuracy), span(s.population),
                percent(s.lenient), count(s.mean_length), percent(s.truncated),
            )  # fmt: skip
        for row in entry.published:
            _published_rows(table, row, [*names, "average"])
        for row in entry.published:
            if entry.settings and entry.settings.budget != row.budget:
                notes.append(f"{entry.name}: budget {entry.settings.budget}, that of {row.title} is {row.budget}")
        if entry.settings and entry.settings.note:
            notes.append(f"NOTE {entry.name}: {entry.settings.note}")
        if missing := _missing(entry):
            notes.append(f"{entry.name}: {missing} responses that were asked for never came; no number counts them")
    for row in named:
        _published_rows(table, row, [*row.sizes, "average"])
    console.print(table)
    shown = [*(row for e in entries for row in e.published), *named]
    notes += [f"{row.title}: {row.note}" for row in {row.title: row for row in shown}.values() if row.note]
    if shown:
        notes.append("paper: as printed in arXiv 2503.20783; an interval only where the number is one greedy pass")
    for note in notes:
        console.print(note)
    console.print()


def _missing(entry: Entry) -> int:
    settings = entry.settings
    if settings is None or settings.until_width is not None:
        return 0
    rows = {t.name: [r for row in t.responses_QS for r in row] for t in entry.tables}
    return sum(stored.missing(settings, name, found, settings.samples) for name, found in rows.items())


def _published_rows(table: Any, row: Row, names: Sequence[str]) -> None:
    whole = set(row.sizes) <= set(names)
    for name in names:
        if name in row.scores and (whole or name != "average"):  # the paper's average is that of all five
            size = str(row.sizes[name]) if name in row.sizes else ""
            shown = (f"paper: {row.title}", name, size, f"{row.scores[name]:g}", span(row.interval(name), "none"))
            table.add_row(*shown, style="dim")


def show_comparisons(comparisons: Sequence[Comparison], margin: float, left_out: dict[str, int], console: Any) -> None:
    header = ["against " + comparisons[0].a, "benchmark", "difference", "95 %", "p", "equal p", "tokens x", "shorter p"]
    table = _table("differences, percentage points", [*header, "verdict"])
    adjusted = holm_columns(comparisons)
    for c, better, equal, shorter in zip(comparisons, *adjusted.values(), strict=True):
        table.add_row(
            c.b, c.benchmark, f"{100 * c.difference:+.1f}", span(c.interval), p_text(better), p_text(equal),
            "-" if c.token_ratio is None else f"{c.token_ratio:.2f}", p_text(shorter),
            verdict(c, better or 0.0, equal or 0.0, shorter),
        )  # fmt: skip
    console.print(table)
    for line in (
        "p: exact McNemar where both gave one response a question, paired bootstrap over questions otherwise",
        f"equal p: two one-sided tests that the difference is less than {margin:g} points; undecided is neither",
        "tokens x: ratio of mean lengths; shorter p: one-sided paired t test (average: bootstrap) of fewer tokens",
        f"each column of p values is one family of {len(comparisons)} with Holm's correction",
        *(f"left out, {name}: {number} questions that only one of them answered" for name, number in left_out.items()),
    ):
        console.print(line)
    console.print()


def p_text(p: float | None) -> str:
    return "-" if p is None else "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0") if p < 1 else "1"


def show_frontier(curves: dict[str, list[Point]], console: Any) -> None:
    """Accuracy at the budgets that all curves have, in one table."""
    known = {name: points for name, points in curves.items() if points}
    for name in curves.keys() - known.keys():
        console.print(f"{name}: no lengths in tokens, so no frontier")
    if not known:
        return
    at = sorted({p.budget for points in known.values() for p in points})
    at = at[:: max(1, len(at) // 8)][-9:]
    table = _table("accuracy at a token budget, %", ["model", *(f"{b:,}" for b in at)])
    for name, points in known.items():
        below = [[p for p in points if p.budget <= budget] for budget in at]
        table.add_row(name, *(percent(found[-1].accuracy if found else None) for found in below))
    console.print(table)
    inexact = [name for name, points in known.items() if min(p.exact for p in points) < 1]
    line = "responses are cut where the budget would have ended them and graded on what they had by then"
    if inexact:
        line += f"; for {', '.join(inexact)} some places are estimated: characters spread evenly over the tokens"
    console.print(line)
    console.print()


def _table(title: str, header: Sequence[str]) -> Any:

    table = RichTable(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    left = {"benchmark", "verdict"}
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number == 0 or name in left else "right", overflow="fold")
    return table


def write(
    folder: Path, comparisons: Sequence[Comparison], margin: float, curves: dict[str, list[Point]], png: bool
) -> None:

    with clear_errors(folder, OTHER_OUT):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "compare.csv", csv_text(comparisons, margin))
        if curves:
            write_csv(folder / "frontier.csv", curves)
            if png:
                draw(folder / "frontier.png", curves)


def csv_text(comparisons: Sequence[Comparison], margin: float) -> str:
    """One line a comparison; differences and intervals as shares, p values as they are and after Holm."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["a", "b", "benchmark", "questions", "difference", "low", "high", "method", "p", "p_holm", "margin", "p_equal",
         "p_equal_holm", "token_ratio", "token_low", "token_high", "p_shorter", "p_shorter_holm", "verdict"]
    )  # fmt: skip
    adjusted = holm_columns(comparisons)
    for c, better, equal, shorter in zip(comparisons, *adjusted.values(), strict=True):
        tokens = c.token_interval or ("", "")
        writer.writerow(
            [c.a, c.b, c.benchmark, c.questions, c.difference, *c.interval, c.method, c.p_better, better, margin / 100,
             c.equal.p, equal, c.token_ratio, *tokens, c.p_shorter, shorter,
             verdict(c, better or 0.0, equal or 0.0, shorter)]
        )  # fmt: skip
    return text.getvalue()
