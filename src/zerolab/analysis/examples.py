"""Responses that reflect, with the passage marked: for a terminal, and as one page of HTML without scripts."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from zerolab.analysis.cells import Setting, cells, solved
from zerolab.analysis.rubric import Verdict, find_passage
from zerolab.evaluation.responses import Response
from zerolab.phrases import Hit, Scope, find_phrases, pieces
from zerolab.terminal import visible

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
    from rich.console import Group
    from rich.text import Text

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
