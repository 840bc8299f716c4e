"""On a GPU: steps replayed as CUDA graphs against the same steps launched one kernel at a time."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine_contract import CHECKS, Subject, same_tokens
from tiny_models import EOS, tiny_model, tiny_tokenizer
from zerolab.models.hf import named_weights
from zerolab.rollout.engine import Request, generate_all
from zerolab.rollout.torch_engine import TorchEngine

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
FUSED = ("qwen2", "qwen3", "llama", "mistral")


def engines(family: str, dtype: torch.dtype, **keywords: Any) -> tuple[Any, Any]:
    """One with graphs, one without."""
    model = tiny_model(family).to("cuda", dtype)
    one, other = (
        TorchEngine(model, tiny_tokenizer(), device="cuda", dtype=dtype, cuda_graphs=graphs, **keywords)
        for graphs in (True, False)
    )
    return one, other


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FUSED)
def test_graphs_equal_eager_over_rollouts_and_updates(family: str, dtype: torch.dtype) -> None:
    graphed, eager = engines(family, dtype, max_rows=13)
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    other = tiny_model(family, seed=1).to("cuda", dtype)
    rng = np.random.default_rng(0)
    prompts = [tuple(rng.integers(2, 160, n).tolist()) for n in (9, 33, 1, 17)]
    for version in range(1, 4):
        requests = [Request(i, prompts[i % 4], 100 * version + i, 20 + 15 * (i % 3)) for i in range(32)]
        pairs = list(zip(generate_all(graphed, requests), generate_all(eager, requests), strict=True))
        same = [same_tokens(a, b) for a, b in pairs]
        assert np.mean(same) >= (0.9 if dtype == torch.float32 else 0.5)
        for a, b in pairs:
            if same_tokens(a, b):
                np.testing.assert_allclose(a.logprobs_L, b.logprobs_L, atol=tolerance)
        for engine in (graphed, eager):
            engine.update_weights(version, named_weights(other))
    decoder = graphed._decoder
    assert not decoder._graphs.off
    assert sum(replay is not None for replay in decoder._graphs._recorded.values()) > 5


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("graphs", [True, False])
def test_contract_with_and_without_graphs(graphs: bool, check: str) -> None:
    model, other = (tiny_model("qwen3", seed=seed).to("cuda") for seed in (0, 1))

    def make() -> TorchEngine:
        return TorchEngine(model, tiny_tokenizer(), device="cuda", max_rows=11, cuda_graphs=graphs)

    tolerances = {"logprob_tolerance": 1e-3, "near_tie": 1e-3, "same_share": 0.8}
    CHECKS[check](Subject(make, model, other, tiny_tokenizer(), EOS, **tolerances))


def test_memory_that_really_runs_out() -> None:
    """Nearly all memory is taken by someone else; the engine goes on with fewer rows."""
    graphed, _ = engines("qwen2", torch.float32, kv_bytes=2**40)
    requests = [Request(i, (5, 6, 7), i, 200) for i in range(1024)]
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(free - 96 * 2**20, dtype=torch.uint8, device="cuda")
    with pytest.warns(UserWarning, match="memory ran out"):
        completions = list(graphed.generate(requests))
    del taken
    assert sorted(c.request_id for c in completions) == list(range(1024))


def main() -> None:
    """Tokens per second with and without graphs, for a 1.5B-shaped random model."""
    from test_h200 import SHAPES, PlainTokenizer, make_model, sample_groups

    shape, device = SHAPES["1.5B"], torch.device("cuda")
    model = make_model(shape, device)
    for graphs in (False, True):
        engine = TorchEngine(
            model, PlainTokenizer(), device=device, dtype="bfloat16", kv_bytes=30 * 2**30, cuda_graphs=graphs
        )
        for step in range(3):
            torch.cuda.synchronize()
            start = time.perf_counter()
            groups = sample_groups(engine, shape, step)
            torch.cuda.synchronize()
            tokens = sum(len(c) for group in groups for c in group.completions)
            rate = tokens / (time.perf_counter() - start)
            print(f"cuda_graphs={graphs!s:5} rollout {step}: {rate:>9,.0f} tokens/s, {tokens:,} tokens", flush=True)
        del engine


if __name__ == "__main__":
    main()
