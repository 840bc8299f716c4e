"""What a run is: frozen values that refuse what they do not know. TOML in, resolved JSON out.

`docs/config.md` is generated from the descriptions below.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from zerolab.errors import UserError
from zerolab.rl.objective import Objective
from zerolab.toml import apply_overrides, parse, read_toml

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _as_value_error(check: Callable[..., Any], *arguments: Any) -> None:
    """Runs a check that raises UserError inside a validator, which has to raise ValueError."""
    try:
        check(*arguments)
    except UserError as error:
        raise ValueError(str(error)) from None


class ModelConfig(Strict):
    path: str | None = Field(None, description="Folder or hub id of a causal LM (safetensors).")
    base: str | None = Field(
        None, description="Pretraining recipe of a laptop base model; it is trained once and then taken from the cache."
    )
    device: str = Field("auto", description="cpu, cuda, cuda:1 or auto.")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="bf16: the learner computes under autocast over fp32 weights, the engine holds bf16 weights.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "ModelConfig":
        if (self.path is None) == (self.base is None):
            raise ValueError("set exactly one of model.path (folder or hub id) and model.base (pretraining recipe)")
        return self


class QuestionSource(Strict):
    path: str = Field(description="JSONL, JSON, CSV or Parquet file; built-in name; hub id; or synthetic:FAMILY.")
    split: str | None = Field(None, description="Split of a hub data set (default: the built-in's own, else train).")
    subset: str | None = Field(None, description="Configuration name of a hub data set.")
    problem_key: str | None = Field(None, description="Column of the question (default: the first known name present).")
    answer_key: str | None = Field(None, description="Column of the answer (default: the first known name present).")
    levels: tuple[int, int] | None = Field(None, description="Keep difficulty levels from .. to, inclusive.")
    max_chars: int | None = Field(None, ge=1, description="Drop questions with more characters.")
    limit: int | None = Field(None, ge=1, description="Keep the first so many questions, in file order.")
    weight: float = Field(1.0, gt=0, description="Share in a mix, relative to the other sources.")
    options: dict[str, int | float | str | bool] = Field({}, description="Parameters of a synthetic family.")

    @model_validator(mode="after")
    def _can_be_meant(self) -> "QuestionSource":
        from zerolab.data.synthetic import PREFIX, make_family

        if self.levels is not None and self.levels[0] > self.levels[1]:
            raise ValueError(f"questions.levels = {list(self.levels)} is empty: write the lower level first")
        if self.path.startswith(PREFIX):
            _as_value_error(make_family, self.path.removeprefix(PREFIX), self.options)
        elif self.options:
            raise ValueError(f"questions.options are for synthetic:FAMILY; {self.path} takes none: remove them")
        return self


class QuestionsConfig(Strict):
    shorthand: ClassVar[type[BaseModel]] = QuestionSource

    sources: tuple[QuestionSource, ...] = Field(
        (), description="Sources to mix by weight. For a single one, its keys stand here directly: questions.path = ..."
    )
    data_dir: str | None = Field(None, description="Local folder that is searched first for built-in names.")
    holdout: float = Field(
        0.0, ge=0, lt=1, description="Share of questions, chosen by a hash of their text, kept for evaluation."
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
    name: str = Field("none", description="r1, qwen-math, none, few-shot, or a name of your own together with `text`.")
    text: str | None = Field(None, description="Own template; {question} is replaced.")
    stop: tuple[str, ...] | None = Field(None, description="Stop strings (kept in the output).")
    extractor: Literal["boxed", "answer-tag", "answer-tag-lenient", "last-number"] | None = Field(
        None, description="Where the answer stands in the response."
    )
    shots: tuple[tuple[str, str], ...] = Field((), description="few-shot: pairs of question and worked answer.")

    @model_validator(mode="after")
    def _can_be_made(self) -> "TemplateConfig":
        from zerolab.data.templates import make_template

        _as_value_error(make_template, self)
        return self


class RolloutConfig(Strict):
    questions_per_step: int = Field(128, ge=1, description="P: questions drawn for one rollout.")
    samples_per_question: int = Field(8, ge=1, description="G: responses sampled for each question.")
    max_new_tokens: int = Field(
        3000, ge=1, description="Generation budget L_max in tokens; also the constant of Dr. GRPO."
    )
    max_prompt_tokens: int = Field(1024, ge=1, description="Longer prompts are dropped and counted.")
    temperature: float = Field(
        1.0, ge=0.01, le=100, description="Sampling temperature; ratios are taken at the same temperature."
    )
    kv_gb: float = Field(2.0, gt=0, le=1e6, description="Memory of the engine for keys and values, in GiB.")
    refill_rounds: int = Field(
        0, ge=0, description="Dynamic sampling: draw fresh questions up to so many times until P groups are mixed."
    )


class RewardConfig(Strict):
    correctness: float = Field(1.0, description="Weight of the 0/1 correctness term.")
    format: float = Field(0.0, description="Weight of the 0/1 format term.")
    truncation: Literal["zero", "mask", "keep", "soft"] = Field(
        "zero",
        description="Truncated responses: reward 0; masked out of the update; graded as they are; or `soft`, "
        "the overlong penalty of DAPO on top of the graded reward.",
    )
    soft_margin: int | None = Field(
        None,
        ge=1,
        description="soft: the penalty falls linearly from 0 to -1 over the last so many tokens of the budget.",
    )

    @model_validator(mode="after")
    def _soft(self) -> "RewardConfig":
        if (self.truncation == "soft") != (self.soft_margin is not None):
            raise ValueError('reward.soft_margin goes together with reward.truncation = "soft": set both or neither')
        return self


class OptimizerConfig(Strict):
    lr: float = Field(1e-6, gt=0, description="Peak learning rate.")
    schedule: Literal["constant", "cosine", "linear"] = Field("constant", description="Shape after the warm-up.")
    warmup_steps: int = Field(0, ge=0, description="Optimizer steps of linear warm-up.")
    final_lr_ratio: float = Field(0.0, ge=0, le=1, description="cosine and linear end at this share of lr.")
    betas: tuple[Decay, Decay] = Field((0.9, 0.95), description="Adam's decay rates.")
    eps: float = Field(1e-8, gt=0, description="Adam's epsilon.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm; how often is logged.")


class LearnerConfig(OptimizerConfig):
    updates_per_rollout: int = Field(
        1, ge=1, description="Optimizer steps over one rollout; only the first is on-policy (the paper: 8)."
    )
    micro_batch_tokens: int = Field(
        16384, ge=1, description="Padded tokens of one forward pass; changes memory and speed, never the gradient."
    )
    logits_mb: int = Field(256, ge=1, description="Logits that may be in memory at once, in MiB.")
    old_logprobs: Literal["engine", "learner", "detach"] = Field(
        "engine",
        description="log pi_old: as the engine sampled it; by a forward pass of the learner before the updates; or the "
        "detached current one (strictly on-policy, 1 update).",
    )


class EvaluationConfig(Strict):
    every: int = Field(0, ge=0, description="Evaluate every so many steps and at both ends; 0: never.")
    questions: QuestionsConfig | None = Field(None, description="Question set (default: the training holdout).")
    max_questions: int = Field(200, ge=1, description="At most so many questions, the same ones each time.")
    samples_per_question: int = Field(1, ge=1, description="Responses per question.")
    temperature: float = Field(0.0, ge=0, description="0 is greedy.")
    max_new_tokens: int | None = Field(None, ge=1, description="Budget (default: the rollout's).")


class CheckpointConfig(Strict):
    every: int = Field(50, ge=0, description="Save every so many steps; 0: only at the end.")
    keep: int = Field(2, ge=1, description="Resumable checkpoints kept; older ones are deleted.")


class RunConfig(Strict):
    """A reinforcement learning run."""

    name: str = Field("run", description="Name in tables and figures.")
    out: str | None = Field(None, description="Run directory (default: runs/NAME-seedSEED).")
    seed: Seed = Field(0, description="Decides every random number of the run.")
    steps: int = Field(ge=1, description="Rollouts.")
    threads: int = Field(0, ge=0, le=4096, description="CPU threads; 0: PyTorch's default.")
    transcripts_per_step: int = Field(4, ge=0, description="Groups whose responses are written to transcripts.jsonl.")
    model: ModelConfig
    questions: QuestionsConfig
    template: TemplateConfig = TemplateConfig()
    rollout: RolloutConfig = RolloutConfig()
    reward: RewardConfig = RewardConfig()
    objective: Objective
    learner: LearnerConfig = LearnerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    @field_validator("objective", mode="before")
    @classmethod
    def _preset(cls, raw: Any) -> Any:
        return Objective.resolve(raw)

    @model_validator(mode="after")
    def _combinations(self) -> "RunConfig":
        """Refuses what cannot be meant, with the key and the remedy."""
        responses = self.rollout.questions_per_step * self.rollout.samples_per_question
        for wrong, message in (
            (
                self.objective.needs_group and self.rollout.samples_per_question < 2,
                f"objective {self.objective.name} compares responses of one question: "
                "set rollout.samples_per_question to 2 or more",
            ),
            (
                self.learner.old_logprobs == "detach" and self.learner.updates_per_rollout > 1,
                'learner.old_logprobs = "detach" is strictly on-policy: set learner.updates_per_rollout to 1, '
                'or learner.old_logprobs to "engine"',
            ),
            (
                self.objective.correction != "none" and self.learner.old_logprobs != "learner",
                "objective.correction weighs by pi_old / mu, but with the engine's log pi_old the ratio is pi / mu: "
                'not to be applied twice, it needs log pi_old of its own: set learner.old_logprobs to "learner"',
            ),
            (
                self.objective.scale == "group_mean"
                and (self.reward.truncation == "soft" or min(self.reward.correctness, self.reward.format) < 0),
                'objective.scale = "group_mean" needs rewards that are never negative: change reward.truncation, '
                "reward.correctness or reward.format",
            ),
            (
                self.learner.updates_per_rollout > responses,
                f"learner.updates_per_rollout = {self.learner.updates_per_rollout} splits {responses} responses: "
                "lower it or raise rollout.questions_per_step",
            ),
            (
                self.rollout.refill_rounds > 0 and self.rollout.samples_per_question < 2,
                "rollout.refill_rounds waits for mixed groups: set rollout.samples_per_question to 2 or more",
            ),
            (
                self.reward.soft_margin is not None and self.reward.soft_margin > self.rollout.max_new_tokens,
                "reward.soft_margin is larger than rollout.max_new_tokens: lower it",
            ),
            (
                self.evaluation.every > 0 and self.evaluation.questions is None and self.questions.holdout == 0,
                "evaluation.every needs questions: set questions.holdout (e.g. 0.1) or evaluation.questions.path",
            ),
            (
                self.evaluation.temperature == 0 and self.evaluation.samples_per_question > 1,
                "evaluation.samples_per_question > 1 repeats the same greedy response: set evaluation.temperature",
            ),
        ):
            if wrong:
                raise ValueError(message)
        return self

    @property
    def folder(self) -> Path:
        return Path(self.out) if self.out else Path("runs") / f"{self.name}-seed{self.seed}"


class ArchitectureConfig(Strict):
    """Qwen2 shape of a laptop base model."""

    hidden_size: int = Field(64, ge=8, description="Width.")
    layers: int = Field(2, ge=1, description="Decoder layers.")
    heads: int = Field(4, ge=1, description="Attention heads.")
    intermediate_size: int = Field(256, ge=8, description="Width of the MLP.")
    context: int = Field(256, ge=8, description="Longest sequence in tokens.")

    @model_validator(mode="after")
    def _heads_fit(self) -> "ArchitectureConfig":
        if self.hidden_size % (2 * self.heads):
            raise ValueError(
                f"architecture.hidden_size = {self.hidden_size} does not split into {self.heads} heads of an even "
                "width: change architecture.hidden_size or architecture.heads"
            )
        return self


class CorpusConfig(Strict):
    name: str = Field(description="Synthetic corpus of zerolab.pretrain.corpus.")
    options: dict[str, int | float | str | bool] = Field({}, description="Its parameters.")


class GateConfig(Strict):
    """What a base must show to be used; a miss is reported, never trained around."""

    responses: int = Field(4, ge=1, description="Responses per question, sampled at temperature 1.")
    max_new_tokens: int = Field(64, ge=1, description="Budget in tokens.")
    accuracy: tuple[float, float] | None = Field(None, description="Accuracy between .. and ..")
    marker_accuracy: tuple[float, float] | None = Field(
        None, description="Share of responses whose confidence marker agrees with the truth, between .. and .."
    )


class PretrainConfig(Strict):
    """Pretraining of a laptop base model from scratch."""

    name: str = Field("base", description="Name in messages.")
    seed: Seed = Field(0, description="Decides initial weights and documents.")
    steps: int = Field(ge=1, description="Optimizer steps.")
    documents_per_step: int = Field(128, ge=1, description="Documents of one step.")
    threads: int = Field(1, ge=0, le=4096, description="CPU threads; 0: PyTorch's default.")
    architecture: ArchitectureConfig = ArchitectureConfig()
    corpus: CorpusConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    gate: GateConfig = GateConfig()


class DemoConfig(Strict):
    """Arms that differ in one coordinate, from one base and the same seeds; everything stands here before the run."""

    name: str = Field("demo", description="Name in tables and figures.")
    arms: tuple[str, ...] = Field(min_length=2, description="Training recipes, by name or path.")
    seeds: tuple[Seed, ...] = Field((0, 1), min_length=1, description="Seeds of every arm.")
    first_steps: int = Field(10, ge=1, description="The start of a run: its first so many steps.")
    last_share: float = Field(1 / 3, gt=0, le=1, description="The end of a run: its last so large share of the steps.")
    metrics: tuple[str, ...] = Field(
        ("accuracy", "length/mean", "length/correct", "length/incorrect", "truncated", "tokens_per_solved"),
        description="Metrics of the table, start to end.",
    )


def load_run_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> RunConfig:
    """The resolved configuration of a recipe file."""
    raw = apply_overrides(read_toml(path), overrides)
    return parse(RunConfig, raw, str(path))
