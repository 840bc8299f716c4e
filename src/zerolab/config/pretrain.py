"""Pretraining of a laptop base model, and the demo that compares arms on one."""

from pydantic import Field, model_validator

from zerolab.config.learner import OptimizerConfig
from zerolab.config.strict import Name, Seed, Strict


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

    name: Name = Field("base", description="Name in messages.")
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

    name: Name = Field("demo", description="Name in tables and figures.")
    arms: tuple[str, ...] = Field(min_length=2, description="Training recipes, by name or path.")
    seeds: tuple[Seed, ...] = Field((0, 1), min_length=1, description="Seeds of every arm.")
    first_steps: int = Field(10, ge=1, description="The start of a run: its first so many steps.")
    last_share: float = Field(1 / 3, gt=0, le=1, description="The end of a run: its last so large share of the steps.")
    metrics: tuple[str, ...] = Field(
        ("accuracy", "length/mean", "length/correct", "length/incorrect", "truncated", "tokens_per_solved"),
        description="Metrics of the table, start to end.",
    )
