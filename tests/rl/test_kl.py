"""The KL to a reference policy: what each estimator at each place does to the expected gradient, by enumeration.

Rewards are zero here, so a production gradient is that of the KL term alone. Its mean over all responses is compared
with gradients of the divergences themselves, written out over the whole response space and left to autograd.
"""

import dataclasses

import numpy as np
import pytest
import torch
from enumerable import (
    BUDGET,
    PROMPTS,
    Enumeration,
    cosine,
    flat_gradient,
    logits_of,
    logprobs_of,
    make_learner,
    production_gradient,
    tiny_policy,
    with_reference,
)
from pydantic import ValidationError

from zerolab.datatypes import Group
from zerolab.learner.prepare import prepare
from zerolab.rl.batch import make_batch
from zerolab.rl.loss import penalised
from zerolab.rl.objective import PRESETS, Objective


@pytest.fixture(scope="module", params=[1, 2], ids=["bandit", "two-step"])
def enumeration(request: pytest.FixtureRequest) -> Enumeration:
    return Enumeration(tiny_policy(), request.param)


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    return tiny_policy(seed=2)


def only_kl(estimator: str, place: str) -> Objective:
    """Not validated: the refused mixes are measured too."""
    return PRESETS["reinforce"].model_copy(update={"kl": 1.0, "kl_estimator": estimator, "kl_place": place})


def unpaid(enumeration: Enumeration, prompt: str, response: tuple[int, ...]) -> list[Group]:
    (group,) = enumeration.groups({prompt: [response]})
    return [dataclasses.replace(group, rewards_G=np.zeros(1))]


def expected(enumeration: Enumeration, reference: torch.nn.Module, estimator: str, place: str) -> torch.Tensor:
    """sum over o of pi(o) times the production gradient of the one response o; descent direction of the KL."""
    total, objective = 0.0, only_kl(estimator, place)
    for (prompt, response), probability in enumeration.probability.items():
        groups = unpaid(enumeration, prompt, response)
        if place == "reward":
            logprobs_L, ref_L = (logprobs_of(m, prompt, response).detach() for m in (enumeration.model, reference))
            # The refused estimators too: the penalty is whatever the estimator sums to.
            difference_L = (logprobs_L - ref_L).numpy()
            kinds = {"k1": difference_L, "k2": difference_L**2 / 2, "k3": np.exp(-difference_L) - 1 + difference_L}
            batch = make_batch(penalised(groups, kinds[estimator].sum(keepdims=True), 1.0), objective)
        else:
            batch = with_reference(make_batch(groups, objective), reference)
        total = total + probability * production_gradient(enumeration.model, batch, objective) * BUDGET
    return -total / len(PROMPTS)


def divergence(enumeration: Enumeration, reference: torch.nn.Module, kind: str) -> torch.Tensor:
    """Gradient of the reverse KL of whole responses, or of a KL of the next token at the states that pi visits."""
    model, total = enumeration.model, torch.zeros((), dtype=torch.float64)
    model.zero_grad()
    for prompt in PROMPTS:
        for response in enumeration.space:
            logp = logprobs_of(model, prompt, response).sum()
            if kind == "sequence":
                total += logp.exp() * (logp - logprobs_of(reference, prompt, response).sum().detach())
                continue
            p_LV, ref_LV = (logits_of(m, prompt, response).log_softmax(-1) for m in (model, reference))
            ref_LV = ref_LV.detach()
            local_L = (p_LV.exp() * (p_LV - ref_LV) if kind == "reverse" else ref_LV.exp() * (ref_LV - p_LV)).sum(-1)
            total += logp.exp().detach() * local_L.sum()
    (total / len(PROMPTS)).backward()
    gradient = flat_gradient(model).clone()
    model.zero_grad(set_to_none=False)
    return gradient


def test_k1_in_the_reward_is_the_reverse_kl_of_whole_responses(
    enumeration: Enumeration, reference: torch.nn.Module
) -> None:
    truth = divergence(enumeration, reference, "sequence")
    assert torch.allclose(expected(enumeration, reference, "k1", "reward"), truth, atol=1e-12, rtol=1e-9)


