"""Forward the prompt of a group once for all its responses.

Keys, values and last hidden state of the prompts are detached from the graph. They collect the gradients of all
micro-batches of responses, and one backward pass sends the sum through the prompts. The gradient is exact: in float64
it agrees with that of complete rows to the last digits.
"""

from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from zerolab.models.hf import hidden_states
from zerolab.rl.batch import MicroBatch, PromptPart, PromptStates

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE_TOLERANCE = 1e-3  # relative; another order of sums changes less in fp32


class Prompts:
    """The forward pass over the prompts of a part. Call `backward` after the last micro-batch that continues them."""

    def __init__(self, model: "PreTrainedModel", part: PromptPart):
        cache: Any = DynamicCache()
        hidden_QPD = model.get_decoder()(input_ids=part.ids_QP, past_key_values=cache, use_cache=True).last_hidden_state
        last_QD = hidden_QPD[torch.arange(len(hidden_QPD), device=hidden_QPD.device), part.lengths_Q - 1]
        self._made = [last_QD, *(layer.keys for layer in cache.layers), *(layer.values for layer in cache.layers)]
        self._leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in self._made]
        count = len(cache.layers)
        last_QD, keys, values = self._leaves[0], self._leaves[1 : count + 1], self._leaves[count + 1 :]
        self.states = PromptStates(keys, values, last_QD, part.lengths_Q)

    def backward(self) -> None:
        reached = [(made, leaf.grad) for made, leaf in zip(self._made, self._leaves, strict=True)]
        reached = [(made, grad) for made, grad in reached if grad is not None]
        if reached:
            torch.autograd.backward([made for made, _ in reached], [grad for _, grad in reached])


def continued_hidden_states(model: "PreTrainedModel", micro: MicroBatch) -> torch.Tensor:
    """Hidden states [B, L, D] that predict the tokens of each response: the prompt's last one, then the response's."""
    states, prompt_B = micro.states, micro.prompt_B
    assert states is not None
    assert prompt_B is not None
    first_BD = states.last_QD[prompt_B][:, None]
    if not micro.ids_BL.shape[1]:
        return first_BD
    length_B = states.lengths_Q[prompt_B][:, None]
    longest = int(length_B.max())
    position_L = torch.arange(micro.ids_BL.shape[1], device=length_B.device)
    seen_BP = torch.arange(longest, device=length_B.device) < length_B
    hidden_BLD = model.get_decoder()(
        input_ids=micro.ids_BL,
        attention_mask=torch.cat([seen_BP, torch.ones_like(micro.ids_BL, dtype=torch.bool)], dim=1),
        position_ids=length_B + position_L,
        past_key_values=_cache(states, prompt_B, longest),
        use_cache=True,
    ).last_hidden_state
    return torch.cat([first_BD, hidden_BLD], dim=1)


def _cache(states: PromptStates, prompt_B: torch.Tensor, longest: int) -> Any:
    cache = DynamicCache()
    for number, (keys, values) in enumerate(zip(states.keys, states.values, strict=True)):
        cache.update(keys[prompt_B, :, :longest], values[prompt_B, :, :longest], number)
    return cache


@torch.no_grad()
def can_share(model: "PreTrainedModel") -> bool:
    """Whether the model gives the same hidden states if a prompt is continued from its keys and values (on a probe)."""
    if not _sees_everything(model.config.get_text_config()):
        return False
    device = next(model.parameters()).device
    embedding: Any = model.get_input_embeddings()
    vocabulary = embedding.num_embeddings
    rows = [torch.arange(3 * i + 3, 3 * i + 3 + n, device=device) % vocabulary for i, n in enumerate((4, 7))]
    length_Q, longest = torch.tensor([4, 7], device=device), 7
    ids_QP = torch.zeros((2, longest), dtype=torch.long, device=device)
    for i, ids in enumerate(rows):
        ids_QP[i, : len(ids)] = ids
    more_BL = torch.arange(9, 15, device=device).view(2, 3) % vocabulary
    part = PromptPart(None, None, ids_QP, length_Q)  # type: ignore[arg-type]
    try:
        states = Prompts(model, part).states
        micro = _probe_batch(more_BL, states, torch.arange(2, device=device))
        found = continued_hidden_states(model, micro)
    except Exception:  # a family without a cache of keys and values
        return False
    expected = [
        hidden_states(model, torch.cat([ids, more])[None])[0, len(ids) - 1 :]
        for ids, more in zip(rows, more_BL, strict=True)
    ]
    scale = max(float(e.abs().max()) for e in expected)
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) < PROBE_TOLERANCE * scale


def _sees_everything(config: Any) -> bool:
    """Whether every layer has full attention. The cache of a sliding window drops keys that sharing needs."""
    if kinds := getattr(config, "layer_types", None):
        return set(kinds) == {"full_attention"}
    return not getattr(config, "sliding_window", None)


def _probe_batch(ids_BL: torch.Tensor, states: PromptStates, prompt_B: torch.Tensor) -> MicroBatch:
    unused: Any = None
    return MicroBatch(unused, ids_BL, *(unused,) * 4, 0, 0, *(unused,) * 5, states, prompt_B)
