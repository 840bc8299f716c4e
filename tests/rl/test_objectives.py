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
from pydantic import ValidationError

from zerolab.errors import UserError
from zerolab.rl.batch import Batch, make_batch
from zerolab.rl.objective import PRESETS, Objective
from zerolab.types import Group

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
    "dapo": dapo,
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


@pytest.mark.parametrize("name", PRESETS)
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
    if PRESETS[name].clip == "ppo":
        assert 0 < stats["clip_fraction"] < 1


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
