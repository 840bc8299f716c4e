"""What one GPU gets out of sampling and learning, in bf16, against its own measured limits. Never run so far.

Random weights shaped like Qwen2.5-1.5B and 7B. Sampling: tokens per second of responses of one length, each with a
prompt of its own, beside the bound by bandwidth (weights once for each token of all rows, and every key and value).
Learning: sequences of 3,000 tokens without padding, forward and backward of a whole optimizer step, as a share of the
measured peak of a large bf16 matrix product (model FLOPs: what checkpointing computes again does not count). The same
sequences go through TRL's GRPOTrainer where it is installed.

Each part is written to the file of results as it ends, and no part starts after --seconds, so that a run which is cut
off loses the part it was in and nothing else.

    python benchmarks/gpu.py [--shape 1.5B] [--no-trl] [--seconds 300] [--json FILE]
    python benchmarks/gpu.py --device cpu --shape tiny         the same code anywhere, in seconds
"""

import argparse
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import models
import record
from zerolab.config import LearnerConfig
from zerolab.learner.learner import Learner
from zerolab.rl.batch import Batch, pack
from zerolab.rl.objective import PRESETS
from zerolab.rollout.engine import Request, generate_all
from zerolab.rollout.torch_engine import TorchEngine

GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """`rows` responses are sampled, `sequences` learned from."""

    model: dict[str, int]
    rows: int
    new_tokens: int
    sequences: int
    length: int
    micro_batch_tokens: int
    kv_gb: float
    optimizer: bool  # whether AdamW's moments fit


SHAPES = {
    "1.5B": Shape(
        {"vocab_size": 151_936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
         "num_attention_heads": 12, "num_key_value_heads": 2},
        rows=512, new_tokens=512, sequences=32, length=3000, micro_batch_tokens=24_000, kv_gb=30, optimizer=True,
    ),
    "7B": Shape(
        {"vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28,
         "num_attention_heads": 28, "num_key_value_heads": 4},
        rows=256, new_tokens=512, sequences=16, length=3000, micro_batch_tokens=12_000, kv_gb=20, optimizer=False,
    ),
    "tiny": Shape(
        {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2},
        rows=8, new_tokens=16, sequences=4, length=64, micro_batch_tokens=128, kv_gb=0.1, optimizer=True,
    ),
}  # fmt: skip
LARGE = ("1.5B", "7B")
PROMPT = 200


