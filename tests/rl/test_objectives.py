"""Every preset against a transcription of its source's equation, off-policy, so that ratio and clip are seen.

The transcriptions are written with plain loops over responses and tokens and share no code with the product.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from enumerable import (
    BUDGET,
    PROMPTS,
    Enumeration,
    flat_gradient,
    logprobs_of,
    make_learner,
    tiny_policy,
    with_reference,
)
from enumerable import reward as reward_of
from pydantic import ValidationError

from zerolab.datatypes import Group
from zerolab.errors import UserError
from zerolab.rl.batch import Batch, make_batch
from zerolab.rl.objective import PRESETS, Objective

# Questions, responses: (log pi, log pi_old, reward).
Terms = list[list[tuple[list[torch.Tensor], list[float], float]]]
REFERENCE = tiny_policy(seed=2)


def clipped(logp: torch.Tensor, old: float, advantage: float, low: float, high: float) -> torch.Tensor:
    ratio = torch.exp(logp - old)
    return torch.minimum(ratio * advantage, torch.clamp(ratio, 1 - low, 1 + high) * advantage)


def sample_std(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def group_advantages(responses: list, std: bool) -> list[float]:
    rewards = [r for _, _, r in responses]
    mean = sum(rewards) / len(rewards)
    return [(r - mean) / ((sample_std(rewards) + 1e-8) if std else 1.0) for r in rewards]


def grpo(questions: Terms, std: bool = True, length: bool = True) -> torch.Tensor:
    """2402.03300 eq. 3 with beta = 0; 2503.20783 takes the two coloured terms (std, 1/|o|) away."""
    total = torch.zeros((), dtype=torch.float64)
    for responses in questions:
        for (logps, olds, _), advantage in zip(responses, group_advantages(responses, std), strict=True):
            for logp, old in zip(logps, olds, strict=True):
                token = clipped(logp, old, advantage, 0.2, 0.2)
                total += token / (len(logps) if length else BUDGET) / len(responses) / len(questions)
    return total


def grpo_kl(questions: Terms, references: list[list[list[float]]]) -> torch.Tensor:
    """2402.03300 eq. 3 and 4 with beta = 0.04: the KL estimate of a token stands beside its surrogate."""
    total = grpo(questions)
    for responses, refs in zip(questions, references, strict=True):
        for (logps, _, _), ref_logps in zip(responses, refs, strict=True):
            for logp, ref in zip(logps, ref_logps, strict=True):
                x = torch.exp(ref - logp)
                total = total - 0.04 * (x - torch.log(x) - 1) / len(logps) / len(responses) / len(questions)
    return total


def dapo(questions: Terms) -> torch.Tensor:
    """2503.14476 eq. 8, with the sum over tokens taken over the whole optimizer step."""
    count = sum(len(logps) for responses in questions for logps, _, _ in responses)
    total = torch.zeros((), dtype=torch.float64)
    for responses in questions:
        for (logps, olds, _), advantage in zip(responses, group_advantages(responses, True), strict=True):
            for logp, old in zip(logps, olds, strict=True):
                total += clipped(logp, old, advantage, 0.2, 0.28) / count
    return total


def importance_weighted(questions: Terms, leave_one_out: bool) -> torch.Tensor:
    """REINFORCE, or RLOO (2402.14740 eq. 8): mean over responses of (R - baseline) sum_t pi/pi_old, over L_max."""
    total = torch.zeros((), dtype=torch.float64)
    for responses in questions:
        for i, (logps, olds, reward) in enumerate(responses):
            others = [r for j, (_, _, r) in enumerate(responses) if j != i]
            baseline = sum(others) / len(others) if leave_one_out else 0.0
            ratios = sum(torch.exp(logp - old) for logp, old in zip(logps, olds, strict=True))
            total += (reward - baseline) * ratios / BUDGET / len(responses) / len(questions)
    return total


def remax(questions: Terms) -> torch.Tensor:
    """2310.10505 algorithm 1 with an importance ratio: (R - R of the greedy response) sum_t pi/pi_old, over L_max."""
    greedy = [reward_of(q, o) for q, o in Enumeration(tiny_policy(seed=1), 2).greedy.items()]
    total = torch.zeros((), dtype=torch.float64)
    for responses, baseline in zip(questions, greedy, strict=True):
        for logps, olds, earned in responses:
            ratios = sum(torch.exp(logp - old) for logp, old in zip(logps, olds, strict=True))
            total += (earned - baseline) * ratios / BUDGET / len(responses) / len(questions)
    return total


def batch_scaled(questions: Terms, of_centred: bool) -> torch.Tensor:
    """Token mean of PPO's clip; REINFORCE++-baseline (2501.03262) or Lite PPO (2508.08221)."""
    count = sum(len(logps) for responses in questions for logps, _, _ in responses)
    centred = [group_advantages(responses, std=False) for responses in questions]
    rewards = [r for responses in questions for _, _, r in responses]
    if of_centred:
        values = [a for group in centred for a in group]
        mean = sum(values) / len(values)
        std = math.sqrt(sum((a - mean) ** 2 for a in values) / len(values))
        centred = [[a - mean for a in group] for group in centred]
    else:
        std = sample_std(rewards)
    total = torch.zeros((), dtype=torch.float64)
    for responses, advantages in zip(questions, centred, strict=True):
        for (logps, olds, _), advantage in zip(responses, advantages, strict=True):
            for logp, old in zip(logps, olds, strict=True):
                total += clipped(logp, old, advantage / (std + 1e-8), 0.2, 0.2) / count
    return total


