"""Terms beside the surrogate, against transcriptions by autograd through transformers' own forward (float64)."""

import numpy as np
import pytest
import torch
from enumerable import BUDGET, PROMPTS, Enumeration, flat_gradient, logits_of, make_learner, tiny_policy
from torch import nn

from zerolab.rl.batch import Batch, make_batch
from zerolab.rl.logprobs import token_logprobs
from zerolab.rl.objective import PRESETS, Objective


@pytest.fixture(scope="module")
def enumeration() -> Enumeration:
    return Enumeration(tiny_policy(), 2)


def changed(name: str, **coordinates: object) -> Objective:
    return Objective(**Objective.resolve({"preset": name, **coordinates}))


def sampled(enumeration: Enumeration, objective: Objective) -> tuple[list[tuple[str, tuple[int, ...]]], Batch]:
    """Six responses to each question, and six equal ones (advantage 0) to one of them."""
    generator = np.random.default_rng(0)
    picks = {q: [enumeration.space[i] for i in generator.integers(0, len(enumeration.space), 6)] for q in PROMPTS}
    same = enumeration.groups({"easy": [(1, 0)] * 6})
    rows = [(q, o) for q, chosen in picks.items() for o in chosen] + [("easy", (1, 0))] * 6
    return rows, make_batch([*enumeration.groups(picks), *same], objective)


def added(batch: Batch, objective: Objective, plain: Objective, **limits: int) -> torch.Tensor:
    """What the objective's extra term adds to the production gradient (ascent)."""
    gradients = []
    for chosen in (objective, plain):
        learner = make_learner(tiny_policy(), **limits)
        learner.forward_backward(batch, chosen)
        gradients.append(-flat_gradient(learner.model))
    return gradients[0] - gradients[1]


@pytest.mark.parametrize("name", ["dr_grpo", "grpo", "dapo"])
@pytest.mark.parametrize("chunk_rows", [1, 3, 1000])
def test_the_entropy_bonus_is_that_of_autograd_under_the_same_weights(
    enumeration: Enumeration, name: str, chunk_rows: int
) -> None:
    """Every response counts, those of advantage 0 too; weights are those of the aggregation."""
    objective = changed(name, entropy=0.3)
    rows, batch = sampled(enumeration, objective)
    model = tiny_policy()
    total = torch.zeros((), dtype=torch.float64)
    tokens = sum(len(o) for _, o in rows)
    for prompt, response in rows:
        weight = {"dr_grpo": len(rows) * BUDGET, "grpo": len(rows) * len(response), "dapo": tokens}[name]
        for logits in logits_of(model, prompt, response):
            total += 0.3 * torch.distributions.Categorical(logits=logits).entropy() / weight
    total.backward()
    learner = make_learner(tiny_policy(), micro_batch_tokens=20)
    learner.policy.chunk_rows = chunk_rows
    stats = learner.forward_backward(batch, objective)
    whole = -flat_gradient(learner.model)
    plain = make_learner(tiny_policy())
    without = plain.forward_backward(batch, PRESETS[name])
    assert torch.allclose(whole + flat_gradient(plain.model), flat_gradient(model), atol=1e-14, rtol=1e-10)
    assert without["loss"] - stats["loss"] == pytest.approx(total.item(), rel=1e-12)
    assert (stats["coverage"], without["coverage"] < 1) == (1, True)


def test_the_entropy_bonus_is_the_same_however_the_step_is_cut(enumeration: Enumeration) -> None:
    objective = changed("dapo", entropy=0.3)
    _, batch = sampled(enumeration, objective)
    whole = added(batch, objective, PRESETS["dapo"])
    assert whole.norm() > 1e-3
    for tokens in (1, 8, 13):
        assert (added(batch, objective, PRESETS["dapo"], micro_batch_tokens=tokens) - whole).norm() < 1e-14


@pytest.mark.parametrize("chunk_rows", [2, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_gradients_of_logprobs_and_entropy_pass_a_finite_difference_check(chunk_rows: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    head = nn.Linear(3, 6).double()
    targets = torch.tensor([0, 1, 5, 2, 2])

    def both(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        layer = nn.Linear(3, 6).double()
        del layer.weight, layer.bias
        layer.weight, layer.bias = weight, bias
        return token_logprobs(hidden, layer.weight, layer.bias, targets, temperature, chunk_rows, entropy_gradient=True)

    weight, bias = (p.detach().clone().requires_grad_() for p in head.parameters())
    assert torch.autograd.gradcheck(both, (hidden, weight, bias))


def test_a_token_that_cannot_be_sampled_leaves_the_entropy_gradient_finite() -> None:
    for chunk_rows in (1, 100):
        head = nn.Linear(2, 3).double()
        with torch.no_grad():
            head.bias[2] = -torch.inf
        hidden = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
        _, entropy_T = token_logprobs(
            hidden, head.weight, head.bias, torch.tensor([0, 1]), 1.0, chunk_rows, entropy_gradient=True
        )
        entropy_T.sum().backward()
        assert torch.isfinite(entropy_T).all()
        assert torch.isfinite(hidden.grad).all()
        assert hidden.grad.abs().sum() > 0


def test_without_a_bonus_the_entropy_carries_no_gradient() -> None:
    hidden, head = torch.randn(4, 3, requires_grad=True), nn.Linear(3, 5)
    for chunk_rows in (1, 100):
        assert not token_logprobs(hidden, head.weight, head.bias, torch.arange(4), 1.0, chunk_rows)[1].requires_grad
