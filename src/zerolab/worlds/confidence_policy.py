"""The length bias in five parameters: a policy that sees how sure it may be, trained by the production objectives.

A response is one answer token and then filler until the policy stops. A question has one of three difficulties; each
has a logit of answering right (the hardest is frozen, so wrong answers never die out). After the answer the policy sees
a signal, sure or unsure, that agrees with the truth with a given probability, and stops after every token with a
probability of its own for each signal. So a state inside the response predicts the reward, which is all it takes:
dividing by the length of a response makes it cheaper to be wrong at length, and "unsure" learns not to stop.

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

TRAINED = np.array([0.0, 1.0, 1.0, 1.0, 1.0])  # which of the five parameters an update may move
LEVELS = 3


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

    def parameters(self) -> np.ndarray:
        """Three logits of being right, then the logit of stopping when unsure and when sure."""
        stop = np.log(self.stop_probability / (1 - self.stop_probability))
        return np.array([*self.correct_logits, stop, stop])


@dataclass(frozen=True)
class Rollout:
    """P x G responses of the policy; every array is [P, G]."""

    level: np.ndarray  # int: difficulty of the question
    right: np.ndarray  # bool: the answer token
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
            gradient = loss_gradient(rollout, parameters, objective, setting.budget, advantage, old, rows) * TRAINED
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
    right = random.random(shape) < _sigmoid(parameters[level])
    sure = np.where(random.random(shape) < setting.signal_accuracy, right, ~right).astype(np.int64)
    stop = _sigmoid(parameters[LEVELS + sure])
    # Tokens after the answer, the stop included, are geometric.
    tail = 1 + np.floor(np.log1p(-random.random(shape)) / np.log1p(-stop)).astype(np.int64)
    stopped = tail <= setting.budget - 1
    return Rollout(level, right, sure, 1 + np.minimum(tail, setting.budget - 1), stopped)


def score(rollout: Rollout, parameters: np.ndarray) -> np.ndarray:
    """Gradient of log pi of every response in the five parameters, [P, G, 5]. The signal is not the policy's doing.

    The answer gives right - P(right); the tail gives (1 - p) for the stop and -p for every token before it.
    """
    out = np.zeros((*rollout.length.shape, len(parameters)))
    answer = rollout.right - _sigmoid(parameters[rollout.level])
    np.put_along_axis(out, rollout.level[..., None], answer[..., None], axis=-1)
    index = LEVELS + rollout.sure
    tail = rollout.stopped - (rollout.length - 1) * _sigmoid(parameters[index])
    np.put_along_axis(out, index[..., None], tail[..., None], axis=-1)
    return out


def loss_gradient(
    rollout: Rollout,
    parameters: np.ndarray,
    objective: Objective,
    budget: int,
    advantage: np.ndarray,
    old: np.ndarray,
    rows: np.ndarray,
) -> np.ndarray:
    """Gradient of the loss over these rows of a rollout that was sampled under `old`: one optimizer step.

    The surrogate of a token is r A with r = pi / pi_old, without gradient where PPO's clip acts. A response has three
    kinds of tokens: the answer, those after which it went on, and the stop; those of a kind share one ratio.
    """
    level, right, sure, length, stopped = (
        column.ravel()[rows] for column in (rollout.level, rollout.right, rollout.sure, rollout.length, rollout.stopped)
    )
    advantage_N = advantage.ravel()[rows]
    weighted_N = token_weights(length, objective.aggregation, budget) * advantage_N
    chance, old_chance = _sigmoid(parameters), _sigmoid(old)
    gradient = np.zeros_like(parameters)

    def add(index: np.ndarray, happened: np.ndarray, count: np.ndarray) -> None:
        """Tokens that did or did not happen, with the logit at `index`: score happened - p."""
        p, before = chance[index], old_chance[index]
        ratio = np.where(happened, p / before, (1 - p) / (1 - before))
        kept = _unclipped(ratio, advantage_N, objective)
        np.add.at(gradient, index, -weighted_N * kept * ratio * count * (happened - p))

    add(level, right, np.ones(len(rows)))
    add(LEVELS + sure, np.zeros(len(rows), bool), length - 1 - stopped)
    add(LEVELS + sure, np.ones(len(rows), bool), stopped)
    return gradient


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