def gspo(questions: Terms, times_length: bool = False) -> torch.Tensor:
    """2507.18071 eq. 5 and 7; 2602.05261 multiplies by the length (here over L_max)."""
    total = torch.zeros((), dtype=torch.float64)
    for responses in questions:
        for (logps, olds, _), advantage in zip(responses, group_advantages(responses, True), strict=True):
            log_s = sum(logp - old for logp, old in zip(logps, olds, strict=True)) / len(logps)
            term = clipped(log_s, 0.0, advantage, 3e-4, 4e-4) / len(responses) / len(questions)
            total += term * len(logps) / BUDGET if times_length else term
    return total


def cispo(questions: Terms, bound: float = 5.0) -> torch.Tensor:
    """2506.13585 eq. 4 and 5 without the lower bound."""
    count = sum(len(logps) for responses in questions for logps, _, _ in responses)
    total = torch.zeros((), dtype=torch.float64)
    for responses in questions:
        for (logps, olds, _), advantage in zip(responses, group_advantages(responses, True), strict=True):
            for logp, old in zip(logps, olds, strict=True):
                total += min(math.exp(float(logp.detach()) - old), bound) * advantage * logp / count
    return total


def maxrl(questions: Terms) -> torch.Tensor:
    """2602.02710: (R - mean) / mean; PPO's clip and the constant are ours."""
    total = torch.zeros((), dtype=torch.float64)
    for responses in questions:
        mean = sum(r for _, _, r in responses) / len(responses)
        for logps, olds, reward in responses:
            for logp, old in zip(logps, olds, strict=True):
                token = clipped(logp, old, (reward - mean) / mean, 0.2, 0.2)
                total += token / BUDGET / len(responses) / len(questions)
    return total


def dppo(questions: Terms, delta: float = 0.15) -> torch.Tensor:
    """2602.04879: no gradient where the probability has moved by more than delta the way the advantage points."""
    total = torch.zeros((), dtype=torch.float64)
    for responses in questions:
        for (logps, olds, _), advantage in zip(responses, group_advantages(responses, False), strict=True):
            for logp, old in zip(logps, olds, strict=True):
                moved = math.exp(float(logp.detach())) - math.exp(old)
                if moved * advantage <= 0 or abs(moved) <= delta:
                    total += torch.exp(logp - old) * advantage / BUDGET / len(responses) / len(questions)
    return total


def cross_entropy(questions: Terms) -> torch.Tensor:
    tokens = [(logp, reward) for responses in questions for logps, _, reward in responses for logp in logps]
    return sum(logp * reward for logp, reward in tokens) / len(tokens)


TRANSCRIPTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "reinforce": lambda q: importance_weighted(q, leave_one_out=False),
    "dr_grpo": lambda q: grpo(q, std=False, length=False),
    "grpo": grpo,
    "grpo_kl": grpo_kl,
    "grpo_length_fix": lambda q: grpo(q, length=False),
    "grpo_std_fix": lambda q: grpo(q, std=False),
    "rloo": lambda q: importance_weighted(q, leave_one_out=True),
    "remax": remax,
    "dapo": dapo,
    "reinforce_pp_baseline": lambda q: batch_scaled(q, of_centred=True),
    "lite_ppo": lambda q: batch_scaled(q, of_centred=False),
    "gspo": gspo,
    "luspo": lambda q: gspo(q, times_length=True),
    "cispo": cispo,
    "maxrl": maxrl,
    "dppo": dppo,
    "cross_entropy": cross_entropy,
}


