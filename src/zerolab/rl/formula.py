"""An objective's coordinates as the expanded loss that is printed when a run starts."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zerolab.rl.objective import Objective

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
        lines.append(f"m_it = 0 where {left}, else 1; D_it = pi(o_it) - pi_old(o_it)")
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
    """gae.py in symbols. A KL in the reward is taken off at its own token."""
    reward = "R_i at the last token, else 0"
    if o.kl_place == "reward":
        reward = f"({reward}) - {o.kl:g} log(pi_old(o_it) / pi_ref(o_it))"
    lines = [
        f"A_it = sum_k {o.gae_lambda:g}^k d_i,t+k with d_it = reward_it + V_old_i,t+1 - V_old_it",
        f"reward_it = {reward}; V = 0 after the last token",
        "target_it = A_it + V_old_it",
    ]
    if o.scale == "token_whitening":
        spread = f"(ddof={o.std_ddof}, + {o.std_epsilon:g})"
        lines.append(f"A_it is then brought to mean 0 and std 1 over the tokens of the rollout {spread}")
    return lines


def _value_error(o: "Objective") -> str:
    if o.value_clip is None:
        return "(V_it - target_it)^2"
    return f"max((V_it - target_it)^2, (V_old_it + clip(V_it - V_old_it, +-{o.value_clip:g}) - target_it)^2)"


def _correction(o: "Objective") -> str:
    level, _, bound = o.correction.partition("_")
    weight = "pi_old(o_it) / mu(o_it)" if level == "token" else "prod_t pi_old(o_it) / mu(o_it)"
    beyond = f"{o.correction_cap:g}" if bound == "truncate" else "0"
    return f"{weight}, {beyond} where it is above {o.correction_cap:g}; mu as the engine sampled"


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
