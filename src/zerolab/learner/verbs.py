"""What the loop asks of a learner, in one process or many. `learner.py` says what each verb does."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from zerolab.learner.prepare import Scoring
from zerolab.rl.batch import Batch
from zerolab.rl.objective import Objective

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Verbs(Scoring, Protocol):
    @property
    def version(self) -> int: ...

    def forward_backward(self, step: Batch, objective: Objective) -> dict[str, float]: ...

    def optim_step(self) -> dict[str, float]: ...

    def weights(self, changed_only: bool = False) -> Iterable[tuple[str, torch.Tensor]]: ...

    def export(self, tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None: ...

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...

    def loaded(self) -> AbstractContextManager[None]: ...