@pytest.fixture(scope="module")
def rollout() -> tuple[Enumeration, list[Group]]:
    """Two mixed groups sampled under one policy, to be learned under another."""
    behaviour = Enumeration(tiny_policy(seed=1), 2)
    generator = np.random.default_rng(3)
    picks = {q: [behaviour.space[i] for i in generator.integers(0, len(behaviour.space), 6)] for q in PROMPTS}
    groups = behaviour.groups(picks)
    assert all(np.ptp(g.rewards_G) > 0 for g in groups)
    return behaviour, groups


def terms(model: torch.nn.Module, groups: list[Group]) -> Terms:
    return [
        [
            (list(logprobs_of(model, g.prompt.text, tuple(c.token_ids_L.tolist()))), c.logprobs_L.tolist(), r)
            for c, r in zip(g.completions, g.rewards_G, strict=True)
        ]
        for g in groups
    ]


@pytest.mark.parametrize("name", [name for name, row in PRESETS.items() if not row.needs_critic])  # test_ppo.py
def test_loss_and_gradient_are_those_of_the_transcribed_equation(
    name: str, rollout: tuple[Enumeration, list[Group]]
) -> None:
    _, groups = rollout
    model = tiny_policy(seed=0)
    references = [
        [[float(x.detach()) for x in logps] for logps, _, _ in responses] for responses in terms(REFERENCE, groups)
    ]
    more = [references] if PRESETS[name].kl else []
    value = TRANSCRIPTIONS[name](terms(model, groups), *more)
    value.backward()
    expected = flat_gradient(model).clone()
    model.zero_grad(set_to_none=False)
    batch = with_reference(make_batch(groups, PRESETS[name]), REFERENCE)
    stats = make_learner(model).forward_backward(batch, PRESETS[name])
    assert stats["loss"] == pytest.approx(-value.item(), rel=1e-12)
    assert torch.allclose(-flat_gradient(model), expected, atol=1e-13, rtol=1e-10)
    if PRESETS[name].clip in ("ppo", "probability"):
        assert 0 < stats["clip_fraction"] < 1


def test_bounds_of_cispo_and_dppo_that_really_act(rollout: tuple[Enumeration, list[Group]]) -> None:
    """Beyond the bound cispo keeps a gradient of constant weight, dppo has none."""
    _, groups = rollout
    for name, changes, equation in (
        ("cispo", {"clip_high": 0.05}, lambda q: cispo(q, bound=1.05)),
        ("dppo", {"clip_low": 0.02, "clip_high": 0.02}, lambda q: dppo(q, delta=0.02)),
    ):
        objective = Objective(**Objective.resolve({"preset": name, **changes}))
        model, learner = tiny_policy(seed=0), make_learner(tiny_policy(seed=0))
        value = equation(terms(model, groups))
        value.backward()
        stats = learner.forward_backward(make_batch(groups, objective), objective)
        assert 0.1 < stats["clip_fraction"] < 1
        assert stats["loss"] == pytest.approx(-value.item(), rel=1e-12)
        assert torch.allclose(-flat_gradient(learner.model), flat_gradient(model), atol=1e-13, rtol=1e-10)


def test_rloo_is_dr_grpo_times_g_over_g_minus_1_on_policy(rollout: tuple[Enumeration, list[Group]]) -> None:
    _, groups = rollout
    dr_grpo, rloo = (make_batch(groups, PRESETS[name]).advantage_N for name in ("dr_grpo", "rloo"))
    assert np.allclose(rloo, dr_grpo * 6 / 5, rtol=1e-15)


def test_a_response_with_advantage_zero_changes_no_gradient_but_its_length_counts(
    rollout: tuple[Enumeration, list[Group]],
) -> None:
    """The learner skips it; the denominators do not."""
    behaviour, groups = rollout
    same = behaviour.groups({"easy": [(1, 0)] * 6})[0]
    for name in ("dr_grpo", "grpo", "dapo"):
        learner = make_learner(tiny_policy(seed=0))
        stats = learner.forward_backward(make_batch([*groups, same], PRESETS[name]), PRESETS[name])
        model = tiny_policy(seed=0)
        naive = TRANSCRIPTIONS[name]([*terms(model, groups), *terms(model, [same])])
        naive.backward()
        assert stats["tokens"] < sum(len(c) for g in [*groups, same] for c in g.completions)
        assert torch.allclose(-flat_gradient(learner.model), flat_gradient(model), atol=1e-13, rtol=1e-10)


