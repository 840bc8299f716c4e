"""The learner on real small models: memory, precision, schedules, save and load."""

from pathlib import Path

import numpy as np
import pytest
import torch

from peak import step_mib
from small_learner import make_learner, random_batch, weights
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.config import OptimizerConfig
from zerolab.errors import UserError
from zerolab.learner.checkpoint import latest_checkpoint, save_checkpoint
from zerolab.learner.optim import learning_rate
from zerolab.models.hf import export_model
from zerolab.rl.batch import Batch, micro_batches
from zerolab.rl.objective import PRESETS


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2"])
def test_learning_raises_the_probability_of_good_and_lowers_that_of_bad_responses(family: str) -> None:
    learner = make_learner(tiny_model(family), lr=1e-3, old_logprobs="detach")
    batch = random_batch()
    objective = PRESETS["dr_grpo"]

    def row_logprobs() -> np.ndarray:
        sums = np.zeros(len(batch))
        with torch.no_grad():
            for micro in micro_batches(batch, np.arange(len(batch)), 10_000):
                parts = learner.logprobs(micro)[0].split(micro.response_len_B.tolist())
                sums[micro.rows_B] = [float(p.sum()) for p in parts]
        return sums

    before = row_logprobs()
    for _ in range(5):
        learner.forward_backward(batch, objective)
        learner.optim_step()
    change = row_logprobs() - before
    assert change[batch.advantage_N > 0].mean() > 0 > change[batch.advantage_N < 0].mean()


def test_padding_never_reaches_a_response() -> None:
    """Alone in its own micro-batch or padded beside longer rows, a response has the same log-probabilities."""
    learner = make_learner(tiny_model("qwen2"))
    batch = random_batch()
    together = micro_batches(batch, np.arange(len(batch)), 100_000)
    alone = micro_batches(batch, np.arange(len(batch)), 1)
    assert (len(together), len(alone)) == (1, len(batch))
    assert sorted(np.concatenate([m.rows_B for m in alone])) == list(range(len(batch)))
    with torch.no_grad():
        rows = learner.logprobs(together[0])[0].split(together[0].response_len_B.tolist())
        wide = dict(zip(together[0].rows_B, rows, strict=True))
        for micro in alone:
            assert torch.allclose(learner.logprobs(micro)[0], wide[micro.rows_B[0]], atol=2e-5)


def test_micro_batches_keep_to_the_token_budget_with_little_padding() -> None:
    batch = random_batch(200, seed=1)
    pieces = micro_batches(batch, np.arange(len(batch)), 256)
    assert all(p.ids_BL.numel() <= 256 for p in pieces)
    assert sum(p.real_tokens for p in pieces) == len(batch.tokens_S)
    assert sum(p.ids_BL.numel() for p in pieces) < 1.15 * len(batch.tokens_S)


def test_responses_that_cannot_contribute_cost_no_forward() -> None:
    learner = make_learner(tiny_model("qwen2"))
    batch = random_batch()
    silent = Batch(**{**vars(batch), "advantage_N": np.where(batch.group_N == 0, batch.advantage_N, 0.0)})
    seen = []
    learner.model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    stats = learner.forward_backward(silent, PRESETS["dr_grpo"])
    assert sum(seen) == (batch.group_N == 0).sum()
    assert 0 < stats["coverage"] < 1


def test_a_step_to_which_nothing_contributes_still_is_a_step() -> None:
    learner = make_learner(tiny_model("qwen2"), lr=1e-2, weight_decay=0.1)
    batch = random_batch()
    nothing = Batch(**{**vars(batch), "advantage_N": np.zeros(len(batch))})
    before = weights(learner)
    stats = learner.forward_backward(nothing, PRESETS["dr_grpo"]) | learner.optim_step()
    assert stats["tokens"] == 0
    assert stats["grad_norm"] == 0
    assert learner.version == 1
    assert (weights(learner) - before).norm() > 0  # weight decay acts


