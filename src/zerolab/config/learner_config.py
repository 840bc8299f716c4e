"""The optimizer and the learner."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from zerolab.toml import ROUNDED, Strict, refuse

Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Strict):
    lr: float = Field(
        1e-6,
        ge=0,
        description="Peak learning rate. 0 leaves the weights as they are, so that every rollout samples the base "
        "model.",
    )
    schedule: Literal["constant", "cosine", "linear", "wsd"] = Field(
        "constant",
        description="Shape after the warm-up. wsd (warm-up, stable, decay) is constant until it decays at the end.",
    )
    warmup_steps: int = Field(0, ge=0, description="Optimizer steps of linear warm-up.")
    final_lr_ratio: float = Field(
        0.0, ge=0, le=1, description="Every schedule except constant ends at this share of lr."
    )
    decay_share: float | None = Field(
        None, gt=0, le=1, description="wsd: share of the steps, at the end, in which the rate falls (default: 0.2)."
    )
    betas: tuple[Decay, Decay] = Field((0.9, 0.95), description="Adam's decay rates.")
    eps: float = Field(1e-8, gt=0, description="Adam's epsilon.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
    max_grad_norm: float = Field(
        1.0, gt=0, description="Gradients are clipped to this norm. The metric grad_clipped says how often."
    )

    @model_validator(mode="after")
    def _decay_has_its_schedule(self) -> "OptimizerConfig":
        refuse(
            (
                self.decay_share is not None and self.schedule != "wsd",
                'decay_share is for schedule = "wsd": set both or remove it',
            )
        )
        return self


class LearnerConfig(OptimizerConfig):
    updates_per_rollout: int = Field(
        1, ge=1, description="Optimizer steps per rollout; only the first is on-policy. The paper takes 8."
    )
    micro_batch_tokens: int = Field(
        16384,
        ge=1,
        description="Padded tokens of one forward pass; changes memory and speed, never the gradient.",
        json_schema_extra=ROUNDED,
    )
    share_prompts: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Forward the prompt of a group once for all its responses; the gradient is the same. auto: only "
        "on a CPU, and only if that saves more than 35 % of the tokens.",
        json_schema_extra=ROUNDED,
    )
    checkpointing: bool = Field(
        False,
        description="Activation checkpointing: every layer stores only its input and is computed again in the backward "
        "pass. Less memory, a third more compute, the same gradient.",
        json_schema_extra=ROUNDED,
    )
    fp32_head: bool = Field(False, description="Compute the learner's logits in fp32, whatever model.precision is.")
    logits_mb: int = Field(
        256, ge=1, description="Logits that may be in memory at once, in MiB.", json_schema_extra=ROUNDED
    )
    old_logprobs: Literal["engine", "learner", "detach"] = Field(
        "engine",
        description="Origin of log pi_old. engine: recorded by the engine while sampling. learner: a forward pass of "
        "the learner before the updates. detach: the current log pi, detached (strictly on-policy, 1 update).",
    )

    @model_validator(mode="after")
    def _prompts_or_checkpointing(self) -> "LearnerConfig":
        refuse(
            (
                self.checkpointing and self.share_prompts == "on",
                "learner.checkpointing drops the keys and values that learner.share_prompts needs: set "
                'learner.checkpointing to false, or learner.share_prompts to "off"',
            )
        )
        return self


class LoraConfig(Strict):
    """Low-rank adapters, which are trained instead of the model's own weights."""

    rank: int = Field(32, ge=1, le=65536, description="Rank of the adapters.")
    alpha: float = Field(64.0, gt=0, description="The output of an adapter is multiplied by alpha / rank.")
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        "all-linear",
        description="Layers that get an adapter: all linear layers except the head, or the ends of module names.",
    )
    offload: bool = Field(
        False,
        description="Keep one copy of the weights on the device at a time: the learner's base is in host memory while "
        "the engine samples, and the engine frees its weights while the learner learns.",
        json_schema_extra=ROUNDED,
    )


class CriticConfig(Strict):
    """The critic of an objective with objective.baseline = "critic"."""

    kind: Literal["model", "head"] = Field(
        "model", description="model: a copy of the policy with a value head; head: a value head on the policy itself."
    )
    lr: float | None = Field(None, gt=0, description="Peak learning rate of the critic (default: learner.lr).")
