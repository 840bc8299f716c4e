"""A pretraining run: corpora of text in a mix, the model to begin with, and how it learns."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from zerolab.config.firewall import tests_among
from zerolab.config.learner import OptimizerConfig
from zerolab.config.pretrain import ArchitectureConfig
from zerolab.config.questions import TemplateConfig
from zerolab.config.run import CheckpointConfig, EvaluationConfig, ModelConfig, TrackConfig
from zerolab.config.strict import ROUNDED, SAME, Name, Seed, Strict

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
        False, description="Read a hub data set while it is downloaded, in the place of a complete copy on disk."
    )
    text_key: str | None = Field(None, description="Column of the text (default: the first known name present).")
    problem_key: str | None = Field(
        None, description="Column of the question, where documents are questions with answers."
    )
    answer_key: str | None = Field(None, description="Column of its worked answer.")
    template: str = Field(
        "{question}\n", description="What stands before an answer; {question} is replaced. The answer follows at once."
    )
    loss: Literal["all", "answer"] | None = Field(
        None,
        description="Tokens that are learned: all but the first of a document, or the answer and its end alone "
        "(default: answer for synthetic corpora, else all).",
    )
    unit: Literal["paragraph", "line", "file"] = Field(
        "paragraph", description="What a document is in a text file; a blank line ends a paragraph."
    )
    limit: int | None = Field(None, ge=1, description="Keep the first so many documents, in file order.")
    options: dict[str, int | float | str | bool] = Field({}, description="Parameters of a synthetic corpus.")
    seed: Seed | None = Field(None, description="Of a synthetic corpus: its base's, to go on with the same one.")

    @property
    def synthetic(self) -> str | None:
        """The name of a synthetic corpus; None for any other."""
        return self.path.removeprefix(SYNTHETIC) if self.path.startswith(SYNTHETIC) else None

    @model_validator(mode="after")
    def _can_be_meant(self) -> "CorpusSource":
        if self.template.count("{question}") != 1:
            raise ValueError("corpora.template: write {question} once, where the question goes")
        if self.text_key and (self.problem_key or self.answer_key):
            raise ValueError("corpora.text_key is for texts, problem_key and answer_key for questions: set one kind")
        if (self.problem_key is None) != (self.answer_key is None):
            raise ValueError("corpora.problem_key and corpora.answer_key go together: set both or none")
        if self.text_key and self.loss == "answer":
            raise ValueError('corpora.loss = "answer" needs questions with answers: remove corpora.text_key')
        if self.synthetic is None and (self.options or self.seed is not None):
            raise ValueError(
                f"corpora.options and corpora.seed are for synthetic:CORPUS; {self.path} takes none: remove them"
            )
        if self.synthetic is not None and self.limit is not None:
            raise ValueError("corpora.limit is for files and data sets; a synthetic corpus has no end: remove it")
        return self


class CorporaConfig(Strict):
    shorthand: ClassVar[type[BaseModel]] = CorpusSource

    sources: tuple[CorpusSource, ...] = Field(
        (), description="Corpora to mix by weight. For a single one, its keys stand here directly: corpora.path = ..."
    )
    data_dir: str | None = Field(
        None, description="Local folder that is searched first for built-in names.", json_schema_extra=SAME
    )
    holdout: float = Field(
        0.0, ge=0, lt=1, description="Share of documents, chosen by a hash of their text, kept for held-out loss."
    )
    shuffle_buffer: int = Field(
        10_000, ge=1, description="Documents in memory at once, which are put in random order; 1: as they come."
    )

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        """`corpora.path` and the other keys of one source stand for `sources = [{...}]`."""
        if not isinstance(raw, dict):
            return raw
        single = {k: v for k, v in raw.items() if k in CorpusSource.model_fields}
        if not single or raw.get("sources"):
            if single:
                raise ValueError(f"corpora.sources and corpora.{next(iter(single))} exclude each other")
            return raw
        return {**{k: v for k, v in raw.items() if k not in single}, "sources": [single]}

    @model_validator(mode="after")
    def _some_source(self) -> "CorporaConfig":
        if not self.sources:
            raise ValueError("set corpora.path to a file, a built-in name, a hub id or synthetic:CORPUS")
        return self


class StartConfig(ModelConfig):
    """Where pretraining begins: a model of a folder, the hub or a recipe, or the table `architecture`."""

    tokenizer: str | None = Field(None, description="For a fresh architecture: folder or hub id of a tokenizer.")
    vocab_size: int | None = Field(
        None, ge=258, description="For a fresh architecture: size of a byte-level tokenizer, made from the corpora."
    )

    @model_validator(mode="after")
    def _one_source(self) -> "StartConfig":
        if self.path is not None and self.base is not None:
            raise ValueError("model.path and model.base exclude each other: set one, or the table architecture alone")
        if self.tokenizer is not None and self.vocab_size is not None:
            raise ValueError("model.tokenizer and model.vocab_size exclude each other: set one")
        if self.weights == "bf16" and self.precision != "bf16":
            raise ValueError(
                f'model.weights = "bf16" cannot be computed with in {self.precision}: set model.precision to "bf16"'
            )
        return self


class TextLearnerConfig(OptimizerConfig):
    micro_batch_tokens: int = Field(
        16384,
        ge=1,
        description="Padded tokens of one forward pass; changes memory and speed, never the gradient.",
        json_schema_extra=ROUNDED,
    )
    checkpointing: bool = Field(
        False,
        description="Activation checkpointing: less memory, a third more computing, the same gradient.",
        json_schema_extra=ROUNDED,
    )
    fp32_head: bool = Field(False, description="Compute logits in fp32, whatever model.precision says for the rest.")
    logits_mb: int = Field(
        256, ge=1, description="Logits that may be in memory at once, in MiB.", json_schema_extra=ROUNDED
    )
    packing: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Put several documents into one row of `context` tokens, without attention across their borders; "
        "the gradient is the same. off: documents of like length side by side. auto: on, but on a CPU, where masked "
        "attention costs more than the little padding that is left.",
        json_schema_extra=ROUNDED,
    )


class TextEvaluationConfig(EvaluationConfig):
    """Held-out loss, and accuracy on questions where `questions` names some."""

    max_documents: int = Field(200, ge=1, description="Held-out documents of every corpus, the same ones each time.")
    template: TemplateConfig = TemplateConfig()
    kv_gb: float = Field(
        2.0, gt=0, le=1e6, description="Memory of the engine for keys and values, in GiB.", json_schema_extra=ROUNDED
    )


class TextRunConfig(Strict):
    """Pretraining on texts, from a model that is there or from scratch."""

    name: Name = Field("pretraining", description="Name in tables and figures.", json_schema_extra=SAME)
    out: str | None = Field(None, description="Run directory (default: runs/NAME-seedSEED).", json_schema_extra=SAME)
    seed: Seed = Field(0, description="Decides initial weights and the order of documents.")
    steps: int = Field(ge=1, description="Optimizer steps.", json_schema_extra=SAME)
    tokens_per_step: int = Field(ge=1, description="Tokens of documents in one optimizer step.")
    context: int | None = Field(
        None, ge=2, description="Longest piece of a document in tokens (default: the model's context, at most 4096)."
    )
    threads: int = Field(0, ge=0, le=4096, description="CPU threads; 0: PyTorch's default.", json_schema_extra=ROUNDED)
    model: StartConfig = StartConfig()
    architecture: ArchitectureConfig | None = Field(None, description="A fresh model of this shape.")
    corpora: CorporaConfig
    learner: TextLearnerConfig = TextLearnerConfig()
    evaluation: TextEvaluationConfig = TextEvaluationConfig()
    checkpoint: CheckpointConfig = Field(CheckpointConfig(), json_schema_extra=SAME)
    track: TrackConfig = Field(TrackConfig(), json_schema_extra=SAME)

    @field_validator("track", mode="before")
    @classmethod
    def _trackers(cls, raw: Any) -> Any:
        return {"to": raw} if isinstance(raw, list | tuple) else raw

    @model_validator(mode="after")
    def _can_be_meant(self) -> "TextRunConfig":
        """Refuses what cannot be meant, with the key and the remedy."""
        loaded = self.model.path is not None or self.model.base is not None
        tests = tests_among(self.evaluation.questions.sources) if self.evaluation.questions else []
        cases = (
            (
                loaded == (self.architecture is not None),
                "pretraining begins with a model or from scratch: set one of model.path, model.base and the table "
                "architecture",
            ),
            (
                loaded and (self.model.tokenizer or self.model.vocab_size),
                "model.tokenizer and model.vocab_size are for a fresh architecture: remove them",
            ),
            (
                not loaded and self.model.tokenizer is None and self.model.vocab_size is None,
                "a fresh architecture needs a tokenizer: set model.tokenizer to a folder, or model.vocab_size",
            ),
            (
                self.evaluation.every > 0 and self.evaluation.questions is None and not self.holds_out,
                "evaluation.every needs held-out documents: set corpora.holdout (e.g. 0.01) or "
                "evaluation.questions.path",
            ),
            (
                self.evaluation.questions is not None and self.evaluation.max_new_tokens is None,
                "evaluation.questions needs a budget: set evaluation.max_new_tokens",
            ),
            (
                bool(tests) and self.evaluation.every > 0 and not self.evaluation.allow_test_questions,
                f"evaluation asks a test benchmark ({', '.join(tests)}) while the run trains: use other questions, and "
                "run `zerolab evaluate` at the end; or force it with evaluation.allow_test_questions = true, and every "
                "table of the run will say so",
            ),
        )
        for wrong, message in cases:
            if wrong:
                raise ValueError(message)
        return self

    @property
    def holds_out(self) -> bool:
        """Whether there are documents for a held-out loss."""
        return self.corpora.holdout > 0 or any(source.synthetic for source in self.corpora.sources)

    @property
    def folder(self) -> Path:
        return Path(self.out) if self.out else Path("runs") / f"{self.name}-seed{self.seed}"
