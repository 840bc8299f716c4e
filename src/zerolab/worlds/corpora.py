"""The synthetic corpora by name."""

from collections.abc import Callable
from typing import Any

from zerolab.config import CorpusConfig, Strict
from zerolab.data.families import COUNTDOWN_PHRASES, countdown_problem, make_family
from zerolab.errors import UserError
from zerolab.toml import parse
from zerolab.worlds.columns import ColumnsOptions, FramedColumns, StagedColumns, StagedOptions
from zerolab.worlds.corpus import (
    ChainDerivations,
    Corpus,
    DerivationOptions,
    MarkedArithmetic,
    MarkedOptions,
    StyledArithmetic,
    StyledOptions,
    Worked,
    WorkedArithmeticOptions,
    WorkedCountdownOptions,
)


def _marked(seed: int, options: MarkedOptions) -> Corpus:
    return MarkedArithmetic(seed, options)


def _worked_arithmetic(seed: int, options: WorkedArithmeticOptions) -> Corpus:
    family = make_family("arithmetic", options.model_dump(exclude={"holdout"}))
    return Worked(seed, family, lambda i: family.question(i).answers[0], (" = ?",), options.holdout)


def _worked_countdown(seed: int, options: WorkedCountdownOptions) -> Corpus:
    family = make_family("countdown", options.model_dump(exclude={"holdout"}))
    return Worked(seed, family, lambda i: countdown_problem(options, i)[2], COUNTDOWN_PHRASES, options.holdout)


def _styled(seed: int, options: StyledOptions) -> Corpus:
    return StyledArithmetic(MarkedArithmetic(seed, MarkedOptions(modulus=options.modulus)), options)


CORPORA: dict[str, tuple[type[Strict], Callable[[int, Any], Corpus]]] = {
    "marked-arithmetic": (MarkedOptions, _marked),
    "styled-arithmetic": (StyledOptions, _styled),
    "arithmetic": (WorkedArithmeticOptions, _worked_arithmetic),
    "countdown": (WorkedCountdownOptions, _worked_countdown),
    "chain-derivations": (DerivationOptions, ChainDerivations),
    "columns": (ColumnsOptions, FramedColumns),
    "staged-columns": (StagedOptions, StagedColumns),
}


def make_corpus(config: CorpusConfig, seed: int) -> Corpus:
    """The corpus of a recipe. Raises UserError for an unknown name or option."""
    if config.name not in CORPORA:
        raise UserError(f"corpus.name {config.name!r} is unknown: choose one of {', '.join(CORPORA)}")
    options, make = CORPORA[config.name]
    return make(seed, parse(options, dict(config.options), f"corpus.options of {config.name}"))
