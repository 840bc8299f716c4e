"""The tables of an evaluation: to the screen, to CSV, to JSON."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from zerolab.evaluation.collect import Settings
from zerolab.evaluation.intervals import Interval
from zerolab.evaluation.score import Score

WIDTH = 118
WIDE_GAP = 0.1  # between strict and lenient accuracy: above it the format decides more than the answers


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def span(interval: Interval | None, empty: str = "-") -> str:
    return empty if interval is None else f"{100 * interval.low:.1f} .. {100 * interval.high:.1f}"


def count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def accuracy_rows(scores: Sequence[Score]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, in percent."""
    samples = min(s.samples for s in scores)
    ks = sorted(set.intersection(*(set(s.pass_at) for s in scores)))
    votes = sorted(set.intersection(*(set(s.maj_at) for s in scores)))[-1:]
    shown = ks[:1] + ks[1:][-1:]
    header = [
        "benchmark",
        "n x k",
        "accuracy" if samples < 2 else f"avg@{samples}",
        "this set",
        "such questions",
        "lenient",
    ]
    header += [f"pass@{k}" for k in shown] + [f"maj@{k}" for k in votes] + ["detectable"]
    rows = [
        [
            s.name,
            f"{s.questions} x {s.samples}",
            percent(s.accuracy),
            span(s.fixed_set, "greedy"),
            span(s.population),
            percent(s.lenient),
            *(percent(s.pass_at[k]) for k in shown),
            *(percent(s.maj_at[k]) for k in votes),
            percent(s.detectable),
        ]
        for s in scores
    ]
    return header, rows


def length_rows(scores: Sequence[Score]) -> tuple[list[str], list[list[str]]]:
    header = ["benchmark", "in format", "any answer", "truncated", "right, cut", "mean", "median", "longest"]
    header += ["tokens per right", "missing"]
    rows = [
        [
            s.name,
            *map(percent, (s.formatted, s.answered, s.truncated, s.right_but_truncated)),
            *map(count, (s.mean_length, s.median_length, s.max_length, s.tokens_per_correct, s.missing)),
        ]
        for s in scores
    ]
    return header, rows


def legend(scores: Sequence[Score], settings: Settings | None) -> list[str]:
    """What the columns mean and what has to be known of this evaluation."""
    lines = []
    if settings is not None:
        how = f"temperature {settings.temperature:g}, top-p {settings.top_p:g}" if settings.temperature else "greedy"
        how += f", top-k {settings.top_k}" if settings.top_k and settings.temperature else ""
        how += f", at least {settings.min_tokens} tokens" if settings.min_tokens else ""
        where = f" at {settings.endpoint}" if settings.endpoint else ""
        lines.append(f"{settings.model}{where}, template {settings.template}, {how}, budget {settings.budget} tokens")
        if settings.note:
            lines.append(f"NOTE {settings.note}")
    if any(s.fixed_set is not None for s in scores):
        lines.append("this set: interval for these very questions, the noise of sampling alone")
    if any(s.fixed_set is None for s in scores):
        lines.append("this set: greedy decoding has no sampling noise; on these very questions the score is what it is")
    lines.append("such questions: 95 % interval for a population of which these questions are a random draw")
    lines.append("detectable: smallest true gap to a model evaluated alike that an unpaired test shows with 80 % power")
    if settings is not None and settings.until_width is not None:
        looks = settings.looks()
        lines.append(
            f"sampled until this set's interval is {settings.until_width:g} points wide, at most {len(looks)} looks "
            f"({', '.join(map(str, looks))} samples): its level is {100 * settings.fixed_level:.2f} % at each look, so "
            "that all of them hold together at 95 % (Bonferroni)"
        )
    if total := sum(s.missing for s in scores if s.name != "average"):
        lines.append(f"missing: {total} responses that were asked for never came; no number here counts them as wrong")
    return lines


def format_warnings(scores: Sequence[Score]) -> list[str]:
    """One line for each benchmark whose accuracy says more about the format than about the answers."""
    lines = []
    for s in scores:
        if s.name == "average":
            continue
        gap = f"accuracy is {percent(s.accuracy)} % in the format and {percent(s.lenient)} % in any form"
        remedy = "choose --template or --extractor as the responses are written"
        if s.formatted == 0:
            lines.append(f"WARNING {s.name}: no response is in the format; {gap}: {remedy}")
        elif s.lenient - s.accuracy > WIDE_GAP:
            lines.append(f"WARNING {s.name}: {gap}: {remedy}")
    return lines


def render(scores: Sequence[Score], settings: Settings | None, console: Any) -> None:

    parts = (("accuracy, %", accuracy_rows(scores)), ("format (%) and length in tokens", length_rows(scores)))
    for title, (header, rows) in parts:
        table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
        for number, name in enumerate(header):
            table.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row, style="bold" if row[0] == "average" else "")
        console.print(table)
        console.print()
    for line in [*legend(scores, settings), *format_warnings(scores)]:
        console.print(line)


def csv_text(scores: Sequence[Score]) -> str:
    """One line a benchmark; intervals as two columns, shares between 0 and 1."""
    rows = [flat(score) for score in scores]
    header = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def flat(score: Score) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in asdict(score).items():
        if isinstance(value, Interval):
            row |= {f"{name}_low": value.low, f"{name}_high": value.high}
        elif isinstance(value, dict):
            for k, v in value.items():
                named = f"{name.replace('_at', '').replace('_interval', '')}@{k}"
                row |= {f"{named}_low": v[0], f"{named}_high": v[1]} if isinstance(v, tuple) else {named: v}
        else:
            row[name] = value
    return row


def json_text(scores: Sequence[Score], settings: Settings | None) -> str:
    record = {"settings": None if settings is None else asdict(settings), "scores": [flat(s) for s in scores]}
    return json.dumps(record, indent=2) + "\n"
