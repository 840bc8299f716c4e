"""Contamination probe: given the beginning of a benchmark question, does a model write the rest of it, word for word?

Nobody can compute the hidden part of a question; who writes it has read it (arXiv 2507.10532 finds Qwen2.5 doing so).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zerolab.analysis.cells import Rate, rate
from zerolab.analysis.overlap import words
from zerolab.analysis.rouge import rouge_l
from zerolab.analysis.table import Table
from zerolab.evaluation.responses import Response
from zerolab.evaluation.statistics import Interval, bootstrap, clopper_pearson
from zerolab.types import Question

SHARES = (0.4, 0.6, 0.8)
PREFIX = "prefix-"  # a template of this name and a number: so many per cent of the question, and nothing else
FEWEST_WORDS = 3  # of the hidden part, for its reproduction to mean anything


def template_name(share: float) -> str:
    return f"{PREFIX}{round(100 * share)}"


def share_of(template: str) -> float | None:
    """The share that a template's name says; None for a template of another kind."""
    digits = template.removeprefix(PREFIX)
    return int(digits) / 100 if template.startswith(PREFIX) and digits.isdecimal() and len(digits) < 3 else None


def cut(question: str, share: float) -> tuple[str, str]:
    """(prefix, rest), cut at the border of words next to so much of the characters; together they are the question."""
    want = round(len(question) * share)
    ends = [i for i, letter in enumerate(question) if letter.isspace() and question[:i].strip()]
    if not ends:
        return question, ""
    at = min(ends, key=lambda i: abs(i - want))
    return question[:at], question[at:]


def probes(questions: Sequence[Question], shares: Sequence[float] = SHARES) -> list[tuple[float, Question, str]]:
    """(share, question, prefix) of every question whose hidden part has at least FEWEST_WORDS words."""
    found = []
    for share in shares:
        for question in questions:
            prefix, rest = cut(question.text, share)
            if len(words(rest)) >= FEWEST_WORDS:
                found.append((share, question, prefix))
    return found


@dataclass(frozen=True)
class Completion:
    """One model on one benchmark, given so much of each question."""

    model: str
    benchmark: str
    share: float
    exact: Rate  # the words that follow are those of the hidden part, all of them
    rouge: float  # mean ROUGE-L F1 against the hidden part, of as many words as that has
    rouge_interval: Interval
    answered: Rate  # the response reaches the right answer of the whole question, in any form


def reproduces(response: str, rest: str) -> bool:
    """Whether the response begins with the words of the hidden part; marks, spaces and case do not count."""
    wanted = words(rest)
    return words(response)[: len(wanted)] == wanted


def closeness(response: str, rest: str) -> float:
    """ROUGE-L of the hidden part and as many words of the response: what comes after it is no error."""
    return rouge_l(" ".join(words(response)[: len(words(rest))]), rest)


def completion(responses: Sequence[Response]) -> list[Completion]:
    """From recorded responses under the templates prefix-40, prefix-60, ...; others are left out."""
    groups: dict[tuple[str, str, float], list[Response]] = {}
    for response in responses:
        share = share_of(response.template)
        if share is not None:
            groups.setdefault((response.model, response.benchmark, share), []).append(response)
    return [_measured(*key, members) for key, members in sorted(groups.items())]


def _measured(model: str, benchmark: str, share: float, members: Sequence[Response]) -> Completion:
    names: Mapping[str, int] = {name: i for i, name in enumerate(dict.fromkeys(r.question_id for r in members))}
    question_N = np.array([names[r.question_id] for r in members])
    rests = [cut(r.problem, share)[1] for r in members]
    exact_N = np.array([reproduces(r.response, rest) for r, rest in zip(members, rests, strict=True)])
    close_N = np.array([closeness(r.response, rest) for r, rest in zip(members, rests, strict=True)])
    answered_N = np.array([bool(r.lenient and r.lenient.correct) for r in members])
    close_Q = np.bincount(question_N, close_N) / np.bincount(question_N)
    varied = close_Q.min() < close_Q.max()  # of equal values a bootstrap makes an interval of no width
    interval = bootstrap(close_Q[:, None]) if varied else clopper_pearson(float(close_Q.sum()), len(close_Q))
    exact, answered = rate(exact_N, question_N), rate(answered_N, question_N)
    return Completion(model, benchmark, share, exact, float(close_Q.mean()), interval, answered)


def completion_table(found: Sequence[Completion]) -> Table:
    columns = ("model", "benchmark", "given", "questions", "exact", "95 %", "ROUGE-L", "95 % of ROUGE-L")
    rows = []
    for c in found:
        measured = (c.exact.value, c.exact.interval, c.rouge, c.rouge_interval, c.answered.value, c.answered.interval)
        rows.append((c.model, c.benchmark, c.share, c.exact.responses, *measured))
    note = (
        "the model is given so much of the question and nothing else. exact: it writes the rest word for word; "
        "answered: it reaches the answer of the whole question, in any form"
    )
    title = "Contamination: the rest of a question from its beginning"
    return Table("completion", title, (*columns, "answered", "95 % of answered"), tuple(rows), note)
