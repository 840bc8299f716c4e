"""PPO with a critic against plain loops, its critic as a learner, and what lambda does where the critic is wrong."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from enumerable import (
    BUDGET,
    PROMPTS,
    Enumeration,
    flat_gradient,
    logprobs_of,
    tiny_policy,
)

from zerolab.audit.certificate import Direction
from zerolab.audit.enumerate import EnumerablePolicy
from zerolab.audit.expectation import critic_expectation, make_wrong
from zerolab.audit.split_invariance import make_learner as certificate_learner
from zerolab.config import CriticConfig, LearnerConfig
from zerolab.datatypes import Group
from zerolab.learner.learner import Learner
from zerolab.learner.prepare import critic_metrics, generalised_advantages, with_values
from zerolab.rl.batch import Batch, make_batch
from zerolab.rl.objective import PRESETS, Objective


def changed(**coordinates: object) -> Objective:
    return Objective(**Objective.resolve({"preset": "ppo", **coordinates}))


def make_learner(model: torch.nn.Module, kind: str = "model", **config: object) -> Learner:
    settings = LearnerConfig(**{"lr": 1e-3, "micro_batch_tokens": 10_000, **config})
    learner = Learner(model, settings, budget=BUDGET, total_steps=9, critic=CriticConfig(kind=kind))
    assert learner.critic is not None
    make_wrong(learner.critic.head)
    return learner


@pytest.fixture(scope="module")
def groups() -> list[Group]:
    """Sampled under another policy than the one that learns, so that ratios and clips are seen."""
    behaviour = Enumeration(tiny_policy(seed=1), 2)
    generator = np.random.default_rng(3)
    return behaviour.groups(
        {q: [behaviour.space[i] for i in generator.integers(0, len(behaviour.space), 6)] for q in PROMPTS}
    )


def values_at(trunk: torch.nn.Module, head: torch.nn.Module, group: Group, response: list[int]) -> torch.Tensor:
    """values_L by transformers' own forward pass."""
    ids = [*group.prompt.token_ids, *response]
    hidden = trunk(torch.tensor([ids])).last_hidden_state[0, len(group.prompt.token_ids) - 1 : -1]
    return head(hidden).squeeze(-1)


def generalised(rewards: list[float], values: list[float], lam: float) -> list[float]:
    """1506.02438 eq. 16 with gamma = 1, as a double sum."""
    deltas = [r + v_next - v for r, v, v_next in zip(rewards, values, [*values[1:], 0.0], strict=True)]
    return [sum(lam ** (k - t) * deltas[k] for k in range(t, len(deltas))) for t in range(len(deltas))]


def ppo(
    model: torch.nn.Module, trunk: torch.nn.Module, head: torch.nn.Module, old: Batch, groups: list[Group], o: Objective
) -> tuple[torch.Tensor, torch.Tensor]:
    """(objective, value loss) of 1707.06347 eq. 7 and 9, response by response."""
    assert old.old_values_T is not None
    total, error = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    responses = [(g, c, r) for g in groups for c, r in zip(g.completions, g.rewards_G, strict=True)]
    lengths = [len(c) for _, c, _ in responses]
    advantages: list[list[float]] = []
    old_values = [part.tolist() for part in np.split(old.old_values_T, np.cumsum(lengths)[:-1])]
    for (_, _, reward), values in zip(responses, old_values, strict=True):
        advantages.append(generalised([0.0] * (len(values) - 1) + [reward], values, o.gae_lambda))
    targets = [[a + v for a, v in zip(*pair, strict=True)] for pair in zip(advantages, old_values, strict=True)]
    if o.scale == "token_whitening":
        flat = [a for row in advantages for a in row]
        mean = sum(flat) / len(flat)
        std = (sum((a - mean) ** 2 for a in flat) / (len(flat) - o.std_ddof)) ** 0.5
        advantages = [[(a - mean) / (std + o.std_epsilon) for a in row] for row in advantages]
    for i, (group, completion, _) in enumerate(responses):
        tokens = completion.token_ids_L.tolist()
        logps = logprobs_of(model, group.prompt.text, tokens)
        values = values_at(trunk, head, group, tokens)
        weight = 1 / len(responses) / (BUDGET if o.aggregation == "constant" else len(tokens))
        for t in range(len(tokens)):
            ratio = torch.exp(logps[t] - float(completion.logprobs_L[t]))
            a, v, target, v_old = advantages[i][t], values[t], targets[i][t], old_values[i][t]
            total = total + weight * torch.minimum(ratio * a, torch.clamp(ratio, 0.8, 1.2) * a)
            square = (v - target) ** 2
            if o.value_clip:
                near = v_old + torch.clamp(v - v_old, -o.value_clip, o.value_clip)
                square = torch.maximum(square, (near - target) ** 2)
            error = error + o.value * weight * square
    return total, error


