"""Objectives. Each is a row of coordinates, and the code that computes a loss reads only these, never the name.

    loss = - sum over responses i and tokens t of
             w_i * (surrogate(r_it, A_i) + entropy * H_it - kl * k_it - value * (V_it - target_it)^2)

A_i is computed in `advantage.py` from the rewards of the rollout (with a critic: A_it, in `learner/prepare.py`). w_i is
computed in `aggregate.py` from the lengths of the whole optimizer step. The terms of a token are in `loss.py`. The
formula of an objective is printed when a run starts.
"""

import difflib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from zerolab.toml import refuse


class Objective(BaseModel):
    """The coordinates of an objective. Every coordinate must be set; none has a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(description="Name of the preset, with a + if a coordinate was changed.")
    baseline: Literal["none", "group_mean", "leave_one_out", "greedy", "critic"] = Field(
        description="Subtracted from a reward: nothing, the mean reward of the group, the mean of the other responses "
        "of the group, the reward of the greedy response, or the critic's value of every state."
    )
    scale: Literal["none", "group_std", "group_mean", "batch_std", "batch_centred_std", "token_whitening"] = Field(
        description="Divisor of the centred reward: the standard deviation or mean of the group's rewards, or the "
        "standard deviation over the rollout of rewards or of centred rewards. token_whitening: a critic's advantages "
        "are shifted and scaled to mean 0 and standard deviation 1 over all tokens of the rollout."
    )
    std_ddof: Literal[0, 1] | None = Field(description="The standard deviation divides by G - ddof.")
    std_epsilon: float | None = Field(ge=0, description="Added to the standard deviation.")
    ratio: Literal["none", "token", "sequence"] = Field(
        description="none: log pi takes its place; token: pi / pi_old; sequence: geometric mean of pi / pi_old over "
        "the response."
    )
    clip: Literal["none", "ppo", "cispo", "probability"] = Field(
        description="ppo: min(r A, clip(r, 1 - low, 1 + high) A). cispo: A log pi with the weight min(r, 1 + high), "
        "which has no gradient. probability: tokens get no gradient if their probability has moved in the direction "
        "of A by more than high (A > 0) or low (A < 0)."
    )
    clip_low: float | None = Field(gt=0, lt=1, description="Lower clip bound; none for cispo.")
    clip_high: float | None = Field(gt=0, description="Upper clip bound.")
    aggregation: Literal["constant", "response_mean", "token_mean"] = Field(
        description="Weight of a token: 1/(N L_max), 1/(N L_i), or 1/sum(L) over the optimizer step."
    )
    entropy: float = Field(ge=0, description="Coefficient of the entropy bonus, under the same token weights; 0: none.")
    kl: float = Field(
        ge=0, description="Coefficient of the KL to the initial policy, which is then kept in memory; 0: none."
    )
    kl_estimator: Literal["k1", "k2", "k3"] | None = Field(
        description="With d = log pi - log pi_ref of a token: k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d."
    )
    kl_place: Literal["loss", "reward"] | None = Field(
        description="loss: subtracted from the surrogate, under the same token weights. reward: summed over the "
        "response and subtracted from its reward before the advantage (with a critic: token by token)."
    )
    correction: Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = Field(
        description="Weight pi_old / mu of the surrogate (learner against engine), per token or per response. A weight "
        "above the cap becomes the cap (truncate) or 0 (mask)."
    )
    correction_cap: float | None = Field(ge=1, description="Largest correction weight that is not changed.")

    gae_lambda: float | None = Field(
        ge=0, le=1, description="critic: lambda of generalised advantage estimation. Rewards are not discounted."
    )
    value: float = Field(
        ge=0, description="critic: coefficient of the value loss (V - target)^2, under the same token weights; 0: none."
    )
    value_clip: float | None = Field(
        gt=0, description="critic: the value loss is the larger of the losses of V and of V clipped to V_old +- this."
    )

    @model_validator(mode="after")
    def _advantage_and_kl_fit(self) -> "Objective":
        refuse(
            (
                self.divides_by_std != (self.std_ddof is not None and self.std_epsilon is not None),
                "objective.std_ddof and objective.std_epsilon go with a standard deviation as objective.scale: "
                "set all or none",
            ),
            (
                self.scale not in ("none", "token_whitening") and self.baseline not in ("group_mean", "leave_one_out"),
                f'objective.scale = "{self.scale}" divides a centred reward: set objective.baseline to "group_mean"',
            ),
            (
                self.scale == "token_whitening" and not self.needs_critic,
                'objective.scale = "token_whitening" is for advantages of tokens: set objective.baseline to "critic"',
            ),
            (
                len({self.needs_critic, self.gae_lambda is not None, self.value > 0}) > 1,
                "objective.gae_lambda and objective.value above 0 go with a critic: set both together with "
                'objective.baseline = "critic", or none',
            ),
            (
                self.value_clip is not None and not self.needs_critic,
                'objective.value_clip bounds a critic: set objective.baseline to "critic", or leave it out',
            ),
            (
                self.scale == "group_mean" and self.kl_place == "reward",
                'objective.scale = "group_mean" needs rewards of at least 0: set objective.kl_place to "loss"',
            ),
            (
                len({self.kl > 0, self.kl_estimator is not None, self.kl_place is not None}) > 1,
                "objective.kl above 0 goes with objective.kl_estimator and objective.kl_place: set all or none",
            ),
            (
                (self.kl_place, self.kl_estimator) == ("loss", "k1"),
                "objective.kl_estimator k1 in the loss has an expected gradient of zero, whatever its coefficient: set "
                'objective.kl_estimator to "k2" or "k3", or objective.kl_place to "reward"',
            ),
            (
                self.kl_place == "reward" and self.kl_estimator in ("k2", "k3"),
                f"objective.kl_estimator {self.kl_estimator} in the reward follows no KL: set objective.kl_estimator "
                'to "k1", or objective.kl_place to "loss"',
            ),
        )
        return self

    @model_validator(mode="after")
    def _ratio_fits(self) -> "Objective":
        refuse(
            (
                (self.clip != "none") != (self.clip_high is not None)
                or (self.clip in ("ppo", "probability")) != (self.clip_low is not None),
                "objective.clip_low and objective.clip_high go with objective.clip (cispo has no clip_low): "
                "set all three or none",
            ),
            (
                self.clip in ("cispo", "probability") and self.ratio == "sequence",
                f"objective.clip = {self.clip} looks at single tokens: set objective.ratio to "
                '"token", or objective.clip to "ppo"',
            ),
            (
                self.clip != "none" and self.ratio == "none",
                'objective.clip needs a ratio to clip: set objective.ratio to "token"',
            ),
            (
                (self.correction != "none") != (self.correction_cap is not None),
                "objective.correction_cap goes with objective.correction: set both or neither",
            ),
            (
                self.correction != "none" and self.ratio == "none",
                'objective.correction weighs an importance ratio: set objective.ratio to "token"',
            ),
        )
        return self

    @property
    def every_response_learns(self) -> bool:
        """Whether a response also has a gradient at advantage 0."""
        return self.entropy > 0 or self.needs_reference_in_loss or self.needs_critic

    @property
    def divides_by_std(self) -> bool:
        return self.scale not in ("none", "group_mean")

    @property
    def needs_critic(self) -> bool:
        return self.baseline == "critic"

    @property
    def needs_greedy(self) -> bool:
        """Whether a greedy response to every question is sampled in addition to the group."""
        return self.baseline == "greedy"

    @property
    def needs_reference_in_loss(self) -> bool:
        return self.kl > 0 and self.kl_place == "loss"

    @property
    def needs_group(self) -> bool:
        """Whether a response is compared with others to the same question."""
        return self.baseline in ("group_mean", "leave_one_out")

    @classmethod
    def resolve(cls, raw: Any) -> Any:
        """Expand a preset's name, or a table `{preset = NAME, coordinate = value, ...}`, to all coordinates.

        A table without `preset` is returned as it is. Raises ValueError for an unknown preset.
        """
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
        """The expanded loss as text, as printed when a run starts."""
        return formula(self)


PPO = {"ratio": "token", "clip": "ppo", "clip_low": 0.2, "clip_high": 0.2}
GSPO = {"ratio": "sequence", "clip": "ppo", "clip_low": 3e-4, "clip_high": 4e-4}
NO_CLIP = {"clip": "none", "clip_low": None, "clip_high": None}
NO_STD = {"scale": "none", "std_ddof": None, "std_epsilon": None}
# 1e-8 only guards the division; a group without variance has a centred reward of exactly 0.
GROUP_STD = {"scale": "group_std", "std_ddof": 1, "std_epsilon": 1e-8}
ONLY_REWARD = {"entropy": 0.0, "kl": 0.0, "kl_estimator": None, "kl_place": None} | {
    "correction": "none",
    "correction_cap": None,
}
NO_CRITIC = {"gae_lambda": None, "value": 0.0, "value_clip": None}


# A critic that is a separate model gets the gradient of the value loss alone; the policy gets none of it.
CRITIC = {"baseline": "critic", **NO_STD, "gae_lambda": 1.0, "value": 0.5, "value_clip": None}


def _row(name: str, **coordinates: Any) -> Objective:
    return Objective(name=name, **{**NO_CRITIC, **coordinates})


PRESETS: dict[str, Objective] = {
    row.name: row
    for row in (
        _row("reinforce", baseline="none", **NO_STD, ratio="token", **NO_CLIP, aggregation="constant", **ONLY_REWARD),
        # 2503.20783: no 1/|o|, no std. Unbiased up to (G-1)/G and the constant.
        _row("dr_grpo", baseline="group_mean", **NO_STD, **PPO, aggregation="constant", **ONLY_REWARD),
        # 2402.03300 eq. 3 with beta = 0, as in the runs of 2503.20783.
        _row("grpo", baseline="group_mean", **GROUP_STD, **PPO, aggregation="response_mean", **ONLY_REWARD),
        # 2402.03300 eq. 3 and 4 with the beta of its section 4.2.
        _row(
            "grpo_kl",
            baseline="group_mean",
            **GROUP_STD,
            **PPO,
            aggregation="response_mean",
            **{**ONLY_REWARD, "kl": 0.04, "kl_estimator": "k3", "kl_place": "loss"},
        ),
        _row("grpo_length_fix", baseline="group_mean", **GROUP_STD, **PPO, aggregation="constant", **ONLY_REWARD),
        _row("grpo_std_fix", baseline="group_mean", **NO_STD, **PPO, aggregation="response_mean", **ONLY_REWARD),
        # 2402.14740 eq. 8.
        _row(
            "rloo", baseline="leave_one_out", **NO_STD, ratio="token", **NO_CLIP, aggregation="constant", **ONLY_REWARD
        ),
        # 2310.10505: the reward of the greedy response is the baseline.
        _row("remax", baseline="greedy", **NO_STD, ratio="token", **NO_CLIP, aggregation="constant", **ONLY_REWARD),
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
        # 2501.03262, REINFORCE++-baseline: whitened over the batch.
        _row(
            "reinforce_pp_baseline",
            baseline="group_mean",
            **{**GROUP_STD, "scale": "batch_centred_std", "std_ddof": 0},
            **PPO,
            aggregation="token_mean",
            **ONLY_REWARD,
        ),
        # 2508.08221: mean of the group, standard deviation of the batch.
        _row(
            "lite_ppo",
            baseline="group_mean",
            **{**GROUP_STD, "scale": "batch_std"},
            **PPO,
            aggregation="token_mean",
            **ONLY_REWARD,
        ),
        # 2507.18071 eq. 5 and 7 with the bounds of its experiments.
        _row("gspo", baseline="group_mean", **GROUP_STD, **GSPO, aggregation="response_mean", **ONLY_REWARD),
        # 2602.05261: gspo times the length of the response, here over the constant L_max.
        _row("luspo", baseline="group_mean", **GROUP_STD, **GSPO, aggregation="constant", **ONLY_REWARD),
        # 2506.13585 eq. 4 and 5, no lower bound. We could not check the upper bound of the source; r <= 5 is usual.
        _row(
            "cispo",
            baseline="group_mean",
            **GROUP_STD,
            ratio="token",
            clip="cispo",
            clip_low=None,
            clip_high=4.0,
            aggregation="token_mean",
            **ONLY_REWARD,
        ),
        # 2602.02710: dividing by the group's mean makes the expected objective a truncated log p.
        _row(
            "maxrl",
            baseline="group_mean",
            **{**NO_STD, "scale": "group_mean"},
            **PPO,
            aggregation="constant",
            **ONLY_REWARD,
        ),
        # 2602.04879, binary total variation. We could not check the threshold in the source.
        _row(
            "dppo",
            baseline="group_mean",
            **NO_STD,
            ratio="token",
            clip="probability",
            clip_low=0.15,
            clip_high=0.15,
            aggregation="constant",
            **ONLY_REWARD,
        ),
        # 1707.06347 eq. 7 and 9, with lambda = 1 as usual in R1-Zero-like runs (2503.24290), and with the constant of
        # 2503.20783 in the policy loss and in the value loss.
        _row("ppo", **CRITIC, **PPO, aggregation="constant", **ONLY_REWARD),
        # The same with the mean over each response (`masked_mean(dim=-1)`) that 2503.20783 found in open-source PPO.
        _row("ppo_response_mean", **CRITIC, **PPO, aggregation="response_mean", **ONLY_REWARD),
        # Not for RL: with reward 1 on given text, log pi under a token mean is the cross-entropy of pretraining.
        _row(
            "cross_entropy", baseline="none", **NO_STD, ratio="none", **NO_CLIP, aggregation="token_mean", **ONLY_REWARD
        ),
    )
}


WEIGHTS = {"constant": "1/(N L_max)", "response_mean": "1/(N L_i)", "token_mean": "1/(sum_j L_j)"}
KL_TERMS = {"k1": "log x", "k2": "(log x)^2 / 2", "k3": "1/x - 1 + log x"}
RATIOS = {"none": "log pi(o_it)", "token": "r_it", "sequence": "s_i"}
STDS = {"group_std": "std_G(R", "batch_std": "std_rollout(R", "batch_centred_std": "std_rollout(R - mean_G(R)"}


def formula(o: "Objective") -> str:
    """The loss in one line, and a line for every symbol in it."""
    value = f" + sum_i {WEIGHTS[o.aggregation]} sum_t {o.value:g} {_value_error(o)}" if o.needs_critic else ""
    lines = [f"loss = - sum_i {WEIGHTS[o.aggregation]} sum_t {_token(o)}{value}"]
    reward = "R_i"
    if o.kl_place == "reward" and not o.needs_critic:
        lines.append(f"R'_i = R_i - {o.kl:g} sum_t log(pi_old(o_it) / pi_ref(o_it))")
        reward = "R'_i"
    lines += _critic_lines(o) if o.needs_critic else [f"A_i  = {_advantage(o, reward)}"]
    if o.ratio == "token":
        lines.append("r_it = pi(o_it) / pi_old(o_it)")
    if o.clip == "probability":
        a = _a(o)
        left = f"{a} > 0 and D_it > {o.clip_high:g} or {a} < 0 and D_it < -{o.clip_low:g}"
        lines.append(f"m_it = 0 if {left}, else 1; D_it = pi(o_it) - pi_old(o_it)")
    if o.ratio == "sequence":
        lines.append("s_i  = (pi(o_i) / pi_old(o_i))^(1/L_i)")
    if o.needs_reference_in_loss:
        lines.append(f"k_it = {KL_TERMS[str(o.kl_estimator)]} with x = pi(o_it) / pi_ref(o_it)")
    if o.correction != "none":
        lines.append(f"c_it = {_correction(o)}")
    if o.entropy:
        lines.append("H_it = entropy of pi(. | q, o_i,<t)")
    return "\n".join([*lines, "N and sums run over the responses of one optimizer step"])


def _a(o: "Objective") -> str:
    return "A_it" if o.needs_critic else "A_i"


def _advantage(o: "Objective", reward: str) -> str:
    r = reward.removesuffix("_i")
    centred = {
        "none": reward,
        "group_mean": f"{reward} - mean_G({r})",
        "leave_one_out": f"{reward} - mean_{{j != i}}({r}_j)",
        "greedy": f"{reward} - R(greedy response)",
    }[o.baseline]
    if o.scale == "group_mean":
        return f"({centred}) / mean_G({r})"
    if o.scale in STDS:
        return f"({centred}) / ({STDS[o.scale].replace('R', r)}, ddof={o.std_ddof}) + {o.std_epsilon:g})"
    return centred


def _critic_lines(o: "Objective") -> list[str]:
    """The advantage and the value target of a token, as `learner/prepare.py` computes them."""
    reward = "R_i at the last token, else 0"
    if o.kl_place == "reward":
        reward = f"({reward}) - {o.kl:g} log(pi_old(o_it) / pi_ref(o_it))"
    lines = [
        f"A_it = sum_k {o.gae_lambda:g}^k d_i,t+k with d_it = reward_it + V_old_i,t+1 - V_old_it",
        f"reward_it = {reward}; V = 0 after the last token",
        "target_it = A_it + V_old_it",
    ]
    if o.scale == "token_whitening":
        std = f"(ddof={o.std_ddof}, + {o.std_epsilon:g})"
        lines.append(f"A_it is then brought to mean 0 and std 1 over the tokens of the rollout {std}")
    return lines


def _value_error(o: "Objective") -> str:
    if o.value_clip is None:
        return "(V_it - target_it)^2"
    return f"max((V_it - target_it)^2, (V_old_it + clip(V_it - V_old_it, +-{o.value_clip:g}) - target_it)^2)"


def _correction(o: "Objective") -> str:
    level, _, bound = o.correction.partition("_")
    weight = "pi_old(o_it) / mu(o_it)" if level == "token" else "prod_t pi_old(o_it) / mu(o_it)"
    beyond = f"{o.correction_cap:g}" if bound == "truncate" else "0"
    return f"{weight}, {beyond} if it is above {o.correction_cap:g}; mu is the engine's probability"


def _token(o: "Objective") -> str:
    ratio, a = RATIOS[o.ratio], _a(o)
    value = f"{ratio} {a}"
    if o.clip == "ppo":
        low, high = 1 - (o.clip_low or 0), 1 + (o.clip_high or 0)
        value = f"min({ratio} {a}, clip({ratio}, {low:g}, {high:g}) {a})"
    if o.clip == "cispo":
        value = f"const(min({ratio}, {1 + (o.clip_high or 0):g})) {a} log pi(o_it)"
    if o.clip == "probability":
        value = f"m_it {value}"
    if o.correction != "none":
        value = f"c_it {value}"
    bonus = f" + {o.entropy:g} H_it" if o.entropy else ""
    penalty = f" - {o.kl:g} k_it" if o.needs_reference_in_loss else ""
    return f"({value}{bonus}{penalty})" if bonus or penalty else value
