"""The forward pass of the Qwen2, Qwen3, Llama and Mistral families over fused weights, one token per row and step.

A diff to the textbook (and to transformers):
* one matrix for q, k, v and one for gate and up;
* rotary embeddings as one complex product: the channels of q and k are interleaved once, when weights are loaded
  (a permutation applied to both leaves every q.k as it is);
* attention in two parts, of which that of the prompt is shared by all its rows (attention.py).

Shapes: N rows, H heads, K key/value heads, D head dimension, P longest prompt, C positions in a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from zerolab.models.context import head_dim
from zerolab.models.hf import named_weights
from zerolab.rl.logprobs import has_wide_product, head_logits
from zerolab.rollout.attention import Layout, Own, arrange, attend, prompt_bias
from zerolab.rollout.cuda_graphs import StepGraphs
from zerolab.rollout.decoder import Prompt
from zerolab.rollout.engine import Request
from zerolab.rollout.fused_weights import Layer, Weights
from zerolab.rollout.kv_cache import Memory, Plan, plan_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CPU_BLOCK = 32  # positions; a larger block reads more that is not yet written, a smaller one costs more calls
PROMPT_UNIT = 64  # prompt lengths are rounded up to this for graphs, so that rollouts have the same plan more often
PREFILL_TOKENS = {"cpu": 4096, "cuda": 65536}


def score_product(device: torch.device, dtype: torch.dtype) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Batched matrix product with a float32 result.

    Attention scores can be large (Qwen2's biases make them so), and bfloat16 would round away what softmax needs; the
    learner's attention keeps them in float32 too.
    """
    if dtype == torch.float32:
        return torch.bmm
    if has_wide_product(device, dtype):
        return lambda a, b: torch.bmm(a, b, out_dtype=torch.float32)
    return lambda a, b: torch.bmm(a.float(), b.float())


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension; PyTorch's own takes a third longer on a CPU."""
    if x.dtype != torch.float32 or x.device.type != "cpu":
        return F.rms_norm(x, x.shape[-1:], weight, eps)
    scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return torch.mul(x, scale).mul_(weight)


