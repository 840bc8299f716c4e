"""Everything that recorded responses say about a model: the tables, the figures, one JSON. No model is needed."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from zerolab.analysis import plots
from zerolab.analysis.answering import AnsweringRow, answering, answering_table
from zerolab.analysis.contamination import Completion, completion, completion_table, share_of
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
from zerolab.evaluation.responses import Response
from zerolab.phrases import Scope
from zerolab.rundir import clear_errors, write_atomically

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
    with clear_errors(out):
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
