"""LoRA: the base never changes, engine and disk get plain merged weights, the base is the reference."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from command import refusal, run, settings, write_recipe
from tiny_models import tiny_model, tiny_tokenizer
from zerolab import train as training
from zerolab.audit.enumerate import tiny_qwen2
from zerolab.build import Run
from zerolab.config import LearnerConfig, LoraConfig
from zerolab.errors import UserError
from zerolab.learner.checkpoint import latest_checkpoint
from zerolab.learner.learner import Learner
from zerolab.learner.lora import Adapters
from zerolab.models.hf import export_model, named_weights
from zerolab.rl.batch import Batch, pack
from zerolab.rl.objective import PRESETS
from zerolab.rollout.stream import Stream
from zerolab.rundir import read_metrics

pytest.importorskip("peft")

LORA = LoraConfig(rank=4, alpha=8)


def groups(seed: int = 0) -> Batch:
    """Three groups of four responses that share their prompts."""
    generator = np.random.default_rng(seed)
    tokens, logprobs, columns = [], [], []
    for group in range(3):
        prompt = generator.integers(2, 150, generator.integers(3, 9))
        for row in range(4):
            response = generator.integers(2, 150, generator.integers(1, 12))
            tokens.append(np.concatenate([prompt, response]))
            logprobs.append(np.full(len(response), -5.0, np.float32))
            columns.append((len(prompt), len(response), group, float(row % 2), row % 2 - 0.5, 0))
    return pack(tokens, logprobs, columns)


def make_learner(model: torch.nn.Module, lora: LoraConfig | None = LORA, **config: object) -> Learner:
    torch.manual_seed(0)
    adapters = Adapters(model, lora, torch.device("cpu")) if lora else None
    return Learner(model, LearnerConfig(**config), budget=32, total_steps=10, reference=True, adapters=adapters)


def train(learner: Learner, steps: int = 3) -> None:
    for seed in range(steps):
        learner.forward_backward(groups(seed), PRESETS["dr_grpo"])
        learner.optim_step()


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2"])
def test_the_base_stays_and_merged_weights_are_the_policy(family: str) -> None:
    base = {name: tensor.clone() for name, tensor in named_weights(tiny_model(family))}
    learner = make_learner(tiny_model(family), lr=1e-2)
    assert all(torch.equal(tensor, base[name]) for name, tensor in learner.weights())
    before = learner.logprobs_of(groups())
    train(learner)
    after = learner.logprobs_of(groups())
    assert np.abs(after - before).max() > 0.1
    merged = dict(learner.weights())
    assert merged.keys() == base.keys()
    held = {name.replace(".base_layer", ""): p for name, p in learner.model.named_parameters()}
    assert all(torch.equal(p, base[name]) for name, p in held.items() if "lora_" not in name)
    plain = tiny_model(family, seed=3)
    plain.load_state_dict(merged)
    found = Learner(plain, LearnerConfig(), budget=32, total_steps=1).logprobs_of(groups())
    assert np.abs(found - after).max() < 1e-4


def test_the_reference_is_the_base_and_takes_no_second_copy() -> None:
    learner = make_learner(tiny_model("qwen2"), lr=1e-2)
    before = learner.logprobs_of(groups())
    train(learner)
    assert np.abs(learner.reference_logprobs_of(groups()) - before).max() == 0
    assert np.abs(learner.logprobs_of(groups()) - before).max() > 0.1  # and they are back
    assert learner.reference.policy.model is learner.model
    assert learner.forward_backward(groups(), PRESETS["dr_grpo"])["tokens"] > 0
    assert learner.optim_step()["grad_norm"] > 0


def test_the_gradient_is_that_of_the_whole_matrix_seen_through_the_adapter() -> None:
    """At the first step B = 0, so dL/dA = 0 and dL/dB = alpha / r dL/dW A^T."""
    whole = make_learner(tiny_model("qwen2").double(), None)
    learner = make_learner(tiny_model("qwen2").double())
    for each in (whole, learner):
        each.forward_backward(groups(), PRESETS["dr_grpo"])
    full = dict(whole.model.named_parameters())
    for name, layer in learner.adapters.layers.items():
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        expected = LORA.alpha / LORA.rank * full[f"{name}.weight"].grad @ a.detach().T
        assert float((b.grad - expected).norm()) < 1e-12 * float(expected.norm())
        assert float(a.grad.norm()) == 0
    trained = sum(p.numel() for p in learner.model.parameters() if p.requires_grad)
    assert trained == sum(LORA.rank * sum(m.base_layer.weight.shape) for m in learner.adapters.layers.values())


def test_no_way_of_cutting_changes_the_gradient_of_adapters() -> None:
    found = []
    for cut in ({}, {"micro_batch_tokens": 1}, {"share_prompts": "on"}, {"checkpointing": True}):
        learner = make_learner(tiny_qwen2(0, vocabulary=150), **{"share_prompts": "off", **cut})
        trained = [p for p in learner.model.parameters() if p.requires_grad]
        for parameter in trained:  # B is no longer 0
            torch.nn.init.normal_(parameter, std=0.1)
        learner.forward_backward(groups(), PRESETS["grpo"])
        found.append(torch.cat([p.grad.flatten() for p in trained]))
    assert found[0].norm() > 0
    assert max(float((f - found[0]).norm() / found[0].norm()) for f in found) < 1e-12


def test_targets_are_ends_of_names_and_others_are_refused() -> None:
    learner = make_learner(tiny_model("qwen2"), LoraConfig(targets=("q_proj", "v_proj")))
    assert {name.split(".")[-1] for name in learner.adapters.layers} == {"q_proj", "v_proj"}
    with pytest.raises(UserError, match=r"lora\.targets"):
        make_learner(tiny_model("qwen2"), LoraConfig(targets=("nothing",)))


@pytest.mark.parametrize(
    ("family", "target"),
    [("qwen2", "embed_tokens"), ("qwen2", "lm_head"), ("llama", "lm_head"), ("gpt2", "wte"), ("gpt2", "wpe")],
)
def test_an_embedding_or_the_head_gets_no_adapter(family: str, target: str) -> None:
    for targets in ((target,), ("q_proj", "c_attn", target)):
        with pytest.raises(
            UserError, match=f"lora.targets name .*{target}, an embedding or the output head"
        ) as refused:
            make_learner(tiny_model(family), LoraConfig(targets=targets))
        assert "\n" not in str(refused.value)


def test_a_resumed_run_equals_an_uninterrupted_one_and_leaves_plain_weights(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    export_model(tiny_model("qwen2"), tiny_tokenizer(), tmp_path / "model")
    recipe = write_recipe(tmp_path / "recipe.toml", tmp_path / "model")
    shared = settings("evaluation.every=0", "checkpoint.every=2", "lora={rank=4, alpha=8}", "objective=grpo_kl")
    whole, parts = ([*settings(f"out={tmp_path / name}"), *shared] for name in ("whole", "parts"))
    assert run("train", recipe, *whole, *settings("steps=3")) == 0
    assert run("train", recipe, *parts, *settings("steps=2")) == 0
    assert run("train", recipe, *parts, *settings("steps=3"), "--resume") == 0
    left, right = (latest_checkpoint(tmp_path / name / "checkpoints") for name in ("whole", "parts"))
    for file in ("model.safetensors", "adapter/adapter_model.safetensors", "optimizer.safetensors"):
        a, b = load_file(left / file), load_file(right / file)
        assert all(torch.equal(a[name], b[name]) for name in a)
    rows = read_metrics(tmp_path / "whole")
    assert rows[-1]["mismatch/abs"] < 1e-4  # the engine samples from the merged weights
    assert rows[-1]["kl/response"] != 0
    ids = torch.arange(2, 40)[None]
    merged = AutoModelForCausalLM.from_pretrained(left)(ids).logits
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    adapted = PeftModel.from_pretrained(base, left / "adapter")(ids).logits
    assert torch.allclose(merged, adapted, atol=1e-4)


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_with_offload_the_engine_has_no_weights_while_the_learner_learns(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One copy on the device at a time, and the run is the same to the bit."""
    export_model(tiny_model(family), tiny_tokenizer(), tmp_path / "model")
    recipe = write_recipe(tmp_path / "recipe.toml", tmp_path / "model")
    held: list[int] = []

    def engine_bytes(run: Run) -> int:
        decoder = run.stream.engine._decoder
        tensors = decoder._weights._whole() if family == "qwen2" else list(decoder._model.parameters())
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors)

    update = training.update

    def watched(run: Run, batch: Batch, step: int) -> list[dict[str, float]]:
        held.append(engine_bytes(run))
        return update(run, batch, step)

    monkeypatch.setattr(training, "update", watched)
    common = settings("evaluation.every=0", "steps=3", "lora.rank=4")
    for name in ("false", "true"):
        offload = settings(f"lora.offload={name}", f"out={tmp_path / name}")
        assert run("train", recipe, *common, *offload) == 0
    assert all(held[:3])
    assert held[3:] == [0, 0, 0]
    left, right = (latest_checkpoint(tmp_path / name / "checkpoints") for name in ("false", "true"))
    a, b = load_file(left / "model.safetensors"), load_file(right / "model.safetensors")
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("family", "target"), [("qwen2", "q_proj"), ("gpt2", "c_attn")])
def test_an_engine_needs_the_adapted_matrices_alone(
    family: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One kind of matrix is sent, and the run is that of an engine which gets all weights, to the bit."""
    export_model(tiny_model(family), tiny_tokenizer(), tmp_path / "model")
    recipe = write_recipe(tmp_path / "recipe.toml", tmp_path / "model")
    sent: list[set[str]] = []
    publish = Stream.publish

    def watched(self: Stream, version: int, weights: Any, *more: Any) -> dict[str, float]:
        tensors = [(name, tensor.clone()) for name, tensor in weights]
        sent.append({name for name, _ in tensors})
        return publish(self, version, tensors, *more)

    monkeypatch.setattr(Stream, "publish", watched)
    reward = settings("reward.random=1", "reward.truncation=keep", "learner.lr=1e-2")  # so that all of them learn
    common = [*settings("evaluation.every=0", "steps=3", f"lora={{rank=4, targets=['{target}']}}"), *reward]
    assert run("train", recipe, *common, *settings(f"out={tmp_path / 'partial'}")) == 0
    assert all(names and all(target in name for name in names) for names in sent)
    monkeypatch.setattr("zerolab.build.takes_partial", lambda *_: False)
    sent.clear()
    assert run("train", recipe, *common, *settings(f"out={tmp_path / 'whole'}")) == 0
    assert any("embed" in name or "wte" in name for name in sent[-1])
    partial, whole = (
        [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_metrics(tmp_path / name)]
        for name in ("partial", "whole")
    )
    assert partial == whole
    assert partial[-1]["learned_tokens"]
    assert partial[-1]["mismatch/abs"] < 1e-4


def test_the_settings_of_the_24_gb_recipe_train_a_small_model(tmp_path: Path) -> None:
    export_model(tiny_model("qwen2"), tiny_tokenizer(), tmp_path / "model")
    recipe = write_recipe(tmp_path / "recipe.toml", tmp_path / "model")
    like = ("model.precision=bf16", "model.weights=bf16", "lora={rank=4, offload=true}", "learner.checkpointing=true")
    words = settings("reward.truncation=keep", "checkpoint.every=2", "steps=2", f"out={tmp_path / 'run'}", *like)
    assert run("train", recipe, *words) == 0
    assert run("train", recipe, *words, *settings("steps=3"), "--resume") == 0
    rows = [row for row in read_metrics(tmp_path / "run") if row["step"]]
    assert any(row["grad_norm"] > 0 for row in rows)
    assert all(0 < row["mismatch/abs"] < 0.1 for row in rows)
    trained = load_file(latest_checkpoint(tmp_path / "run" / "checkpoints") / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in trained.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("setting", "reason"),
    [("objective=ppo", "lora trains a policy without a critic"), ('lora.targets=["nothing"]', "lora.targets")],
)
def test_what_does_not_go_together_is_refused(
    setting: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    export_model(tiny_model("qwen2"), tiny_tokenizer(), tmp_path / "model")
    recipe = write_recipe(tmp_path / "recipe.toml", tmp_path / "model")
    assert reason in refusal(capsys, "train", recipe, *settings(f"out={tmp_path / 'run'}", "lora.rank=4", setting))