class FusedDecoder:
    """See decoder.Decoder. Rows may be admitted at any time; prompts and rows are kept without gaps."""

    def __init__(
        self, model: PreTrainedModel, *, device: torch.device, dtype: torch.dtype, cuda_graphs: bool = True
    ) -> None:

        config: Any = model.config
        self._device, self._dtype = device, dtype
        self._heads, self._kv_heads, self._dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            head_dim(config),
        )
        self._eps = config.rms_norm_eps
        self.vocab_size = int(config.vocab_size)
        self._weights = Weights(config, device=device, dtype=dtype)
        self._weights.load(named_weights(model))
        rotary: Any = model.get_decoder().rotary_emb
        angles = torch.outer(torch.arange(config.max_position_embeddings).float(), rotary.inv_freq.float().cpu())
        self._rotations = torch.polar(torch.full_like(angles, rotary.attention_scaling), angles).to(device)
        self._product = score_product(device, dtype)
        self._memory = Memory(config.num_hidden_layers, self._kv_heads, self._dim, device=device, dtype=dtype)
        self._plan: Plan | None = None
        # Only a CPU minds gaps between rows; elsewhere one block over all positions means fewer calls.
        self._block = CPU_BLOCK if device.type == "cpu" else None
        self._graphs: StepGraphs | None = None
        if cuda_graphs and device.type == "cuda":
            self._graphs = StepGraphs(self._forward_rows, self._kv_heads, device=device)

    def load(self, tensors: Iterable[tuple[str, torch.Tensor]], partial: bool = False) -> None:
        self._weights.load(tensors, partial)

    def drop_weights(self) -> None:
        self._weights.drop()

    def release(self) -> None:
        self._plan = None
        self._prompt_kv = self._own_kv = torch.empty(0)
        self._memory.release()
        if self._graphs:
            self._graphs.forget()

    def reserve(self, requests: Sequence[Request], budget_bytes: int, max_rows: int) -> int:
        self._plan = plan_memory(
            requests,
            bytes_per_token=self._memory.bytes_per_token,
            budget_bytes=budget_bytes,
            max_rows=max_rows,
            block=self._block,
            prompt_unit=PROMPT_UNIT if self._graphs else 1,
        )
        self._prompt_kv, self._own_kv = self._memory.cut(self._plan)
        if self._graphs:
            self._graphs.reserve(self._plan, self._own_kv, self._prompt_kv)
        self._prompts: list[Prompt] = []  # by slot
        self._slot_N = np.zeros(0, dtype=np.int64)  # prompt slot of each row
        self._used_blocks = 0  # blocks that some row has written to
        return self._plan.rows

    def room(self, prompts: Sequence[Prompt]) -> int:
        assert self._plan is not None
        slots, rows = set(self._prompts), len(self._slot_N)
        for count, prompt in enumerate(prompts):
            slots.add(prompt)
            if rows + count == self._plan.rows or len(slots) > self._plan.prompts:
                return count
        return len(prompts)

    def admit(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        known = {p: slot for slot, p in enumerate(self._prompts)}
        # A prompt that has rows already is computed again when more arrive: its last logits are not kept.
        fresh = list(dict.fromkeys(prompts))
        for prompt in fresh:
            if prompt not in known:
                known[prompt] = len(self._prompts)
                self._prompts.append(prompt)
        logits_QV = self._prefill([known[p] for p in fresh])
        self._slot_N = np.concatenate([self._slot_N, [known[p] for p in prompts]])
        self._arrange()
        place = {p: i for i, p in enumerate(fresh)}
        return logits_QV[torch.tensor([place[p] for p in prompts], device=self._device)]

    def keep(self, order: np.ndarray) -> None:
        moved = np.nonzero(order != np.arange(len(order)))[0]
        if len(moved):
            to, source = (torch.from_numpy(a).to(self._device) for a in (moved, order[moved]))
            blocks = self._used_blocks
            self._own_kv[:, :, :blocks, to] = self._own_kv[:, :, :blocks, source]
        self._slot_N = self._slot_N[order]
        self._drop_prompts()
        self._arrange()

    def _drop_prompts(self) -> None:
        """Closes the gaps that prompts without rows leave, as `rows.close_gaps` does for rows."""
        used = np.bincount(self._slot_N, minlength=len(self._prompts)) > 0
        left = int(used.sum())
        if left == len(used):
            return
        holes, tail = np.nonzero(~used[:left])[0], left + np.nonzero(used[left:])[0]
        if len(holes):
            to, source = (torch.from_numpy(a).to(self._device) for a in (holes, tail))
            self._prompt_kv[:, :, to] = self._prompt_kv[:, :, source]
            new_slot = np.arange(len(used))
            new_slot[tail] = holes
            self._slot_N = new_slot[self._slot_N]
            for hole, old in zip(holes, tail, strict=True):
                self._prompts[hole] = self._prompts[old]
        del self._prompts[left:]

    def _arrange(self) -> None:
        """Index tensors of the current rows: computed when rows come and go, used by every layer of every step."""
        if not len(self._slot_N):
            return
        lengths_Q = np.array([len(p) for p in self._prompts])
        self._start_N = lengths_Q[self._slot_N]  # position of a row's first own token
        if self._graphs:
            self._graphs.arrange(self._slot_N, lengths_Q)
        place, source, members = arrange(self._slot_N, len(lengths_Q), self._kv_heads)
        longest = int(lengths_Q.max())
        even = int(lengths_Q.min()) == longest
        self._layout = Layout(
            prompts=len(lengths_Q),
            members=members,
            prompt_len=longest,
            place=torch.from_numpy(place).to(self._device),
            source=torch.from_numpy(source).to(self._device),
            prompt_bias=None if even else torch.from_numpy(prompt_bias(lengths_Q, longest)).to(self._device),
        )

    @torch.inference_mode()
    def step(self, tokens_N: np.ndarray, index_N: np.ndarray) -> torch.Tensor:
        if self._graphs:
            # What `keep` has to move: a graph writes into the one block that there is.
            self._used_blocks = 1
            logits = self._graphs.step(tokens_N, self._start_N + index_N, index_N)
            if logits is not None:
                return logits
        tokens, positions = (torch.from_numpy(a).to(self._device) for a in (tokens_N, self._start_N + index_N))
        return self._forward_rows(tokens, positions, self._layout, self._own(index_N))

    def _forward_rows(
        self, tokens_N: torch.Tensor, positions_N: torch.Tensor, layout: Layout, own: Own
    ) -> torch.Tensor:
        """Logits after one more token per row."""
        x = self._weights.embed[tokens_N]
        rotation = self._rotations[positions_N][:, None]
        for i, layer in enumerate(self._weights.layers):
            qkv = F.linear(rms_norm(x, layer.norm_1, self._eps), layer.qkv, layer.qkv_bias)
            q, k, v = self._rotate(qkv, rotation, layer)
            own.write(i, k, v)
            out = attend(i, q, self._prompt_kv[i], layout, own, self._product)
            x.addmm_(out.view(len(x), -1), layer.out.t())
            self._feed_forward(x, layer)
        return head_logits(rms_norm(x, self._weights.norm, self._eps), self._weights.head)

    def _own(self, index_N: np.ndarray) -> Own:
        """The rows' own keys and values in a step that writes at index_N.

        Rows that were admitted together have one index, and then slices do: the last places are hidden. Otherwise a
        bias hides what lies behind each row's own index.
        """
        assert self._plan is not None
        n, block, last = len(index_N), self._plan.block, int(index_N.max())
        self._used_blocks = used = last // block + 1
        # Within the last block: all of it, or, where there is only one, what is in use (rounded up for aligned rows).
        last_len = block if self._block else min(block, -(-(last + 1) // 16) * 16)
        covered = (used - 1) * block + last_len

        def read(part: int) -> Callable[[int], list[torch.Tensor]]:
            return lambda i: [b.flatten(0, 1)[:, :last_len] for b in self._own_kv[i, part, :used, :n].unbind(0)]

        if index_N.min() == last:
            target = self._own_kv[:, :, last // block, :n, :, last % block]

            def write(layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
                target[layer, 0].copy_(k)
                target[layer, 1].copy_(v)

            return Own(write, read(0), read(1), tail=covered - last - 1)

        b, c = (torch.from_numpy(a).to(self._device) for a in (index_N // block, index_N % block))
        rows = torch.arange(n, device=self._device)
        hidden = torch.from_numpy(np.arange(covered) > index_N[:, None]).to(self._device)
        bias = torch.zeros(hidden.shape, device=self._device).masked_fill_(hidden, -torch.inf)

        def write_each(layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
            self._own_kv[layer, 0][b, rows, :, c] = k
            self._own_kv[layer, 1][b, rows, :, c] = v

        return Own(write_each, read(0), read(1), bias=bias.repeat_interleave(self._kv_heads, 0)[:, None, :])

    def _rotate(
        self, qkv: torch.Tensor, rotation: torch.Tensor, layer: Layer
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q [..., H, D], k and v [..., K, D] out of [..., (H + 2K) D]: rotary embeddings on q and k, q / sqrt(D)."""
        heads, scale = self._heads + self._kv_heads, self._dim**-0.5
        qkv = qkv.unflatten(-1, (heads + self._kv_heads, self._dim))
        qk = qkv[..., :heads, :]
        turned = qk.float()  # a copy below float32, so that it is rounded once, at the end
        q, k = turned[..., : self._heads, :], turned[..., self._heads :, :]
        if layer.q_norm is not None and layer.k_norm is not None:
            turned.mul_(turned.square().mean(-1, keepdim=True).add_(self._eps).rsqrt_())
            q.mul_(layer.q_norm)
            k.mul_(layer.k_norm)
        torch.view_as_complex(turned.unflatten(-1, (-1, 2))).mul_(rotation)
        q.mul_(scale)
        if turned.dtype != qk.dtype:
            qk.copy_(turned)
        return qkv[..., : self._heads, :], qkv[..., self._heads : heads, :], qkv[..., heads:, :]

    def _feed_forward(self, x: torch.Tensor, layer: Layer) -> None:
        """x += down(silu(gate) * up), in place."""
        gate, up = F.linear(rms_norm(x, layer.norm_2, self._eps), layer.gate_up).chunk(2, -1)
        x.addmm_(F.silu(gate).mul_(up), layer.down.t())

    def _prefill(self, slots: list[int]) -> torch.Tensor:
        """Stores the keys and values of these prompts; logits after their last tokens, in the order of `slots`."""
        parts: list[tuple[list[int], torch.Tensor]] = []
        for chunk in self._chunks([len(self._prompts[s]) for s in slots]):
            to = torch.tensor([slots[c] for c in chunk], device=self._device)
            last, kv = self._forward_whole([self._prompts[slots[c]] for c in chunk])
            self._prompt_kv[:, :, to, :, : kv.shape[4]] = kv
            parts.append((chunk, head_logits(last, self._weights.head)))
        back = np.argsort(np.concatenate([chunk for chunk, _ in parts]))
        return torch.cat([logits for _, logits in parts])[torch.from_numpy(back).to(self._device)]

    def rebuild(self, responses: Sequence[np.ndarray]) -> None:
        self._prefill(list(range(len(self._prompts))))
        block = self._own_kv.shape[5]
        whole = [self._prompts[s] + tuple(r[:-1].tolist()) for s, r in zip(self._slot_N, responses, strict=True)]
        for chunk in self._chunks([len(s) for s in whole]):
            _, kv = self._forward_whole([whole[c] for c in chunk])
            for place, row in enumerate(chunk):
                own = kv[:, :, place, :, self._start_N[row] : len(whole[row])]
                for b, part in enumerate(own.split(block, -2)):
                    self._own_kv[:, :, b, row, :, : part.shape[-2]] = part

    def _chunks(self, lengths: Sequence[int]) -> list[list[int]]:
        """Indices by length, cut so that a padded chunk stays within the tokens of one prefill."""
        limit = PREFILL_TOKENS.get(self._device.type, PREFILL_TOKENS["cpu"])
        chunks: list[list[int]] = [[]]
        for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
            if chunks[-1] and (len(chunks[-1]) + 1) * lengths[i] > limit:
                chunks.append([])
            chunks[-1].append(i)
        return chunks

    @torch.inference_mode()
    def _forward_whole(self, sequences: Sequence[Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
        """Normed hidden state at the last token [B, d], and keys and values [layers, 2, B, K, S, D].

        Sequences are padded on the right, where a causal mask already hides the padding.
        """
        b, s = len(sequences), max(map(len, sequences))
        tokens = np.zeros((b, s), dtype=np.int64)
        for row, sequence in zip(tokens, sequences, strict=True):
            row[: len(sequence)] = sequence
        x = self._weights.embed[torch.from_numpy(tokens).to(self._device).view(-1)]
        rotation = self._rotations[:s, None]
        kv = torch.empty(
            (len(self._weights.layers), 2, b, self._kv_heads, s, self._dim), device=self._device, dtype=self._dtype
        )
        for i, layer in enumerate(self._weights.layers):
            qkv = F.linear(rms_norm(x, layer.norm_1, self._eps), layer.qkv, layer.qkv_bias)
            q, k, v = (t.transpose(1, 2) for t in self._rotate(qkv.view(b, s, -1), rotation, layer))
            kv[i, 0], kv[i, 1] = k, v
            grouped = self._heads != self._kv_heads
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped, scale=1.0)
            x.addmm_(out.transpose(1, 2).reshape(b * s, -1), layer.out.t())
            self._feed_forward(x, layer)
        ends = torch.tensor([len(q) - 1 for q in sequences], device=self._device)
        last = x.view(b, s, -1)[torch.arange(b, device=self._device), ends]
        return rms_norm(last, self._weights.norm, self._eps), kv
