"""The vLLM engine against the contract that the torch engine passes; and what is its own: updates, refusals."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine_contract import CHECKS, Subject, teacher_forced
from tiny_models import EOS, VOCABULARY, tiny_model, tiny_tokenizer
from zerolab.errors import UserError
from zerolab.models.hf import export_model, named_weights
from zerolab.rollout.engine import Request, generate_all

pytestmark = pytest.mark.scale

OPTIONS: dict[str, Any] = {"kv_bytes": 2**24, "max_rows": 64}


class Kept:
    """One engine for many checks, as new before each."""

    def __init__(self, folder: Path, model: Any, **options: Any):
        export_model(model, tiny_tokenizer(), folder)
        self.folder, self.model, self.options = folder, model, {**OPTIONS, **options}
        self.engine: Any = None

    def make(self) -> Any:
        from zerolab.rollout.vllm_engine import VllmEngine, VllmOptions

        if self.engine is None or self.engine._llm is None:
            self.engine = VllmEngine(self.folder, VllmOptions(**self.options))
            return self.engine
        self.engine.resume()
        self.engine.wake()
        gc.collect()  # a check that failed may have left a call behind
        self.engine.update_weights(0, named_weights(self.model))
        return self.engine


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    model, other = (tiny_model("qwen3", seed=seed, head_dim=32) for seed in (0, 1))
    kept = Kept(tmp_path_factory.mktemp("tied"), model)
    yield Subject(kept.make, model, other, tiny_tokenizer(), EOS, hottest=2.0)
    if kept.engine:
        kept.engine.close()


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check: str, tied: Subject) -> None:
    CHECKS[check](tied)


def test_an_update_without_the_second_name_of_a_tied_tensor_reaches_the_head(tied: Subject) -> None:
    engine = tied.make()
    named = {name: weight for name, weight in named_weights(tied.other) if name != "lm_head.weight"}
    engine.update_weights(1, named.items())
    requests = tied.requests(samples=1)
    for request, completion in zip(requests, generate_all(engine, requests), strict=True):
        difference = completion.logprobs_L - teacher_forced(tied.other, request, completion)
        assert np.abs(difference).max() <= tied.logprob_tolerance


def test_more_prompts_than_one_step_takes(tied: Subject) -> None:
    """Prompts that wait for room in a step are as good as the first."""
    engine = tied.make()
    room = engine._llm.vllm_config.scheduler_config.max_num_batched_tokens
    rng = np.random.default_rng(0)
    prompts = [tuple(rng.integers(2, VOCABULARY, 200).tolist()) for _ in range(room // 200 + 3)]
    requests = [Request(i, prompt, i, 4) for i, prompt in enumerate(prompts)]
    for request, completion in zip(requests, generate_all(engine, requests), strict=True):
        difference = completion.logprobs_L - teacher_forced(tied.model, request, completion)
        assert np.abs(difference).max() <= tied.logprob_tolerance


def test_samples_of_a_prompt_share_its_blocks(tied: Subject) -> None:
    """70 tokens are two whole blocks of 32, which vLLM computes once."""
    from zerolab.rollout.vllm_start import eager

    engine = tied.make()
    prompt = tuple(np.random.default_rng(3).integers(2, 100, 70).tolist())
    engine._begin([Request(i, prompt, i, 2) for i in range(4)])
    with eager("cpu"):
        cached = [output.num_cached_tokens for output in engine._llm.step()]
    engine._end(list(engine._flights))
    assert sorted(cached) == [0, 64, 64, 64]


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a head that no kernel takes": ({"head_dim": 16}, {}, "head_dim=16"),
    "too little memory for one response": ({"head_dim": 32}, {"kv_bytes": 2**16}, "memory|KV cache"),
    "a GPU that is not there": ({"head_dim": 32}, {"device": "cuda"}, "samples on cpu, not on cuda"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_vllm_cannot_do_is_one_line(name: str, tmp_path: Path) -> None:
    from zerolab.rollout.vllm_engine import VllmEngine, VllmOptions

    shape, options, words = REFUSED[name]
    export_model(tiny_model("qwen3", **shape), tiny_tokenizer(), tmp_path)
    with pytest.raises(UserError, match=words) as refused:
        VllmEngine(tmp_path, VllmOptions(**{**OPTIONS, **options}))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_an_architecture_that_vllm_does_not_know_is_one_line(tmp_path: Path) -> None:
    import transformers

    shape = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 1, "n_head": 1, "n_positions": 64}
    model = transformers.OpenAIGPTLMHeadModel(transformers.OpenAIGPTConfig(**shape))
    export_model(model, tiny_tokenizer(), tmp_path)
    from zerolab.rollout.vllm_engine import VllmEngine, VllmOptions

    with pytest.raises(UserError, match=r"cannot sample from .*OpenAIGPTLMHeadModel.* not supported") as refused:
        VllmEngine(tmp_path, VllmOptions(**OPTIONS))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("temperature", [0.001, 2.5])
def test_a_temperature_that_vllm_would_change_is_refused(temperature: float, tied: Subject) -> None:
    with pytest.raises(UserError, match="temperatures from"):
        tied.make().generate([Request(0, (5,), 0, 4, temperature=temperature)])


def test_weights_arrive_whole_whatever_the_threads(tied: Subject, tmp_path: Path) -> None:
    """An untied head, grouped queries, scaled rotary angles. And the process is left as it was: vLLM takes
    torch.set_num_threads away and reseeds the generators."""
    from zerolab.rollout.vllm_engine import VllmEngine, VllmOptions

    first, second = (tiny_model("llama", seed=seed, head_dim=32) for seed in (0, 1))
    export_model(first, tied.tokenizer, tmp_path)
    tied.make().close()
    torch.set_num_threads(2)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    engine = VllmEngine(tmp_path, VllmOptions(**OPTIONS))
    assert torch.rand(1) == expected
    requests = tied.requests(samples=1)
    for version, model in enumerate((first, second)):
        if version:
            engine.update_weights(version, named_weights(model))
        assert torch.get_num_threads() == 2
        for request, completion in zip(requests, generate_all(engine, requests), strict=True):
            difference = completion.logprobs_L - teacher_forced(model, request, completion)
            assert np.abs(difference).max() <= tied.logprob_tolerance
    torch.set_num_threads(1)
    assert torch.get_num_threads() == 1
    engine.close()
