"""What a response earns: weighted terms, and what truncation does to them."""

from typing import Literal

from pydantic import Field, model_validator

from zerolab.toml import SAME, Strict, refuse

# names of parts that are taken
TERMS = ("correctness", "format", "think", "cosine", "overlong", "random", "kl", "mean")


class CosineReward(Strict):
    """Correctness shaped by length (2502.03373): a half cosine from the first value, at no tokens, to the second, at
    the whole budget. It grades correctness itself: set reward.correctness to 0 beside it. The defaults are those of the
    source's released scripts."""

    weight: float = Field(1.0, description="Weight of the term.")
    correct: tuple[float, float] = Field(
        (2.0, 1.0), description="Right answers: with no tokens, with the whole budget."
    )
    wrong: tuple[float, float] = Field((-10.0, 0.0), description="Wrong ones: with no tokens, with the whole budget.")
    exceed: float = Field(-10.0, description="Truncated ones, right or wrong.")


class RewardFunction(Strict):
    """A function of your own or of TRL: `f(prompts, completions, completion_ids, **columns) -> list[float | None]`."""

    path: str = Field(description="module:function, or file.py:function. It runs in a process of its own.")
    weight: float = Field(1.0, description="Weight of the term.")
    name: str | None = Field(None, description="Name of the term in the log (default: that of the function).")
    options: dict[str, int | float | str | bool] = Field(
        {},
        description="Where `path` makes the function: its arguments, as in trl.rewards:get_repetition_penalty_reward.",
    )
    columns: dict[str, str] = Field(
        {}, description="Arguments of the function that have another name in the question file: {solution = 'answer'}."
    )
    completions: Literal["auto", "text", "messages"] = Field(
        "auto",
        description="How prompts and completions are passed: text, or lists of messages with role and content. auto: "
        "messages under template.name = chat, as TRL does for conversations.",
    )

    @property
    def term(self) -> str:
        return self.name or self.path.rpartition(":")[2]

    @model_validator(mode="after")
    def _named(self) -> "RewardFunction":
        place, colon, function = self.path.rpartition(":")
        refuse(
            (
                not colon or not place or not function.isidentifier(),
                f"reward.functions.path = {self.path!r}: write module:function or file.py:function",
            )
        )
        return self


class RewardConfig(Strict):
    correctness: float = Field(1.0, description="Weight of the 0/1 correctness term.")
    format: float = Field(0.0, description="Weight of the 0/1 format term.")
    think: float = Field(
        0.0,
        description="Weight of a 0/1 term: a single </think> in the response, whose thought the prompt has begun (a "
        "format reward as in 2503.16219).",
    )
    overlong: float = Field(
        0.0,
        description="Weight of DAPO's overlong penalty, 0 to -1 over the last `soft_margin` tokens of the budget.",
    )
    random: float = Field(
        0.0, description="Weight of a fair coin for every response, independent of all that it says: a control."
    )
    cosine: CosineReward | None = None
    functions: tuple[RewardFunction, ...] = ()
    timeout_s: float = Field(
        60.0,
        gt=0,
        le=86400,
        description="Seconds that a call of one of `functions` may take, for the responses to one question; a longer "
        "one ends the run.",
        json_schema_extra=SAME,
    )
    truncation: Literal["zero", "mask", "keep", "soft"] = Field(
        "zero",
        description="Truncated responses: reward 0, whatever the terms; masked out of the update; graded as they are; "
        "or `soft`: graded as they are with an overlong penalty of weight 1.",
    )
    soft_margin: int | None = Field(
        None,
        ge=1,
        description="The overlong penalty falls linearly from 0 to -1 over the last so many tokens of the budget.",
    )

    @property
    def overlong_weight(self) -> float:
        return 1.0 if self.truncation == "soft" else self.overlong

    @property
    def has_term(self) -> bool:
        """Whether a term of zerolab's own has an opinion about every response."""
        return bool(self.correctness or self.format or self.think or self.cosine or self.overlong_weight or self.random)

    @property
    def may_be_negative(self) -> bool:
        """Whether a term could pay less than nothing; of functions nothing is known."""
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
                    f'reward.{term} says itself what a truncated response earns, and reward.truncation = "zero" would '
                    'pay it more than a wrong one that finished: set reward.truncation = "keep"'
                )
        names = [function.term for function in self.functions]
        if taken := [name for i, name in enumerate(names) if name in TERMS or name in names[:i]]:
            raise ValueError(f"reward.functions has a second term {taken[0]!r}: give it another reward.functions.name")
        return self