@pytest.mark.parametrize("kind", ["model", "head"])
@pytest.mark.parametrize(
    "objective",
    [
        PRESETS["ppo"],
        PRESETS["ppo_response_mean"],
        changed(gae_lambda=0.9, value_clip=0.1),
        changed(gae_lambda=0.0, scale="token_whitening", std_ddof=1, std_epsilon=1e-8, value=2.0),
    ],
    ids=["ppo", "ppo_response_mean", "lambda and value clip", "whitened"],
)
def test_loss_and_gradients_are_those_of_the_transcribed_equations(
    objective: Objective, kind: str, groups: list[Group]
) -> None:
    """A step is taken first, so that V has moved away from V_old."""
    learner = make_learner(tiny_policy(seed=0), kind)
    batch = make_batch(groups, objective)
    batch = with_values(batch, learner.values_of(batch), objective)
    learner.forward_backward(batch, objective)
    learner.optim_step()
    assert learner.critic is not None
    model = copy.deepcopy(learner.model)
    trunk = model.model if kind == "head" else copy.deepcopy(learner.critic.trunk)
    head = copy.deepcopy(learner.critic.head)
    for module in (model, trunk, head):
        module.zero_grad(set_to_none=False)
    total, error = ppo(model, trunk, head, batch, groups, objective)
    (error - total).backward()
    stats = learner.forward_backward(batch, objective)
    assert stats["loss"] == pytest.approx(-total.item(), rel=1e-11)
    assert stats["critic/loss"] == pytest.approx(error.item(), rel=1e-11)
    for found, expected in ((learner.model, model), (learner.critic.head, head)):
        assert torch.allclose(flat_gradient(found), flat_gradient(expected), atol=1e-13, rtol=1e-9)
    if kind == "model":
        assert torch.allclose(flat_gradient(learner.critic.trunk), flat_gradient(trunk), atol=1e-13, rtol=1e-9)


def test_every_preset_with_a_critic_is_transcribed_here() -> None:
    assert {name for name, row in PRESETS.items() if row.needs_critic} == {"ppo", "ppo_response_mean"}


def test_at_lambda_one_advantages_are_returns_minus_values_and_at_zero_one_step_errors() -> None:
    generator = np.random.default_rng(0)
    lengths = np.array([3, 1, 5])
    reward_T, values_T = generator.normal(size=9), generator.normal(size=9)
    start = 0
    full, short = (generalised_advantages(reward_T, values_T, lengths, lam) for lam in (1.0, 0.0))
    for length in lengths:
        row = slice(start, start + length)
        assert np.allclose(full[row], np.cumsum(reward_T[row][::-1])[::-1] - values_T[row], atol=1e-14)
        assert np.allclose(short[row], reward_T[row] + [*values_T[row][1:], 0] - values_T[row], atol=1e-14)
        start += length
    assert generalised_advantages(np.zeros(0), np.zeros(0), np.zeros(0, int), 0.5).shape == (0,)


@pytest.fixture(scope="module")
def policy() -> EnumerablePolicy:
    return EnumerablePolicy(1)


