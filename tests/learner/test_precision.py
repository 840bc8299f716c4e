"""Low precision and activation checkpointing: what is lost is bounded, and nothing is lost silently."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from peak import step_mib
from small_learner import make_learner, random_batch, weights
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.errors import UserError
from zerolab.learner.learner import Learner
from zerolab.learner.precision import LossScale
from zerolab.models.hf import export_model
from zerolab.rl.batch import Batch, micro_batches
from zerolab.rl.logprobs import token_logprobs
from zerolab.rl.objective import PRESETS
from zerolab.rollout.cached_decoder import make_decoder
from zerolab.rollout.engine import Request


def gradient(learner: Learner) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for group in learner.optimizer.param_groups for p in group["params"]])


def moments(learner: Learner) -> list[torch.Tensor]:
    return [t.clone() for entry in learner.optimizer.state_dict()["state"].values() for t in entry.values()]


def step(learner: Learner, seed: int = 0) -> dict[str, float]:
    return learner.forward_backward(random_batch(seed=seed), PRESETS["dr_grpo"]) | learner.optim_step()


# --- fp16 ------------------------------------------------------------------------------------------------------------


def test_fp16_learns_what_fp32_learns_and_closer_than_bf16() -> None:
    moved = {}
    for precision in ("fp32", "bf16", "fp16"):
        learner = make_learner(tiny_model("qwen2"), precision)
        learner.forward_backward(random_batch(), PRESETS["reinforce"])
        moved[precision] = gradient(learner) / (learner.scale.value if learner.scale else 1.0)
    off = {p: float((moved[p] - moved["fp32"]).norm() / moved["fp32"].norm()) for p in ("bf16", "fp16")}
    assert off["fp16"] < off["bf16"] / 3
    assert off["fp16"] < 0.01


def test_without_a_scale_small_gradients_vanish_in_fp16() -> None:
    """What the scale is there for: advantages of 1e-6 leave nothing at scale 1 and the right direction at 2^16."""
    batch = random_batch()
    small = Batch(**{**vars(batch), "advantage_N": batch.advantage_N * 1e-6})
    whole = make_learner(tiny_model("qwen2"))
    whole.forward_backward(small, PRESETS["dr_grpo"])
    cosine = {}
    for value in (1.0, LossScale.START):
        learner = make_learner(tiny_model("qwen2"), "fp16")
        learner.scale.value = value
        learner.forward_backward(small, PRESETS["dr_grpo"])
        cosine[value] = float(torch.cosine_similarity(gradient(learner), gradient(whole), dim=0))
    assert cosine[LossScale.START] > 0.99 > 0.9 > cosine[1.0]


def test_a_step_that_overflows_is_skipped_and_nothing_moves() -> None:
    learner = make_learner(tiny_model("qwen2"), "fp16", lr=1e-2, schedule="linear")
    step(learner)
    learner.scale.value = 2.0**60
    before, kept = weights(learner), moments(learner)
    stats = step(learner, seed=1)
    assert (stats["scale/skipped"], stats["scale/value"]) == (1.0, 2.0**59)
    assert learner.version == 1
    assert torch.equal(weights(learner), before)
    assert all(torch.equal(a, b) for a, b in zip(moments(learner), kept, strict=True))
    assert float(gradient(learner).norm()) == 0  # the next step begins from nothing
    learner.scale.value = LossScale.START
    stats = step(learner, seed=1)
    assert (stats["scale/skipped"], learner.version, stats["lr"]) == (0.0, 2, pytest.approx(1e-2 * 0.9))
    assert not torch.equal(weights(learner), before)


def test_the_scale_grows_after_good_steps_and_gives_up_where_none_helps() -> None:
    scale = LossScale()
    for _ in range(LossScale.GROWTH_STEPS):
        scale.update(True)
    assert scale.value == 2 * LossScale.START
    scale.update(False)
    assert (scale.value, scale.good_steps, scale.skipped) == (LossScale.START, 0, 1)
    scale.value = LossScale.LEAST
    with pytest.raises(UserError, match="at any loss scale"):
        scale.update(False)


# --- bf16 weights ----------------------------------------------------------------------------------------------------


def test_master_copies_keep_updates_that_bf16_would_lose() -> None:
    """Forty steps of 1e-5 move a weight of 1 by 4e-4, a tenth of what bf16 can hold: the copies have it all."""
    learner = make_learner(tiny_model("qwen2").to(torch.bfloat16), "bf16", lr=1e-5)
    before = torch.cat([copy.detach().flatten() for copy in learner.masters.copies])
    for seed in range(40):
        step(learner, seed)
    copies = torch.cat([copy.detach().flatten() for copy in learner.masters.copies])
    assert ((copies - before).abs() > 1e-5).float().mean() > 0.5
    assert torch.equal(weights(learner), copies.bfloat16())
    assert (weights(learner) == before.bfloat16()).float().mean() > 0.8


def test_gradients_of_many_micro_batches_add_up_in_fp32() -> None:
    """A sum of 200 rows in bf16 would keep two digits; the copies' does not depend on how the step is cut."""
    found = []
    for tokens in (1, 100_000):
        learner = make_learner(tiny_model("qwen2").to(torch.bfloat16), "bf16", micro_batch_tokens=tokens)
        learner.forward_backward(random_batch(200), PRESETS["reinforce"])
        found.append(gradient(learner))
    assert all(p.grad is None for p in learner.model.parameters())
    assert float((found[0] - found[1]).norm() / found[1].norm()) < 0.01


