"""Sampling speed: the torch engine against transformers' batched `generate`, in tokens per CPU-second of one thread.

Random Qwen2-shaped models; 32 questions x 8 samples, prompts of 32 to 64 tokens, up to 128 new tokens at temperature 1.
One token in 64 is an end-of-sequence token, so lengths are spread as geometric ones with mean 64, cut at 128, on both
sides. transformers samples all 256 rows as one batch with scaled-dot-product attention and its dynamic KV cache (the
static one attends over its full length and was slower). For both, the C allocator is told to keep its memory: the
default gives large blocks back and pays for every page again, which slows transformers by a fifth.

The bound is what no implementation in this precision can beat: every product at the speed of a large matrix product,
plus every byte that a step needs at the speed of a read from memory, both measured beside each run.

    python benchmarks/sampling.py [--size 1M] [--repeats 3] [--alone] [--profile] [--json FILE]
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import record
from models import NEW_TOKENS, QUESTIONS, SAMPLES, SIZES, PlainTokenizer, make_model, make_prompts
from zerolab.rollout.engine import Request, generate_all
from zerolab.rollout.torch_engine import TorchEngine

AIMS = {"1M": 2.2, "15M": 2.2, "100M": 1.7}  # times transformers
AIM_OF_BOUND = {"15M": 0.6}
REPEATS = {"1M": 3, "15M": 3, "100M": 1}


def run_engine(engine: TorchEngine, prompts: list[tuple[int, ...]], seed: int) -> tuple[list[int], float]:
    """(lengths of the responses, CPU-seconds)."""
    requests = [
        Request(id=i, prompt_ids=prompt, seed=seed * 10**6 + i, max_new_tokens=NEW_TOKENS)
        for i, prompt in enumerate(p for p in prompts for _ in range(SAMPLES))
    ]
    start = time.process_time()
    completions = generate_all(engine, requests)
    return [len(c) for c in completions], time.process_time() - start


@torch.inference_mode()
def run_transformers(model: Any, prompts: list[tuple[int, ...]], seed: int) -> tuple[list[int], float]:
    """The same with `generate`: left padding, all rows in one batch, no top-k or top-p."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    torch.manual_seed(seed)
    start = time.process_time()
    out = model.generate(
        ids,
        attention_mask=mask,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        num_return_sequences=SAMPLES,
        max_new_tokens=NEW_TOKENS,
    )
    seconds = time.process_time() - start
    ended = torch.isin(out[:, longest:], torch.tensor(model.config.eos_token_id))
    first = torch.where(ended.any(1), ended.int().argmax(1) + 1, out.shape[1] - longest)
    return first.tolist(), seconds


def machine() -> tuple[float, float]:
    """(FLOP/s of a large float32 matrix product, bytes/s of a read beyond every cache), the best of several tries."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    large = torch.ones(2**27)

    def best(work: Any) -> float:
        times = []
        for _ in range(8):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
        return min(times)

    return 2 * 1024**3 / best(lambda: a @ b), large.numel() * 4 / best(large.sum)


def bound_seconds(
    model: Any, prompts: list[tuple[int, ...]], lengths: list[int], peak: float, rate: float
) -> tuple[float, float]:
    """Least (computing, reading) time for these responses: every product at the matrix peak; every byte of weights,
    keys and values that a step needs (a prompt's once for all its rows) at the bandwidth; a cache can beat that."""
    config = model.config
    layers, dim = config.num_hidden_layers, config.hidden_size // config.num_attention_heads
    head = config.vocab_size * config.hidden_size
    body = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name)
    kv_bytes = 2 * layers * config.num_key_value_heads * dim * 4
    attention = 4 * layers * config.hidden_size  # FLOP per query and key
    flops = sum(2.0 * body * len(p) + attention * len(p) ** 2 / 2 + 2 * head for p in prompts)
    length_QG = np.array(lengths).reshape(QUESTIONS, SAMPLES)
    prompt_Q = np.array([len(p) for p in prompts])
    moved = 0.0
    for t in range(1, int(length_QG.max())):
        alive_QG = length_QG > t
        own = t * alive_QG.sum()
        flops += 2.0 * (body + head) * alive_QG.sum() + attention * (own + (alive_QG.sum(1) * prompt_Q).sum())
        moved += 4.0 * (body + head) + kv_bytes * (own + prompt_Q[alive_QG.any(1)].sum())
    return flops / peak, moved / rate


