"""Log-probabilities of chosen tokens. The logits of a whole micro-batch never exist at once."""

import functools
from typing import Any

import torch
from torch.nn import functional as F

HALF = (torch.bfloat16, torch.float16)
# Columns of a matrix product that are computed at a time. Bounds the memory of widened inputs and partial sums.
PIECE = 8192


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

    The entropy has a gradient only with `entropy_gradient`. Without `entropy` it is NaN and costs nothing. At most
    `chunk_rows` rows of logits exist at a time; with more than one chunk the backward pass computes them again.
    """
    if len(hidden_TD) > chunk_rows:
        wanted = entropy_gradient, entropy
        return _Chunked.apply(hidden_TD, weight_VD, bias_V, targets_T, temperature, chunk_rows, *wanted)
    normalised_TV = torch.log_softmax(head_logits(hidden_TD, weight_VD, bias_V) / temperature, dim=-1)
    if entropy_gradient:
        entropy_T = _entropy(_bounded(normalised_TV))
    else:
        with torch.no_grad():
            entropy_T = _entropy(normalised_TV) if entropy else normalised_TV.new_full(targets_T.shape, torch.nan)
    return normalised_TV.gather(-1, targets_T[:, None]).squeeze(-1), entropy_T


def head_logits(hidden_TD: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor | None = None) -> torch.Tensor:
    """hidden W^T + b, [T, V], in fp32 even if the inputs are in half precision; float64 inputs give float64.

    A bf16 logit of 30 is off by up to 0.06. Rounding logits would change log-probabilities more than all layers do.
    Under autocast both inputs are rounded to its dtype, as in the engine; the result is not rounded.
    """
    dtype = _compute_dtype(hidden_TD, weight_VD)
    if dtype not in HALF:
        return F.linear(hidden_TD, weight_VD, bias_V)
    logits_TV = _HeadProduct.apply(hidden_TD, weight_VD, dtype)
    return logits_TV if bias_V is None else logits_TV + bias_V


def _compute_dtype(hidden_TD: torch.Tensor, weight_VD: torch.Tensor) -> torch.dtype:
    """The dtype in which a linear layer would compute here."""
    kind = hidden_TD.device.type
    if torch.is_autocast_enabled(kind) and weight_VD.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return weight_VD.dtype


def wide_product(a_MK: torch.Tensor, b_KN: torch.Tensor) -> torch.Tensor:
    """a b, in fp32 if the inputs are in half precision. Has no gradient.

    Inputs are widened to fp32 unless the device has a product of half-precision inputs with an fp32 result.
    """
    if a_MK.dtype not in HALF:
        return a_MK @ b_KN
    with torch.autocast(a_MK.device.type, enabled=False):  # autocast would round the widened inputs
        if has_wide_product(a_MK.device, a_MK.dtype):
            return torch.mm(a_MK, b_KN, out_dtype=torch.float32)
        wide_MK = a_MK.float()
        if b_KN.shape[1] <= PIECE:
            return wide_MK @ b_KN.float()
        product_MN = wide_MK.new_empty(len(a_MK), b_KN.shape[1])
        for to_MN, piece_KN in zip(product_MN.split(PIECE, 1), b_KN.split(PIECE, 1), strict=True):
            to_MN.copy_(wide_MK @ piece_KN.float())
        return product_MN


@functools.cache
def has_wide_product(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch multiplies matrices of this dtype to an fp32 result on this device."""
    one = torch.ones(1, 16, 16, device=device, dtype=dtype)
    try:
        torch.mm(one[0], one[0], out_dtype=torch.float32)
        torch.bmm(one, one, out_dtype=torch.float32)
    except (RuntimeError, TypeError):
        return False
    return True


class _HeadProduct(torch.autograd.Function):
    """`head_logits` without a bias, in half precision. The gradient is rounded once and summed in fp32."""

    @staticmethod
    def forward(ctx: Any, hidden_TD: torch.Tensor, weight_VD: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        ctx.save_for_backward(hidden_TD, weight_VD)
        ctx.dtype = dtype
        return wide_product(hidden_TD.to(dtype), weight_VD.to(dtype).t())

    @staticmethod
    def backward(ctx: Any, grad_TV: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_TD, weight_VD = ctx.saved_tensors
        grad_TV, d_hidden_TD, d_weight_VD = grad_TV.to(ctx.dtype), None, None
        if ctx.needs_input_grad[0]:
            d_hidden_TD = wide_product(grad_TV, weight_VD.to(ctx.dtype)).to(hidden_TD.dtype)
        if ctx.needs_input_grad[1]:
            d_weight_VD = _zeros(weight_VD)
            _add_weight_gradient(d_weight_VD, grad_TV, hidden_TD.to(ctx.dtype))
            d_weight_VD = d_weight_VD.to(weight_VD.dtype)
        return d_hidden_TD, d_weight_VD, None


def _zeros(like: torch.Tensor) -> torch.Tensor:
    """Zeros in which a gradient is summed, at least in fp32: a sum in bf16 keeps only two digits."""
    return torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32))


