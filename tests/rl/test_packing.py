"""Documents in one row: the loss and the gradient are those of each document alone."""

import numpy as np
import pytest
import torch

from tiny_models import FAMILIES, tiny_model
from zerolab.config import LearnerConfig
from zerolab.errors import UserError
from zerolab.learner.learner import Learner
from zerolab.models import hf
from zerolab.rl.batch import best_fit, packed_micro_batches
from zerolab.rl.objective import PRESETS
from zerolab.worlds.base_model import as_batch

OBJECTIVE = PRESETS["cross_entropy"]
SAME = 1e-6  # of the largest element: some families compute a softmax or a norm in fp32 whatever the model's type


def documents(count: int = 14, longest: int = 40, seed: int = 0) -> list[tuple[np.ndarray, int]]:
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        length = int(generator.integers(2, longest))
        made.append((generator.integers(2, 150, length), int(generator.integers(1, length))))
    return made


def make_learner(family: str, packing: int, micro_batch_tokens: int = 16384, **changes: object) -> Learner:
    config = LearnerConfig(old_logprobs="detach", micro_batch_tokens=micro_batch_tokens, share_prompts="off")
    learner = Learner(tiny_model(family, **changes).double(), config, budget=64, total_steps=1)
    learner.policy.enable_packing(packing)
    return learner


def gradient(learner: Learner) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in learner.model.parameters() if p.grad is not None])


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_loss_and_gradient_are_those_of_the_documents_alone(family: str) -> None:
    """Alone: a forward and backward pass for each document, weighted by its learned tokens."""
    texts = documents()
    packed = make_learner(family, packing=64, micro_batch_tokens=150)
    stats = packed.forward_backward(as_batch(texts), OBJECTIVE)
    model = tiny_model(family).double()
    total, tokens = torch.zeros((), dtype=torch.float64), sum(len(ids) - n for ids, n in texts)
    for ids, prompt in texts:
        logits = model(torch.from_numpy(ids)[None, :-1]).logits[0, prompt - 1 :]
        total = total + torch.nn.functional.cross_entropy(logits, torch.from_numpy(ids)[prompt:], reduction="sum")
    (total / tokens).backward()
    alone = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert stats["nll"] == pytest.approx(float(total.detach()) / tokens, rel=1e-7)
    assert stats["loss"] == pytest.approx(float(total.detach()) / tokens, rel=1e-7)
    assert (gradient(packed) - alone).abs().max() < SAME * alone.abs().max()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_neither_width_nor_micro_batch_nor_attention_changes_the_gradient(attention: str) -> None:
    batch = as_batch(documents())
    expected = make_learner("qwen2", packing=0)
    expected.forward_backward(batch, OBJECTIVE)
    for width, budget in ((41, 41), (64, 1), (200, 16384), (2000, 64)):
        made = make_learner("qwen2", width, budget, attn_implementation=attention)
        made.forward_backward(batch, OBJECTIVE)
        assert (gradient(made) - gradient(expected)).abs().max() < SAME * gradient(expected).abs().max()


def test_a_document_does_not_see_its_neighbours() -> None:
    """Other tokens in all documents but one leave the log-probabilities of that one alone."""
    texts = documents(6)
    learner = make_learner("qwen2", packing=256)
    before = learner.logprobs_of(as_batch(texts))
    changed = [(ids, n) if i == 3 else ((ids + 1) % 150 + 2, n) for i, (ids, n) in enumerate(texts)]
    after = learner.logprobs_of(as_batch(changed))
    start = sum(len(ids) - n for ids, n in texts[:3])
    end = start + len(texts[3][0]) - texts[3][1]
    assert np.allclose(before[start:end], after[start:end], atol=1e-12)
    assert abs(before[:start] - after[:start]).min() > 1e-6


def test_lines_hold_every_row_once_and_little_is_left_empty() -> None:
    lengths = np.random.default_rng(0).integers(20, 400, 300)
    lines = best_fit(lengths, 512)
    assert sorted(np.concatenate(lines).tolist()) == list(range(300))
    assert all(lengths[line].sum() <= 512 for line in lines)
    assert len(lines) <= np.ceil(lengths.sum() / 512) * 1.05
    assert best_fit(np.array([600, 10]), 512)[0].tolist() == [0]  # longer than a line: a line of its own


def test_a_packed_row_holds_the_documents_as_they_are() -> None:
    texts = documents()
    for micro in packed_micro_batches(as_batch(texts), np.arange(len(texts)), 150, 64):
        assert micro.positions_BL is not None
        flat, starts = micro.ids_BL.flatten(), torch.nonzero(micro.positions_BL.flatten() == 0).flatten().tolist()
        found = [tuple(flat[a : a + len(texts[row][0])].tolist()) for row in micro.rows_B for a in starts]
        assert all(tuple(texts[row][0].tolist()) in found for row in micro.rows_B)
        learned = np.concatenate([texts[row][0][texts[row][1] :] for row in micro.rows_B])
        assert micro.targets_T.tolist() == learned.tolist()


def test_a_model_that_sees_across_borders_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = tiny_model("qwen2"), hf.hidden_states
    monkeypatch.setattr(hf, "hidden_states", lambda m, ids, positions=None: plain(m, ids))
    with pytest.raises(UserError, match=r"learner\.packing"):
        hf.probe_packing(model)
