"""Log-probabilities of chosen tokens without ever holding the logits of a whole micro-batch."""

from typing import Any

import torch
from torch.nn import functional as F


def token_logprobs(
    hidden_TD: torch.Tensor,
    weight_VD: torch.Tensor,
    bias_V: torch.Tensor | None,
    targets_T: torch.Tensor,
    temperature: float,
    chunk_rows: int,
    entropy_gradient: bool = False,
    entropy: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(logprobs_T, entropy_T) in nats under softmax((hidden W^T + b) / temperature).

    The entropy carries a gradient only where `entropy_gradient` asks for it; without `entropy` it is nan, and costs
    nothing. At most `chunk_rows` rows of logits exist at a time: with more than one chunk the backward pass makes them
    again.
    """
    if len(hidden_TD) > chunk_rows:
        wanted = entropy_gradient, entropy
        return _Chunked.apply(hidden_TD, weight_VD, bias_V, targets_T, temperature, chunk_rows, *wanted)
    normalised_TV = torch.log_softmax(_wide(F.linear(hidden_TD, weight_VD, bias_V)) / temperature, dim=-1)
    if entropy_gradient:
        entropy_T = _entropy(_bounded(normalised_TV))
    else:
        with torch.no_grad():
            entropy_T = _entropy(normalised_TV) if entropy else normalised_TV.new_full(targets_T.shape, torch.nan)
    return normalised_TV.gather(-1, targets_T[:, None]).squeeze(-1), entropy_T


def _wide(logits_TV: torch.Tensor) -> torch.Tensor:
    """At least fp32: a softmax over 150k entries in bf16 is wrong in the first digit."""
    return logits_TV.to(torch.promote_types(logits_TV.dtype, torch.float32))


def _entropy(normalised_TV: torch.Tensor) -> torch.Tensor:
    return -(normalised_TV.exp() * normalised_TV).nan_to_num_(0.0).sum(-1)


def _bounded(normalised_TV: torch.Tensor) -> torch.Tensor:
    """Without -inf, whose entropy has no slope; p log p is 0 long before the bound acts."""
    return normalised_TV.clamp(min=-1e4)


class _Chunked(torch.autograd.Function):
    """A chunk of rows at a time, with p = softmax(z / tau) and H its entropy:

    d log p[y] / dz = (onehot(y) - p) / tau,    d H / dz = -p (log p + H) / tau.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_T: torch.Tensor,
        temperature: float,
        chunk_rows: int,
        entropy_gradient: bool,
        entropy: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logprobs, entropies = [], []
        for hidden, targets in zip(hidden_TD.split(chunk_rows), targets_T.split(chunk_rows), strict=True):
            normalised = torch.log_softmax(_wide(F.linear(hidden, weight_VD, bias_V)) / temperature, dim=-1)
            logprobs.append(normalised.gather(-1, targets[:, None]).squeeze(-1))
            entropies.append(_entropy(normalised) if entropy else normalised.new_full(targets.shape, torch.nan))
        ctx.save_for_backward(hidden_TD, weight_VD, bias_V, targets_T)
        ctx.temperature, ctx.chunk_rows, ctx.entropy_gradient = temperature, chunk_rows, entropy_gradient
        ctx.autocast = torch.is_autocast_enabled(hidden_TD.device.type), torch.get_autocast_dtype(hidden_TD.device.type)
        entropy_T = torch.cat(entropies)
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy_T)
        return torch.cat(logprobs), entropy_T

    @staticmethod
    def backward(ctx: Any, grad_T: torch.Tensor, entropy_grad_T: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_TD, weight_VD, bias_V, targets_T = ctx.saved_tensors
        enabled, dtype = ctx.autocast
        with torch.autocast(hidden_TD.device.type, dtype=dtype, enabled=enabled):
            compute = dtype if enabled else weight_VD.dtype
            weight = weight_VD.to(compute)
            d_hidden_TD, d_weight_VD = torch.empty_like(hidden_TD), torch.zeros_like(weight_VD)
            d_bias_V = None if bias_V is None else torch.zeros_like(bias_V)
            for rows in torch.arange(len(hidden_TD), device=hidden_TD.device).split(ctx.chunk_rows):
                part = slice(int(rows[0]), int(rows[-1]) + 1)
                logits = _wide(F.linear(hidden_TD[part], weight, bias_V)).div_(ctx.temperature)
                d_logits = torch.softmax(logits, -1).neg_()
                d_logits.scatter_add_(-1, targets_T[part, None], torch.ones_like(d_logits[:, :1]))
                d_logits.mul_(grad_T[part, None] / ctx.temperature)
                if ctx.entropy_gradient:
                    d_logits += _entropy_slope(logits) * (entropy_grad_T[part, None] / ctx.temperature)
                d_hidden_TD[part] = d_logits.to(compute) @ weight
                d_weight_VD += d_logits.to(compute).T @ hidden_TD[part].to(compute)
                if d_bias_V is not None:
                    d_bias_V += d_logits.sum(0)
        return d_hidden_TD, d_weight_VD, d_bias_V, None, None, None, None, None


def _entropy_slope(logits_TV: torch.Tensor) -> torch.Tensor:
    """d H / du for p = softmax(u)."""
    normalised_TV = _bounded(torch.log_softmax(logits_TV, -1))
    return -normalised_TV.exp() * (normalised_TV + _entropy(normalised_TV)[:, None])
