"""Questions and the template they are put in."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from zerolab.config.strict import SAME, Strict, as_value_error


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
        description="Keep difficulty levels from .. to, inclusive. reasoning_gym: levels of its curriculum, from 0.",
    )
    max_chars: int | None = Field(None, ge=1, description="Drop questions with more characters.")
    limit: int | None = Field(None, ge=1, description="Keep the first so many questions, in file order.")
    weight: float = Field(1.0, gt=0, description="Share in a mix, relative to the other sources.")
    options: dict[str, int | float | str | bool | list[int | float | str]] = Field(
        {}, description="Parameters of a synthetic family, or the config of a task of reasoning-gym."
    )

    @model_validator(mode="after")
    def _can_be_meant(self) -> "QuestionSource":
        from zerolab.data.synthetic import PREFIX, make_family

        if self.levels is not None and self.levels[0] > self.levels[1]:
            raise ValueError(f"questions.levels = {list(self.levels)} is empty: write the lower level first")
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
        (), description="Sources to mix by weight. For a single one, its keys stand here directly: questions.path = ..."
    )
    data_dir: str | None = Field(
        None, description="Local folder that is searched first for built-in names.", json_schema_extra=SAME
    )
    holdout: float = Field(
        0.0, ge=0, lt=1, description="Share of questions, chosen by a hash of their text, kept for evaluation."
    )
    shuffle_answers: bool = Field(
        False,
        description="A control: every training question is graded by the answer of another one; held-out ones are not.",
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
    def _some_source(self) -> "QuestionsConfig":
        if not self.sources:
            raise ValueError("set questions.path to a file, a built-in name, a hub id or synthetic:FAMILY")
        return self


class TemplateConfig(Strict):
    name: str = Field(
        "none",
        description="r1, qwen-math, none, few-shot, prime-zero, open-reasoner-zero, chat (the model's own chat "
        "template), or a name of your own together with `text`.",
    )
    text: str | None = Field(
        None, description="Own template; {question} is replaced. With chat: what the user's turn says."
    )
    system: str | None = Field(None, description="chat: a system turn (default: the chat template's own, if any).")
    chat_options: dict[str, int | float | str | bool] = Field(
        {}, description="chat: variables of the model's chat template, such as enable_thinking."
    )
    stop: tuple[str, ...] | None = Field(None, description="Stop strings (kept in the output).")
    extractor: Literal["boxed", "answer-tag", "answer-tag-lenient", "last-number"] | None = Field(
        None, description="Where the answer stands in the response."
    )
    shots: tuple[tuple[str, str], ...] = Field((), description="few-shot: pairs of question and worked answer.")

    @model_validator(mode="after")
    def _can_be_made(self) -> "TemplateConfig":
        from zerolab.data.templates import make_template

        as_value_error(make_template, self)
        return self