def make_model(shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    settings: dict[str, Any] = {
        **shape.model,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": shape.model["hidden_size"] < 3000,  # as in the family
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    with torch.device(device):
        return Qwen2ForCausalLM(Qwen2Config(**settings)).to(dtype).eval()


def matrix_peak(device: torch.device) -> float:
    """FLOP/s of a large bf16 matrix product, the best of several tries."""
    size = 8192 if device.type == "cuda" else 64
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / min(seconds(lambda: a @ b, device) for _ in range(10))


def bandwidth(device: torch.device) -> float:
    """Bytes/s of a read beyond every cache."""
    large = torch.ones(2**30 if device.type == "cuda" else 2**22, device=device)
    return large.numel() * 4 / min(seconds(large.sum, device) for _ in range(10))


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    start = now(device)
    work()
    return now(device) - start


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_gib(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated() / GIB if device.type == "cuda" else None


def forget(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def sampling(shape: Shape, device: torch.device, rate: float) -> dict[str, Any]:
    """Tokens/s of the engine; one token of the vocabulary ends a response, so nearly all rows stay full."""
    forget(device)
    model = make_model(shape, device, torch.bfloat16)
    engine = TorchEngine(
        model, models.PlainTokenizer(), device=device, dtype=torch.bfloat16, kv_bytes=int(shape.kv_gb * GIB)
    )
    body = sum(p.numel() for p in model.parameters())
    rng = np.random.default_rng(0)
    prompts = [tuple(rng.integers(1, shape.model["vocab_size"], PROMPT // 4).tolist()) for _ in range(shape.rows)]
    requests = [Request(id=i, prompt_ids=p, seed=i, max_new_tokens=shape.new_tokens) for i, p in enumerate(prompts)]
    del model
    generate_all(engine, requests[: max(1, shape.rows // 8)])
    start = now(device)
    done = generate_all(engine, requests)
    took = now(device) - start
    tokens = sum(map(len, done))
    head = shape.model["hidden_size"] // shape.model["num_attention_heads"]
    kv_bytes = 2 * 2 * shape.model["num_hidden_layers"] * shape.model["num_key_value_heads"] * head
    mean_context = PROMPT // 4 + shape.new_tokens / 2
    moved = shape.new_tokens * (2 * body + shape.rows * mean_context * kv_bytes)
    return {
        "rows": shape.rows,
        "tokens_per_s": tokens / took,
        "bound_tokens_per_s": tokens / (moved / rate),
        "times_the_bound": took / (moved / rate),
        "peak_gib": peak_gib(device),
    }


def make_step(shape: Shape) -> Batch:
    rng = np.random.default_rng(0)
    prompt = min(PROMPT, shape.length // 4)
    rows = [(prompt, shape.length - prompt, i // 4, float(i % 2), i % 2 - 0.5, 0) for i in range(shape.sequences)]
    tokens = [rng.integers(1, shape.model["vocab_size"], shape.length) for _ in rows]
    return pack(tokens, [np.full(shape.length - prompt, -11.0, np.float32)] * len(rows), rows)


def model_flops(shape: Shape) -> float:
    """Of forward and backward over all sequences: 6 per matrix weight and token, and causal attention."""
    m, tokens = shape.model, shape.sequences * shape.length
    head = m["hidden_size"] // m["num_attention_heads"]
    attention_weights = m["hidden_size"] * head * (2 * m["num_attention_heads"] + 2 * m["num_key_value_heads"])
    layer = attention_weights + 3 * m["hidden_size"] * m["intermediate_size"]
    response = shape.length - min(PROMPT, shape.length // 4)
    matrices = 6.0 * tokens * m["num_hidden_layers"] * layer
    vocabulary = 6.0 * shape.sequences * response * m["hidden_size"] * m["vocab_size"]
    attention = 6.0 * tokens * shape.length * m["num_hidden_layers"] * m["hidden_size"]
    return matrices + vocabulary + attention


def learning(shape: Shape, device: torch.device, peak: float, checkpointing: bool) -> dict[str, Any]:
    forget(device)
    config = LearnerConfig(micro_batch_tokens=shape.micro_batch_tokens, checkpointing=checkpointing, logits_mb=1024)
    model = make_model(shape, device, torch.float32)
    learner = Learner(model, config, budget=shape.length, total_steps=10, precision="bf16")
    step, objective = make_step(shape), PRESETS["dr_grpo"]
    learner.forward_backward(step.select(np.arange(2)), objective)
    took = seconds(lambda: learner.forward_backward(step, objective), device)
    found = {
        "checkpointing": checkpointing,
        "tokens_per_s": len(step.tokens_S) / took,
        "share_of_matrix_peak": model_flops(shape) / took / peak,
        "peak_gib": peak_gib(device),
    }
    if shape.optimizer:
        learner.optim_step()
        found["optimizer_s"] = seconds(learner.optim_step, device)
        found["peak_gib"] = peak_gib(device)
    return found


def trl_learning(shape: Shape, device: torch.device, peak: float) -> dict[str, Any] | None:
    """The same sequences through one optimizer step of a GRPOTrainer with its gradient checkpointing."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    try:
        import trl
    except ImportError:
        return None
    from datasets import Dataset
    from transformers import TrainerCallback

    forget(device)
    step = make_step(shape)
    whole = step.tokens_S.reshape(shape.sequences, shape.length)
    prompt = int(step.prompt_len_N[0])
    times: list[float] = []

    class Timer(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(now(device))

    def rollout(prompts: list[str], _: Any) -> dict[str, Any]:
        times.append(now(device))
        return {
            "prompt_ids": whole[: len(prompts), :prompt].tolist(),
            "completion_ids": whole[: len(prompts), prompt:].tolist(),
            "logprobs": [[-11.0] * (shape.length - prompt)] * len(prompts),
        }

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = trl.GRPOConfig(
            output_dir=folder,
            loss_type="dr_grpo",
            scale_rewards="none",
            num_generations=4,
            max_completion_length=shape.length,
            per_device_train_batch_size=max(1, shape.micro_batch_tokens // shape.length),
            gradient_accumulation_steps=shape.sequences // max(1, shape.micro_batch_tokens // shape.length),
            max_steps=2,
            optim="adamw_torch_fused" if shape.optimizer else "sgd",
            bf16=device.type == "cuda",
            use_cpu=device.type == "cpu",
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = trl.GRPOTrainer(
            model=make_model(shape, device, torch.float32),
            reward_funcs=lambda completions, **_: [float(i % 2) for i in range(len(completions))],
            args=config,
            train_dataset=Dataset.from_dict({"prompt": [f"t{i}" for i in range(shape.sequences)]}),
            processing_class=models.make_tokenizer(shape.model["vocab_size"]),
            rollout_func=rollout,
            callbacks=[Timer()],
        )
        trainer.train()
    took = times[-1] - times[-2]  # rollout to the end of the second step, AdamW included
    return {
        "checkpointing": True,
        "tokens_per_s": len(step.tokens_S) / took,
        "share_of_matrix_peak": model_flops(shape) / took / peak,
        "peak_gib": peak_gib(device),
    }


def measure(
    name: str,
    device: torch.device,
    with_trl: bool,
    *,
    deadline: float = math.inf,
    keep: Callable[[dict[str, Any]], None] = lambda found: None,
) -> dict[str, Any]:
    """The figures of one shape, most telling first. `keep` gets them after every part.

    Parts that would start after `deadline` (seconds of time.monotonic) are named in `left_out`.
    """
    shape, peak, rate = SHAPES[name], matrix_peak(device), bandwidth(device)
    found: dict[str, Any] = {
        "shape": name,
        "parameters": sum(p.numel() for p in make_model(shape, torch.device("meta"), torch.bfloat16).parameters()),
        "matrix_tflops": peak / 1e12,
        "bandwidth_gb_per_s": rate / 1e9,
        "sampling": None,
        "learning": [],
        "trl": None,
        "left_out": [],
    }
    parts: list[tuple[str, Callable[[], None]]] = [
        ("sampling", lambda: found.update(sampling=sampling(shape, device, rate)))
    ]
    for on in (False, True) if shape.optimizer else (True,):
        what = "learning" + ", checkpointing" * on
        parts.append((what, lambda on=on: found["learning"].append(learning(shape, device, peak, on))))
    if with_trl:
        parts.append(("TRL", lambda: found.update(trl=trl_learning(shape, device, peak))))
    keep(found)
    for what, part in parts:
        if time.monotonic() > deadline:
            found["left_out"].append(what)
        else:
            part()
        keep(found)
    return found


def text(found: dict[str, Any]) -> str:
    lines = [
        f"{found['shape']}: {found['parameters']:,} parameters; matrix peak {found['matrix_tflops']:.3g} TFLOP/s, "
        f"bandwidth {found['bandwidth_gb_per_s']:.3g} GB/s"
    ]
    if sampled := found["sampling"]:
        lines.append(
            f"  sampling {sampled['tokens_per_s']:,.0f} tokens/s in {sampled['rows']} rows, "
            f"{sampled['times_the_bound']:.2f} times the time of its bandwidth bound"
        )
    for name, row in [*(("zerolab", row) for row in found["learning"]), ("TRL", found["trl"])]:
        if row:
            what = f"{name}{', checkpointing' * row['checkpointing']}"
            memory = f", peak memory {row['peak_gib']:.1f} GiB" if row["peak_gib"] else ""
            speed = f"{row['tokens_per_s']:,.0f} tokens/s, {row['share_of_matrix_peak']:.1%} of the matrix peak"
            lines.append(f"  learning, {what}: {speed}{memory}")
    if found["left_out"]:
        lines.append(f"  left out for lack of time: {'; '.join(found['left_out'])}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", choices=list(SHAPES), help="one shape only (default: 1.5B and 7B)")
    parser.add_argument("--no-trl", action="store_true", help="leave TRL out even where it is installed")
    parser.add_argument("--json", type=Path, help="write the figures here, not into benchmarks/results")
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no part after so many seconds")
    args = parser.parse_args()
    device, deadline = torch.device(args.device), time.monotonic() + args.seconds
    done: list[dict[str, Any]] = []

    def keep(found: dict[str, Any]) -> None:
        if args.json or device.type == "cuda":
            record.write("gpu", [*done, found], args.json)

    for name in [args.shape] if args.shape else LARGE:
        done.append(measure(name, device, not args.no_trl, deadline=deadline, keep=keep))
        print(text(done[-1]), flush=True)


if __name__ == "__main__":
    main()
