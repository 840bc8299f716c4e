"""Self-reflection: how often, by which detector, and whether it goes with accuracy inside questions.

Two detectors, as in arXiv 2503.20783: keywords (phrases.py) and an LLM judge (rubric.py). The paper counts a response
where both agree; each is shown for itself too.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from zerolab.analysis.agreement import Agreement, agreement
from zerolab.analysis.cells import SETTING, Cell, Rate, Setting, any_rate, cells, rate, solved
from zerolab.analysis.rubric import REFLECTING, Verdict
from zerolab.analysis.table import Table
from zerolab.analysis.within import WithinDifference, within_difference
from zerolab.evaluation.responses import Response
from zerolab.phrases import Scope, find_phrases


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
