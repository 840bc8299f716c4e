"""An objective is a row of coordinates; nothing below this table asks for its name.

    loss = - sum over responses i and tokens t of  w_i * (surrogate(r_it, A_i) + entropy * H_it)

with A_i from `advantage.py` (statistics of the rollout), the surrogate from `ratio.py`, w_i from `aggregate.py`
(denominators of the whole optimizer step), and the terms of a token put together in `loss.py`.
"""

import difflib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Objective(BaseModel):
    """Every coordinate is set; none has a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(description="Name of the preset, with a + when a coordinate was changed.")
    baseline: Literal["none", "group_mean", "leave_one_out"] = Field(description="What is subtracted from a reward.")
    scale: Literal["none", "group_std"] = Field(description="What the centred reward is divided by.")
    std_ddof: Literal[0, 1] | None = Field(description="Standard deviation over G - ddof.")
    std_epsilon: float | None = Field(ge=0, description="Added to the standard deviation.")
    ratio: Literal["none", "token"] = Field(description="none: log pi itself; token: pi / pi_old of each token.")
    clip: Literal["none", "ppo"] = Field(description="ppo: min(r A, clip(r, 1 - low, 1 + high) A).")
    clip_low: float | None = Field(gt=0, lt=1, description="Lower clip bound.")
    clip_high: float | None = Field(gt=0, description="Upper clip bound.")
    aggregation: Literal["constant", "response_mean", "token_mean"] = Field(
        description="Weight of a token: 1/(N L_max), 1/(N L_i), or 1/sum(L) over the optimizer step."
    )
    entropy: float = Field(ge=0, description="Coefficient of the entropy bonus, under the same token weights; 0: none.")

    @model_validator(mode="after")
    def _coordinates_fit(self) -> "Objective":
        for wrong, message in (
            (
                (self.scale == "group_std") != (self.std_ddof is not None and self.std_epsilon is not None),
                "objective.std_ddof and objective.std_epsilon go with objective.scale = group_std: set all or none",
            ),
            (
                (self.clip == "ppo") != (self.clip_low is not None and self.clip_high is not None),
                "objective.clip_low and objective.clip_high go with objective.clip = ppo: set all three or none",
            ),
            (
                self.scale == "group_std" and self.baseline == "none",
                'objective.scale = "group_std" divides a centred reward: set objective.baseline to "group_mean"',
            ),
            (
                self.clip != "none" and self.ratio == "none",
                'objective.clip needs a ratio to clip: set objective.ratio to "token"',
            ),
        ):
            if wrong:
                raise ValueError(message)
        return self

    @property
    def every_response_learns(self) -> bool:
        """Whether a response has a gradient at advantage 0 as well."""
        return self.entropy > 0

    @property
    def needs_group(self) -> bool:
        return self.baseline != "none" or self.scale != "none"

    @classmethod
    def resolve(cls, raw: Any) -> Any:
        """A preset's name, or a table `{preset = NAME, coordinate = value, ...}`, to all coordinates."""
        if isinstance(raw, str):
            raw = {"preset": raw}
        if not isinstance(raw, dict) or "preset" not in raw:
            return raw
        changes = {k: v for k, v in raw.items() if k != "preset"}
        if str(raw["preset"]) not in PRESETS:
            close = difflib.get_close_matches(str(raw["preset"]), PRESETS, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(f"objective.preset {raw['preset']!r} is unknown{hint}: choose one of {', '.join(PRESETS)}")
        base = PRESETS[raw["preset"]].model_dump()
        return {**base, "name": base["name"] + ("+" if changes else ""), **changes}

    def formula(self) -> str:
        """The expanded loss, as printed when a run starts."""
        centred = {"none": "R_i", "group_mean": "R_i - mean_G(R)", "leave_one_out": "R_i - mean_{j != i}(R_j)"}
        advantage = centred[self.baseline]
        if self.scale == "group_std":
            advantage = f"({advantage}) / (std_G(R, ddof={self.std_ddof}) + {self.std_epsilon:g})"
        ratio = {"none": "log pi(o_it)", "token": "r_it"}[self.ratio]
        surrogate = f"{ratio} A_i"
        if self.clip == "ppo":
            low, high = 1 - (self.clip_low or 0), 1 + (self.clip_high or 0)
            surrogate = f"min({ratio} A_i, clip({ratio}, {low:g}, {high:g}) A_i)"
        weight = {"constant": "1/(N L_max)", "response_mean": "1/(N L_i)", "token_mean": "1/(sum_j L_j)"}
        terms = [surrogate]
        if self.entropy:
            terms.append(f"{self.entropy:g} H_it")
        value = f"({' + '.join(terms)})" if len(terms) > 1 else surrogate
        lines = [
            f"loss = - sum_i {weight[self.aggregation]} sum_t {value}",
            f"A_i  = {advantage}",
            "N and sums run over the responses of one optimizer step",
        ]
        if self.entropy:
            lines.insert(2, "H_it = entropy of pi(. | q, o_i,<t)")
        if self.ratio == "token":
            lines.insert(2, "r_it = pi(o_it) / pi_old(o_it)")
        return "\n".join(lines)


PPO = {"ratio": "token", "clip": "ppo", "clip_low": 0.2, "clip_high": 0.2}
NO_CLIP = {"clip": "none", "clip_low": None, "clip_high": None}
NO_STD = {"scale": "none", "std_ddof": None, "std_epsilon": None}
# 1e-8 only guards the division; a group without variance has a centred reward of exactly 0.
GROUP_STD = {"scale": "group_std", "std_ddof": 1, "std_epsilon": 1e-8}
ONLY_REWARD = {"entropy": 0.0}


def _row(name: str, **coordinates: Any) -> Objective:
    return Objective(name=name, **coordinates)


PRESETS: dict[str, Objective] = {
    row.name: row
    for row in (
        _row("reinforce", baseline="none", **NO_STD, ratio="token", **NO_CLIP, aggregation="constant", **ONLY_REWARD),
        # 2503.20783: no 1/|o|, no std. Unbiased up to (G-1)/G and the constant.
        _row("dr_grpo", baseline="group_mean", **NO_STD, **PPO, aggregation="constant", **ONLY_REWARD),
        # 2402.03300 eq. 3 with beta = 0, as in the runs of 2503.20783.
        _row("grpo", baseline="group_mean", **GROUP_STD, **PPO, aggregation="response_mean", **ONLY_REWARD),
        _row("grpo_length_fix", baseline="group_mean", **GROUP_STD, **PPO, aggregation="constant", **ONLY_REWARD),
        _row("grpo_std_fix", baseline="group_mean", **NO_STD, **PPO, aggregation="response_mean", **ONLY_REWARD),
        # 2402.14740 eq. 8.
        _row(
            "rloo", baseline="leave_one_out", **NO_STD, ratio="token", **NO_CLIP, aggregation="constant", **ONLY_REWARD
        ),
        # 2503.14476 eq. 8, clip-higher. Its dynamic sampling and overlong penalty are not part of the loss:
        # rollout.refill_rounds and reward.truncation.
        _row(
            "dapo",
            baseline="group_mean",
            **GROUP_STD,
            **{**PPO, "clip_high": 0.28},
            aggregation="token_mean",
            **ONLY_REWARD,
        ),
        # Not for RL: with reward 1 on given text, log pi under a token mean is the cross-entropy of pretraining.
        _row(
            "cross_entropy", baseline="none", **NO_STD, ratio="none", **NO_CLIP, aggregation="token_mean", **ONLY_REWARD
        ),
    )
}
