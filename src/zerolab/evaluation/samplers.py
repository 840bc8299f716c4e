"""Samplers: text in; text, token count and finish reason out. Evaluation, analysis and judges see only this.

An engine with its tokenizer is a sampler (here), and so is a served model (endpoint.py). A local model is a folder,
a hub id or the newest checkpoint of a run. A log records which checkpoints of a run were evaluated on a test
benchmark: the best of several would be chosen on the test set.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from zerolab.data.question_config import benchmark_of, forced_note
from zerolab.data.templates import make_encode
from zerolab.errors import UserError
from zerolab.learner.checkpoint_files import newest_whole
from zerolab.models.fetch import local_model
from zerolab.rollout.engine import Engine, Request
from zerolab.rollout.stop_strings import decode
from zerolab.rundir import CONFIG, TEST_LOOKS, read_object

CUT_TOKENS = 64  # every so many tokens it is noted where in the text they end

Resolver = Callable[[str], str]  # from the name of a pretraining recipe to the folder of its model; else unchanged


@dataclass(frozen=True, slots=True)
class Ask:
    """One response to sample. Its random numbers are a function of its seed, where the sampler can do that."""

    id: int
    prompt: str
    seed: int
    max_new_tokens: int
    temperature: float = 1.0
    stop: tuple[str, ...] = ()
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    min_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Sampled:
    """tokens is None where nobody counted. cuts[i]: characters of the text after (i + 1) CUT_TOKENS tokens."""

    id: int
    text: str
    tokens: int | None
    finish_reason: str  # stop, length
    budget: int  # tokens it was allowed: less than asked for where the context is too short
    cuts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """No response, and why, in one line. Never a response of no text, never a wrong answer."""

    id: int
    why: str


class Sampler(Protocol):
    def sample(self, asks: Sequence[Ask]) -> Iterator[Sampled | Failed]:
        """One outcome for each ask, as they finish. After `stop` those that did not finish are left out.

        UserError where nothing can come of it (no access, no such model, too many failures in a row).
        """
        ...

    def stop(self) -> None:
        """Ends what is in flight, from another thread or between two outcomes."""
        ...

    def close(self) -> None: ...


class EngineSampler:
    """A sampling engine, its tokenizer, and the model's context in tokens.

    A prompt that leaves less room than the budget is sampled to the end of the context; one that leaves none fails.
    """

    def __init__(self, engine: Engine, tokenizer: Any, encode: Callable[[str], list[int]], context: int):
        self.engine, self.tokenizer, self.encode, self.context = engine, tokenizer, encode, context

    def sample(self, asks: Sequence[Ask]) -> Iterator[Sampled | Failed]:
        requests, room, stops = [], {}, {ask.id: ask.stop for ask in asks}
        ids = {prompt: tuple(self.encode(prompt)) for prompt in dict.fromkeys(ask.prompt for ask in asks)}
        for ask in asks:
            prompt_ids = ids[ask.prompt]
            room[ask.id] = min(ask.max_new_tokens, self.context - len(prompt_ids))
            if room[ask.id] < 1:
                yield Failed(
                    ask.id, f"a prompt of {len(prompt_ids)} tokens or more fills the context of {self.context}"
                )
                continue
            requests.append(self._request(ask, prompt_ids, room[ask.id]))
        for completion in self.engine.generate(requests):
            if completion.finish_reason == "abort":
                continue
            yield Sampled(
                completion.request_id,
                completion.text,
                len(completion),
                completion.finish_reason,
                room[completion.request_id],
                token_cuts(self.tokenizer, completion.token_ids_L, stops[completion.request_id]),
            )

    @staticmethod
    def _request(ask: Ask, prompt_ids: tuple[int, ...], room: int) -> Request:
        restrictions = (ask.top_p, ask.top_k, min(ask.min_tokens, room))
        return Request(ask.id, prompt_ids, ask.seed, room, ask.temperature, ask.stop, *restrictions)

    def stop(self) -> None:
        self.engine.abort()

    def close(self) -> None:
        self.engine.close()


def token_cuts(tokenizer: Any, token_ids_L: np.ndarray, stop: tuple[str, ...] = ()) -> tuple[int, ...]:
    """Lengths of the text of every prefix of a multiple of CUT_TOKENS tokens."""
    ends = range(CUT_TOKENS, len(token_ids_L) + 1, CUT_TOKENS)
    return tuple(len(decode(tokenizer, token_ids_L[:end], stop)) for end in ends)


def run_of(folder: Path) -> Path | None:
    """The run that a checkpoint belongs to; None for any other folder."""
    place = folder.resolve()
    return place.parents[1] if place.parent.name == "checkpoints" and (place.parents[1] / CONFIG).is_file() else None


def note_of(folder: Path) -> str | None:
    """What a checkpoint's run has to say of its evaluation while it trained."""
    run = run_of(folder)
    if run is None:
        return None
    config = read_object(run / CONFIG)
    return None if config is None else forced_note(config)


