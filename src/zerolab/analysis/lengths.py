"""How long responses are, by correctness and truncation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zerolab.analysis.cells import SETTING, Cell, Setting, cells
from zerolab.analysis.table import Table
from zerolab.evaluation.responses import Response

QUANTILES = (0.1, 0.5, 0.9)
KINDS = ("all", "correct", "wrong", "truncated")


@dataclass(frozen=True)
class Lengths:
    """Lengths of one kind of response. `unit` is tokens, or words where a file counts none."""

    setting: Setting
    kind: str  # one of KINDS; a truncated response is neither correct nor wrong
    unit: str
    lengths_N: np.ndarray
    share: float  # of all responses of the setting


def lengths(responses: Sequence[Response]) -> list[Lengths]:
    """By setting and kind; kinds without a response are left out."""
    return [part for cell in cells(responses) for part in _parts(cell)]


def _parts(cell: Cell) -> list[Lengths]:
    counted = all(r.tokens is not None for r in cell.responses)
    unit = "tokens" if counted else "words"
    length_N = np.array([r.tokens if counted else len(r.response.split()) for r in cell.responses], float)
    cut_N = cell.flags(lambda r: bool(r.truncated))
    right_N = cell.flags(lambda r: bool(r.grade and r.grade.correct))
    masks = (np.ones_like(cut_N), right_N & ~cut_N, ~right_N & ~cut_N, cut_N)
    return [
        Lengths(cell.setting, kind, unit, length_N[mask_N], float(mask_N.mean()))
        for kind, mask_N in zip(KINDS, masks, strict=True)
        if mask_N.any()
    ]


def lengths_table(found: Sequence[Lengths]) -> Table:
    columns = (*SETTING, "kind", "responses", "share", "mean", "10 %", "median", "90 %", "longest", "unit")
    rows = []
    for part in found:
        low, middle, high = (float(q) for q in np.quantile(part.lengths_N, QUANTILES))
        mean, most = float(part.lengths_N.mean()), float(part.lengths_N.max())
        count = len(part.lengths_N)
        rows.append((*part.setting, part.kind, count, part.share, mean, low, middle, high, most, part.unit))
    known = any(part.kind == "truncated" for part in found)
    note = "" if known else "no response is marked as truncated: either none was, or the file does not say"
    return Table("lengths", "Length by correctness and truncation", columns, tuple(rows), note)
