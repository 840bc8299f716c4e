"""Self-reflection: how often it occurs, by which detector, and whether it goes with accuracy inside questions.

There are two detectors, as in arXiv 2503.20783: keywords (phrases.py) and an LLM judge (judge.py). The paper counts a
response if both agree; each detector is also shown by itself. Examples come with the passage marked, for a terminal or
as one HTML page without scripts.
"""

import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from rich.console import Group
from rich.text import Text

from zerolab.analysis.judge import REFLECTING, Verdict, find_passage
from zerolab.analysis.rates import (
    SETTING,
    Agreement,
    Cell,
    Rate,
    Setting,
    WithinDifference,
    agreement,
    any_rate,
    cells,
    rate,
    solved,
    within_difference,
)
from zerolab.analysis.result_table import Table
from zerolab.evaluation.responses import Response
from zerolab.phrases import Hit, Scope, find_phrases, pieces
from zerolab.terminal import visible


@dataclass(frozen=True)
class Reflection:
    """One detector under one setting."""

    setting: Setting
    detector: str  # keywords, judge, both
    per_response: Rate  # share of responses, averaged over questions
    per_question: Rate  # share of questions with at least one
    accuracy: WithinDifference  # of reflecting minus other responses to the same question
    marked: tuple[Response, ...]
    agreement: Agreement | None = None  # of keywords with the judge, where this is both


def reflection(
    responses: Sequence[Response], verdicts: Sequence[Verdict | None] | None = None, scope: Scope = "paper"
) -> list[Reflection]:
    """Keywords always; judge and both where there are verdicts (one for each response, None where it is missing).

    Responses without a verdict are left out of what the judge has a part in. A response is correct where it is right in
    its template's format.
    """
    by_key = dict(zip(map(id, responses), verdicts, strict=True)) if verdicts is not None else None
    found = []
    for cell in cells(responses):
        keyword_N = cell.flags(lambda r: bool(find_phrases(r.response, scope)))
        found.append(_detected(cell, "keywords", keyword_N, np.ones_like(keyword_N)))
        if by_key is None:
            continue
        said = [by_key[id(r)] for r in cell.responses]
        known_N = np.array([v is not None for v in said])
        judge_N = np.array([v is not None and v.category in REFLECTING for v in said])
        found.append(_detected(cell, "judge", judge_N, known_N))
        both = _detected(cell, "both", keyword_N & judge_N, known_N)
        if known_N.any():
            labels = keyword_N[known_N].tolist(), judge_N[known_N].tolist(), cell.question_N[known_N].tolist()
            both = replace(both, agreement=agreement(*labels))
        found.append(both)
    return found


def _detected(cell: Cell, detector: str, marked_N: np.ndarray, known_N: np.ndarray) -> Reflection:
    question_N, correct_N = cell.question_N[known_N], cell.flags(solved)[known_N]
    marked = tuple(r for r, yes in zip(cell.responses, marked_N & known_N, strict=True) if yes)
    marked_N = marked_N[known_N]
    _, question_N = np.unique(question_N, return_inverse=True)
    return Reflection(
        cell.setting,
        detector,
        rate(marked_N, question_N),
        any_rate(marked_N, question_N),
        within_difference(question_N, marked_N, correct_N),
        marked,
    )


def reflection_table(found: Sequence[Reflection]) -> Table:
    judged = any(r.agreement for r in found)
    columns = (*SETTING, "detector", "responses", "reflecting", "of responses", "95 %", "of questions", "95 % of those")
    rows = []
    for r in found:
        shares = (r.per_response.value, r.per_response.interval, r.per_question.value, r.per_question.interval)
        kappa = (r.agreement.kappa, r.agreement.interval) if r.agreement else (None, None)
        rows.append((*r.setting, r.detector, r.per_response.responses, len(r.marked), *shares, *kappa * judged))
    note = "both: keywords and judge agree, as the paper counts; a question counts with one reflecting response"
    note += ". kappa: agreement of keywords with the judge" if judged else ""
    last = ("kappa", "95 % of kappa") if judged else ()
    return Table("reflection", "Self-reflection", (*columns, *last), tuple(rows), note)


def accuracy_table(found: Sequence[Reflection]) -> Table:
    columns = (*SETTING, "detector", "within", "95 %", "p", "pooled", "informative", "questions")
    rows = []
    for r in found:
        a = r.accuracy
        numbers = (a.difference, a.interval, a.p_value, a.pooled_difference)
        rows.append((*r.setting, r.detector, *numbers, a.informative, a.questions))
    note = (
        "within: accuracy of reflecting minus other responses to the same question (Mantel-Haenszel); p: that they are "
        "equal; informative: questions with both kinds of response; pooled ignores the question, so difficulty fakes it"
    )
    return Table("reflection_accuracy", "Does reflection go with accuracy?", columns, tuple(rows), note)


def phrase_table(found: Sequence[Reflection], scope: Scope = "paper") -> Table:
    """How many responses hold which phrase."""
    rows = []
    for r in found:
        if r.detector == "keywords":
            texts = (response.response for response in r.marked)
            counts = Counter(phrase for text in texts for phrase in {hit.phrase for hit in find_phrases(text, scope)})
            rows += [
                (*r.setting, phrase, n) for phrase, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            ]
    return Table("phrases", "Self-reflection: responses by keyword", (*SETTING, "phrase", "responses"), tuple(rows))


