"""Corrections of the mismatch between engine and learner: the weights, the mass that they remove, and their place."""

import dataclasses
from statistics import NormalDist

import numpy as np
import pytest
import torch
from enumerable import PROMPTS, Enumeration, flat_gradient, logprobs_of, make_learner, tiny_policy

from zerolab.datatypes import Group
from zerolab.learner.prepare import prepare
from zerolab.rl.loss import correction_weights, removed_mass
from zerolab.rl.objective import PRESETS, Objective

KINDS = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")


def corrected(kind: str, cap: float, preset: str = "dr_grpo") -> Objective:
    return Objective(**Objective.resolve({"preset": preset, "correction": kind, "correction_cap": cap}))


def by_hand(ratios: list[float], kind: str, cap: float) -> list[float]:
    """Plain loops: the weight of each token of one response."""
    if kind.startswith("sequence"):
        product = 1.0
        for ratio in ratios:
            product *= ratio
        ratios = [product] * len(ratios)
    return [r if r <= cap else (cap if kind.endswith("truncate") else 0.0) for r in ratios]


@pytest.fixture(scope="module")
def rollout() -> tuple[Enumeration, list[Group]]:
    """Sampled and recorded by an engine whose weights are a little off."""
    engine = tiny_policy()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in engine.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    behaviour, generator = Enumeration(engine, 2), np.random.default_rng(1)
    picks = {q: [behaviour.space[i] for i in generator.integers(0, len(behaviour.space), 6)] for q in PROMPTS}
    return behaviour, behaviour.groups(picks)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("micro_batch_tokens", [1, 1000])
def test_gradient_is_that_of_the_transcription(
    kind: str, micro_batch_tokens: int, rollout: tuple[Enumeration, list[Group]]
) -> None:
    """sum_i A_i w sum_t c_it r_it with pi_old of the learner, at pi = pi_old."""
    _, groups = rollout
    objective, model = corrected(kind, 1.15), tiny_policy()
    total, weights = torch.zeros((), dtype=torch.float64), []
    for group in groups:
        mean = group.rewards_G.mean()
        for completion, reward in zip(group.completions, group.rewards_G, strict=True):
            logps = logprobs_of(model, group.prompt.text, completion.token_ids_L.tolist())
            ratios = [float(x) for x in torch.exp(logps.detach() - torch.from_numpy(completion.logprobs_L))]
            weights.append(by_hand(ratios, kind, 1.15))
            total += (reward - mean) * sum(c * lp for c, lp in zip(weights[-1], logps, strict=True)) / 12 / 2
    total.backward()
    learner = make_learner(tiny_policy(), micro_batch_tokens, old_logprobs="learner")
    seen = prepare(groups, learner, objective)
    stats = learner.forward_backward(seen.batch, objective)
    assert np.allclose(seen.batch.correction_T, np.concatenate(weights), atol=1e-13)
    assert torch.allclose(-flat_gradient(learner.model), flat_gradient(model), atol=1e-14, rtol=1e-10)
    assert stats["mismatch_abs"] < 1e-13 < seen.metrics["mismatch/abs"]
    beyond = 1.15 if kind.endswith("truncate") else 0.0
    assert 0 < sum(w == beyond for row in weights for w in row) < sum(map(len, weights))


def test_token_weights_within_the_cap_are_the_ratio_of_the_engine(rollout: tuple[Enumeration, list[Group]]) -> None:
    """With a cap that never acts, pi_old / mu times pi / pi_old has the gradient of pi / mu, unclipped."""
    _, groups = rollout
    gradients = []
    for objective, old in ((corrected("token_truncate", 1e9, "rloo"), "learner"), (PRESETS["rloo"], "engine")):
        learner = make_learner(tiny_policy(), old_logprobs=old)
        learner.forward_backward(prepare(groups, learner, objective).batch, objective)
        gradients.append(flat_gradient(learner.model))
    assert torch.allclose(*gradients, atol=1e-14, rtol=1e-10)


def test_log_pi_old_of_the_learner_makes_the_first_ratio_one_and_keeps_the_mismatch_in_view(
    rollout: tuple[Enumeration, list[Group]],
) -> None:
    _, groups = rollout
    plain, own = (make_learner(tiny_policy(), old_logprobs=old) for old in ("engine", "learner"))
    batch = prepare(groups, plain, PRESETS["dr_grpo"]).batch
    everything = dataclasses.replace(batch, advantage_N=np.ones(len(batch)))
    by_learner = plain.forward_backward(everything, PRESETS["dr_grpo"])
    seen = prepare(groups, own, PRESETS["dr_grpo"])
    assert seen.batch.correction_T is None
    assert own.forward_backward(seen.batch, PRESETS["dr_grpo"])["clip_fraction"] == 0
    for name in ("abs", "k3"):
        assert seen.metrics[f"mismatch/{name}"] == pytest.approx(by_learner[f"mismatch_{name}"], rel=1e-10)


def noisy(lengths: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """(log pi_old, log mu) with E[pi_old / mu] = 1 for every token: log ratio normal with mean -sigma^2 / 2."""
    generator = np.random.default_rng(0)
    old_T = -generator.exponential(size=lengths.sum())
    return old_T, old_T - generator.normal(-(sigma**2) / 2, sigma, lengths.sum())


def kept(log_variance: float, cap: float, bound: str) -> float:
    """E[min(w, cap)] or E[w 1{w <= cap}] of a log-normal weight with mean 1."""
    s, normal = log_variance**0.5, NormalDist()
    inside = normal.cdf((np.log(cap) - log_variance / 2) / s)
    return inside + (cap * (1 - normal.cdf((np.log(cap) + log_variance / 2) / s)) if bound == "truncate" else 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_logged_mass_is_that_of_calibrated_noise(kind: str) -> None:
    """A product over the response loses mass with length (sigma 0.02, cap 3: a few per cent at 1k tokens, most at 8k);
    weights of tokens do not."""
    level, bound = kind.split("_")
    sizes, sigma, cap, count = (1000, 8000), 0.02 if level == "sequence" else 0.5, 3.0, 400
    lengths = np.repeat(sizes, count)
    old_T, sampled_T = noisy(lengths, sigma)
    seen = removed_mass(correction_weights(old_T, sampled_T, lengths, kind, cap), lengths, 8000)
    for size, name in zip(sizes, ("00-25", "75-100"), strict=True):
        truth = kept(sigma**2 * (size if level == "sequence" else 1), cap, bound)
        error = (1.5 if level == "sequence" else 0.6 / size**0.5) / count**0.5
        assert 1 - seen[f"mismatch/removed/{name}"] == pytest.approx(truth, abs=4 * error)
    assert np.isnan(seen["mismatch/removed/25-50"])
    if kind == "sequence_mask":
        assert 1 - kept(0.4, 3, "mask") == pytest.approx(1 - 0.92, abs=0.005)
        assert 1 - kept(3.2, 3, "mask") == pytest.approx(1 - 0.39, abs=0.005)
        assert seen["mismatch/removed/75-100"] > 0.4 > 0.2 > seen["mismatch/removed/00-25"]


def test_a_weight_beyond_floating_point_is_still_a_weight() -> None:
    old_T, sampled_T, lengths = np.zeros(3, np.float32), np.full(3, -1000, np.float32), np.array([3])
    for kind in KINDS:
        weight_T = correction_weights(old_T, sampled_T, lengths, kind, 2.0)
        assert weight_T.tolist() == [2.0 if kind.endswith("truncate") else 0.0] * 3
        assert weight_T.dtype == np.float32
