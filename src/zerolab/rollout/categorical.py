"""One token per row from softmax(logits / temperature), by inversion of the distribution function."""

from collections.abc import Callable

import numpy as np
import torch

CHUNK = 64


def sample(
    logits_NV: torch.Tensor,
    temperatures_N: np.ndarray,
    uniforms_N: np.ndarray,
    restrict: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (int64 [N]) and their log-probabilities (float32 [N]) under the distribution sampled from.

    Temperature 0 takes the largest logit and reports its log-probability at temperature 1. `restrict` puts -inf in the
    place of what may not be drawn, in logits at the sampling temperature (support.py). The distribution function
    is summed over chunks of the vocabulary in float64, so that a uniform is resolved far below any probability.
    Raises FloatingPointError for logits that are not finite.
    """
    device = logits_NV.device
    greedy_N = temperatures_N == 0
    scaled_NV = logits_NV.float()
    if not np.all(greedy_N | (temperatures_N == 1)):
        safe_N = np.where(greedy_N, 1.0, temperatures_N).astype(np.float32)
        scaled_NV = scaled_NV / torch.from_numpy(safe_N).to(device)[:, None]
    if restrict is not None:
        scaled_NV = restrict(scaled_NV)
    mass_NV = torch.softmax(scaled_NV, -1)
    if mass_NV.shape[1] % CHUNK:
        mass_NV = torch.nn.functional.pad(mass_NV, (0, -mass_NV.shape[1] % CHUNK))
    mass_NCK = mass_NV.unflatten(1, (-1, CHUNK))
    cdf_NC = mass_NCK.sum(-1).double().cumsum(-1)
    total_N1 = cdf_NC[:, -1:]
    if not torch.isfinite(total_N1).all():
        raise FloatingPointError("the model's logits are not finite; its weights have diverged")
    if greedy_N.all():
        tokens_N1 = scaled_NV.argmax(-1, keepdim=True)
    else:
        tokens_N1 = _invert(mass_NCK, cdf_NC, torch.from_numpy(uniforms_N).to(device)[:, None])
        if greedy_N.any():
            best_N1 = scaled_NV.argmax(-1, keepdim=True)
            tokens_N1 = torch.where(torch.from_numpy(greedy_N).to(device)[:, None], best_N1, tokens_N1)
    logprobs_N1 = mass_NV.gather(1, tokens_N1).double().log() - total_N1.log()
    return tokens_N1[:, 0].cpu().numpy(), logprobs_N1[:, 0].float().cpu().numpy()


def _invert(mass_NCK: torch.Tensor, cdf_NC: torch.Tensor, uniforms_N1: torch.Tensor) -> torch.Tensor:
    """The first token whose distribution function exceeds the uniform: first its chunk, then its place in there.

    The rest of the uniform is rescaled to the chunk's own float64 sum, so a token without mass is never chosen.
    """
    target_N1 = uniforms_N1 * cdf_NC[:, -1:]
    chunk_N1 = torch.searchsorted(cdf_NC, target_N1, right=True).clamp_(max=cdf_NC.shape[1] - 1)
    upper_N1 = cdf_NC.gather(1, chunk_N1)
    lower_N1 = torch.where(chunk_N1 > 0, cdf_NC.gather(1, (chunk_N1 - 1).clamp_(min=0)), 0.0)
    share_N1 = ((target_N1 - lower_N1) / (upper_N1 - lower_N1)).clamp_(0.0, 1.0 - 1e-12)
    inner_NK = mass_NCK.gather(1, chunk_N1[:, :, None].expand(-1, -1, CHUNK))[:, 0].double().cumsum(-1)
    place_N1 = torch.searchsorted(inner_NK, share_N1 * inner_NK[:, -1:], right=True)
    return chunk_N1 * CHUNK + place_N1