def test_lambda_below_one_is_biased_by_a_wrong_critic_and_by_no_right_one(
    policy: EnumerablePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With V the true expected reward of every state, the direction is true at every lambda."""
    truth = policy.true_gradient_QD().mean(0)
    learner = certificate_learner(policy.model, PRESETS["ppo"])

    def direction(lam: float) -> Direction:
        return Direction.of(critic_expectation(policy, changed(gae_lambda=lam), 2, learner).gradient_QD.sum(0), truth)

    wrong = [direction(lam) for lam in (1.0, 0.95, 0.5)]
    assert (wrong[0].cosine, wrong[0].scale) == (pytest.approx(1, abs=1e-12), pytest.approx(1, abs=1e-12))
    assert 1e-3 < wrong[1].bias < wrong[2].bias
    monkeypatch.setattr(learner, "values_of", lambda batch: true_values(policy, batch))
    for lam in (1.0, 0.5, 0.0):
        right = direction(lam)
        assert (right.cosine, right.scale) == (pytest.approx(1, abs=1e-12), pytest.approx(1, abs=1e-12))


def true_values(policy: EnumerablePolicy, batch: Batch) -> np.ndarray:
    """E[R | q, o_<t] of every state, by enumeration; the batch has every response to one question."""
    prompt = tuple(batch.tokens_S[: batch.prompt_len_N[0]].tolist())
    q = next(i for i, puzzle in enumerate(policy.puzzles) if puzzle.prompt_ids == prompt)
    reward_O, chance_O = policy.table("keep").reward_QO[q], policy.probability_QO[q]

    def value(prefix: tuple[int, ...]) -> float:
        inside = np.array([o[: len(prefix)] == prefix for o in policy.responses])
        return float((chance_O * reward_O)[inside].sum() / chance_O[inside].sum())

    return np.array([value(o[:t]) for o in policy.responses for t in range(len(o))])


def test_a_response_mean_weighs_the_value_loss_by_one_over_length_too(groups: list[Group]) -> None:
    """The gradient of a single token's value error, in the longest against the shortest response."""
    for name, ratio in (("ppo", 1.0), ("ppo_response_mean", 2.0)):
        learner = make_learner(tiny_policy(seed=0))
        batch = make_batch(groups, PRESETS[name])
        batch = with_values(batch, np.zeros(int(batch.response_len_N.sum())), PRESETS[name])
        per_token = {}
        for length in (1, 2):
            one = int(np.flatnonzero(batch.response_len_N == length)[0])
            first = int(batch.response_len_N[:one].sum())
            assert learner.critic is not None
            target_T = batch.value_target_T * 0.0  # V = 0 everywhere but at one token
            target_T[first] = 1.0
            learner.critic.head.weight.data.zero_()
            learner.critic.head.bias.data.zero_()
            learner.critic.zero_grad(set_to_none=False)
            step = Batch(**{**vars(batch), "value_target_T": target_T})
            learner.forward_backward(step, PRESETS[name])
            per_token[length] = float(learner.critic.head.bias.grad)
        assert per_token[1] / per_token[2] == pytest.approx(ratio, rel=1e-12)


def best_explained(groups: list[Group]) -> float:
    """By the mean reward that followed every state, which is the best that a function of the state can say."""
    followed: dict[tuple, list[float]] = {}
    for group in groups:
        for completion, reward in zip(group.completions, group.rewards_G, strict=True):
            tokens = tuple(completion.token_ids_L.tolist())
            for t in range(len(tokens)):
                followed.setdefault((group.prompt.text, *tokens[:t]), []).append(float(reward))
    within = sum(np.var(rewards) * len(rewards) for rewards in followed.values())
    every = [r for rewards in followed.values() for r in rewards]
    return 1 - within / (np.var(every) * len(every))


@pytest.mark.parametrize("kind", ["model", "head"])
def test_a_critic_learns_what_rewards_to_expect_and_comes_back_from_a_checkpoint(
    kind: str, groups: list[Group], tmp_path: Path
) -> None:
    from tiny_models import tiny_tokenizer
    from zerolab.models.hf import export_model

    objective = changed(value=0.5)
    learner = make_learner(tiny_policy(seed=0), kind, lr=0.03)
    explained = []
    for _ in range(180):
        batch = make_batch(groups, objective)
        batch = with_values(batch, learner.values_of(batch), objective)
        explained.append(critic_metrics(batch)["critic/explained_variance"])
        learner.forward_backward(batch, objective)
        learner.optim_step()
    assert explained[0] < 0
    assert explained[-1] > 0.7 * best_explained(groups)
    export_model(learner.model, tiny_tokenizer(), tmp_path)
    learner.save(tmp_path)
    other = make_learner(tiny_policy(seed=5), kind, lr=0.03)
    other.load(tmp_path)
    assert np.array_equal(other.values_of(batch), learner.values_of(batch))
    for each in (learner, other):
        each.forward_backward(batch, objective)
        each.optim_step()
    assert np.array_equal(other.values_of(batch), learner.values_of(batch))


def test_a_kl_in_the_reward_is_taken_off_where_it_arises(groups: list[Group]) -> None:
    """Later tokens do not answer for the KL of earlier ones; from the first token on it is the whole sum."""
    batch = make_batch(groups, PRESETS["ppo"])
    values_T = np.zeros(int(batch.response_len_N.sum()))
    penalty_T = np.arange(1.0, len(values_T) + 1)
    plain, taxed = (with_values(batch, values_T, PRESETS["ppo"], p) for p in (None, penalty_T))
    assert plain.advantage_T is not None
    assert taxed.advantage_T is not None
    ends = np.cumsum(batch.response_len_N)
    for start, end in zip(ends - batch.response_len_N, ends, strict=True):
        off = plain.advantage_T[start:end] - taxed.advantage_T[start:end]
        assert np.allclose(off, np.cumsum(penalty_T[start:end][::-1])[::-1])


def test_nothing_is_skipped_under_a_critic(groups: list[Group]) -> None:
    """A token whose advantage is 0 still teaches the critic."""
    learner = make_learner(tiny_policy(seed=0))
    batch = make_batch(groups, PRESETS["ppo"])
    batch = with_values(batch, learner.values_of(batch), PRESETS["ppo"])
    silent = Batch(**{**vars(batch), "advantage_N": np.zeros(len(batch)), "advantage_T": batch.advantage_T * 0})
    stats = learner.forward_backward(silent, PRESETS["ppo"])
    assert stats["coverage"] == 1
    assert stats["critic/loss"] > 0
    assert not flat_gradient(learner.model).any()