def look(folder: Path, benchmarks: Sequence[str], forced: bool) -> str | None:
    """Writes down that this checkpoint is shown these benchmarks; what its tables have to say, if anything.

    Raises UserError where another checkpoint of the run was shown one of them and this is not `forced`.
    """
    run = run_of(folder)
    tests = [name for name in benchmarks if benchmark_of(name)]
    if run is None or not tests:
        return None
    looks = read_looks(run)
    others = sorted({step for step, name in looks if name in tests and step != folder.name})
    if others and not forced:
        raise UserError(
            f"{', '.join(others)} of {run.name} saw a test benchmark before, and the best of several checkpoints is "
            "chosen on the test: choose by held-out questions (eval/accuracy); --several-checkpoints goes on, and the "
            "tables say so"
        )
    new = [name for name in tests if (folder.name, name) not in looks]
    with (run / TEST_LOOKS).open("a", encoding="utf-8") as file:
        for name in new:
            when = datetime.now(UTC).isoformat(timespec="seconds")
            file.write(json.dumps({"checkpoint": folder.name, "benchmark": name, "when": when}) + "\n")
    if not others:
        return None
    return f"one of {len(others) + 1} checkpoints of {run.name} that were shown a test benchmark: no choice among them"


def read_looks(run: Path) -> set[tuple[str, str]]:
    """(checkpoint, test benchmark that it was shown) of a run; a broken line counts as none."""
    file, found = run / TEST_LOOKS, set()
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else ():
        try:
            row = json.loads(line)
            found.add((str(row["checkpoint"]), str(row["benchmark"])))
        except (ValueError, KeyError, TypeError):
            continue
    return found


@dataclass(frozen=True)
class Machine:
    device: str = "auto"
    precision: str = "fp32"
    kv_gb: float = 2.0
    engine: str = "torch"


def find_model(target: str, benchmarks: Sequence[str] = (), forced: bool = False) -> tuple[str, str | None]:
    """(folder or hub id, what tables have to say of it). A run's folder stands for its newest checkpoint.

    Raises UserError for a run without one, and for `look`'s reason.
    """
    skipped: list[str] = []
    target = local_model(target)
    folder = Path(target).expanduser()
    if not folder.is_dir():
        return target, None
    if (folder / "checkpoints").is_dir():
        newest, skipped = newest_whole(folder / "checkpoints")
        if newest is None:
            what = f"no whole checkpoint: {'; '.join(skipped)}" if skipped else "no checkpoint yet"
            raise UserError(f"{folder} holds {what}: let the run save one, or give a model's folder")
        folder = newest
    notes = [*skipped, *(note for note in (note_of(folder), look(folder, benchmarks, forced)) if note)]
    return str(folder), "; ".join(notes) or None


def load_sampler(path: str, machine: Machine) -> tuple[Sampler, Any]:
    """(sampler, tokenizer). Raises UserError for a model that cannot be loaded."""
    import torch

    from zerolab.models.context import context_length
    from zerolab.models.hf import load_model, load_tokenizer, pick_device
    from zerolab.rollout.torch_engine import TorchEngine

    if machine.engine not in ("torch", "vllm"):
        raise UserError(f"--engine {machine.engine!r} is unknown: choose torch or vllm")
    tokenizer = load_tokenizer(path)
    device, kv_bytes = pick_device(machine.device), int(machine.kv_gb * 2**30)
    if machine.engine == "vllm":
        from zerolab.rollout.vllm_engine import VllmEngine
        from zerolab.rollout.vllm_start import VllmOptions

        options = VllmOptions(precision=machine.precision, device=str(device), kv_bytes=kv_bytes)
        sampling = VllmEngine(path, options)
        return EngineSampler(sampling, tokenizer, make_encode(tokenizer, sampling.context), sampling.context), tokenizer
    model = load_model(path, dtype=torch.float32, device=device)
    dtype = torch.bfloat16 if machine.precision == "bf16" else torch.float32
    engine = TorchEngine(model, tokenizer, device=device, dtype=dtype, kv_bytes=kv_bytes)
    context = context_length(model.config)
    return EngineSampler(engine, tokenizer, make_encode(tokenizer, context), context), tokenizer
