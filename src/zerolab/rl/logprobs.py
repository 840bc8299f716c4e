"""Log-probabilities of chosen tokens without ever holding the logits of a whole micro-batch."""

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

Head = Callable[[torch.Tensor], torch.Tensor]


def token_logprobs(
    hidden_TD: torch.Tensor, head: Head, targets_T: torch.Tensor, temperature: float, chunk_rows: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(logprobs_T, entropy_T) in nats under softmax(head(hidden) / temperature); the entropy carries no gradient.

    At most `chunk_rows` rows of logits exist at a time: with more than one chunk the backward pass recomputes them.
    """
    if len(hidden_TD) <= chunk_rows:
        return _chunk(hidden_TD, head, targets_T, temperature)
    parts = [
        checkpoint(_chunk, hidden, head, targets, temperature, use_reentrant=False)
        for hidden, targets in zip(hidden_TD.split(chunk_rows), targets_T.split(chunk_rows), strict=True)
    ]
    logprobs, entropies = zip(*parts, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def _chunk(
    hidden_TD: torch.Tensor, head: Head, targets_T: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    logits_TV = head(hidden_TD)
    logits_TV = logits_TV.to(torch.promote_types(logits_TV.dtype, torch.float32)) / temperature
    normalised_TV = torch.log_softmax(logits_TV, dim=-1)
    logprobs_T = normalised_TV.gather(-1, targets_T[:, None]).squeeze(-1)
    with torch.no_grad():
        entropy_T = -(normalised_TV.exp() * normalised_TV).nan_to_num(0.0).sum(-1)
    return logprobs_T, entropy_T
