"""Families that see positions in another way: sampled as transformers samples them, or refused in one line."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command import run, write_recipe
from tiny_models import tiny_model, tiny_tokenizer, unusual_model
from zerolab.config import RunConfig
from zerolab.errors import UserError
from zerolab.models import hf
from zerolab.models.context import NO_LIMIT, context_length, rotary_limit
from zerolab.recipes import run_config
from zerolab.rollout.engine import Request, generate_all
from zerolab.rollout.torch_engine import TorchEngine
from zerolab.train import train


def sampled(model: Any, new_tokens: int, prompts: list[tuple[int, ...]]) -> list[Any]:
    requests = [Request(i, p, i, new_tokens, 1.0, ()) for i, p in enumerate(prompts)]
    return generate_all(TorchEngine(model, tiny_tokenizer()), requests)


def logprobs_of(model: Any, prompt: tuple[int, ...], tokens: np.ndarray) -> np.ndarray:
    ids = torch.tensor([[*prompt, *tokens.tolist()]])
    with torch.no_grad():
        logprobs = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
    return logprobs.gather(1, torch.tensor(tokens)[:, None])[:, 0].numpy()


@pytest.mark.parametrize(("family", "context"), [("bloom", NO_LIMIT), ("mpt", 128), ("phi3", 32), ("dynamic", 32)])
def test_what_is_sampled_has_the_logprobs_of_the_whole_sequence(family: str, context: int) -> None:
    model = unusual_model(family)
    assert context_length(model.config) == context
    prompts = [(5, 6, 7), (8, 9, 10, 11, 12), (5, 6, 7)]
    for completion, prompt in zip(sampled(model, 27, prompts), prompts, strict=True):
        expected = logprobs_of(model, prompt, completion.token_ids_L)
        np.testing.assert_allclose(completion.logprobs_L, expected, atol=2e-4)


@pytest.mark.parametrize("family", ["phi3", "dynamic"])
def test_a_response_that_would_cross_a_change_of_the_rotary_embeddings_is_refused(family: str) -> None:
    model = unusual_model(family)
    assert rotary_limit(model.config) == 32
    with pytest.raises(UserError, match="context of 32"):
        sampled(model, 30, [(5, 6, 7)])
    assert len(sampled(model, 29, [(5, 6, 7)])[0]) >= 1


def test_a_response_under_longrope_does_not_depend_on_its_batch() -> None:
    model = unusual_model("phi3")
    short, long = (5, 6, 7), tuple(range(5, 30))
    [alone], [together, _] = sampled(model, 7, [short]), sampled(model, 7, [short, long])
    assert alone.token_ids_L.tolist() == together.token_ids_L.tolist()
    np.testing.assert_allclose(alone.logprobs_L, together.logprobs_L, atol=1e-4)


def test_other_rotary_embeddings_never_change() -> None:
    for family in ("qwen2", "llama", "gemma3", "gpt2"):
        assert rotary_limit(tiny_model(family).config) is None
        assert context_length(tiny_model(family).config) == 256


def test_a_limit_below_the_context_is_said_at_loading(tmp_path: Path) -> None:
    hf.export_model(unusual_model("phi3"), tiny_tokenizer(), tmp_path)
    with pytest.warns(UserWarning, match="used up to 32 of its 256 tokens of context"):
        hf.load_model(tmp_path)


def small_run(family: str, tmp_path: Path) -> RunConfig:
    hf.export_model(unusual_model(family), tiny_tokenizer(), tmp_path / "model")
    config = run_config(write_recipe(tmp_path / "recipe.toml", tmp_path / "model", steps=1))
    return config.model_copy(update={"out": str(tmp_path / "run")})


@pytest.mark.parametrize("family", ["bloom", "mpt"])
def test_a_family_without_max_position_embeddings_is_trained(family: str, tmp_path: Path) -> None:
    folder = train(small_run(family, tmp_path))
    assert list(folder.glob("checkpoints/*/model.safetensors"))


def test_convolution_layers_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="keeps a recurrent state in its conv layers") as refused:
        train(small_run("lfm2", tmp_path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_a_dry_run_refuses_the_budgets_that_the_run_refuses(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    hf.export_model(tiny_model(), tiny_tokenizer(), tmp_path / "model")
    recipe = write_recipe(tmp_path / "recipe.toml", tmp_path / "model")
    budget = ("--set", "rollout.max_new_tokens=256", "--set", f"out='{tmp_path / 'run'}'")
    assert run("train", recipe, *budget, *arguments) == 2
    assert "leaves no room for a prompt in the model's context of 256 tokens" in capsys.readouterr().err


UNSUPPORTED: dict[str, tuple[str, dict[str, Any], str]] = {
    "family": ("gpt2", {}, "gpt2 is none of the families"),
    "activation": ("llama", {"hidden_act": "gelu"}, "its activation is gelu"),
    "biases": ("llama", {"mlp_bias": True}, "biases"),
    "sliding window": ("mistral", {"sliding_window": 8}, "sliding window"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_the_slower_decoder_is_said_with_its_reason(case: str) -> None:
    family, changes, reason = UNSUPPORTED[case]
    with pytest.warns(UserWarning, match=f"slower than the fused one, because .*{reason}"):
        TorchEngine(tiny_model(family, **changes), tiny_tokenizer())


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "mistral"])
def test_nothing_is_said_of_the_fused_decoder(family: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TorchEngine(tiny_model(family), tiny_tokenizer())
