"""vLLM on a GPU (extra vllm): the contract, and memory that it gives back while it sleeps. Never run here yet."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine_contract import CHECKS, Subject, teacher_forced
from tiny_models import EOS, tiny_model, tiny_tokenizer
from zerolab.models.hf import export_model, named_weights
from zerolab.rollout.engine import generate_all

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

KV_BYTES = 2**30
BF16 = {"logprob_tolerance": 0.3, "near_tie": 0.3, "same_share": 0.5, "hottest": 2.0}


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    pytest.importorskip("vllm", reason="the extra vllm is not installed")
    from zerolab.rollout.vllm_engine import VllmEngine, VllmOptions

    folder = tmp_path_factory.mktemp("model")
    model, other = (tiny_model("qwen3", seed=seed, head_dim=64).to("cuda", torch.bfloat16) for seed in (0, 1))
    export_model(model, tiny_tokenizer(), folder)
    options = VllmOptions(precision="bf16", device="cuda", kv_bytes=KV_BYTES, max_rows=64, sleep=True)
    kept: list[Any] = []

    def make() -> VllmEngine:
        if not kept or kept[-1]._llm is None:
            kept.append(VllmEngine(folder, options))
        engine = kept[-1]
        engine.resume()
        engine.wake()
        engine.update_weights(0, named_weights(model))
        return engine

    yield Subject(make, model, other, tiny_tokenizer(), EOS, **BF16)
    kept[-1].close()


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check: str, subject: Subject) -> None:
    CHECKS[check](subject)


@pytest.mark.parametrize("weights", [False, True])
def test_sleep_gives_memory_back(weights: bool, subject: Subject) -> None:
    engine = subject.make()
    awake = torch.cuda.mem_get_info()[0]
    engine.sleep(weights=weights)
    assert torch.cuda.mem_get_info()[0] - awake > 0.9 * KV_BYTES
    engine.wake()
    engine.update_weights(1, named_weights(subject.other))
    requests = subject.requests()
    gaps = [
        np.abs(completion.logprobs_L - teacher_forced(subject.other, request, completion)).mean()
        for request, completion in zip(requests, generate_all(engine, requests), strict=True)
    ]
    assert np.mean(gaps) < 0.05