def test_k2_in_the_loss_is_the_local_reverse_and_k3_the_local_forward_kl(
    enumeration: Enumeration, reference: torch.nn.Module
) -> None:
    reverse, forward = (divergence(enumeration, reference, kind) for kind in ("reverse", "forward"))
    assert torch.allclose(expected(enumeration, reference, "k2", "loss"), reverse, atol=1e-12, rtol=1e-9)
    assert torch.allclose(expected(enumeration, reference, "k3", "loss"), forward, atol=1e-12, rtol=1e-9)
    assert cosine(reverse, forward) < 0.999


def test_local_and_sequence_kl_differ_only_where_there_are_later_states(
    enumeration: Enumeration, reference: torch.nn.Module
) -> None:
    sequence, local = (divergence(enumeration, reference, kind) for kind in ("sequence", "reverse"))
    bandit = len({len(o) for o in enumeration.space}) == 1
    assert torch.allclose(sequence, local, atol=1e-14) == bandit


def test_the_refused_mixes_follow_no_kl(enumeration: Enumeration, reference: torch.nn.Module) -> None:
    """k1 in the loss: zero. k3 in the reward, one token: grad RKL - grad FKL. k2 in the reward: another direction."""
    sequence = divergence(enumeration, reference, "sequence")
    assert expected(enumeration, reference, "k1", "loss").abs().max() < 1e-13 < sequence.abs().max()
    assert cosine(expected(enumeration, reference, "k2", "reward"), sequence) < 0.95
    k3 = expected(enumeration, reference, "k3", "reward")
    assert cosine(k3, sequence) < 0.95
    if len({len(o) for o in enumeration.space}) == 1:
        assert torch.allclose(k3, sequence - divergence(enumeration, reference, "forward"), atol=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kl": 0.1, "kl_estimator": "k1", "kl_place": "loss"}, "expected gradient of zero"),
        ({"kl": 0.1, "kl_estimator": "k2", "kl_place": "reward"}, "follows no KL"),
        ({"kl": 0.1, "kl_estimator": "k3", "kl_place": "reward"}, "follows no KL"),
        ({"kl": 0.1}, "set all or none"),
        ({"kl_place": "loss", "kl_estimator": "k3"}, "set all or none"),
        ({"kl": -0.1, "kl_estimator": "k3", "kl_place": "loss"}, "greater than or equal"),
    ],
)
def test_illegal_mixes_are_refused_with_the_reason(change: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Objective(**Objective.resolve({"preset": "dr_grpo", **change}))


def rollout(seed: int = 0) -> tuple[Enumeration, list[Group]]:
    behaviour = Enumeration(tiny_policy(), 2)
    generator = np.random.default_rng(seed)
    picks = {q: [behaviour.space[i] for i in generator.integers(0, len(behaviour.space), 6)] for q in PROMPTS}
    return behaviour, behaviour.groups(picks)


def moved_learner(reference: bool) -> object:
    """A learner whose weights have left those that it began with."""
    learner = make_learner(tiny_policy(seed=2), reference=reference)
    learner.model.load_state_dict(tiny_policy().state_dict())
    return learner


def test_a_penalty_in_the_reward_is_taken_off_before_the_advantages_and_shown_as_a_part() -> None:
    _, groups = rollout()
    groups[1] = dataclasses.replace(groups[1], loss_mask_G=np.arange(6) != 2)
    objective = Objective(
        **Objective.resolve({"preset": "dr_grpo", "kl": 0.1, "kl_estimator": "k1", "kl_place": "reward"})
    )
    learner = moved_learner(reference=True)
    seen = prepare(groups, learner, objective)
    frozen, advantages, sums = tiny_policy(seed=2), [], []
    for group in groups:
        entering = range(6) if group.loss_mask_G is None else np.flatnonzero(group.loss_mask_G)
        kls = [
            float(sum(group.completions[i].logprobs_L))
            - float(logprobs_of(frozen, group.prompt.text, group.completions[i].token_ids_L.tolist()).sum().detach())
            for i in entering
        ]
        rewards = [group.rewards_G[i] - 0.1 * kl for i, kl in zip(entering, kls, strict=True)]
        advantages += [r - sum(rewards) / len(rewards) for r in rewards]
        sums += kls
    assert np.allclose(seen.batch.advantage_N, advantages, atol=1e-13)
    assert seen.metrics["kl/response"] == pytest.approx(np.mean(sums))
    for group in seen.groups:
        before = next(g.rewards_G for g in groups if g.prompt is group.prompt)
        assert np.allclose(before + group.parts_G["kl"], group.rewards_G)
    assert seen.groups[1].parts_G["kl"][2] == 0
    assert seen.batch.ref_logprobs_T is None


@pytest.mark.parametrize("place", ["reward", "loss"])
def test_the_kl_is_taken_from_the_log_pi_old_of_the_update(place: str) -> None:
    """An engine that is off by 0.25 a token moves the KL under old_logprobs = "engine" alone."""
    _, groups = rollout()
    shifted = [
        dataclasses.replace(
            g, completions=tuple(dataclasses.replace(c, logprobs_L=c.logprobs_L - 0.25) for c in g.completions)
        )
        for g in groups
    ]
    estimator = "k1" if place == "reward" else "k3"
    objective = Objective(
        **Objective.resolve({"preset": "dr_grpo", "kl": 0.1, "kl_estimator": estimator, "kl_place": place})
    )
    found = {}
    for source in ("engine", "learner"):
        learner = make_learner(tiny_policy(seed=2), reference=True, old_logprobs=source)
        learner.model.load_state_dict(tiny_policy().state_dict())
        found[source] = prepare(groups, learner, objective), prepare(shifted, learner, objective)
    (exact, off), (_, mended) = found["engine"], found["learner"]
    tokens = exact.batch.response_len_N.mean()
    assert off.metrics["kl/response"] == pytest.approx(exact.metrics["kl/response"] - 0.25 * tokens)
    assert mended.metrics["kl/response"] == pytest.approx(exact.metrics["kl/response"], abs=1e-9)
    assert np.allclose(mended.batch.advantage_N, exact.batch.advantage_N, atol=1e-9)
    assert np.allclose(mended.batch.old_logprobs_T, exact.batch.old_logprobs_T, atol=1e-9)


def test_the_reference_is_the_policy_that_the_learner_began_with() -> None:
    _, groups = rollout()
    learner = moved_learner(reference=True)
    batch = prepare(groups, learner, PRESETS["grpo_kl"]).batch
    assert np.allclose(batch.ref_logprobs_T, with_reference(batch, tiny_policy(seed=2)).ref_logprobs_T, atol=1e-13)
    learner.forward_backward(batch, PRESETS["grpo_kl"])
    learner.optim_step()
    assert np.array_equal(learner.reference_logprobs_of(batch), batch.ref_logprobs_T)
    assert not np.allclose(learner.logprobs_of(batch), batch.old_logprobs_T, atol=1e-6)


def test_an_objective_that_asks_for_nothing_costs_no_forward_pass() -> None:
    _, groups = rollout()
    learner = make_learner(tiny_policy())
    learner.policy.logprobs = None  # any pass would fail
    assert prepare(groups, learner, PRESETS["grpo"]).metrics == {}


def test_a_kl_in_the_loss_is_the_same_however_the_step_is_cut(reference: torch.nn.Module) -> None:
    (behaviour, groups), name = rollout(), "grpo_kl"
    same = behaviour.groups({"easy": [(1, 0)] * 6})
    batch = with_reference(make_batch([*groups, *same], PRESETS[name]), reference)
    whole = production_gradient(behaviour.model, batch, PRESETS[name])
    for tokens in (1, 8, 13):
        split = production_gradient(behaviour.model, batch, PRESETS[name], micro_batch_tokens=tokens)
        assert (split - whole).norm() / whole.norm() < 1e-13
    parts = [make_learner(behaviour.model), make_learner(behaviour.model)]
    total = torch.zeros_like(whole)
    for rank, learner in enumerate(parts):
        learner.model.zero_grad(set_to_none=False)
        learner.forward_backward(batch, PRESETS[name], rows=np.arange(rank, len(batch), 2))
        total -= flat_gradient(learner.model)
    assert (total - whole).norm() / whole.norm() < 1e-13