def test_detached_old_logprobs_make_every_ratio_one(rollout: tuple[Enumeration, list[Group]]) -> None:
    """Strictly on-policy: the gradient is sum of coefficient times score, whatever the engine recorded."""
    _, groups = rollout
    batch = make_batch(groups, PRESETS["dr_grpo"])
    recorded = make_learner(tiny_policy(seed=0))
    recorded.forward_backward(batch, PRESETS["dr_grpo"])
    detached = make_learner(tiny_policy(seed=0), old_logprobs="detach")
    stats = detached.forward_backward(batch, PRESETS["dr_grpo"])
    model = tiny_policy(seed=0)
    value = sum(
        a * sum(logps) / BUDGET / len(batch)
        for responses in terms(model, groups)
        for (logps, _, _), a in zip(responses, group_advantages(responses, std=False), strict=True)
    )
    value.backward()
    assert stats["clip_fraction"] == 0
    assert torch.allclose(-flat_gradient(detached.model), flat_gradient(model), atol=1e-13)
    assert not torch.allclose(flat_gradient(recorded.model), flat_gradient(detached.model), atol=1e-6)


def test_chunked_logits_give_the_same_gradient(rollout: tuple[Enumeration, list[Group]]) -> None:
    _, groups = rollout
    batch: Batch = make_batch(groups, PRESETS["grpo"])
    whole, chunked = make_learner(tiny_policy()), make_learner(tiny_policy())
    chunked.policy.chunk_rows = 3
    losses = [learner.forward_backward(batch, PRESETS["grpo"]) for learner in (whole, chunked)]
    assert losses[0]["entropy"] == pytest.approx(losses[1]["entropy"], rel=1e-12)
    assert torch.allclose(flat_gradient(whole.model), flat_gradient(chunked.model), atol=1e-15, rtol=1e-10)


def test_a_row_with_a_coordinate_left_out_or_an_illegal_mix_is_refused() -> None:
    full = PRESETS["grpo"].model_dump()
    for key in full:
        with pytest.raises(ValidationError, match=key):
            Objective(**{k: v for k, v in full.items() if k != key})
    for change in ({"std_epsilon": None}, {"clip_low": None}, {"ratio": "none"}, {"baseline": "none"}):
        with pytest.raises(ValidationError, match="objective"):
            Objective(**{**full, **change})


def test_changing_a_coordinate_of_a_preset_shows_in_its_name_and_formula() -> None:
    changed = Objective(**Objective.resolve({"preset": "dapo", "clip_high": 0.4}))
    assert changed.name == "dapo+"
    assert "clip(r_it, 0.8, 1.4)" in changed.formula()
    assert len({row.formula() for row in PRESETS.values()}) == len(PRESETS)
    with pytest.raises((ValueError, UserError), match="dr_grpo"):
        Objective.resolve("dr-grpo")


def test_scales_over_the_rollout_look_at_all_groups_and_leave_silent_ones_exactly_silent(
    rollout: tuple[Enumeration, list[Group]],
) -> None:
    behaviour, groups = rollout
    same = behaviour.groups({"easy": [(1, 0)] * 6})
    for name in ("lite_ppo", "reinforce_pp_baseline"):
        alone, joined, silent = (
            make_batch(chosen, PRESETS[name]).advantage_N for chosen in (groups, [*groups, *same], same)
        )
        assert joined[-6:].tolist() == silent.tolist() == [0] * 6
        assert np.ptp(joined[:-6][alone != 0] / alone[alone != 0]) < 1e-12
        assert not np.allclose(joined[:-6], alone, rtol=1e-3)


def test_maxrl_has_no_signal_where_nothing_is_right(rollout: tuple[Enumeration, list[Group]]) -> None:
    behaviour, _ = rollout
    wrong = next(o for o in behaviour.space if not behaviour.groups({"hard": [o]})[0].rewards_G.any())
    assert make_batch(behaviour.groups({"hard": [wrong] * 3}), PRESETS["maxrl"]).advantage_N.tolist() == [0] * 3
