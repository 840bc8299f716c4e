"""The probe that asks after every update whether the engine samples from the learner's weights."""

import tomllib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from command import write_recipe
from tiny_models import VOCABULARY, tiny_model, tiny_tokenizer
from zerolab.errors import UserError
from zerolab.learner.scorer import Scorer
from zerolab.models.hf import export_model, named_weights
from zerolab.rollout.torch_engine import TorchEngine
from zerolab.rollout.weight_check import TOLERANCE, Probe
from zerolab.train import train

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def scored_by(model: Any, precision: str = "fp32", temperature: float = 1.0) -> Callable:
    scorer = Scorer(model, temperature=temperature, precision=precision, logits_mb=8)
    return partial(scorer.logprobs_of, token_budget=1000)


def nudged(model: Any, size: float, only: str = "") -> Any:
    """The model, each of its weights a little elsewhere."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if only in name:
                weight += size * torch.randn(weight.shape, generator=generator)
    return model


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_updates_that_arrive_pass(precision: str, temperature: float) -> None:
    model = tiny_model("qwen3")
    engine = TorchEngine(model, tiny_tokenizer(), dtype=DTYPES[precision])
    probe = Probe(VOCABULARY, precision=precision, temperature=temperature)
    score = scored_by(model, precision, temperature)
    differences = [probe(engine, score)]
    for version, size in enumerate((1e-3, 0.05, 0.0, 1e-7), 1):
        engine.update_weights(version, named_weights(nudged(model, size)))
        differences.append(probe(engine, score))
    assert max(differences) <= TOLERANCE[precision]


@pytest.mark.parametrize("name", ["", "lm_head", "layers.1.mlp.down_proj"])
def test_an_update_that_is_lost_in_part_or_whole_is_refused(name: str) -> None:
    model = tiny_model("llama")
    engine = TorchEngine(model, tiny_tokenizer())
    stale = {n: w.clone() for n, w in named_weights(model) if name in n}
    engine.update_weights(3, (dict(named_weights(nudged(model, 0.02))) | stale).items())
    probe = Probe(VOCABULARY, precision="fp32", temperature=1.0)
    with pytest.raises(
        UserError, match=r"update to version 3 .* differ by 0\.\d+ on average \(0\.001 is allowed in fp32"
    ):
        probe(engine, scored_by(model))


def test_a_lost_update_too_small_for_the_tolerance_shows_in_the_bits() -> None:
    """One step at a learning rate of 1e-5, engine and learner in bf16, whose rounding is far larger than the step."""
    model = tiny_model("qwen2")
    engine = TorchEngine(model, tiny_tokenizer(), dtype=torch.bfloat16)
    score = scored_by(model, "bf16")
    probe, lora = (Probe(VOCABULARY, precision="bf16", temperature=1.0, merged=merged) for merged in (False, True))
    for ask in (probe, lora):
        ask(engine, score)
    nudged(model, 1e-5)
    with pytest.raises(UserError, match=r"none of the engine's by a single bit"):
        probe(engine, score)
    lora(engine, score)  # merged weights may swallow a small update
    engine.update_weights(1, named_weights(model))
    probe(engine, score)


def test_weights_that_are_no_numbers_are_said_to_have_diverged() -> None:
    model = nudged(tiny_model("qwen2"), float("nan"))
    engine = TorchEngine(model, tiny_tokenizer())
    with pytest.raises(UserError, match="diverged"):
        Probe(VOCABULARY, precision="fp32", temperature=1.0)(engine, scored_by(model))


class Deaf(TorchEngine):
    """Hears of updates and keeps its weights."""

    def update_weights(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        self.version = version


def test_a_run_stops_when_its_engine_does_not_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where sampling runs ahead, at the latest after MAX_UNCHECKED updates. Unchecked it goes on."""
    monkeypatch.chdir(tmp_path)
    export_model(tiny_model("qwen2"), tiny_tokenizer(), tmp_path / "model")
    recipe = write_recipe(tmp_path / "recipe.toml", tmp_path / "model", steps=3)

    def deaf(config: Any, model: Any, tokenizer: Any, device: Any) -> Deaf:
        return Deaf(model, tokenizer)

    for changes in ({"steps": 3}, {"steps": 40, "max_staleness": 1}):
        with pytest.raises(UserError, match="does not sample from the new weights"):
            train(with_rollout(recipe, **changes), engine=deaf, overwrite=True)
    train(with_rollout(recipe, steps=3, check_weights=False), engine=deaf, overwrite=True)


def with_rollout(recipe: Path, *, steps: int, **changes: Any) -> dict[str, Any]:
    raw = tomllib.loads(recipe.read_text())
    return {**raw, "steps": steps, "rollout": {**raw["rollout"], **changes}}
