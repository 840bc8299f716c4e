"""The sampling engine in plain torch: many responses at once, rows refilled or closed up as they finish.

The four lines that matter are in `_advance`: admit what fits, one step for all rows, one draw per row, take out what
is finished. The model is behind a Decoder (decoder.py), the rows are columns of numpy arrays (rows.py).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zerolab.errors import UserError
from zerolab.rollout.categorical import sample
from zerolab.rollout.decoder import make_decoder
from zerolab.rollout.engine import Request
from zerolab.rollout.rows import Rows, close_gaps
from zerolab.rollout.shortage import fewer_rows, is_shortage
from zerolab.rollout.stops import StopStrings, decode
from zerolab.rollout.support import restrict
from zerolab.types import Completion, FinishReason

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
        from zerolab.models.hf import as_dtype, eos_token_ids

        self.version = 0
        self.steps = 0  # forward passes so far: a sign of life for who watches from outside
        self._tokenizer = tokenizer
        self._decoder = make_decoder(model, device=torch.device(device), dtype=as_dtype(dtype), cuda_graphs=cuda_graphs)
        self._context = int(model.config.get_text_config().max_position_embeddings)
        self._eos = np.zeros(self._decoder.vocab_size, dtype=bool)
        self._eos[[i for i in eos_token_ids(model, tokenizer) if i < len(self._eos)]] = True
        self._eos_ids = torch.from_numpy(np.nonzero(self._eos)[0]).to(device)
        self._stops = StopStrings(tokenizer, self._decoder.vocab_size)
        self._kv_bytes = kv_bytes
        self._max_rows = min(max_rows, max(1, LOGITS_BYTES // (4 * self._decoder.vocab_size)))
        # The condition's lock is held during a step; the flags are read between steps.
        self._between_steps = threading.Condition()
        self._busy = self._paused = self._aborted = self._asleep = self._stale = False
        self._cut: deque[int] = deque()  # ids of requests to end
        self._complete = True  # False after an update that failed half way
        self._rows = Rows(0, 0)
        # Index of a request in flight -> (tokens, version) pairs: so many tokens were sampled up to then, the newest
        # of them under that version.
        self._marks: dict[int, list[tuple[int, int]]] = {}

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """See Engine.generate. UserError for a request that fits neither the context nor the memory budget."""
        for request in requests:
            self._check(request)
        return self._run(list(requests))

    def abort(self, ids: Collection[int] | None = None) -> None:
        # Set before the lock is asked for: locks are not fair, and the generating thread would go on taking it.
        if ids is not None:
            self._cut.extend(ids)
        else:
            self._aborted = self._busy
        with self._between_steps:
            self._between_steps.notify_all()

    def pause(self) -> None:
        self._paused = True  # the generating thread sees it before its next step, and lets the lock go
        with self._between_steps:
            pass

    def resume(self) -> None:
        with self._between_steps:
            self._paused = False
            self._between_steps.notify_all()

    def update_weights(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        if self._busy and not self._paused:
            raise RuntimeError("weights may change only while the engine is idle or paused")
        with self._between_steps:
            self._complete = False
            self._decoder.load(tensors)
            self._complete = True
            if self._busy:
                self._stale = True
                for row in range(self._rows.n):
                    mark = int(self._rows.count[row]), self.version
                    self._marks.setdefault(int(self._rows.request[row]), []).append(mark)
            self.version = version

    def sleep(self, weights: bool = False) -> None:
        if self._busy:
            raise RuntimeError("the engine is generating; abort or finish first")
        with self._between_steps:
            self._asleep = True
            self._decoder.release()
            if weights:
                self._complete = False
                self._decoder.drop_weights()

    def wake(self) -> None:
        self._asleep = False

    def close(self) -> None:
        self.sleep()

    def _check(self, request: Request) -> None:
        length = len(request.prompt_ids)
        if length == 0 or request.max_new_tokens < 1:
            raise UserError("a request needs at least one prompt token and a budget of at least one new token")
        if length + request.max_new_tokens > self._context:
            raise UserError(
                f"{length} prompt + {request.max_new_tokens} new tokens exceed the model's context of {self._context}; "
                "lower rollout.max_new_tokens or rollout.max_prompt_tokens"
            )
        if not 0 <= min(request.prompt_ids) <= max(request.prompt_ids) < self._decoder.vocab_size:
            raise UserError(
                f"a prompt has token {max(request.prompt_ids)}, the model only {self._decoder.vocab_size}; "
                "tokenizer and model do not belong together"
            )
        if not 0 <= request.temperature < float("inf"):
            raise UserError(f"temperature must be a number >= 0, not {request.temperature}")
        if not 0 < request.top_p <= 1 or request.top_k < 0:
            raise UserError(
                f"top_p must be above 0 and at most 1, top_k 0 (all tokens) or more; not {request.top_p} and "
                f"{request.top_k}"
            )
        if request.min_tokens > request.max_new_tokens or (request.min_tokens > 0 and self._eos.all()):
            raise UserError(
                f"min_tokens = {request.min_tokens} cannot be reached: max_new_tokens is {request.max_new_tokens}, and "
                f"{self._eos.sum()} of {len(self._eos)} tokens end a response"
            )

    def _run(self, requests: list[Request]) -> Iterator[Completion]:
        if not requests:
            return
        with self._between_steps:
            if self._busy:
                raise RuntimeError("the engine is generating already")
            if self._asleep:
                raise RuntimeError("the engine sleeps; call wake() first")
            if not self._complete:
                raise RuntimeError("the last weight update failed half way; update the weights again")
            rows = self._rows = self._reserve(requests)
            self._busy, self._aborted, self._stale = True, False, False
            self._cut.clear()
        try:
            # Samples of one prompt side by side, so that they share a prefill also where not all fit at once.
            first = {p: i for i, p in reversed([(i, r.prompt_ids) for i, r in enumerate(requests)])}
            pending = sorted(range(len(requests)), key=lambda i: (first[requests[i].prompt_ids], i), reverse=True)
            while pending or rows.n:
                with self._between_steps:
                    self._between_steps.wait_for(lambda: not self._paused or self._aborted)
                    if self._aborted:
                        break
                    if not self._complete:
                        raise RuntimeError("the last weight update failed half way; update the weights again")
                    done = self._take_cut(requests, rows, pending)
                    if rows.n or pending:
                        done += self._advance_or_retreat(requests, rows, pending)
                        rows = self._rows
                yield from done
            yield from self._ended(requests, rows, pending)
        except FloatingPointError:
            self._decoder.release()  # what is not finite must not outlive the weights it came from
            raise
        finally:
            with self._between_steps:
                self._busy = self._aborted = False
                self._marks.clear()

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
        self._marks.clear()
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
        if not self._cut:
            return []
        ids = {self._cut.popleft() for _ in range(len(self._cut))}
        gone = np.nonzero([requests[i].id in ids for i in rows.request[: rows.n]])[0]
        done = [self._completion(requests, rows, row, "abort") for row in gone]
        done += [self._unbegun(requests[i]) for i in reversed(pending) if requests[i].id in ids]
        pending[:] = [i for i in pending if requests[i].id not in ids]
        if len(gone):
            self._drop(rows, gone)
        return done

    def _completion(self, requests: list[Request], rows: Rows, row: int, reason: FinishReason) -> Completion:
        index, count = int(rows.request[row]), int(rows.count[row])
        token_ids = rows.tokens[row, :count].copy()
        version, versions = self._versions(index, count)
        return Completion(
            request_id=requests[index].id,
            text=decode(self._tokenizer, token_ids),
            token_ids_L=token_ids,
            logprobs_L=rows.logprobs[row, :count].copy(),
            finish_reason=reason,
            version=version,
            versions_L=versions,
        )

    def _ended(self, requests: list[Request], rows: Rows, pending: list[int]) -> Iterator[Completion]:
        """What an abort cut off: the rows with what they have, and what never began with nothing."""
        for row in range(rows.n):
            yield self._completion(requests, rows, row, "abort")
        for index in reversed(pending):
            yield self._unbegun(requests[index])

    def _unbegun(self, request: Request) -> Completion:
        none = np.zeros(0)
        return Completion(request.id, "", none.astype(np.int64), none.astype(np.float32), "abort", self.version)

    def _versions(self, index: int, count: int) -> tuple[int, np.ndarray | None]:
        """The version of the first token, and those of all where they differ."""
        versions_L = np.full(count, self.version, dtype=np.int64)
        start = 0
        for end, version in self._marks.get(index, []):
            versions_L[start:end] = version
            start = end
        changed = bool((versions_L != versions_L[0]).any())
        return int(versions_L[0]), versions_L if changed else None

    def _rebuild(self, rows: Rows) -> None:
        """New weights came while paused: what was computed under the old ones is computed again."""
        if rows.n:
            self._decoder.rebuild([rows.tokens[i, : rows.count[i]] for i in range(rows.n)])
        self._stale = False
