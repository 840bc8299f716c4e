"""Question sets with their holdout, and the endless, deterministic stream of questions of a run."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np

from zerolab.data.families import Family
from zerolab.data.question_config import QuestionsConfig, QuestionSource
from zerolab.data.sources import MAX_REJECTED_IN_A_ROW, open_source, passes
from zerolab.datatypes import Question
from zerolab.errors import UserError

Side = Literal["train", "holdout"]
Order = Literal["shuffle", "sequential"]


@dataclass(frozen=True)
class Draw:
    """A drawn question. The counter numbers the draws of a run; the same question may be drawn again."""

    question: Question
    counter: int


@dataclass(frozen=True)
class Pool:
    """The questions of one source on one side of the split."""

    name: str  # unique; the ids of its questions start with it
    weight: float
    questions: tuple[Question, ...]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the questions. A saved position is valid only for the same hash."""
        return _hash(*(f"{question.id} {question.text} {question.answers}" for question in self.questions))

    def draw(self, position: int, seed: int, order: Order) -> tuple[Question, int]:
        """(question, next position). Every epoch has its own order, given by (seed, epoch)."""
        epoch, index = divmod(position, len(self.questions))
        if order == "shuffle":
            index = self._permutation(seed, epoch)[index]
        return self.questions[index], position + 1

    def _permutation(self, seed: int, epoch: int) -> np.ndarray:
        return _permutation(len(self.questions), seed, epoch, self.name)


@dataclass(frozen=True)
class EndlessPool:
    """The questions of an endless family on one side of the split."""

    name: str
    weight: float
    family: Family
    source: QuestionSource  # its filters
    side: Side
    holdout: float
    shuffled: bool = False  # every question has the answers of the next one

    @property
    def fingerprint(self) -> str:
        probe = [self.family.question(i) for i in range(16)]
        return _hash(self.side, str(self.holdout), *(f"{question.text} {question.answers}" for question in probe))

    def draw(self, position: int, seed: int, order: Order) -> tuple[Question, int]:
        """(question, next position). With `shuffle` every seed starts at another question.

        Raises UserError if the filters exclude too many questions in a row.
        """
        start = 0 if order == "sequential" else int(_random(seed, 0, self.name).integers(2**40))
        for at in range(position, position + MAX_REJECTED_IN_A_ROW):
            question = self.family.question(start + at)
            if passes(question, self.source) and side_of(split_key(question), self.holdout) == self.side:
                answers = self.family.question(start + at + 1).answers if self.shuffled else question.answers
                return replace(question, id=f"{self.name}:{start + at}", answers=answers), at + 1
        raise UserError(
            f"{self.source.path}: {MAX_REJECTED_IN_A_ROW} questions in a row that its filters or questions.holdout "
            "exclude: change them"
        )


Pools = tuple[Pool | EndlessPool, ...]


@dataclass(frozen=True)
class QuestionSet:
    """The questions of all sources, on both sides of the split. No text is on both sides."""

    train: Pools
    holdout: Pools


def load_questions(config: QuestionsConfig) -> QuestionSet:
    """Open and split every source. Raises UserError with file and line for a source or row that cannot be used."""
    sides: dict[Side, list[Pool | EndlessPool]] = {"train": [], "holdout": []}
    names: set[str] = set()
    for source in config.sources:
        found, opened = open_source(source, config.data_dir)
        name = _unique(found, names)
        for side, pools in sides.items():
            if side == "holdout" and config.holdout == 0:
                continue
            if isinstance(opened, Family):
                pools.append(EndlessPool(name, source.weight, opened, source, side, config.holdout))
            elif chosen := [q for q in opened if side_of(split_key(q), config.holdout) == side]:
                named = (replace(q, id=name + q.id.removeprefix(found)) for q in chosen)
                pools.append(Pool(name, source.weight, tuple(named)))
    if not sides["train"]:
        raise UserError(f"questions.holdout = {config.holdout} leaves no question for training: lower it")
    if config.holdout and not sides["holdout"]:
        raise UserError(f"questions.holdout = {config.holdout} leaves no question for evaluation: raise it")
    train = [shuffled(pool) for pool in sides["train"]] if config.shuffle_answers else sides["train"]
    return QuestionSet(tuple(train), tuple(sides["holdout"]))


