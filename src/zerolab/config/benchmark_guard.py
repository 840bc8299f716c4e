"""Test benchmarks are for the end: a run that looks at one while it trains is refused, or says so for ever."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zerolab.data.question_config import QuestionSource

FORCED = "evaluated on a test benchmark while it trained"


def benchmark_of(path: str, split: str | None = None) -> str | None:
    """The benchmark that a source of questions is: by its name, the name of its file, or its hub id and split.

    A benchmark under another name is not recognised.
    """
    from zerolab.data.builtin import BUILT_IN

    tests = {name: entry for name, entry in BUILT_IN.items() if entry.use == "evaluation"}
    name = Path(path).stem if Path(path).suffix in (".jsonl", ".ndjson", ".json", ".csv", ".parquet") else path
    if name in tests:
        return name
    if path in ("nlile/hendrycks-MATH-benchmark",) and split == "test":
        return "math500"
    return next((n for n, entry in tests.items() if entry.hub_id == path and split in (None, entry.split)), None)


def tests_among(sources: tuple[QuestionSource, ...]) -> list[str]:
    found = (benchmark_of(source.path, source.split) for source in sources)
    return list(dict.fromkeys(name for name in found if name is not None))


def forced_note(config: Mapping[str, Any]) -> str | None:
    """What every table of a run has to say, from its resolved config; None for a run that kept to the rule."""
    evaluation = config.get("evaluation")
    if not isinstance(evaluation, Mapping) or not evaluation.get("allow_test_questions") or not evaluation.get("every"):
        return None
    questions = evaluation.get("questions") or config.get("questions")
    sources = questions.get("sources") if isinstance(questions, Mapping) else None
    pairs = [(s.get("path"), s.get("split")) for s in sources or () if isinstance(s, Mapping)]
    names = [name for path, split in pairs if isinstance(path, str) and (name := benchmark_of(path, split))]
    if not names:
        return None
    return f"{FORCED} ({', '.join(dict.fromkeys(names))}): what was chosen by that was chosen on the test"
