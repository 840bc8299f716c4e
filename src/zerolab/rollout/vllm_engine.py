"""vLLM as a sampling engine in this process; see engine.py for the contract.

vLLM schedules, caches and computes. Steps are taken one at a time from here, so that completions come out as they
finish and weights can change between two tokens. Stop strings and text are zerolab's own, the same for every engine. An
update of the weights is checked name by name.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from zerolab.datatypes import Completion, FinishReason
from zerolab.errors import UserError
from zerolab.models.hf import eos_token_ids, load_tokenizer
from zerolab.rollout.decoder import check_names
from zerolab.rollout.engine import EngineState, Request, check_request
from zerolab.rollout.in_flight import make_completion, unbegun
from zerolab.rollout.stop_strings import StopStrings
from zerolab.rollout.vllm_start import DTYPES, VllmOptions, eager, packing, start


@dataclass(frozen=True, slots=True)
class Expected:
    """Shapes by Hugging Face name; `second` are further names of tied tensors, each with its first."""

    shapes: dict[str, torch.Size]
    second: dict[str, str]

    @classmethod
    def of(cls, config: Any) -> Expected:
        """From a transformers config, without memory for the weights."""
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        model.tie_weights()
        tensors = model.state_dict(keep_vars=True)
        first: dict[int, str] = {}
        second = {n: first[id(t)] for n, t in tensors.items() if first.setdefault(id(t), n) != n}
        return cls({name: tensor.shape for name, tensor in tensors.items()}, second)

    def checked(
        self, tensors: Iterable[tuple[str, torch.Tensor]], dtype: torch.dtype
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """`tensors` as they come, with every name of a tied one: vLLM leaves a name that it does not hear of stale.

        Raises ValueError for a tensor that is unknown, of another shape, or, at the end, missing.
        """
        firsts: dict[str, torch.Tensor] = {}
        given: set[str] = set()
        for name, tensor in tensors:
            if name not in self.shapes:
                raise ValueError(f"unknown tensor {name}")
            if tensor.shape != self.shapes[name]:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(self.shapes[name])}")
            given.add(name)
            if name in self.second.values():
                firsts[name] = tensor
            yield name, tensor.detach().to(dtype)
        for name, first in self.second.items():
            if name not in given and first in firsts:
                given.add(name)
                yield name, firsts[first].detach().to(dtype)
        check_names(given, set(self.shapes), set())


# vLLM raises what lies below to the first without a word, and takes nothing above the second.
COLDEST, HOTTEST = 0.01, 2.0


@dataclass(slots=True)
class InFlight:
    """A request on its way. `stop` is the number of its stop strings, -1 for none."""

    request: Request
    stop: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    version_spans: list[tuple[int, int]] = field(default_factory=list)  # completions.VersionSpans


class VllmEngine:
    """The model in a folder or under a hub id, sampled by vLLM.

    A sample's random numbers are a generator of its own, seeded by the request: on one build and device they depend on
    seed and position alone, but they are others than the torch engine's. Everything that the constructor takes can be
    sent to another process.
    """

    def __init__(self, path: str | Path, options: VllmOptions | None = None) -> None:

        self.version = self.steps = 0  # steps: forward passes so far, a sign of life for who watches
        self.options = options = options or VllmOptions()
        self._tokenizer = load_tokenizer(path)
        self._gate = EngineState()
        self._flights: dict[str, InFlight] = {}
        self._llm: Any = start(str(path), options)
        config: Any = AutoConfig.from_pretrained(str(path), trust_remote_code=False)
        self.context = int(self._llm.model_config.max_model_len)
        self._expected = Expected.of(config)
        vocab_size = int(config.get_text_config().vocab_size)
        self._eos_V = np.zeros(vocab_size, dtype=bool)
        model: Any = SimpleNamespace(config=config, generation_config=_generation_config(path))
        self._eos_V[[i for i in eos_token_ids(model, self._tokenizer) if i < vocab_size]] = True
        self._stops = StopStrings(self._tokenizer, vocab_size)

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """See Engine.generate. UserError for a request that vLLM cannot answer."""
        for request in requests:
            check_request(request, self.context, self._eos_V)
            if request.temperature and not COLDEST <= request.temperature <= HOTTEST:
                raise UserError(
                    f"vLLM samples at temperatures from {COLDEST} to {HOTTEST:g}, or greedily at 0, and not at "
                    f"{request.temperature:g}"
                )
        return self._run(list(requests))

    def abort(self, ids: Collection[int] | None = None) -> None:
        self._gate.abort(ids)

    def pause(self) -> None:
        self._gate.pause()

    def resume(self) -> None:
        self._gate.resume()

    def update_weights(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]], partial: bool = False) -> None:
        if partial:  # vLLM fuses matrices, and makes them anew from all of their parts
            raise ValueError("vLLM takes all weights or none")
        with self._gate.updating():
            if self._gate.asleep and self._sleeps:
                self._llm.wake_up(["weights"])
            checked = self._expected.checked(tensors, getattr(torch, DTYPES[self.options.precision]))
            with packing(self.options.device):
                self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": checked})
            # What is running goes back to the queue, and its keys and values are computed anew.
            self._llm.reset_prefix_cache(reset_running_requests=True)
            for flight in self._flights.values():
                flight.version_spans.append((len(flight.token_ids), self.version))
            self.version = version

    def sleep(self, weights: bool = False) -> None:
        """On a CPU this gives nothing back."""
        with self._gate.idle():
            if self._sleeps and not self._gate.asleep:
                self._llm.sleep(level=2 if weights else 1)
            self._gate.asleep = True
            self._gate.complete = self._gate.complete and not weights

    def wake(self) -> None:
        if self._gate.asleep and self._sleeps:
            self._llm.wake_up()
        self._gate.asleep = False

    def close(self) -> None:
        """For good. vLLM's state is the process's: another engine over it, begun before, ends with this one."""
        with self._gate.idle():
            self._gate.asleep = True
            if self._llm is not None:
                self._llm.engine_core.shutdown()
                self._llm = None

    @property
    def _sleeps(self) -> bool:
        return self.options.sleep and self.options.device != "cpu"

    def _run(self, requests: list[Request]) -> Iterator[Completion]:
        if not requests:
            return
        with self._gate.generating(lambda: self._begin(requests)):
            try:
                while self._flights:
                    with self._gate.step() as goes_on:
                        if not goes_on:
                            break
                        done = self._take_cut()
                        if self._flights:
                            done += self._advance()
                    yield from done
                yield from self._end(list(self._flights))
            finally:
                self._end(list(self._flights))

    def _begin(self, requests: list[Request]) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        eos_ids = np.nonzero(self._eos_V)[0].tolist()
        for index, request in enumerate(requests):
            parameters = SamplingParams(
                temperature=request.temperature,
                top_p=request.top_p,
                top_k=request.top_k,
                seed=request.seed,
                max_tokens=request.max_new_tokens,
                min_tokens=request.min_tokens,
                stop_token_ids=eos_ids,
                logprobs=0,
                detokenize=False,
                output_kind=RequestOutputKind.DELTA,
            )
            self._llm.add_request(str(index), {"prompt_token_ids": list(request.prompt_ids)}, parameters)
            self._flights[str(index)] = InFlight(request, self._stops.register(request.stop))

    def _advance(self) -> list[Completion]:
        """One step for what vLLM has scheduled. Returns what finished."""
        self.steps += 1
        # Asking gives OpenMP in a thread of its own the number that was set; until then its kernels disagree about it.
        torch.get_num_threads()
        with eager(self.options.device):
            outputs = self._llm.step()
        reasons: dict[str, FinishReason] = {}
        grown: list[str] = []
        for output in outputs:
            (piece,) = output.outputs
            flight = self._flights[output.request_id]
            logprobs = [known[i].logprob for i, known in zip(piece.token_ids, piece.logprobs, strict=True)]
            flight.token_ids += piece.token_ids
            flight.logprobs += logprobs
            if not all(map(math.isfinite, logprobs)):
                raise FloatingPointError("the model's logits are not finite; its weights have diverged")
            if piece.finish_reason:
                reasons[output.request_id] = "stop" if piece.finish_reason == "stop" else "length"
            if flight.stop >= 0 and piece.token_ids:
                grown.append(output.request_id)
        stopped = self._stopped(grown)
        self._llm.abort_request([name for name in stopped if name not in reasons])
        reasons |= dict.fromkeys(stopped, "stop")
        return [self._completion(self._flights.pop(name), reason) for name, reason in reasons.items()]

    def _stopped(self, names: list[str]) -> list[str]:
        """Those of these requests whose newest token completes a stop string."""
        flights = [self._flights[name] for name in names]
        sets_N = np.array([f.stop for f in flights], dtype=np.int64)
        tokens_N = np.array([f.token_ids[-1] for f in flights], dtype=np.int64)
        return [
            names[i]
            for i in (self._stops.candidates(sets_N, tokens_N) if names else ())
            if self._stops.found(flights[i].stop, np.array(flights[i].token_ids), flights[i].request.min_tokens)
        ]

    def _take_cut(self) -> list[Completion]:
        """The requests that were aborted one by one since the last step."""
        ids = self._gate.take_cut()
        return self._end([name for name, flight in self._flights.items() if flight.request.id in ids]) if ids else []

    def _end(self, names: list[str]) -> list[Completion]:
        """Takes requests out of vLLM; they come out with what they have."""
        self._llm.abort_request(names)
        return [self._completion(self._flights.pop(name), "abort") for name in names]

    def _completion(self, flight: InFlight, reason: FinishReason) -> Completion:
        if not flight.token_ids:
            return unbegun(flight.request, self.version)
        ids_L, logprobs_L = np.array(flight.token_ids, dtype=np.int64), np.array(flight.logprobs, dtype=np.float32)
        return make_completion(
            flight.request, self._tokenizer, ids_L, logprobs_L, reason, self.version, flight.version_spans
        )


def _generation_config(path: str | Path) -> Any:

    try:
        return GenerationConfig.from_pretrained(str(path))
    except OSError:  # a model need not have one
        return None
