"""The configs of question sources and corpora, and the guard of the test benchmarks.

Test benchmarks are for the evaluation of finished models. A run that evaluates on one while it trains is refused; if
this is forced, all its tables say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from zerolab.data.builtin import BUILT_IN
from zerolab.data.families import PREFIX, make_family
from zerolab.toml import SAME, Seed, Strict, as_value_error, refuse


class QuestionSource(Strict):
    path: str = Field(
        description="JSONL, JSON, CSV or Parquet file; built-in name; hub id; synthetic:FAMILY; or reasoning_gym:TASK."
    )
    split: str | None = Field(None, description="Split of a hub data set (default: the built-in's own, else train).")
    subset: str | None = Field(None, description="Configuration name of a hub data set.")
    problem_key: str | None = Field(None, description="Column of the question (default: the first known name present).")
    answer_key: str | None = Field(None, description="Column of the answer (default: the first known name present).")
    levels: tuple[int, int] | None = Field(
        None,
        description="Lowest and highest difficulty level that is kept. reasoning_gym: levels of its curriculum, from "
        "0.",
    )
    max_chars: int | None = Field(None, ge=1, description="Drop questions with more characters.")
    limit: int | None = Field(None, ge=1, description="Keep only this many questions, the first of the file.")
    weight: float = Field(1.0, gt=0, description="Share in a mix, relative to the other sources.")
    options: dict[str, int | float | str | bool | list[int | float | str]] = Field(
        {}, description="Parameters of a synthetic family, or the config of a task of reasoning-gym."
    )

    @model_validator(mode="after")
    def _keys_fit(self) -> QuestionSource:
        refuse(
            (
                self.levels is not None and self.levels[0] > self.levels[1],
                f"questions.levels = {list(self.levels or ())} is empty: write the lower level first",
            )
        )
        if self.path.startswith(PREFIX):
            as_value_error(make_family, self.path.removeprefix(PREFIX), self.options)
        elif self.options and not self.path.startswith("reasoning_gym:"):
            raise ValueError(
                f"questions.options are for synthetic:FAMILY and reasoning_gym:TASK; {self.path} takes none: remove "
                "them"
            )
        return self


class QuestionsConfig(Strict):
    shorthand: ClassVar[type[BaseModel]] = QuestionSource

    sources: tuple[QuestionSource, ...] = Field(
        (),
        description="Sources to mix by weight. The keys of a single source can be set directly: questions.path = ...",
    )
    data_dir: str | None = Field(
        None, description="Local folder that is searched first for built-in names.", json_schema_extra=SAME
    )
    holdout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the questions that is held out for evaluation, chosen by a hash of their text "
        "(synthetic:facts: of the fact).",
    )
    shuffle_answers: bool = Field(
        False,
        description="A control: grade every training question by the answer of another one. Held-out questions keep "
        "their answers.",
    )
    order: Literal["shuffle", "sequential"] = Field("shuffle", description="Order within an epoch of a source.")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        """`questions.path` and the other keys of one source stand for `sources = [{...}]`."""
        if not isinstance(raw, dict):
            return raw
        single = {k: v for k, v in raw.items() if k in QuestionSource.model_fields}
        if not single or raw.get("sources"):
            if single:
                raise ValueError(f"questions.sources and questions.{next(iter(single))} exclude each other")
            return raw
        rest = {k: v for k, v in raw.items() if k not in single}
        return {**rest, "sources": [single]}

    @model_validator(mode="after")
    def _some_source(self) -> QuestionsConfig:
        refuse((not self.sources, "set questions.path to a file, a built-in name, a hub id or synthetic:FAMILY"))
        return self


SYNTHETIC = "synthetic:"


class CorpusSource(Strict):
    path: str = Field(
        description="JSONL, JSON, CSV, Parquet or text file, a folder or pattern of them; built-in name; hub id; or "
        "synthetic:CORPUS."
    )
    name: str | None = Field(None, min_length=1, description="Name in metrics (default: from the path).")
    weight: float = Field(1.0, gt=0, description="Share of the tokens in a mix, relative to the other sources.")
    split: str | None = Field(None, description="Split of a hub data set (default: the built-in's own, else train).")
    subset: str | None = Field(None, description="Configuration name of a hub data set.")
    stream: bool = Field(
        False, description="Read a hub data set while it is downloaded, instead of a complete copy on disk."
    )
    text_key: str | None = Field(None, description="Column of the text (default: the first known name present).")
    problem_key: str | None = Field(
        None, description="Column of the question, if documents are questions with answers."
    )
    answer_key: str | None = Field(None, description="Column of the worked answer to the question.")
    template: str = Field(
        "{question}\n", description="Text before an answer; {question} is replaced. The answer follows directly."
    )
    loss: Literal["all", "answer"] | None = Field(
        None,
        description="Tokens that are learned. all: all tokens of a document except the first. answer: only the answer "
        "and the end of text (default: answer for synthetic corpora, else all).",
    )
    unit: Literal["paragraph", "line", "file"] = Field(
        "paragraph", description="Unit of a text file that is one document; a blank line ends a paragraph."
    )
    limit: int | None = Field(None, ge=1, description="Keep only this many documents, the first of the file.")
    options: dict[str, int | float | str | bool] = Field({}, description="Parameters of a synthetic corpus.")
    seed: Seed | None = Field(
        None,
        description="Seed of a synthetic corpus (default: the run's). The seed of a base model gives its corpus again.",
    )

    @property
    def synthetic(self) -> str | None:
        """The name of a synthetic corpus; None for any other."""
        return self.path.removeprefix(SYNTHETIC) if self.path.startswith(SYNTHETIC) else None

    @model_validator(mode="after")
    def _keys_fit(self) -> CorpusSource:
        refuse(
            (
                self.template.count("{question}") != 1,
                "corpora.template: write {question} once, where the question goes",
            ),
            (
                self.text_key and (self.problem_key or self.answer_key),
                "corpora.text_key is for texts, problem_key and answer_key for questions: set one kind",
            ),
            (
                (self.problem_key is None) != (self.answer_key is None),
                "corpora.problem_key and corpora.answer_key go together: set both or none",
            ),
            (
                self.text_key and self.loss == "answer",
                'corpora.loss = "answer" needs questions with answers: remove corpora.text_key',
            ),
            (
                self.synthetic is None and (self.options or self.seed is not None),
                f"corpora.options and corpora.seed are for synthetic:CORPUS; {self.path} takes none: remove them",
            ),
            (
                self.synthetic is not None and self.limit is not None,
                "corpora.limit is for files and data sets; a synthetic corpus has no end: remove it",
            ),
        )
        return self


FORCED = "evaluated on a test benchmark while it trained"


def benchmark_of(path: str, split: str | None = None) -> str | None:
    """The test benchmark that a source is, by built-in name, file name, or hub id and split; None if it is none.

    A benchmark under another name is not recognised.
    """
    tests = {name: entry for name, entry in BUILT_IN.items() if entry.use == "evaluation"}
    name = Path(path).stem if Path(path).suffix in (".jsonl", ".ndjson", ".json", ".csv", ".parquet") else path
    if name in tests:
        return name
    if path in ("nlile/hendrycks-MATH-benchmark",) and split == "test":
        return "math500"
    return next((n for n, entry in tests.items() if entry.hub_id == path and split in (None, entry.split)), None)


def tests_among(sources: tuple[QuestionSource, ...]) -> list[str]:
    """The names of the test benchmarks among these sources."""
    found = (benchmark_of(source.path, source.split) for source in sources)
    return list(dict.fromkeys(name for name in found if name is not None))


def forced_note(config: Mapping[str, Any]) -> str | None:
    """The notice for every table of a run that evaluated on a test benchmark while it trained; None for other runs.

    `config` is the resolved config of the run.
    """
    evaluation = config.get("evaluation")
    if not isinstance(evaluation, Mapping) or not evaluation.get("allow_test_questions") or not evaluation.get("every"):
        return None
    questions = evaluation.get("questions") or config.get("questions")
    sources = questions.get("sources") if isinstance(questions, Mapping) else None
    pairs = [(s.get("path"), s.get("split")) for s in sources or () if isinstance(s, Mapping)]
    names = [name for path, split in pairs if isinstance(path, str) and (name := benchmark_of(path, split))]
    if not names:
        return None
    return f"{FORCED} ({', '.join(dict.fromkeys(names))}): a checkpoint chosen by it was chosen on the test"
