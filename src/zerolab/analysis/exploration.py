"""What a base model can reach by sampling: pass@k over k and temperature."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zerolab.analysis.cells import SETTING, Setting, cells, solved
from zerolab.analysis.table import Table
from zerolab.evaluation.responses import Response
from zerolab.evaluation.statistics import Interval, pass_at_k, population_interval


@dataclass(frozen=True)
class PassAtK:
    """pass@k of one setting; the interval (95 %) is for a population of such questions."""

    setting: Setting
    k: int
    value: float
    interval: Interval
    questions: int
    samples: int  # fewest of a question: k goes up to it


def exploration(responses: Sequence[Response], ks: Sequence[int] | None = None) -> list[PassAtK]:
    """pass@k of every setting, for `ks` or for 1, 2, 4, ... and n itself, n the fewest samples of any question."""
    found = []
    for cell in cells(responses):
        samples_Q = cell.samples_Q
        correct_Q = np.bincount(cell.question_N, cell.flags(solved).astype(float))
        most = int(samples_Q.min())
        for k in ks or powers(most):
            if k > most:
                continue
            pass_Q = pass_at_k(correct_Q, samples_Q, k)
            subsets_Q = np.maximum(1, samples_Q // k)  # a question has no more independent draws of k than that
            interval = population_interval(pass_Q * subsets_Q, subsets_Q)
            found.append(PassAtK(cell.setting, k, float(pass_Q.mean()), interval, len(pass_Q), most))
    return found


def powers(most: int) -> list[int]:
    """1, 2, 4, ... below `most`, and `most`."""
    ks = [1]
    while ks[-1] * 2 < most:
        ks.append(ks[-1] * 2)
    return [*ks, most] if most > 1 else ks


def exploration_table(found: Sequence[PassAtK]) -> Table:
    columns = (*SETTING, "k", "pass@k", "95 %", "questions", "samples")
    rows = tuple((*p.setting, p.k, p.value, p.interval, p.questions, p.samples) for p in found)
    note = "unbiased estimate, 1 - C(n-c, k) / C(n, k); intervals are for a population of such questions"
    title = "Exploration: pass@k"
    return Table("exploration", title, columns, rows, note, screen=_by_setting(title, found, note))


def _by_setting(title: str, found: Sequence[PassAtK], note: str) -> Table:
    """A row a setting, a column a k, the interval of the largest one."""
    ks = sorted({p.k for p in found})
    rows = []
    for setting in dict.fromkeys(p.setting for p in found):
        mine = {p.k: p for p in found if p.setting == setting}
        last = mine[max(mine)]
        values = (mine[k].value if k in mine else None for k in ks)
        rows.append((*setting, *values, last.interval, last.questions, last.samples))
    columns = (*SETTING, *(f"pass@{k}" for k in ks), "95 % of the last", "questions", "samples")
    return Table("exploration", title, columns, tuple(rows), note)
