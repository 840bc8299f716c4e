"""The length bias in a policy with five or six parameters, trained by the same objectives as real models.

A response is one answer token, then filler tokens until the policy stops. A question has one of three difficulties, and
each difficulty has a logit of a right answer. The logit of the hardest one is not trained, so there are always wrong
answers. After the answer the policy sees a signal, sure or unsure, which agrees with the truth with a given
probability. After every token it stops with a probability that depends on the signal. So the state predicts the reward.
If the loss divides by the length of a response, a long wrong answer costs less per token, and the policy learns to go
on after "unsure".

A setting may add a style: the sixth parameter is the logit that a response is brief, not rambling. Brief responses stop
earlier and are right more often by given amounts, so length correlates with the outcome although no state inside the
response predicts it. A setting may also reward length: every token after a wrong answer mends it with a small
probability.

Advantages and token weights come from `zerolab.rl`. The score (gradient of log pi) is computed in closed form. With one
update per rollout every ratio is 1 and nothing is clipped; with more, ratios and PPO's clip are computed per token.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from zerolab.errors import UserError
from zerolab.rl.advantage import advantages
from zerolab.rl.aggregate import token_weights
from zerolab.rl.bias_meter import mean_or_nan
from zerolab.rl.objective import PRESETS, Objective

LEVELS = 3  # difficulties; the logit of the hardest is not trained
STYLE = 5  # index of the logit of being brief


@dataclass(frozen=True)
class Style:
    """Differences between brief and rambling responses, in logits."""

    association: float  # of the logit of a right answer
    spread: float = 2.0  # of the logit of stopping after a token


@dataclass(frozen=True)
class Setting:
    """All settings of a simulation except the objective."""

    correct_logits: tuple[float, float, float] = (-2.5, -1.0, 0.5)
    stop_probability: float = 0.12  # initial value, for both signals
    signal_accuracy: float = 0.8
    budget: int = 64
    questions: int = 32  # P
    samples: int = 8  # G
    lr: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    updates: int = 1  # optimizer steps over one rollout
    truncation: Literal["zero", "keep"] = "zero"  # zero: a truncated right answer gets reward 0; keep: 1
    reward: Literal["verdict", "coin"] = "verdict"  # coin: a random 0 or 1
    style: Style | None = None
    mending: float | None = None  # probability that a token after a wrong answer makes it right

    def parameters(self) -> np.ndarray:
        """The initial logits: of a right answer (3), of stopping if unsure and if sure, and with a style of brevity."""
        stop = np.log(self.stop_probability / (1 - self.stop_probability))
        return np.array([*self.correct_logits, stop, stop, *([0.0] if self.style else [])])


@dataclass(frozen=True)
class Rollout:
    """P x G responses of the policy. Every array has shape [P, G]."""

    level: np.ndarray  # int: difficulty of the question
    brief: np.ndarray  # bool: the style; False without styles
    answered: np.ndarray  # bool: whether the answer token is right
    right: np.ndarray  # bool: whether the response is right, by its answer token or because it was mended
    sure: np.ndarray  # int: the signal, 0 or 1
    length: np.ndarray  # int: tokens, including the answer and the stop
    stopped: np.ndarray  # bool: ended within the budget

    @property
    def solved(self) -> np.ndarray:
        return self.right & self.stopped


@dataclass(frozen=True)
class Row:
    """Statistics of one rollout, before its update. Lengths are in tokens; a mean of nothing is NaN."""

    step: int
    accuracy: float  # right and within the budget
    length_correct: float
    length_incorrect: float  # of all other responses, as in rl/metrics.py
    truncated: float
    stop_unsure: float  # probability of stopping after the signal, per token
    stop_sure: float


def simulate(
    objective: str | Objective, *, seed: int = 0, steps: int = 1500, setting: Setting | None = None
) -> Iterator[Row]:
    """Train the policy under an objective (a preset's name or a value) and yield a row per step.

    The random numbers depend only on seed and step, so two objectives differ only in their updates. Raises UserError
    for an unknown objective, and for one without token ratios or with another clip than PPO's.
    """
    if isinstance(objective, str):
        if objective not in PRESETS:
            raise UserError(f"objective {objective!r} is unknown: choose one of {', '.join(PRESETS)}")
        objective = PRESETS[objective]
    if objective.ratio != "token" or objective.clip not in ("none", "ppo") or objective.needs_critic:
        raise UserError(f"objective {objective.name}: this policy needs a token ratio with PPO's clip or without clip")
    setting = setting or Setting()
    parameters = setting.parameters()
    first, second, taken = np.zeros_like(parameters), np.zeros_like(parameters), 0
    for step in range(1, steps + 1):
        rollout = sample(parameters, setting, seed, step)
        yield _row(step, rollout, parameters)
        advantage = _advantages(rollout, objective, setting, seed, step)
        old = parameters
        for rows in _minibatches(setting, seed, step):
            gradient = loss_gradient(rollout, parameters, objective, setting, advantage, old, rows)
            gradient[0] = 0.0  # the logit of the hardest questions is not trained
            taken += 1
            first = setting.betas[0] * first + (1 - setting.betas[0]) * gradient
            second = setting.betas[1] * second + (1 - setting.betas[1]) * gradient**2
            unbiased = first / (1 - setting.betas[0] ** taken), second / (1 - setting.betas[1] ** taken)
            parameters = parameters - setting.lr * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)


def _advantages(rollout: Rollout, objective: Objective, setting: Setting, seed: int, step: int) -> np.ndarray:
    reward = _verdicts(rollout, setting)
    if setting.reward == "coin":
        reward = np.random.Generator(np.random.Philox([seed, step, 1])).integers(0, 2, reward.shape).astype(float)
    return np.stack([advantages(rewards_G, objective) for rewards_G in reward])


def _verdicts(rollout: Rollout, setting: Setting) -> np.ndarray:
    """The reward of every response by its verdict, 0 or 1."""
    return (rollout.solved if setting.truncation == "zero" else rollout.right).astype(np.float64)


def _minibatches(setting: Setting, seed: int, step: int) -> list[np.ndarray]:
    """Row numbers of each optimizer step over one rollout."""
    size = setting.questions * setting.samples
    if setting.updates == 1:
        return [np.arange(size)]
    order = np.random.Generator(np.random.Philox([seed, step, 2])).permutation(size)
    return np.array_split(order, setting.updates)


def sample(parameters: np.ndarray, setting: Setting, seed: int, step: int) -> Rollout:
    """Sample a rollout under `parameters` from the uniform random numbers of seed and step."""
    random = np.random.Generator(np.random.Philox([seed, step]))
    shape = (setting.questions, setting.samples)
    level = np.broadcast_to(random.integers(LEVELS, size=(setting.questions, 1)), shape)
    brief = np.zeros(shape, bool)
    if setting.style:
        styles = np.random.Generator(np.random.Philox([seed, step, 3]))
        brief = styles.random(shape) < _sigmoid(parameters[STYLE])
    answered = random.random(shape) < _sigmoid(parameters[level] + _answer_offset(brief, setting))
    sure = np.where(random.random(shape) < setting.signal_accuracy, answered, ~answered).astype(np.int64)
    stop = _sigmoid(parameters[LEVELS + sure] + _stop_offset(brief, setting))
    # The number of tokens after the answer, including the stop, is geometric.
    tail = 1 + np.floor(np.log1p(-random.random(shape)) / np.log1p(-stop)).astype(np.int64)
    stopped = tail <= setting.budget - 1
    length = 1 + np.minimum(tail, setting.budget - 1)
    right = answered
    if setting.mending:
        chances = np.random.Generator(np.random.Philox([seed, step, 4])).random(shape)
        right = answered | (chances < 1 - (1 - setting.mending) ** (length - 1))
    return Rollout(level, brief, answered, right, sure, length, stopped)


def _answer_offset(brief: np.ndarray, setting: Setting) -> np.ndarray:
    """The offset of the logit of a right answer token by the style: plus or minus half the association."""
    return (brief - 0.5) * setting.style.association if setting.style else np.zeros(brief.shape)


def _stop_offset(brief: np.ndarray, setting: Setting) -> np.ndarray:
    """The offset of the logit of stopping by the style: plus or minus half the spread."""
    return (brief - 0.5) * setting.style.spread if setting.style else np.zeros(brief.shape)


def score(rollout: Rollout, parameters: np.ndarray, setting: Setting) -> np.ndarray:
    """Gradient of log pi of every response in the parameters, [P, G, 5 or 6].

    The policy chooses the style, the answer, and after every further token whether to stop. A choice with logit x gives
    happened - sigmoid(x). Signal and mending are not chosen by the policy.
    """
    out = np.zeros((*rollout.length.shape, len(parameters)))
    answer = rollout.answered - _sigmoid(parameters[rollout.level] + _answer_offset(rollout.brief, setting))
    np.put_along_axis(out, rollout.level[..., None], answer[..., None], axis=-1)
    index = LEVELS + rollout.sure
    stop = _sigmoid(parameters[index] + _stop_offset(rollout.brief, setting))
    tail = rollout.stopped - (rollout.length - 1) * stop
    np.put_along_axis(out, index[..., None], tail[..., None], axis=-1)
    if setting.style:
        out[..., STYLE] = rollout.brief - _sigmoid(parameters[STYLE])
    return out


def loss_gradient(
    rollout: Rollout,
    parameters: np.ndarray,
    objective: Objective,
    setting: Setting,
    advantage: np.ndarray,
    old: np.ndarray,
    rows: np.ndarray,
) -> np.ndarray:
    """Gradient of the loss over these rows of a rollout, for one optimizer step.

    The surrogate of a token is r A with r = pi / pi_old, and clipped tokens have no gradient. A response has four kinds
    of tokens: the style, the answer, the tokens after which it went on, and the stop. All tokens of a kind have one
    ratio. The style does not count in the length.

    Args:
        advantage: [P, G].
        old: parameters under which the rollout was sampled.
        rows: indices of the responses in the flattened rollout.
    """
    level, brief, answered, sure, length, stopped = (
        column.ravel()[rows]
        for column in (rollout.level, rollout.brief, rollout.answered, rollout.sure, rollout.length, rollout.stopped)
    )
    advantage_N = advantage.ravel()[rows]
    weighted_N = token_weights(length, objective.aggregation, setting.budget) * advantage_N
    gradient, nothing, once = np.zeros_like(parameters), np.zeros(len(rows)), np.ones(len(rows))

    def add(index: np.ndarray, offset: np.ndarray, happened: np.ndarray, count: np.ndarray) -> None:
        """Add the gradient of `count` binary choices with the logit at `index` plus an offset; score happened - p."""
        p, before = (_sigmoid(theta[index] + offset) for theta in (parameters, old))
        ratio = np.where(happened, p / before, (1 - p) / (1 - before))
        kept = _unclipped(ratio, advantage_N, objective)
        np.add.at(gradient, index, -weighted_N * kept * ratio * count * (happened - p))

    stop_offset = _stop_offset(brief, setting)
    add(level, _answer_offset(brief, setting), answered, once)
    add(LEVELS + sure, stop_offset, np.zeros(len(rows), bool), length - 1 - stopped)
    add(LEVELS + sure, stop_offset, np.ones(len(rows), bool), stopped)
    if setting.style:
        add(np.full(len(rows), STYLE), nothing, brief, once)
    return gradient


@dataclass(frozen=True)
class Distribution:
    """All M responses of the policy to a question of random difficulty, with their probabilities [M]."""

    responses: Rollout  # [M]
    probability: np.ndarray

    def incorrect_length(self) -> float:
        """Expected tokens of a response that is not solved."""
        wrong = self.probability * ~self.responses.solved
        return float((wrong * self.responses.length).sum() / wrong.sum())


def enumerate_responses(parameters: np.ndarray, setting: Setting) -> Distribution:
    """The exact distribution of responses, by enumeration."""
    tails = np.arange(1, setting.budget + 1)  # the last one is every tail that is truncated
    styles = (False, True) if setting.style else (False,)
    axes = (np.arange(LEVELS), np.array(styles), np.array([False, True]), np.array([0, 1]), tails, [False, True])
    level, brief, answered, sure, tail, mended = (a.ravel() for a in np.meshgrid(*axes, indexing="ij"))
    stopped = tail <= setting.budget - 1
    length = 1 + np.minimum(tail, setting.budget - 1)
    p_brief = _sigmoid(parameters[STYLE]) if setting.style else 0.0
    p_answer = _sigmoid(parameters[level] + _answer_offset(brief, setting))
    p_stop = _sigmoid(parameters[LEVELS + sure] + _stop_offset(brief, setting))
    p_mended = 1 - (1 - (setting.mending or 0.0)) ** (length - 1)
    agrees = (sure == 1) == answered
    probability = (
        np.where(brief, p_brief, 1 - p_brief)
        * np.where(answered, p_answer, 1 - p_answer)
        * np.where(agrees, setting.signal_accuracy, 1 - setting.signal_accuracy)
        * (1 - p_stop) ** (length - 1 - stopped)
        * np.where(stopped, p_stop, 1.0)
        * np.where(mended, p_mended, 1 - p_mended)
        / LEVELS
    )
    return Distribution(Rollout(level, brief, answered, answered | mended, sure, length, stopped), probability)


def expected_step(objective: str | Objective, setting: Setting) -> np.ndarray:
    """The expected step of the initial policy under an objective: -E[loss gradient], computed without sampling.

    A is r minus the mean of all G rewards of the group, so E[w A s] = (1 - 1/G) E[w (r - E r) s] for weight w and score
    s. Raises UserError for another baseline or scale.
    """
    objective = PRESETS[objective] if isinstance(objective, str) else objective
    if (objective.baseline, objective.scale) != ("group_mean", "none"):
        raise UserError(f"objective {objective.name}: the expected step is known for a reward minus the group's mean")
    parameters = setting.parameters()
    if setting.reward == "coin":  # independent of the response, so its expectation is zero
        return np.zeros_like(parameters)
    law = enumerate_responses(parameters, setting)
    rollout, probability = law.responses, law.probability
    reward = _verdicts(rollout, setting)
    mean = LEVELS * np.bincount(rollout.level, probability * reward)[rollout.level]
    weight = len(reward) * token_weights(rollout.length, objective.aggregation, setting.budget)
    weighted = (1 - 1 / setting.samples) * probability * weight * (reward - mean)
    step: np.ndarray = (weighted[:, None] * score(rollout, parameters, setting)).sum(0)
    step[0] = 0.0
    return step


def drift_of_incorrect_length(direction: np.ndarray, setting: Setting, size: float = 1e-4) -> float:
    """Tokens by which incorrect responses get longer per unit step along `direction` from the initial policy."""
    start = setting.parameters()
    ahead, behind = (
        enumerate_responses(start + sign * size * direction, setting).incorrect_length() for sign in (1, -1)
    )
    return (ahead - behind) / (2 * size)


def _unclipped(ratio: np.ndarray, advantage: np.ndarray, objective: Objective) -> np.ndarray:
    """False for ratios beyond their bound in the direction of the advantage: no gradient (1707.06347 eq. 7)."""
    if objective.clip == "none":
        return np.ones_like(ratio)
    assert objective.clip_low is not None
    assert objective.clip_high is not None
    beyond = ((advantage > 0) & (ratio > 1 + objective.clip_high)) | (
        (advantage < 0) & (ratio < 1 - objective.clip_low)
    )
    return ~beyond


def _row(step: int, rollout: Rollout, parameters: np.ndarray) -> Row:
    solved = rollout.solved
    stop = _sigmoid(parameters[LEVELS:])
    return Row(
        step=step,
        accuracy=float(solved.mean()),
        length_correct=mean_or_nan(rollout.length[solved]),
        length_incorrect=mean_or_nan(rollout.length[~solved]),
        truncated=float(1 - rollout.stopped.mean()),
        stop_unsure=float(stop[0]),
        stop_sure=float(stop[1]),
    )


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