@pytest.mark.parametrize("kind", ["fp16", "bf16 weights"])
def test_saved_and_loaded_learners_go_on_alike_to_the_bit(kind: str, tmp_path: Path) -> None:
    def make(seed: int) -> Learner:
        model = tiny_model("qwen2", seed=seed)
        return make_learner(model, "fp16") if kind == "fp16" else make_learner(model.to(torch.bfloat16), "bf16")

    first = make(0)
    if first.scale:
        first.scale.value = 2.0**60
    for seed in range(3):
        step(first, seed)
    export_model(first.model, tiny_tokenizer(), tmp_path)
    first.save(tmp_path)
    second = make(5)
    second.load(tmp_path)
    if first.scale:
        assert first.scale.skipped == 3
        assert first.scale.state_dict() == second.scale.state_dict()
        first.scale.value = second.scale.value = 2.0**16
    for learner in (first, second):
        assert np.isfinite(step(learner, 9)["grad_norm"])
    assert first.version == second.version
    assert torch.equal(weights(first), weights(second))
    if first.masters:
        assert all(torch.equal(a, b) for a, b in zip(first.masters.copies, second.masters.copies, strict=True))


# --- the head's product ----------------------------------------------------------------------------------------------


def half_head(rows: int, vocabulary: int = 300, width: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states and a head in bf16 whose logits reach 30, and targets that the model expects."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=generator).bfloat16()
    weight = torch.randn(vocabulary, width, generator=generator).bfloat16()
    return hidden, weight, (hidden.float() @ weight.float().T).argmax(-1)


@pytest.mark.parametrize("chunk_rows", [16, 1000])
@pytest.mark.parametrize("autocast", [False, True])
def test_logits_of_half_inputs_are_not_rounded(chunk_rows: int, autocast: bool) -> None:
    """Exact to 1e-4 nats for the bf16 inputs that there are; bf16 logits would be off by .06."""
    hidden, weight, targets = half_head(100)
    exact_T = (hidden.double() @ weight.double().T).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    assert float((hidden.float() @ weight.float().T).max()) > 25
    if autocast:
        hidden, weight = hidden.float(), weight.float()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        found_T, _ = token_logprobs(hidden, weight, None, targets, 1.0, chunk_rows)
        rounded_T = nn.functional.linear(hidden, weight).float().log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    assert float((found_T - exact_T).abs().max()) < 1e-4 < 1e-2 < float((rounded_T - exact_T).abs().max())


def test_the_error_of_the_heads_gradient_does_not_grow_with_the_chunks() -> None:
    hidden, weight, targets = half_head(1024)
    targets = targets.roll(1)  # so that every row has a gradient
    exact_VD = weight.double().requires_grad_()
    token_logprobs(hidden.double(), exact_VD, None, targets, 1.0, 1024)[0].sum().backward()
    error = {}
    for chunk_rows in (1024, 1023, 8):
        head_VD = weight.clone().requires_grad_()
        token_logprobs(hidden, head_VD, None, targets, 1.0, chunk_rows)[0].sum().backward()
        error[chunk_rows] = float((head_VD.grad.double() - exact_VD.grad).norm() / exact_VD.grad.norm())
    assert error[1024] < 3e-3
    assert max(error.values()) < 1.1 * error[1024], error


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk_rows", [16, 1000])
def test_a_frozen_head_costs_no_product_for_its_gradient(chunk_rows: int, precision: torch.dtype) -> None:
    hidden, weight, targets = half_head(96)
    flops = {}
    for trained in (True, False):
        leaf, head = hidden.to(precision).requires_grad_(), weight.to(precision).requires_grad_(trained)
        with FlopCounterMode(display=False) as counter:
            token_logprobs(leaf, head, None, targets, 1.0, chunk_rows)[0].sum().backward()
        flops[trained] = counter.get_total_flops()
        assert leaf.grad is not None
    assert flops[True] - flops[False] == 2 * hidden.numel() * len(weight)


@torch.no_grad()
def test_an_fp32_head_keeps_its_weights_unrounded() -> None:
    """Both are exact for the hidden states that bf16 gives: under autocast for weights rounded to bf16, as the
    engine's are, and with fp32_head for the weights themselves."""
    batch = random_batch(40)
    micro = micro_batches(batch, np.arange(len(batch)), 100_000)[0]
    for fp32_head, dtype in ((False, torch.bfloat16), (True, torch.float32)):
        scorer = make_learner(tiny_model("qwen2"), "bf16", fp32_head=fp32_head).policy
        hidden_TD = scorer.hidden(micro)
        seen_TD, head_VD = hidden_TD.to(dtype), scorer.head.weight.to(dtype)
        logits_TV = seen_TD.double() @ head_VD.double().T
        exact_T = logits_TV.log_softmax(-1).gather(-1, micro.targets_T[:, None]).squeeze(-1)
        assert float((scorer.logprobs_at(hidden_TD, micro)[0] - exact_T).abs().max()) < 1e-4


@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
def test_the_engines_logits_in_bf16_are_not_rounded(family: str) -> None:
    """Through the fused and through transformers' forward pass, at the first token and at later ones."""
    model = tiny_model(family)
    decoder = make_decoder(model, device=torch.device("cpu"), dtype=torch.bfloat16)
    decoder.reserve([Request(0, (3, 4, 5), 0, 4)], 2**24, 8)
    for logits_NV in (decoder.admit([(3, 4, 5)]), decoder.step(np.array([7]), np.array([0]))):
        assert logits_NV.dtype == torch.float32
        assert not torch.equal(logits_NV, logits_NV.bfloat16().float())


# --- activation checkpointing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2"])
def test_checkpointing_changes_no_gradient_and_wakes_no_dropout(family: str) -> None:
    found = []
    for checkpointing in (False, True):
        learner = make_learner(tiny_model(family).double(), checkpointing=checkpointing)
        learner.forward_backward(random_batch(), PRESETS["dr_grpo"])
        found.append(gradient(learner))
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 1e-12


EIGHT_LAYERS = {"vocab_size": 100, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 8}


def test_checkpointing_needs_far_less_memory() -> None:
    """Eight layers whose activations take some 90 MB; with checkpointing one layer's, and every layer's input."""
    peak = {on: step_mib(EIGHT_LAYERS, {"checkpointing": on}) for on in (True, False)}
    assert peak[True] < 0.6 * peak[False], peak
