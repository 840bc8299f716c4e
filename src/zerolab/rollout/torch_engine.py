"""The sampling engine in plain torch: many responses at once, rows refilled or closed up as they finish.

The four lines that matter are in `_advance`: admit what fits, one step for all rows, one draw per row, take out what
is finished. The model is behind a Decoder (decoder.py), the rows are columns of numpy arrays (rows.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zerolab.datatypes import Completion, FinishReason
from zerolab.models.context import context_length
from zerolab.models.hf import as_dtype, eos_token_ids
from zerolab.rollout.cached_decoder import make_decoder
from zerolab.rollout.engine import EngineState, Request, check_request
from zerolab.rollout.in_flight import Rows, close_gaps, make_completion, unbegun
from zerolab.rollout.kv_cache import fewer_rows, is_shortage
from zerolab.rollout.sampler import restrict, sample
from zerolab.rollout.stop_strings import StopStrings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGITS_BYTES = 2**29  # of one step in float32; drawing from them needs about twice as much again


class TorchEngine:
    """Samples from its own copy of a causal LM's weights. See engine.Engine for the contract.

    kv_bytes bounds the memory of keys and values, max_rows the rows that are computed at once; what does not fit waits
    until rows finish. Pausing, aborting and updating may come from another thread, or between two completions. On a GPU
    `cuda_graphs` replays recorded steps (graphs.py).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float32,
        kv_bytes: int = 2 * 2**30,
        max_rows: int = 1024,
        cuda_graphs: bool = True,
    ) -> None:

        self.version = 0
        self.steps = 0  # forward passes so far: a sign of life for who watches from outside
        self._tokenizer = tokenizer
        self._decoder = make_decoder(model, device=torch.device(device), dtype=as_dtype(dtype), cuda_graphs=cuda_graphs)
        self._context = context_length(model.config)
        self._eos = np.zeros(self._decoder.vocab_size, dtype=bool)
        self._eos[[i for i in eos_token_ids(model, tokenizer) if i < len(self._eos)]] = True
        self._eos_ids = torch.from_numpy(np.nonzero(self._eos)[0]).to(device)
        self._stops = StopStrings(tokenizer, self._decoder.vocab_size)
        self._kv_bytes = kv_bytes
        self._max_rows = min(max_rows, max(1, LOGITS_BYTES // (4 * self._decoder.vocab_size)))
        self._gate = EngineState()
        self._stale = False  # weights changed under way: what was computed under the old ones is to be computed again
        self._rows = Rows(0, 0)
        self._version_spans: dict[
            int, list[tuple[int, int]]
        ] = {}  # index of a request in flight -> completions.VersionSpans

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """See Engine.generate. UserError for a request that fits neither the context nor the memory budget."""
        for request in requests:
            check_request(request, self._context, self._eos)
        return self._run(list(requests))

    def abort(self, ids: Collection[int] | None = None) -> None:
        self._gate.abort(ids)

    def pause(self) -> None:
        self._gate.pause()

    def resume(self) -> None:
        self._gate.resume()

    def update_weights(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]], partial: bool = False) -> None:
        with self._gate.updating():
            self._decoder.load(tensors, partial)
            if self._gate.busy:
                self._stale = True
                for row in range(self._rows.n):
                    mark = int(self._rows.count[row]), self.version
                    self._version_spans.setdefault(int(self._rows.request[row]), []).append(mark)
            self.version = version

    def sleep(self, weights: bool = False) -> None:
        with self._gate.idle():
            self._gate.asleep = True
            self._decoder.release()
            if weights:
                self._gate.complete = False
                self._decoder.drop_weights()

    def wake(self) -> None:
        self._gate.asleep = False

    def close(self) -> None:
        self.sleep()

    def _run(self, requests: list[Request]) -> Iterator[Completion]:
        if not requests:
            return
        try:
            with self._gate.generating(lambda: self._begin(requests)):
                rows = self._rows
                # Samples of one prompt side by side, so that they share a prefill also where not all fit at once.
                first = {p: i for i, p in reversed([(i, r.prompt_ids) for i, r in enumerate(requests)])}
                pending = sorted(range(len(requests)), key=lambda i: (first[requests[i].prompt_ids], i), reverse=True)
                while pending or rows.n:
                    with self._gate.step() as goes_on:
                        if not goes_on:
                            break
                        done = self._take_cut(requests, rows, pending)
                        if rows.n or pending:
                            done += self._advance_or_retreat(requests, rows, pending)
                            rows = self._rows
                    yield from done
                yield from self._ended(requests, rows, pending)
        except FloatingPointError:
            self._decoder.release()  # what is not finite must not outlive the weights it came from
            raise

    def _begin(self, requests: Sequence[Request]) -> None:
        self._rows = self._reserve(requests)
        self._version_spans.clear()
        self._stale = False

    def _reserve(self, requests: Sequence[Request]) -> Rows:
        """An empty table of as many rows as fit at once."""
        while True:
            try:
                capacity = self._decoder.reserve(requests, self._kv_bytes, self._max_rows)
                return Rows(capacity, max(r.max_new_tokens for r in requests))
            except (RuntimeError, MemoryError) as error:
                if not is_shortage(error):
                    raise
            self._decoder.release()
            self._max_rows = fewer_rows(min(self._max_rows, len(requests)), requests)

    def _advance_or_retreat(self, requests: list[Request], rows: Rows, pending: list[int]) -> list[Completion]:
        """`_advance`, or where memory runs out: what is in flight begins anew, with half as many rows.

        It comes to the same responses, since their random numbers depend on seed and position alone.
        """
        try:
            return self._advance(requests, rows, pending)
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
        self._decoder.release()
        self._max_rows = fewer_rows(len(rows.count), requests)
        pending += sorted(rows.request[: rows.n].tolist(), reverse=True)
        self._version_spans.clear()
        self._stale = False
        self._rows = self._reserve(requests)
        return []

    def _advance(self, requests: list[Request], rows: Rows, pending: list[int]) -> list[Completion]:
        """One token for every row, or the first token of newly admitted ones. Returns what finished."""
        self.steps += 1
        if self._stale:
            self._rebuild(rows)
        new = self._admissible(requests, rows, pending)
        if new:
            logits = self._decoder.admit([requests[i].prompt_ids for i in new])
            where = rows.add(new, requests, self._stops)
            del pending[-len(new) :]
        else:
            where = slice(0, rows.n)
            last = rows.count[where] - 1
            logits = self._decoder.step(rows.tokens[np.arange(rows.n), last], last)
        tokens, logprobs = self._draw(logits, rows, where)
        rows.append(where, tokens, logprobs)
        return self._take_finished(requests, rows, where, tokens)

    def _draw(self, logits_NV: torch.Tensor, rows: Rows, where: slice) -> tuple[np.ndarray, np.ndarray]:
        support = rows.support(where)
        narrow = partial(restrict, support=support, eos=self._eos_ids) if support else None
        return sample(logits_NV, rows.temperature[where], rows.uniforms(where), narrow)

    def _admissible(self, requests: list[Request], rows: Rows, pending: list[int]) -> list[int]:
        """What of `pending` (last first) is admitted now: a quarter of all rows at least, or all the rest.

        Rows that begin together are cheaper than rows of many different lengths.
        """
        if not pending:
            return []
        capacity = len(rows.count)
        some = [requests[i].prompt_ids for i in pending[: -1 - capacity : -1]]
        room = self._decoder.room(some)
        if rows.n and room < min(len(pending), -(-capacity // 4)):
            return []
        return pending[: -1 - room : -1]

    def _take_finished(
        self, requests: list[Request], rows: Rows, where: slice, tokens_N: np.ndarray
    ) -> list[Completion]:
        stopped = self._eos[tokens_N]
        for i in self._stops.candidates(rows.stop[where], tokens_N):
            row = where.start + i
            response = rows.tokens[row, : rows.count[row]]
            stopped[i] |= self._stops.found(rows.stop[row], response, int(rows.min_tokens[row]))
        finished = np.nonzero(stopped | (rows.count[where] == rows.budget[where]))[0]
        if not len(finished):
            return []
        done = [self._completion(requests, rows, where.start + i, "stop" if stopped[i] else "length") for i in finished]
        self._drop(rows, where.start + finished)
        return done

    def _drop(self, rows: Rows, gone: np.ndarray) -> None:
        order = close_gaps(rows.n, gone)
        self._decoder.keep(order)
        rows.keep(order)

    def _take_cut(self, requests: list[Request], rows: Rows, pending: list[int]) -> list[Completion]:
        """The requests that were aborted one by one since the last step."""
        ids = self._gate.take_cut()
        if not ids:
            return []
        gone = np.nonzero([requests[i].id in ids for i in rows.request[: rows.n]])[0]
        done = [self._completion(requests, rows, row, "abort") for row in gone]
        done += [unbegun(requests[i], self.version) for i in reversed(pending) if requests[i].id in ids]
        pending[:] = [i for i in pending if requests[i].id not in ids]
        if len(gone):
            self._drop(rows, gone)
        return done

    def _completion(self, requests: list[Request], rows: Rows, row: int, reason: FinishReason) -> Completion:
        index, count = int(rows.request[row]), int(rows.count[row])
        ids_L, logprobs_L = rows.tokens[row, :count].copy(), rows.logprobs[row, :count].copy()
        version_spans = self._version_spans.get(index, [])
        return make_completion(requests[index], self._tokenizer, ids_L, logprobs_L, reason, self.version, version_spans)

    def _ended(self, requests: list[Request], rows: Rows, pending: list[int]) -> Iterator[Completion]:
        """What an abort cut off: the rows with what they have, and what never began with nothing."""
        for row in range(rows.n):
            yield self._completion(requests, rows, row, "abort")
        for index in reversed(pending):
            yield unbegun(requests[index], self.version)

    def _rebuild(self, rows: Rows) -> None:
        """New weights came while paused: what was computed under the old ones is computed again."""
        if rows.n:
            self._decoder.rebuild([rows.tokens[i, : rows.count[i]] for i in range(rows.n)])
        self._stale = False