def measure(size: str, repeats: int, alone: bool) -> dict[str, Any]:
    model = make_model(size)
    prompts = make_prompts(model.config.vocab_size)
    engine = TorchEngine(model, PlainTokenizer())
    run_engine(engine, prompts, 0)
    runs: list[dict[str, float]] = []
    for seed in range(1, repeats + 1):  # in turn, so that a busy machine slows both alike
        peak, rate = machine()
        lengths, seconds = run_engine(engine, prompts, seed)
        computing, reading = bound_seconds(model, prompts, lengths, peak, rate)
        run = {
            "engine_tokens_per_cpu_s": sum(lengths) / seconds,
            "engine_mean_length": sum(lengths) / len(lengths),
            "share_of_bound": (computing + reading) / seconds,
            "computing_part_of_bound": computing / (computing + reading),
            "matmul_gflops": peak / 1e9,
            "bandwidth_gb_per_s": rate / 1e9,
        }
        if not alone:
            lengths, seconds = run_transformers(model, prompts, seed)
            run["transformers_tokens_per_cpu_s"] = sum(lengths) / seconds
            run["transformers_mean_length"] = sum(lengths) / len(lengths)
            run["ratio"] = run["engine_tokens_per_cpu_s"] / run["transformers_tokens_per_cpu_s"]
        runs.append(run)
    middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    spread = {f"{name}_range": spread_of(runs, name) for name in ("share_of_bound", "ratio") if name in runs[0]}
    parameters = sum(p.numel() for p in model.parameters())
    aims = {"aim": AIMS[size], "aim_of_bound": AIM_OF_BOUND.get(size)}
    return {"size": size, "parameters": parameters, "repeats": repeats, **middle, **spread, **aims}


def spread_of(runs: list[dict[str, float]], name: str) -> list[float]:
    return [min(run[name] for run in runs), max(run[name] for run in runs)]


def row(r: dict[str, Any]) -> str:
    low, high = r["share_of_bound_range"]
    text = (
        f"{r['size']:>5} {r['parameters']:>11,} {r['engine_tokens_per_cpu_s']:>13,.0f} "
        f"{r['share_of_bound']:>9.0%} ({low:.0%} to {high:.0%}; {r['computing_part_of_bound']:.0%} of the bound is "
        f"computing; {r['matmul_gflops']:.0f} GFLOP/s, {r['bandwidth_gb_per_s']:.0f} GB/s)"
    )
    if r["aim_of_bound"]:
        text += f" aim {r['aim_of_bound']:.0%} {'met' if r['share_of_bound'] >= r['aim_of_bound'] else 'MISSED'}"
    if "ratio" in r:
        low, high = r["ratio_range"]
        text += (
            f"\n      transformers {r['transformers_tokens_per_cpu_s']:,.0f} tok/s; engine {r['ratio']:.2f} times as "
            f"fast ({low:.2f} to {high:.2f}), aim {r['aim']} {'met' if r['ratio'] >= r['aim'] else 'MISSED'}; lengths "
            f"{r['engine_mean_length']:.0f} and {r['transformers_mean_length']:.0f}"
        )
    return text


def print_profile(size: str) -> None:
    """Which operators the time of one rollout goes to. The profiler's own cost is in it, small operators' above all."""
    from torch.profiler import ProfilerActivity, profile

    model = make_model(size)
    prompts = make_prompts(model.config.vocab_size)
    engine = TorchEngine(model, PlainTokenizer())
    run_engine(engine, prompts, 0)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        run_engine(engine, prompts, 1)
    events = sorted(seen.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    for event in events[:16]:
        print(f"{size:>5} {event.key:<28} {event.self_cpu_time_total / total:>6.1%} {event.count:>8,} calls")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), help="one size only")
    parser.add_argument("--repeats", type=int, help=f"runs of each side (default: {REPEATS})")
    parser.add_argument("--alone", action="store_true", help="the engine against its bound only")
    parser.add_argument(
        "--profile", action="store_true", help="which operators the engine's time goes to, nothing else"
    )
    parser.add_argument("--json", type=Path, help="write the figures here (default: benchmarks/results/sampling.json)")
    args = parser.parse_args()
    record.begin_with(threads=1)
    sizes = [args.size] if args.size else list(SIZES)
    if args.profile:
        for size in sizes:
            print_profile(size)
        return
    results = []
    print(f"{'size':>5} {'parameters':>11} {'tok/CPU-s':>13} {'of bound':>9}")
    for size in sizes:
        results.append(measure(size, args.repeats or REPEATS[size], args.alone))
        print(row(results[-1]), flush=True)
    whole = not (args.size or args.alone or args.repeats)
    if args.json or whole:  # a part of the table must not stand in the place of the whole one
        print(f"written to {record.write('sampling', results, args.json)}")


if __name__ == "__main__":
    main()
