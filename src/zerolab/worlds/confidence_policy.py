"""The length bias in five or six parameters: a policy that sees how sure it may be, under the production objectives.

A response is one answer token and then filler until the policy stops. A question has one of three difficulties; each
has a logit of answering right (the hardest is frozen, so wrong answers never die out). After the answer the policy sees
a signal, sure or unsure, that agrees with the truth with a given probability, and stops after every token with a
probability of its own for each signal. So a state inside the response predicts the reward, which is all it takes:
dividing by the length of a response makes it cheaper to be wrong at length, and "unsure" learns not to stop.

A setting may add a style: a sixth parameter decides before the answer whether a response is brief or rambling. Brief
responses stop earlier and are right more often by given amounts, so length goes with the outcome although nothing
inside the response predicts it. A setting may also let length pay: every token after a wrong answer mends it with a
small probability.

Advantages and token weights come from `zerolab.rl`; the score (gradient of log pi) is exact, in closed form. With one
update per rollout every ratio is 1 and no clip acts; with more, ratios and PPO's clip are taken token by token.
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

LEVELS = 3  # difficulties; the logit of the hardest is frozen
STYLE = 5  # index of the logit of being brief


@dataclass(frozen=True)
class Style:
    """Half of each amount is added to a brief response, half is taken from a rambling one. Both in logits."""

    association: float  # of being right
    spread: float = 2.0  # of stopping after a token


@dataclass(frozen=True)
class Setting:
    """Everything but the objective."""

    correct_logits: tuple[float, float, float] = (-2.5, -1.0, 0.5)
    stop_probability: float = 0.12  # at the start, after both signals
    signal_accuracy: float = 0.8
    budget: int = 64
    questions: int = 32  # P
    samples: int = 8  # G
    lr: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    updates: int = 1  # optimizer steps over one rollout
    truncation: Literal["zero", "keep"] = "zero"  # whether a right answer that ran into the budget earns its reward
    reward: Literal["verdict", "coin"] = "verdict"  # coin: a fair one, independent of everything
    style: Style | None = None
    mending: float | None = None  # probability that a token after a wrong answer makes it right

    def parameters(self) -> np.ndarray:
        """Logits of being right (3), of stopping when unsure and when sure, and with styles of being brief."""
        stop = np.log(self.stop_probability / (1 - self.stop_probability))
        return np.array([*self.correct_logits, stop, stop, *([0.0] if self.style else [])])


@dataclass(frozen=True)
class Rollout:
    """P x G responses of the policy; every array is [P, G]."""

    level: np.ndarray  # int: difficulty of the question
    brief: np.ndarray  # bool: the style; False without styles
    answered: np.ndarray  # bool: the answer token is right
    right: np.ndarray  # bool: so is the verdict; more often than the answer token if tokens after it mend it
    sure: np.ndarray  # int: the signal, 0 or 1
    length: np.ndarray  # int: tokens, the answer and the stop counted
    stopped: np.ndarray  # bool: ended within the budget

    @property
    def solved(self) -> np.ndarray:
        return self.right & self.stopped


@dataclass(frozen=True)
class Row:
    """One rollout, before the update that it leads to. Lengths in tokens, NaN where there is nothing to average."""

    step: int
    accuracy: float  # right and within the budget
    length_correct: float
    length_incorrect: float  # of all others, as in rl/metrics.py
    truncated: float
    stop_unsure: float  # probability of stopping after the signal, per token
    stop_sure: float


def simulate(
    objective: str | Objective, *, seed: int = 0, steps: int = 1500, setting: Setting | None = None
) -> Iterator[Row]:
    """Trains the policy under an objective (a preset's name or a value) and yields a row per step.

    The uniform random numbers depend on seed and step alone, so that two objectives differ by their updates only.
    """
    if isinstance(objective, str):
        if objective not in PRESETS:
            raise UserError(f"objective {objective!r} is unknown: choose one of {', '.join(PRESETS)}")
        objective = PRESETS[objective]
    if objective.ratio != "token" or objective.clip not in ("none", "ppo") or objective.needs_critic:
        raise UserError(f"objective {objective.name}: this policy knows token ratios with PPO's clip or none")
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
            gradient[0] = 0.0  # the hardest questions stay as they are
            taken += 1
            first = setting.betas[0] * first + (1 - setting.betas[0]) * gradient
            second = setting.betas[1] * second + (1 - setting.betas[1]) * gradient**2
            unbiased = first / (1 - setting.betas[0] ** taken), second / (1 - setting.betas[1] ** taken)
            parameters = parameters - setting.lr * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)


def _advantages(rollout: Rollout, objective: Objective, setting: Setting, seed: int, step: int) -> np.ndarray:
    reward = (rollout.solved if setting.truncation == "zero" else rollout.right).astype(np.float64)
    if setting.reward == "coin":
        reward = np.random.Generator(np.random.Philox([seed, step, 1])).integers(0, 2, reward.shape).astype(float)
    return np.stack([advantages(rewards_G, objective) for rewards_G in reward])


def _minibatches(setting: Setting, seed: int, step: int) -> list[np.ndarray]:
    """Row numbers of each optimizer step over one rollout."""
    size = setting.questions * setting.samples
    if setting.updates == 1:
        return [np.arange(size)]
    order = np.random.Generator(np.random.Philox([seed, step, 2])).permutation(size)
    return np.array_split(order, setting.updates)


def sample(parameters: np.ndarray, setting: Setting, seed: int, step: int) -> Rollout:
    """A rollout under `parameters`, by inverting distribution functions at uniform numbers."""
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
    # Tokens after the answer, the stop included, are geometric.
    tail = 1 + np.floor(np.log1p(-random.random(shape)) / np.log1p(-stop)).astype(np.int64)
    stopped = tail <= setting.budget - 1
    length = 1 + np.minimum(tail, setting.budget - 1)
    right = answered
    if setting.mending:
        chances = np.random.Generator(np.random.Philox([seed, step, 4])).random(shape)
        right = answered | (chances < 1 - (1 - setting.mending) ** (length - 1))
    return Rollout(level, brief, answered, right, sure, length, stopped)


def _answer_offset(brief: np.ndarray, setting: Setting) -> np.ndarray:
    """What the style adds to the logit of a right answer token."""
    return (brief - 0.5) * setting.style.association if setting.style else np.zeros(brief.shape)


def _stop_offset(brief: np.ndarray, setting: Setting) -> np.ndarray:
    """What the style adds to the logit of stopping."""
    return (brief - 0.5) * setting.style.spread if setting.style else np.zeros(brief.shape)


def score(rollout: Rollout, parameters: np.ndarray, setting: Setting) -> np.ndarray:
    """Gradient of log pi of every response in the parameters, [P, G, 5 or 6]. Signal and mending are not the policy's.

    A choice with logit x gives happened - sigmoid(x): the style, the answer, and every token after the answer, which
    either stops or does not.
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
    """Gradient of the loss over these rows of a rollout that was sampled under `old`: one optimizer step.

    The surrogate of a token is r A with r = pi / pi_old, without gradient where PPO's clip acts. A response has four
    kinds of tokens: the style, the answer, those after which it went on, and the stop; those of a kind share one ratio.
    The style is not counted in the length.
    """
    level, brief, answered, sure, length, stopped = (
        column.ravel()[rows]
        for column in (rollout.level, rollout.brief, rollout.answered, rollout.sure, rollout.length, rollout.stopped)
    )
    advantage_N = advantage.ravel()[rows]
    weighted_N = token_weights(length, objective.aggregation, setting.budget) * advantage_N
    gradient, nothing, once = np.zeros_like(parameters), np.zeros(len(rows)), np.ones(len(rows))

    def add(index: np.ndarray, offset: np.ndarray, happened: np.ndarray, count: np.ndarray) -> None:
        """Tokens that did or did not happen, with the logit at `index` plus an offset: score happened - p."""
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
class Law:
    """Every response that the policy can write to a question of random difficulty, with its probability [M]."""

    responses: Rollout  # [M]
    probability: np.ndarray

    def incorrect_length(self) -> float:
        """Expected tokens of a response that is not solved."""
        wrong = self.probability * ~self.responses.solved
        return float((wrong * self.responses.length).sum() / wrong.sum())


def enumerate_responses(parameters: np.ndarray, setting: Setting) -> Law:
    """The exact distribution of responses, by running through all of them."""
    tails = np.arange(1, setting.budget + 1)  # the last one stands for every tail that the budget cuts off
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
    return Law(Rollout(level, brief, answered, answered | mended, sure, length, stopped), probability)


def expected_step(objective: str | Objective, setting: Setting) -> np.ndarray:
    """The direction in which an objective's expected gradient moves the policy before training: -E[loss gradient].

    For a reward minus the group's mean, whose expectation needs no sampling: A = r - mean of G rewards, the response's
    own included, so that E[w A s] = (1 - 1/G) E[w (r - E r) s] for weight w and score s. Raises UserError for another
    baseline or scale.
    """
    objective = PRESETS[objective] if isinstance(objective, str) else objective
    if (objective.baseline, objective.scale) != ("group_mean", "none"):
        raise UserError(f"objective {objective.name}: the expected step is known for a reward minus the group's mean")
    parameters = setting.parameters()
    law = enumerate_responses(parameters, setting)
    rollout, probability = law.responses, law.probability
    reward = (rollout.solved if setting.truncation == "zero" else rollout.right).astype(np.float64)
    if setting.reward == "coin":
        return np.zeros_like(parameters)
    mean = LEVELS * np.bincount(rollout.level, probability * reward)[rollout.level]
    weight = len(reward) * token_weights(rollout.length, objective.aggregation, setting.budget)
    weighted = (1 - 1 / setting.samples) * probability * weight * (reward - mean)
    step: np.ndarray = (weighted[:, None] * score(rollout, parameters, setting)).sum(0)
    step[0] = 0.0
    return step


def drift_of_incorrect_length(direction: np.ndarray, setting: Setting, size: float = 1e-4) -> float:
    """Tokens that an incorrect response gains per unit of a step along `direction` before training."""
    start = setting.parameters()
    ahead, behind = (
        enumerate_responses(start + sign * size * direction, setting).incorrect_length() for sign in (1, -1)
    )
    return (ahead - behind) / (2 * size)


def _unclipped(ratio: np.ndarray, advantage: np.ndarray, objective: Objective) -> np.ndarray:
    """1707.06347 eq. 7: no gradient where the ratio went beyond its bound in the direction of the advantage."""
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
