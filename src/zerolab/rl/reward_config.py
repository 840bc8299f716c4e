"""The config of the reward: weighted terms, and the reward of truncated responses."""

from typing import Literal

from pydantic import Field, model_validator

from zerolab.toml import SAME, Strict, refuse

# Names that a reward function may not have.
TERMS = ("correctness", "format", "think", "cosine", "overlong", "random", "kl", "mean")


class CosineReward(Strict):
    """Correctness shaped by length: a half cosine from the first value, at 0 tokens, to the second, at the budget.

    The term already rewards correctness, so set reward.correctness to 0. Source: 2502.03373, with the defaults of its
    released scripts.
    """

    weight: float = Field(1.0, description="Weight of the term.")
    correct: tuple[float, float] = Field(
        (2.0, 1.0), description="Reward of a right answer at 0 tokens and at the budget."
    )
    wrong: tuple[float, float] = Field(
        (-10.0, 0.0), description="Reward of a wrong answer at 0 tokens and at the budget."
    )
    exceed: float = Field(-10.0, description="Reward of a truncated response, right or wrong.")


class RewardFunction(Strict):
    """A function of your own or of TRL: `f(prompts, completions, completion_ids, **columns) -> list[float | None]`."""

    path: str = Field(description="module:function, or file.py:function. The function runs in a separate process.")
    weight: float = Field(1.0, description="Weight of the term.")
    name: str | None = Field(None, description="Name of the term in the log (default: the name of the function).")
    options: dict[str, int | float | str | bool] = Field(
        {},
        description="If `path` is a function that returns the reward function: its arguments, as for "
        "trl.rewards:get_repetition_penalty_reward.",
    )
    columns: dict[str, str] = Field(
        {}, description="Columns of the question file under the argument names of the function: {solution = 'answer'}."
    )
    completions: Literal["auto", "text", "messages"] = Field(
        "auto",
        description="Format of prompts and completions: text, or lists of messages with role and content. auto: "
        "messages if template.name = chat, as TRL does for conversations.",
    )

    @property
    def term(self) -> str:
        return self.name or self.path.rpartition(":")[2]

    @model_validator(mode="after")
    def _named(self) -> "RewardFunction":
        module, colon, function = self.path.rpartition(":")
        refuse(
            (
                not colon or not module or not function.isidentifier(),
                f"reward.functions.path = {self.path!r}: write module:function or file.py:function",
            )
        )
        return self


class RewardConfig(Strict):
    correctness: float = Field(1.0, description="Weight of the 0/1 correctness term.")
    format: float = Field(0.0, description="Weight of the 0/1 format term.")
    think: float = Field(
        0.0,
        description="Weight of a 0/1 term: the response has exactly one </think>. For templates that end with <think> "
        "(a format reward as in 2503.16219).",
    )
    overlong: float = Field(
        0.0,
        description="Weight of DAPO's overlong penalty, 0 to -1 over the last `soft_margin` tokens of the budget.",
    )
    random: float = Field(
        0.0, description="Weight of a random 0/1 reward that does not depend on the response: a control."
    )
    cosine: CosineReward | None = None
    functions: tuple[RewardFunction, ...] = ()
    timeout_s: float = Field(
        60.0,
        gt=0,
        le=86400,
        description="Seconds that one call of a function in `functions` may take (a call has the responses to one "
        "question). A longer call ends the run.",
        json_schema_extra=SAME,
    )
    truncation: Literal["zero", "mask", "keep", "soft"] = Field(
        "zero",
        description="Reward of truncated responses. zero: 0, whatever the terms are. mask: they are left out of the "
        "update. keep: like other responses. soft: like other responses, with an overlong penalty of weight 1.",
    )
    soft_margin: int | None = Field(
        None,
        ge=1,
        description="Tokens at the end of the budget over which the overlong penalty falls linearly from 0 to -1.",
    )

    @property
    def overlong_weight(self) -> float:
        return 1.0 if self.truncation == "soft" else self.overlong

    @property
    def has_term(self) -> bool:
        """Whether one of zerolab's own terms is on. Such a term scores every response."""
        return bool(self.correctness or self.format or self.think or self.cosine or self.overlong_weight or self.random)

    @property
    def may_be_negative(self) -> bool:
        """Whether the reward can be below 0. A function of the user counts as yes."""
        lowest = min(self.correctness, self.format, self.think, self.random)
        return bool(lowest < 0 or self.overlong_weight or self.cosine or self.functions)

    @model_validator(mode="after")
    def _together(self) -> "RewardConfig":
        refuse(
            (
                self.truncation == "soft" and self.overlong,
                'reward.truncation = "soft" is reward.overlong = 1 with "keep": set one of the two',
            ),
            (
                bool(self.overlong_weight) != (self.soft_margin is not None),
                'reward.soft_margin goes together with reward.truncation = "soft" or reward.overlong: set both or '
                "neither",
            ),
        )
        for term in ("overlong", "cosine"):
            if self.truncation == "zero" and getattr(self, term):
                raise ValueError(
                    f'reward.{term} has its own reward for truncated responses, and reward.truncation = "zero" would '
                    'reward them more than wrong ones that finished: set reward.truncation = "keep"'
                )
        names = [function.term for function in self.functions]
        if taken := [name for i, name in enumerate(names) if name in TERMS or name in names[:i]]:
            raise ValueError(f"reward.functions has a second term {taken[0]!r}: give it another reward.functions.name")
        return self
