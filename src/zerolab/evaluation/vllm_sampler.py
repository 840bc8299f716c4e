"""vLLM in this process as a sampler, where it is installed. Written against vLLM 0.32; never run on a GPU here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from zerolab.errors import UserError
from zerolab.evaluation.sampler import Ask, Failed, Sampled, token_cuts

AT_ONCE = 512  # asks handed to vLLM at a time: what a kill may lose


class VllmSampler:
    """A loaded vllm.LLM with the tokenizer and context that the other samplers use."""

    def __init__(self, llm: Any, tokenizer: Any, encode: Callable[[str], list[int]], context: int):
        self.llm, self.tokenizer, self.encode, self.context = llm, tokenizer, encode, context
        self._stopped = threading.Event()

    def sample(self, asks: Sequence[Ask]) -> Iterator[Sampled | Failed]:
        from vllm import SamplingParams

        self._stopped.clear()
        for start in range(0, len(asks), AT_ONCE):
            if self._stopped.is_set():
                return
            chosen, prompts, parameters, rooms = [], [], [], []
            for ask in asks[start : start + AT_ONCE]:
                ids = list(self.encode(ask.prompt))
                room = min(ask.max_new_tokens, self.context - len(ids))
                if room < 1:
                    yield Failed(ask.id, f"a prompt of {len(ids)} tokens fills the context of {self.context}")
                    continue
                chosen.append(ask)
                rooms.append(room)
                prompts.append({"prompt_token_ids": ids})
                parameters.append(SamplingParams(**options(ask, room)))
            outputs = self.llm.generate(prompts, parameters, use_tqdm=False) if chosen else []
            for ask, room, output in zip(chosen, rooms, outputs, strict=True):
                yield self._outcome(ask, room, output.outputs[0])

    def _outcome(self, ask: Ask, room: int, found: Any) -> Sampled | Failed:
        if found.finish_reason not in ("stop", "length"):
            return Failed(ask.id, f"vLLM ended it by {str(found.finish_reason)[:40]!r}")
        ids = list(found.token_ids)
        return Sampled(ask.id, found.text, len(ids), found.finish_reason, room, token_cuts(self.tokenizer, ids))

    def stop(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        self.stop()


def options(ask: Ask, room: int) -> dict[str, Any]:
    """What vLLM's SamplingParams is given: one response, its own seed, the stop string kept in the text."""
    return {
        "n": 1,
        "temperature": ask.temperature,
        "top_p": ask.top_p,
        "top_k": ask.top_k or -1,
        "min_tokens": min(ask.min_tokens, room),
        "max_tokens": room,
        "seed": ask.seed % 2**31,
        "stop": list(ask.stop) or None,
        "include_stop_str_in_output": True,
        "skip_special_tokens": True,
    }


def load_vllm(path: str, precision: str) -> Any:
    """A vllm.LLM of a folder or hub id, without the code of its repository. UserError where vLLM is not installed."""
    try:
        from vllm import LLM
    except ImportError as error:
        raise UserError("--engine vllm needs vLLM here: pip install vllm, or leave the option out") from error
    dtype = "bfloat16" if precision == "bf16" else "float32"
    return LLM(model=path, dtype=dtype, trust_remote_code=False, enable_prefix_caching=True)
