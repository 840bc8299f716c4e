"""B1: templates decide whether a base model answers or merely continues the text.

Two kinds of transformer bases (0.15M parameters) are pretrained from scratch on the same questions. "textbook" met
them bare and followed by an answer; "web" met bare questions in lists of exercises, followed by more questions, and
answers only in conversations (`worlds/corpus.py`). 8 responses at temperature 1 to each of 150 questions, without a
template, as a conversation, and under an instruction that is in neither corpus. Measured is the share of responses
that answer, by the offline rules of `zerolab analyze`. Replicates are bases, pretrained from five seeds each.

The corpora decide this by construction: what is tested is that the template alone switches one and the same model
between answering and continuing, and that the rules see it. How common such models are it does not say.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from zerolab.claims.experiments.base_models import KINDS, TEMPLATES, base, responses, sampling
from zerolab.claims.protocol import Cell, Factors, Plan, Protocol, Row, Statement, measured, number


def cells(plan: Plan) -> list[Cell]:
    return [Cell({"kind": kind, "seed": seed}, seconds=15) for kind in KINDS for seed in plan.seeds]


def run(factors: Factors, folder: Path) -> Mapping[str, float]:
    from zerolab.analysis.answering import answering

    rows = answering(responses(factors, list(TEMPLATES)))
    return {f"answers_{row.setting.template}": float(row.rules.value or 0.0) for row in rows}


def share(kind: str, template: str) -> Callable[[Sequence[Row]], list[float]]:
    return number(f"answers_{template}", kind=kind)


def gain(kind: str, template: str, over: str) -> Callable[[Sequence[Row]], list[float]]:
    return measured(lambda row: float(row[f"answers_{template}"]) - float(row[f"answers_{over}"]), kind=kind)


PROTOCOL = Protocol(
    id="B1.answering",
    claim="B1",
    sentence="One and the same base model answers under one template and continues the text under another.",
    metric="share of responses that answer the question, by the offline rules, at temperature 1",
    test="t interval over five bases of each kind",
    refuted="templates less than .5 apart in web bases, or below .8 answering without one in textbook bases",
    cells=cells,
    recipe=sampling(*TEMPLATES),
    run=run,
    base=base,
    statements=(
        Statement("textbook: answers without a template", share("textbook", "none"), (0.8, 1.0), share=True),
        Statement("web: a conversation gains over no template", gain("web", "conversation", "none"), (0.5, 1.0)),
        Statement("web: hardly answers without a template", share("web", "none"), (0.0, 0.3), "control", share=True),
        Statement(
            "web: under an instruction it never saw", share("web", "instruction"), (0.0, 1.0), "shown", share=True
        ),
        Statement(
            "textbook: in a conversation, which it never saw",
            share("textbook", "conversation"),
            (0, 1),
            "shown",
            share=True,
        ),
    ),
    label="planted",
    replicate="base",
)
