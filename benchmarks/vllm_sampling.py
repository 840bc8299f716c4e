"""vLLM against the torch engine on a CPU: the same requests, and the same update of all weights.

Requests as in sampling.py: 32 questions x 8 samples, prompts of 32 to 64 tokens, up to 128 new tokens at temperature
1, one token in 64 ends a response. fp32, one thread, CPU-seconds, both sides in turn. `laptop` has the shape of
laptop/base with 2 heads in the place of 4, whose 16 channels vLLM does not take. Compiling is off, as in training.

    .venv-scale/bin/python benchmarks/vllm_sampling.py [--size 1M] [--json FILE]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import record
from models import SIZES, WIDTHS, make_model, make_prompts, make_tokenizer
from sampling import run_engine
from zerolab.models.hf import export_model, named_weights
from zerolab.rollout.torch_engine import TorchEngine
from zerolab.rollout.vllm_engine import VllmEngine, VllmOptions

REPEATS = {"laptop": 3, "1M": 3, "15M": 2}
UPDATES = 5


def update_seconds(engine: Any, model: Any) -> tuple[float, float]:
    """(seconds, CPU-seconds) of an update of all weights, the median of several."""
    wall, cpu = [], []
    for version in range(1, UPDATES + 1):
        start = time.perf_counter(), time.process_time()
        engine.update_weights(version, named_weights(model))
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return statistics.median(wall), statistics.median(cpu)


def measure(size: str) -> dict[str, Any]:
    model = make_model(size)
    tokenizer = make_tokenizer(model.config.vocab_size)
    prompts = make_prompts(model.config.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        export_model(model, tokenizer, folder)
        options = VllmOptions(kv_bytes=2**30, max_tokens=256, max_rows=512)
        engines: dict[str, Any] = {"torch": TorchEngine(model, tokenizer), "vllm": VllmEngine(folder, options)}
    for engine in engines.values():
        run_engine(engine, prompts, 0)
    runs: list[dict[str, float]] = []
    for seed in range(1, REPEATS[size] + 1):
        run: dict[str, float] = {}
        for name, engine in engines.items():
            lengths, seconds = run_engine(engine, prompts, seed)
            run[f"{name}_tokens_per_cpu_s"] = sum(lengths) / seconds
            run[f"{name}_mean_length"] = sum(lengths) / len(lengths)
        run["ratio"] = run["torch_tokens_per_cpu_s"] / run["vllm_tokens_per_cpu_s"]
        runs.append(run)
    middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    parameters = sum(p.numel() for p in model.parameters())
    found: dict[str, Any] = {"size": size, "parameters": parameters, "megabytes": 4 * parameters / 1e6, **middle}
    found["ratio_range"] = [min(run["ratio"] for run in runs), max(run["ratio"] for run in runs)]
    for name, engine in engines.items():
        found[f"{name}_update_s"], found[f"{name}_update_cpu_s"] = update_seconds(engine, model)
    engines["vllm"].close()
    return found


def row(r: dict[str, Any]) -> str:
    low, high = r["ratio_range"]
    return (
        f"{r['size']:>7} {r['parameters']:>11,} torch {r['torch_tokens_per_cpu_s']:,.0f} tok/CPU-s, vLLM "
        f"{r['vllm_tokens_per_cpu_s']:,.0f}; torch {r['ratio']:.2f} times as fast ({low:.2f} to {high:.2f}); lengths "
        f"{r['torch_mean_length']:.0f} and {r['vllm_mean_length']:.0f}; update of {r['megabytes']:.0f} MB: torch "
        f"{r['torch_update_s']:.3f} s, vLLM {r['vllm_update_s']:.3f} s ({r['vllm_update_cpu_s']:.3f} CPU-s)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(REPEATS), help="one size only")
    parser.add_argument("--json", type=Path, help="write the figures here (default: benchmarks/results)")
    args = parser.parse_args()
    record.begin_with(threads=1)
    SIZES["laptop"] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    WIDTHS["laptop"] = (256, 64)
    results = []
    for size in [args.size] if args.size else REPEATS:
        results.append(measure(size))
        print(row(results[-1]), flush=True)
    if args.json or not args.size:
        print(f"written to {record.write('vllm_sampling', results, args.json)}")


if __name__ == "__main__":
    main()
