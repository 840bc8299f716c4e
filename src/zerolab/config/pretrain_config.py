"""The configs of pretraining: a laptop base model with its demo, and a run on corpora of text."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from zerolab.config.learner_config import OptimizerConfig
from zerolab.config.run_config import CheckpointConfig, EvaluationConfig, ModelConfig, TrackConfig
from zerolab.data.question_config import CorpusSource, tests_among
from zerolab.data.templates import TemplateConfig
from zerolab.toml import ROUNDED, SAME, Name, Seed, Strict, refuse


class ArchitectureConfig(Strict):
    """Qwen2 shape of a laptop base model."""

    hidden_size: int = Field(64, ge=8, description="Width.")
    layers: int = Field(2, ge=1, description="Decoder layers.")
    heads: int = Field(4, ge=1, description="Attention heads.")
    intermediate_size: int = Field(256, ge=8, description="Width of the MLP.")
    context: int = Field(256, ge=8, description="Longest sequence in tokens.")

    @model_validator(mode="after")
    def _heads_fit(self) -> "ArchitectureConfig":
        refuse(
            (
                self.hidden_size % (2 * self.heads),
                f"architecture.hidden_size = {self.hidden_size} does not split into {self.heads} heads of an even "
                "width: change architecture.hidden_size or architecture.heads",
            )
        )
        return self


class CorpusConfig(Strict):
    name: str = Field(description="Synthetic corpus of zerolab.worlds.corpus.")
    options: dict[str, int | float | str | bool] = Field({}, description="Its parameters.")


class GateConfig(Strict):
    """The results that a base model should reach. A missed bound is only reported: training does not change."""

    responses: int = Field(4, ge=1, description="Responses per question, sampled at temperature 1.")
    max_new_tokens: int = Field(64, ge=1, description="Budget in tokens.")
    accuracy: tuple[float, float] | None = Field(None, description="Least and largest accuracy.")
    marker_accuracy: tuple[float, float] | None = Field(
        None, description="Least and largest share of responses whose confidence marker agrees with the truth."
    )


class PretrainConfig(Strict):
    """Pretraining of a laptop base model from scratch."""

    name: Name = Field("base", description="Name of the base model in messages.")
    seed: Seed = Field(0, description="Seed of the initial weights and of the documents.")
    steps: int = Field(ge=1, description="Optimizer steps.")
    documents_per_step: int = Field(128, ge=1, description="Documents of one step.")
    threads: int = Field(1, ge=0, le=4096, description="CPU threads; 0: PyTorch's default.")
    architecture: ArchitectureConfig = ArchitectureConfig()
    corpus: CorpusConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    gate: GateConfig = GateConfig()


class DemoConfig(Strict):
    """Arms that differ in one setting, trained from one base model with the same seeds."""

    name: Name = Field("demo", description="Name in tables and figures.")
    arms: tuple[str, ...] = Field(min_length=2, description="Training recipes, by name or path.")
    seeds: tuple[Seed, ...] = Field((0, 1), min_length=1, description="Seeds of every arm.")
    metrics: tuple[str, ...] = Field(
        (
            *("accuracy", "eval/accuracy", "length/mean", "length/correct", "length/incorrect", "truncated"),
            "tokens_per_solved",
        ),
        description="Metrics of the table, at the start and at the end. A metric that no run measured is left out.",
    )


class CorporaConfig(Strict):
    shorthand: ClassVar[type[BaseModel]] = CorpusSource

    sources: tuple[CorpusSource, ...] = Field(
        (), description="Corpora to mix by weight. The keys of a single corpus can be set directly: corpora.path = ..."
    )
    data_dir: str | None = Field(
        None, description="Local folder that is searched first for built-in names.", json_schema_extra=SAME
    )
    holdout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the documents that is held out for the held-out loss, chosen by a hash of their text.",
    )
    shuffle_buffer: int = Field(
        10_000,
        ge=1,
        description="Documents that are read at once and put in random order; 1: in the order of the file.",
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
        refuse((not self.sources, "set corpora.path to a file, a built-in name, a hub id or synthetic:CORPUS"))
        return self


class StartConfig(ModelConfig):
    """The model that pretraining starts from: a folder, a hub id, a recipe, or a fresh model (table `architecture`)."""

    tokenizer: str | None = Field(None, description="For a fresh architecture: folder or hub id of a tokenizer.")
    vocab_size: int | None = Field(
        None,
        ge=258,
        description="For a fresh architecture: size of a byte-level tokenizer that is trained on the corpora.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "StartConfig":
        refuse(
            (
                self.path is not None and self.base is not None,
                "model.path and model.base exclude each other: set one, or the table architecture alone",
            ),
            (
                self.tokenizer is not None and self.vocab_size is not None,
                "model.tokenizer and model.vocab_size exclude each other: set one",
            ),
            (
                self.weights == "bf16" and self.precision != "bf16",
                f'model.weights = "bf16" cannot be computed with in {self.precision}: set model.precision to "bf16"',
            ),
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
        description="Activation checkpointing: less memory, a third more compute, the same gradient.",
        json_schema_extra=ROUNDED,
    )
    fp32_head: bool = Field(False, description="Compute logits in fp32, whatever model.precision is.")
    logits_mb: int = Field(
        256, ge=1, description="Logits that may be in memory at once, in MiB.", json_schema_extra=ROUNDED
    )
    packing: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Put several documents into one row of `context` tokens, without attention across their borders; "
        "the gradient is the same. off: one document per row, documents of similar length together. auto: on, except "
        "on a CPU, because masked attention costs more there than padding.",
        json_schema_extra=ROUNDED,
    )


class TextEvaluationConfig(EvaluationConfig):
    """Held-out loss, and accuracy on questions if `questions` is set."""

    max_documents: int = Field(
        200, ge=1, description="Held-out documents of every corpus; every evaluation takes the same ones."
    )
    template: TemplateConfig = TemplateConfig()
    kv_gb: float = Field(
        2.0, gt=0, le=1e6, description="Memory of the engine for keys and values, in GiB.", json_schema_extra=ROUNDED
    )


class TextRunConfig(Strict):
    """Pretraining on texts, from an existing model or from scratch."""

    name: Name = Field("pretraining", description="Name in tables and figures.", json_schema_extra=SAME)
    out: str | None = Field(None, description="Run directory (default: runs/NAME-seedSEED).", json_schema_extra=SAME)
    seed: Seed = Field(0, description="Seed of the initial weights and of the order of documents.")
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
    def _keys_fit(self) -> "TextRunConfig":
        """Refuse settings that contradict each other; the message names the key and the remedy."""
        loaded = self.model.path is not None or self.model.base is not None
        tests = tests_among(self.evaluation.questions.sources) if self.evaluation.questions else []
        refuse(
            (
                loaded == (self.architecture is not None),
                "pretraining starts from a model or from scratch: set exactly one of model.path, model.base and the "
                "table architecture",
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
        return self

    @property
    def holds_out(self) -> bool:
        """Whether there are documents for a held-out loss."""
        return self.corpora.holdout > 0 or any(source.synthetic for source in self.corpora.sources)

    @property
    def folder(self) -> Path:
        return Path(self.out) if self.out else Path("runs") / f"{self.name}-seed{self.seed}"