LONGEST_NAME = 60
AROUND = 160  # characters shown on either side of a passage in a terminal
STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }
article { border: 1px solid #ccc; border-radius: 6px; padding: .6em 1em; margin: 1em 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; } mark { background: #ffd866; }
.right { color: #2a7a2a; } .wrong { color: #b03030; } small { color: #666; }"""


@dataclass(frozen=True)
class Example:
    setting: Setting
    response: Response
    hits: tuple[Hit, ...]  # in order, without overlap: keywords, and the passage that the judge quotes
    verdict: Verdict | None


def examples(
    responses: Sequence[Response],
    verdicts: Sequence[Verdict | None] | None = None,
    scope: Scope = "paper",
    count: int = 4,
) -> list[Example]:
    """Up to `count` reflecting responses of every setting, right and wrong ones in turn; where a judge ran, those
    first that it agrees on."""
    judged = verdicts is not None
    said = dict(zip(map(id, responses), verdicts or [None] * len(responses), strict=True))
    found = []
    for cell in cells(responses):
        marked = []
        for response in cell.responses:
            verdict = said[id(response)]
            agrees = verdict is not None and verdict.category == "reflection"
            hits = find_phrases(response.response, scope)
            if hits or agrees:
                both = bool(hits) and (agrees or not judged)
                shown = with_evidence(response.response, hits, verdict if agrees else None)
                marked.append((both, Example(cell.setting, response, shown, verdict)))
        marked.sort(key=lambda pair: not pair[0])
        right = [e for _, e in marked if solved(e.response)]
        wrong = [e for _, e in marked if not solved(e.response)]
        turns = chain.from_iterable(zip_longest(right, wrong))
        found += [example for example in turns if example is not None][:count]
    return found


def with_evidence(text: str, hits: Sequence[Hit], verdict: Verdict | None) -> tuple[Hit, ...]:
    """Keywords and the judge's passage as spans without overlap; what overlaps becomes one."""
    spans = list(hits)
    if verdict is not None and (place := find_passage(text, verdict.evidence)) is not None:
        spans.append(Hit(*place, "judge"))
    merged: list[Hit] = []
    for hit in sorted(spans, key=lambda h: (h.start, h.end)):
        if merged and hit.start < merged[-1].end:
            last = merged[-1]
            merged[-1] = Hit(last.start, max(last.end, hit.end), f"{last.phrase}, {hit.phrase}")
        else:
            merged.append(hit)
    return tuple(merged)


def page(found: Sequence[Example], title: str = "Self-reflection") -> str:
    """HTML with every text escaped; it loads and runs nothing."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_escaped(title)}</title>\n'
    head += f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{STYLE}</style></head><body>\n'
    body = "".join(map(_article, found)) or "<p>No response reflects.</p>\n"
    return f"{head}<h1>{_escaped(title)}</h1>\n{body}</body></html>\n"


def _article(example: Example) -> str:
    r = example.response
    verdict = "right" if solved(r) else "wrong"
    marks = ", ".join(dict.fromkeys(hit.phrase for hit in example.hits))
    judge = f" · judge: {_escaped(example.verdict.category)}" if example.verdict else ""
    text = "".join(
        f"<mark>{_escaped(piece)}</mark>" if marked else _escaped(piece)
        for piece, marked in pieces(r.response, example.hits)
    )
    where = _escaped(f"{example.setting.label} · {r.benchmark} {r.question_id} · sample {r.sample}")
    return (
        f'<article><small>{where} · <span class="{verdict}">{verdict}</span> · {_escaped(marks)}{judge}</small>\n'
        f"<details><summary>question</summary><pre>{_escaped(r.problem)}</pre></details>\n<pre>{text}</pre></article>\n"
    )


def _escaped(text: str) -> str:
    """For HTML, and for UTF-8: half of a surrogate pair, which a file of bytes may leave, has no place in either."""
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"))


def rich_examples(found: Sequence[Example]) -> Any:
    """Each passage with the text around it, for a rich console."""
    lines = []
    for example in found:
        r = example.response
        where = f"{example.setting.label[-LONGEST_NAME:]} {r.question_id[-LONGEST_NAME:]}/{r.sample} "
        line = Text(_flat(where), style="dim")
        line.append("right: " if solved(r) else "wrong: ", style="green" if solved(r) else "red")
        hit = example.hits[0] if example.hits else Hit(0, 0, "")
        start, end = max(0, hit.start - AROUND), min(len(r.response), hit.end + AROUND)
        line.append(("…" if start else "") + _flat(r.response[start : hit.start]))
        line.append(_flat(r.response[hit.start : hit.end]), style="bold reverse")
        line.append(_flat(r.response[hit.end : end]) + ("…" if end < len(r.response) else ""))
        lines.append(line)
    return Group(*lines)


def _flat(text: str) -> str:
    return visible(" ".join(text.split(" "))).replace("\n", " ")