def test_bf16_follows_fp32_and_small_updates_are_not_lost() -> None:
    """The weights stay in fp32: in bf16 an update of 1e-6 would round to nothing."""
    gradients, moved = [], []
    for precision in ("fp32", "bf16"):
        learner = make_learner(tiny_model("qwen2"), precision, lr=1e-6)
        before = weights(learner)
        learner.forward_backward(random_batch(), PRESETS["reinforce"])
        gradients.append(torch.cat([p.grad.flatten() for p in learner.model.parameters()]))
        learner.optim_step()
        moved.append(float((weights(learner) != before).float().mean()))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99
    assert moved[1] > 0.9 * moved[0] > 0


def test_gradient_clipping_bounds_the_norm_and_says_so() -> None:
    for limit, clipped in ((1e-6, 1.0), (1e6, 0.0)):
        learner = make_learner(tiny_model("qwen2"), max_grad_norm=limit)
        learner.forward_backward(random_batch(), PRESETS["dr_grpo"])
        assert learner.optim_step()["grad_clipped"] == clipped


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change() -> None:
    learner = make_learner(tiny_model("qwen2"))
    batch = random_batch()
    broken = Batch(**{**vars(batch), "advantage_N": np.full(len(batch), np.inf)})
    before = weights(learner)
    learner.forward_backward(broken, PRESETS["dr_grpo"])
    with pytest.raises(UserError, match="not finite"):
        learner.optim_step()
    assert torch.equal(weights(learner), before)


def test_saved_and_loaded_learners_go_on_alike_to_the_bit(tmp_path: Path) -> None:
    first = make_learner(tiny_model("qwen2"), lr=1e-2)
    for seed in range(3):
        first.forward_backward(random_batch(seed=seed), PRESETS["grpo"])
        first.optim_step()
    export_model(first.model, tiny_tokenizer(), tmp_path)
    first.save(tmp_path)
    second = make_learner(tiny_model("qwen2", seed=5), lr=1e-2)
    second.load(tmp_path)
    for learner in (first, second):
        learner.forward_backward(random_batch(seed=9), PRESETS["grpo"])
        learner.optim_step()
    assert first.version == second.version == 4
    assert torch.equal(weights(first), weights(second))


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    export_model(tiny_model("llama"), tiny_tokenizer(), tmp_path)
    make_learner(tiny_model("llama")).save(tmp_path)
    with pytest.raises(UserError, match=r"another (model|shape)"):
        make_learner(tiny_model("qwen2")).load(tmp_path)


def test_a_failed_write_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "file").write_text("x")

    def full_disk(folder: Path) -> None:
        write(folder)
        raise OSError(28, "No space left on device")

    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, write, {}, keep=2)
    with pytest.raises(UserError, match=r"No space left.*step_000003"):
        save_checkpoint(tmp_path, 4, full_disk, {}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_000002", "step_000003"]
    assert latest_checkpoint(tmp_path) == tmp_path / "step_000003"


def test_schedules() -> None:
    cosine = OptimizerConfig(lr=1.0, schedule="cosine", warmup_steps=2, final_lr_ratio=0.1)
    assert [learning_rate(s, 12, cosine) for s in (0, 1, 2, 7, 12)] == pytest.approx([0.5, 1.0, 1.0, 0.55, 0.1])
    linear = OptimizerConfig(lr=1.0, schedule="linear")
    assert [learning_rate(s, 4, linear) for s in (0, 1, 4)] == pytest.approx([1.0, 0.75, 0.0])
    assert learning_rate(99, 4, OptimizerConfig(lr=0.5)) == 0.5


LARGE_VOCABULARY = {"vocab_size": 50_000, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}


def test_peak_memory_is_bounded_by_the_logits_budget() -> None:
    """The logits of this micro-batch take 390 MB in fp32; with a budget of 64 MB the whole step stays far below."""
    peak = {mb: step_mib(LARGE_VOCABULARY, {"logits_mb": mb}) for mb in (64, 4096)}
    assert peak[4096] > 390
    assert peak[64] < 200
