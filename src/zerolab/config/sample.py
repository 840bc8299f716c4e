"""What `zerolab sample` is asked to do."""

from pydantic import Field, model_validator

from zerolab.config.questions import QuestionsConfig, TemplateConfig
from zerolab.config.run import ModelConfig
from zerolab.config.strict import Seed, Strict


class SampleConfig(Strict):
    """Responses of a model to questions that are typed, given, or taken from a set."""

    model: ModelConfig
    template: TemplateConfig = TemplateConfig()
    question: str | None = Field(None, description="One question.")
    answer: str | None = Field(None, description="Its answer.")
    questions: QuestionsConfig | None = Field(None, description="Questions with answers.")
    limit: int = Field(5, ge=1, description="At most so many of them.")
    samples: int = Field(1, ge=1, le=1000, description="Responses to each question.")
    temperature: float = Field(1.0, ge=0, le=100, description="0: the likeliest token everywhere.")
    max_new_tokens: int = Field(512, ge=1, description="Budget in tokens.")
    seed: Seed = Field(0, description="The same seed, the same responses.")

    @model_validator(mode="after")
    def _one_source(self) -> "SampleConfig":
        if self.question is not None and self.questions is not None:
            raise ValueError("--question and --questions exclude each other: give one of them")
        if self.answer is not None and self.question is None:
            raise ValueError("--answer belongs to --question: give both")
        if self.temperature == 0 and self.samples > 1:
            raise ValueError("--temperature 0 gives the same response again: set --samples 1, or a temperature")
        return self
