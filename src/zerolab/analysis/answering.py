"""Does a response answer the question, or does it go on writing the text that the question began? Offline rules.

The rules are stated in docs/analysis.md; they look at the form of the text alone and are no judge. Where an LLM judge
ran too, the two are compared.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from zerolab.analysis.judge import Verdict
from zerolab.analysis.rates import SETTING, Agreement, Cell, Rate, Setting, agreement, cells, rate
from zerolab.analysis.result_table import Table
from zerolab.evaluation.responses import Response

Answering = Literal["answers", "continues", "other"]
LABELS: tuple[Answering, ...] = ("answers", "continues", "other")

_NEXT = re.compile(
    r"^[^\S\n]{0,8}[#*]{0,6}[^\S\n]{0,4}(?:(?:question|problem|exercise|example|user|human|student|assistant|input)"
    r"\b[^\n:.)]{0,12}[:.)]|q[^\S\n]?\d{0,3}[:.)])",
    re.IGNORECASE | re.MULTILINE,
)
_CHOICES = re.compile(r"\(?\bA[).:].{1,100}?\(?\bB[).:].{1,100}?\(?\bC[).:]", re.DOTALL)
_FINAL = re.compile(
    r"\\(?:boxed|fbox)\s{0,4}\{|<answer>|^[^\S\n]{0,8}(?:####|A:|Answer:|Final answer)"
    r"|\b(?:answer|result|solution) (?:is|=|:)",
    re.IGNORECASE | re.MULTILINE,
)
# Kinds of sign that somebody is working on a solution; a question has one by chance, hardly two.
_WORK = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"=\s{0,4}\\?\$?\s{0,4}-?\d",
        r"\b(?:so|therefore|thus|hence|because|since|which means|it follows)\b",
        r"\bwe (?:have|get|know|need|can|find|see|obtain|want|must|use|will|start|first)\b",
        r"\b(?:first|next|then|finally|step \d)\b",
        r"\b(?:let['’]s|let us|to find|to solve|to determine|to calculate|in order to|solution|solving|substitut\w+)\b",
    )
)
_TASK = re.compile(
    r"\?|\b(?:find|compute|evaluate|determine|express|simplify|calculate|factor|what|which of|how (?:many|much|far)"
    r"|how long|solve for|prove|show that|give your|round your|write your|enter)\b",
    re.IGNORECASE,
)
ANSWERING_RULES = frozenset({"final answer", "work", "bare answer"})
_OPENING = 400  # characters in which a text that goes on with the question shows it
_BARE_WORDS = 30


@dataclass(frozen=True, slots=True)
class Ruling:
    label: Answering
    rule: str  # which of the rules below


def rule_answering(response: str) -> Ruling:
    """The label of a response and the rule that gave it, the first one that holds. Linear time."""
    following = _NEXT.search(response)
    own = response[: following.start()] if following else response
    if _FINAL.search(own):
        return Ruling("answers", "final answer")
    if sum(bool(sign.search(own)) for sign in _WORK) >= 2:
        return Ruling("answers", "work")
    if following:
        return Ruling("continues", "next question")
    if _CHOICES.search(own[:1000]):
        return Ruling("continues", "choices")
    if not re.search(r"\w", own):
        return Ruling("other", "empty")
    if _TASK.search(own[:_OPENING]):
        return Ruling("continues", "sets a task")
    if re.search(r"\d", own) and len(own.split()) <= _BARE_WORDS:
        return Ruling("answers", "bare answer")
    return Ruling("other", "nothing")


@dataclass(frozen=True)
class AnsweringRow:
    """One setting. What the judge has a part in is None where it did not run, and leaves out what it did not judge."""

    setting: Setting
    rules: Rate  # share of responses that answer, by the rules
    judge: Rate | None
    agreement: Agreement | None  # of the rules' labels with the judge's, by question
    by_rule: dict[str, int]  # responses by the rule that held


def answering(responses: Sequence[Response], verdicts: Sequence[Verdict | None] | None = None) -> list[AnsweringRow]:
    """Share of answering responses under every setting. `verdicts`: one for each response, None where it is missing."""
    said = dict(zip(map(id, responses), verdicts, strict=True)) if verdicts is not None else None
    return [_row(cell, None if said is None else [said[id(r)] for r in cell.responses]) for cell in cells(responses)]


def _row(cell: Cell, verdicts: Sequence[Verdict | None] | None) -> AnsweringRow:
    rulings = [rule_answering(r.response) for r in cell.responses]
    question_N = cell.question_N
    by_rules = rate(np.array([r.label == "answers" for r in rulings]), question_N)
    by_judge = both = None
    if verdicts is not None:
        known_N = np.array([v is not None for v in verdicts])
        by_judge = rate(np.array([v is not None and v.category == "answers" for v in verdicts]), question_N, known_N)
        pairs = [
            (ruling.label, verdict.category, question)
            for ruling, verdict, question in zip(rulings, verdicts, question_N.tolist(), strict=True)
            if verdict is not None
        ]
        both = agreement(*zip(*pairs, strict=True)) if pairs else None
    return AnsweringRow(cell.setting, by_rules, by_judge, both, dict(Counter(r.rule for r in rulings)))


def answering_table(found: Sequence[AnsweringRow]) -> Table:
    judged = any(row.judge is not None for row in found)
    columns = (*SETTING, "responses", "answers (rules)", "95 %", "other rules")
    judge_columns = ("answers (judge)", "95 % of the judge's", "agreement", "kappa", "95 % of kappa") if judged else ()
    rows = []
    for row in found:
        others = ", ".join(f"{rule} {n}" for rule, n in sorted(row.by_rule.items()) if rule not in ANSWERING_RULES)
        cells_ = [*row.setting, row.rules.responses, row.rules.value, row.rules.interval, others]
        if judged:
            both = row.agreement
            judge = row.judge or Rate(None, None, 0)
            cells_ += [judge.value, judge.interval]
            cells_ += [both.observed, both.kappa, both.interval] if both else [None] * 3
        rows.append(tuple(cells_))
    quiet = frozenset({"other rules", "agreement"} if judged else ())
    title = "Answering or continuing the text"
    return Table("answering", title, (*columns, *judge_columns), tuple(rows), quiet=quiet)