def shuffled(pool: Pool | EndlessPool) -> Pool | EndlessPool:
    """The pool with the answers exchanged, so that every question has those of another one.

    Raises UserError if the pool has fewer than 2 questions.
    """
    if isinstance(pool, EndlessPool):
        return replace(pool, shuffled=True)
    if len(pool.questions) < 2:
        raise UserError("questions.shuffle_answers needs two questions at least")
    order = _permutation(len(pool.questions), 0, 0, pool.name)
    answered_by = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    questions = [replace(q, answers=pool.questions[answered_by[i]].answers) for i, q in enumerate(pool.questions)]
    return replace(pool, questions=tuple(questions))


class QuestionStream:
    """Endless draws from pools, mixed by weight. The same seed gives the same draws.

    The mix is exact: after n draws, no source is more than about one draw away from its share.
    """

    def __init__(self, pools: Pools, seed: int, order: Order = "shuffle"):
        if not pools:
            raise UserError("no questions to draw from: set questions.holdout, or another set of questions")
        self.pools, self.seed, self.order = pools, seed, order
        self.counter = 0
        self._drawn = [0] * len(pools)
        self._positions = [0] * len(pools)

    def take(self, count: int) -> list[Draw]:
        """The next `count` draws."""
        return [self._next() for _ in range(count)]

    def _next(self) -> Draw:
        lag = [(drawn + 1) / pool.weight for drawn, pool in zip(self._drawn, self.pools, strict=True)]
        chosen = lag.index(min(lag))
        question, self._positions[chosen] = self.pools[chosen].draw(self._positions[chosen], self.seed, self.order)
        self._drawn[chosen] += 1
        self.counter += 1
        return Draw(question, self.counter - 1)

    def state_dict(self) -> dict[str, Any]:
        """The position of the stream, which JSON can store."""
        return {
            "counter": self.counter,
            "drawn": list(self._drawn),
            "positions": list(self._positions),
            "fingerprints": [pool.fingerprint for pool in self.pools],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a stored position. Raises UserError if the questions have changed."""
        if state["fingerprints"] != [pool.fingerprint for pool in self.pools]:
            raise UserError("the questions are not those of the checkpoint: put them back, or start a new run")
        self.counter = state["counter"]
        self._drawn, self._positions = list(state["drawn"]), list(state["positions"])


def overlap(train: Pools, evaluation: Iterable[Question]) -> int:
    """The number of evaluation questions whose text is also a training question. Endless families are not searched."""
    seen = {" ".join(q.text.split()) for pool in train if isinstance(pool, Pool) for q in pool.questions}
    return sum(" ".join(q.text.split()) in seen for q in evaluation)


def split_key(question: Question) -> str:
    """The text whose hash gives the side of a question: the name of its group, or its own text."""
    return question.group or question.text


def side_of(text: str, holdout: float) -> Side:
    """The side of a question, by a hash of its text without regard to spaces. Duplicates get the same side."""
    number = int.from_bytes(hashlib.blake2b(" ".join(text.split()).encode(), digest_size=8).digest(), "big")
    return "holdout" if number < holdout * 2**64 else "train"


def _random(seed: int, epoch: int, name: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox([seed, epoch, int(_hash(name), 16)]))


@lru_cache(maxsize=64)
def _permutation(size: int, seed: int, epoch: int, name: str) -> np.ndarray:
    return _random(seed, epoch, name).permutation(size)


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).hexdigest()


def _unique(name: str, taken: set[str]) -> str:
    """The name, with a number if an earlier source has the same one. Adds it to `taken`."""
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}#{number}"
    taken.add(unique)
    return unique
