"""On one large GPU: the engine contract, and RL steps of a random model shaped like Qwen2.5-1.5B.

    pytest -m gpu tests/gpu                     # the checks
    python tests/gpu/test_h200.py [--json FILE] # the steps, as a table of tokens/s and memory

The model's weights are random, so the table measures speed, memory and the agreement of engine and learner, and
nothing about learning. One token in 512 ends a response, so lengths vary; rewards are coin flips from the seed.
`--device cpu --shape tiny` runs the same code anywhere.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine_contract import CHECKS, Subject
from tiny_models import EOS, FAMILIES, tiny_model, tiny_tokenizer
from zerolab.config import LearnerConfig
from zerolab.datatypes import Grade, Group, Prompt, Question
from zerolab.learner.learner import Learner
from zerolab.models import hf
from zerolab.rl.batch import make_batch
from zerolab.rl.objective import PRESETS
from zerolab.rollout.engine import Request, generate_all
from zerolab.rollout.torch_engine import TorchEngine

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

# What bf16 may change on a two-layer model with wide logits, seen on a CPU: log-probabilities by up to 0.2.
TOLERANCES: dict[torch.dtype, dict[str, float]] = {
    torch.float32: {"logprob_tolerance": 1e-3, "near_tie": 1e-3, "same_share": 0.8},
    torch.bfloat16: {"logprob_tolerance": 0.25, "near_tie": 0.25, "same_share": 0.3},
}


@dataclass(frozen=True)
class Shape:
    model: dict[str, int]
    prompts: int
    samples: int
    prompt_len: tuple[int, int]
    budget: int


SHAPES = {
    "1.5B": Shape(
        {
            "vocab_size": 151_936,
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
        },
        prompts=64,
        samples=8,
        prompt_len=(100, 300),
        budget=1024,
    ),
    "tiny": Shape(
        {
            "vocab_size": 1024,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
        prompts=4,
        samples=4,
        prompt_len=(10, 30),
        budget=32,
    ),
}


class PlainTokenizer:
    """Texts do not matter here."""

    eos_token_id = 0
    all_special_ids = all_special_tokens = ()
    added_tokens_decoder: ClassVar[dict[int, Any]] = {}

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_contract_on_cuda(family: str, dtype: torch.dtype, check: str) -> None:
    model, other = (tiny_model(family, seed=seed).to("cuda", dtype) for seed in (0, 1))

    def make() -> TorchEngine:
        return TorchEngine(model, tiny_tokenizer(), device="cuda", dtype=dtype)

    CHECKS[check](Subject(make, model, other, tiny_tokenizer(), EOS, **TOLERANCES[dtype]))


def test_rl_steps_of_a_1_5b_model() -> None:
    """Engine and learner agree before and after updates, within what bf16 costs, and everything stays finite."""
    for row in rl_steps(SHAPES["1.5B"], torch.device("cuda"), steps=3):
        assert row["mismatch_abs"] < 0.05
        assert row["mismatch_k3"] < 0.01
        assert np.isfinite(row["grad_norm"])
        assert row["grad_norm"] > 0
        assert row["responses"] == 64 * 8


def make_model(shape: Shape, device: torch.device) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    vocabulary = shape.model["vocab_size"]
    settings: dict[str, Any] = {
        **shape.model,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "eos_token_id": list(range(vocabulary // 512)),
    }
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2ForCausalLM(Qwen2Config(**settings))
    hf.probe(model.eval(), "random model")
    return model


def sample_groups(engine: TorchEngine, shape: Shape, step: int) -> list[Group]:
    """Groups of one rollout; a coin decides each reward."""
    rng = np.random.default_rng(step)
    first, last = shape.model["vocab_size"] // 512, shape.model["vocab_size"]
    prompts = [tuple(rng.integers(first, last, rng.integers(*shape.prompt_len)).tolist()) for _ in range(shape.prompts)]
    requests = [
        Request(id=i, prompt_ids=prompt, seed=step * 10**6 + i, max_new_tokens=shape.budget)
        for i, prompt in enumerate(p for p in prompts for _ in range(shape.samples))
    ]
    completions = generate_all(engine, requests)
    groups = []
    for number, ids in enumerate(prompts):
        members = tuple(completions[number * shape.samples : (number + 1) * shape.samples])
        rewards_G = rng.integers(0, 2, shape.samples).astype(float)
        rewards_G[:2] = 0.0, 1.0  # never all equal
        grades = tuple(Grade(bool(r), True, "correct" if r else "wrong") for r in rewards_G)
        groups.append(Group(Prompt(Question(str(number), "", ("1",)), "", ids), members, grades, rewards_G))
    return groups


def rl_steps(shape: Shape, device: torch.device, steps: int) -> Iterator[dict[str, float]]:
    """A row of figures for each on-policy step: sampling in bf16, learning in fp32 under bf16 autocast."""
    model = make_model(shape, device)
    config = LearnerConfig(lr=1e-6, micro_batch_tokens=16384)
    learner = Learner(model, config, budget=shape.budget, total_steps=steps, precision="bf16")
    engine = TorchEngine(model, PlainTokenizer(), device=device, dtype="bfloat16", kv_bytes=40 * 2**30)
    for step in range(steps):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        times = [now(device)]
        groups = sample_groups(engine, shape, step)
        times.append(now(device))
        batch = make_batch(groups, PRESETS["dr_grpo"])
        stats = learner.forward_backward(batch, PRESETS["dr_grpo"])
        stats |= learner.optim_step()
        times.append(now(device))
        engine.update_weights(learner.version, learner.weights())
        times.append(now(device))
        sampling, learning, updating = np.diff(times)
        new_tokens = int(batch.response_len_N.sum())
        yield {
            "step": step,
            "responses": len(batch),
            "mean_length": new_tokens / len(batch),
            "sampling_tokens_per_s": new_tokens / sampling,
            "learner_tokens_per_s": len(batch.tokens_S) / learning,
            "sampling_s": sampling,
            "learning_s": learning,
            "weight_update_s": updating,
            "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan"),
            **{name: stats[name] for name in ("mismatch_abs", "mismatch_k3", "grad_norm", "entropy")},
        }


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", choices=list(SHAPES), default="1.5B")
    parser.add_argument("--steps", type=int, default=4, help="the first one also warms up")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    device = torch.device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{args.shape} on {name}, torch {torch.__version__}")
    rows: list[dict[str, float]] = []
    for row in rl_steps(SHAPES[args.shape], device, args.steps):
        if not rows:
            print(" ".join(f"{key:>22}" for key in row))
        rows.append(row)
        print(" ".join(f"{value:>22.4g}" for value in row.values()), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"device": name, "torch": torch.__version__, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