def _add_weight_gradient(sum_VD: torch.Tensor, grad_TV: torch.Tensor, hidden_TD: torch.Tensor) -> None:
    """Add grad^T hidden to sum_VD, a piece of the vocabulary at a time."""
    for sum_PD, grad_TP in zip(sum_VD.split(PIECE), grad_TV.split(PIECE, 1), strict=True):
        sum_PD += wide_product(grad_TP.t(), hidden_TD)


def _entropy(normalised_TV: torch.Tensor) -> torch.Tensor:
    return -(normalised_TV.exp() * normalised_TV).nan_to_num_(0.0).sum(-1)


def _bounded(normalised_TV: torch.Tensor) -> torch.Tensor:
    """Replace -inf by -1e4: the slope of p log p at -inf is NaN, and p is 0 at both."""
    return normalised_TV.clamp(min=-1e4)


class _Chunked(torch.autograd.Function):
    """`token_logprobs`, a chunk of rows at a time. With p = softmax(z / tau) and H its entropy:

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
            normalised = torch.log_softmax(head_logits(hidden, weight_VD, bias_V) / temperature, dim=-1)
            logprobs.append(normalised.gather(-1, targets[:, None]).squeeze(-1))
            entropies.append(_entropy(normalised) if entropy else normalised.new_full(targets.shape, torch.nan))
        ctx.save_for_backward(hidden_TD, weight_VD, bias_V, targets_T)
        ctx.temperature, ctx.chunk_rows, ctx.entropy_gradient = temperature, chunk_rows, entropy_gradient
        ctx.dtype = _compute_dtype(hidden_TD, weight_VD)
        entropy_T = torch.cat(entropies)
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy_T)
        return torch.cat(logprobs), entropy_T

    @staticmethod
    def backward(ctx: Any, grad_T: torch.Tensor, entropy_grad_T: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_TD, weight_VD, bias_V, targets_T = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        weight = weight_VD.to(ctx.dtype)
        d_hidden_TD = torch.empty_like(hidden_TD) if wants_hidden else None
        d_weight_VD = _zeros(weight_VD) if wants_weight else None
        d_bias_V = _zeros(bias_V) if wants_bias else None
        for start in range(0, len(hidden_TD), ctx.chunk_rows):
            part = slice(start, start + ctx.chunk_rows)
            hidden = hidden_TD[part].to(ctx.dtype)
            logits = head_logits(hidden, weight, bias_V).div_(ctx.temperature)
            d_logits = torch.softmax(logits, -1).neg_()
            d_logits.scatter_add_(-1, targets_T[part, None], torch.ones_like(d_logits[:, :1]))
            d_logits.mul_(grad_T[part, None] / ctx.temperature)
            if ctx.entropy_gradient:
                d_logits += _entropy_slope(logits) * (entropy_grad_T[part, None] / ctx.temperature)
            if d_bias_V is not None:
                d_bias_V += d_logits.sum(0)
            rounded = d_logits.to(ctx.dtype)
            if d_hidden_TD is not None:
                d_hidden_TD[part] = wide_product(rounded, weight)
            if d_weight_VD is not None:
                _add_weight_gradient(d_weight_VD, rounded, hidden)
        d_weight_VD = None if d_weight_VD is None else d_weight_VD.to(weight_VD.dtype)
        d_bias_V = None if d_bias_V is None else d_bias_V.to(bias_V.dtype)
        return d_hidden_TD, d_weight_VD, d_bias_V, None, None, None, None, None


def _entropy_slope(logits_TV: torch.Tensor) -> torch.Tensor:
    """d H / du for p = softmax(u)."""
    normalised_TV = _bounded(torch.log_softmax(logits_TV, -1))
    return -normalised_TV.exp() * (normalised_TV + _entropy(normalised_TV)[:, None])
