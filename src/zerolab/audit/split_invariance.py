"""The production gradient of sampled steps: whether it is coefficient times score, and whether a split changes it.

Splits are micro-batches, the order of responses, and two gloo processes that each take a share of the step. The
expected KL and entropy terms are computed with transformers' own forward pass, one response at a time.
"""

import dataclasses
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from zerolab.audit.enumerate import BUDGET, EnumerablePolicy, flat_gradient, tiny_qwen2
from zerolab.audit.expectation import make_wrong, step_gradient, valued
from zerolab.config import CriticConfig, LearnerConfig
from zerolab.learner.learner import Learner
from zerolab.rl.aggregate import token_weights
from zerolab.rl.batch import Batch, make_batch
from zerolab.rl.objective import Objective


def with_reference(policy: EnumerablePolicy, batch: Batch) -> Batch:
    """The step with log pi_ref of another policy, far enough away for a KL term to be seen."""
    reference = tiny_qwen2(policy.seed + 1)
    with torch.no_grad():
        columns = [_chosen(logits_LV, response_L) for logits_LV, response_L in _passes(reference, batch)]
    return dataclasses.replace(batch, ref_logprobs_T=torch.cat(columns).numpy())


def regulariser_gradient(policy: EnumerablePolicy, batch: Batch, objective: Objective) -> np.ndarray:
    """gradient_D of sum_i w_i sum_t (entropy * H_it - kl * k_it), with k2 and k3 written out anew."""
    policy.model.zero_grad()
    weight_N = token_weights(batch.response_len_N, objective.aggregation, BUDGET)
    start = 0
    for weight, (logits_LV, response_L) in zip(weight_N, _passes(policy.model, batch), strict=True):
        normalised_LV = logits_LV.log_softmax(-1)
        value = -objective.entropy * (normalised_LV.exp() * normalised_LV).sum()
        if objective.needs_reference_in_loss and batch.ref_logprobs_T is not None:
            ref_L = torch.from_numpy(batch.ref_logprobs_T[start : start + len(response_L)])
            x_L = torch.exp(_chosen(logits_LV, response_L) - ref_L)
            k_L = x_L.log().square() / 2 if objective.kl_estimator == "k2" else 1 / x_L - 1 + x_L.log()
            value = value - objective.kl * k_L.sum()
        (float(weight) * value).backward()
        start += len(response_L)
    return flat_gradient(policy.model)


def _passes(model: torch.nn.Module, batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(logits_LV that predict the response, response_L) of every row."""
    for row in range(len(batch)):
        part = batch.select(np.array([row]))
        ids_S, prompt = torch.from_numpy(part.tokens_S), int(part.prompt_len_N[0])
        yield model(ids_S[None]).logits[0, prompt - 1 : -1], ids_S[prompt:]


def _chosen(logits_LV: torch.Tensor, response_L: torch.Tensor) -> torch.Tensor:
    return logits_LV.log_softmax(-1).gather(-1, response_L[:, None]).squeeze(-1)


WHOLE = 100_000
MICRO_BATCHES = (1, 16, 40, WHOLE)  # tokens: one response at a time, ..., everything in one pass
UPDATES = 3
SAMPLES = 6  # responses per question of the sampled steps
SEED = 5
Share = Literal["on", "off"]


def make_learner(
    model: nn.Module,
    objective: Objective | None = None,
    micro_batch_tokens: int = WHOLE,
    share_prompts: Share = "off",
) -> Learner:
    """The production learner. A large Adam epsilon keeps rounding in vanishing gradients from being blown up.

    A critic is a model of its own, so that the policy's gradient is seen alone, and wrong.
    """
    config = LearnerConfig(
        micro_batch_tokens=micro_batch_tokens,
        share_prompts=share_prompts,
        lr=0.03,
        eps=1e-3,
        updates_per_rollout=UPDATES,
    )
    critic = CriticConfig() if objective and objective.needs_critic else None
    learner = Learner(model, config, budget=BUDGET, total_steps=UPDATES, critic=critic)  # type: ignore[arg-type]
    if learner.critic:
        make_wrong(learner.critic.head)
    return learner


def upward(learner: Learner) -> np.ndarray:
    """The gradient that the learner holds, policy then critic, in the direction in which its objective goes up."""
    trained = [learner.model, *([learner.critic] if learner.critic else [])]
    return -np.concatenate([flat_gradient(module) for module in trained])


def ascent(
    model: nn.Module,
    batch: Batch,
    objective: Objective,
    micro_batch_tokens: int = WHOLE,
    rows: np.ndarray | None = None,
    share_prompts: Share = "off",
) -> np.ndarray:
    """gradient_D of one optimizer step by the production learner, in the direction in which it goes up.

    `rows`: the share of one rank.
    """
    learner = make_learner(model, objective, micro_batch_tokens, share_prompts)
    learner.forward_backward(batch, objective, rows)
    return upward(learner)


def coefficients(batch: Batch, objective: Objective) -> np.ndarray:
    """A_i w_i of every response."""
    return batch.advantage_N * token_weights(batch.response_len_N, objective.aggregation, BUDGET)


def sampled(policy: EnumerablePolicy, objective: Objective, seed: int = SEED) -> tuple[Batch, np.ndarray]:
    """A step of SAMPLES responses to every question, and score_ND of its responses."""
    picks = policy.sample(SAMPLES, seed)
    score_ND = np.concatenate([policy.score_QOD[q, chosen] for q, chosen in picks])
    step = make_batch(policy.groups(picks), objective)
    if objective.correction != "none":  # sampled by the policy itself
        step = dataclasses.replace(step, correction_T=np.ones_like(step.old_logprobs_T))
    if objective.needs_critic:
        step = valued(make_learner(policy.model, objective), step, objective)
    return (with_reference(policy, step) if objective.needs_reference_in_loss else step), score_ND


def score_residual(policy: EnumerablePolicy, objective: Objective) -> float:
    """How far the production gradient is from sum of coefficient times score, relative to it; worst over two steps.

    KL and entropy terms, which are no coefficient of a score, are added as `regulariser.py` writes them out; under a
    critic the coefficients are those of tokens, and the critic's own gradient is compared as well (`critic.py`).
    """
    worst = 0.0
    for seed in (SEED, SEED + 1):
        step, score_ND = sampled(policy, objective, seed)
        if objective.needs_critic:
            expected = step_gradient(policy, step, objective)
        else:
            expected = coefficients(step, objective) @ score_ND
        if objective.entropy or objective.needs_reference_in_loss:
            more = regulariser_gradient(policy, step, objective)
            expected = expected + np.pad(more, (0, len(expected) - len(more)))
        worst = max(worst, relative_change(ascent(policy.model, step, objective), expected))
    return worst


def relative_change(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def split_changes(policy: EnumerablePolicy, objective: Objective) -> dict[str, float]:
    """Largest relative change of the gradient over micro-batches, prompts forwarded once, orders, and several updates
    on one rollout."""
    step, _ = sampled(policy, objective)
    whole = ascent(policy.model, step, objective)
    orders = list(_orders(len(step)))
    return {
        "micro_batches": max(
            relative_change(ascent(policy.model, step, objective, tokens), whole) for tokens in MICRO_BATCHES
        ),
        "prompts": max(
            relative_change(ascent(policy.model, step, objective, tokens, share_prompts="on"), whole)
            for tokens in MICRO_BATCHES
        ),
        "order": max(
            relative_change(ascent(policy.model, step.select(order), objective, tokens), whole)
            for order, tokens in zip(orders, (WHOLE, 16), strict=True)
        ),
        "updates": _updates_change(policy, objective, step),
    }


def _orders(size: int) -> Iterator[np.ndarray]:
    yield np.arange(size)[::-1]
    yield np.random.default_rng(SEED).permutation(size)


def _updates_change(policy: EnumerablePolicy, objective: Objective, batch: Batch) -> float:
    """Several optimizer steps over one rollout, ratios no longer 1: the gradient of each, cut in three ways."""
    runs = [
        _update_gradients(policy.model, batch, objective, tokens, shuffle)
        for tokens, shuffle in ((WHOLE, False), (16, False), (16, True))
    ]
    return max(relative_change(found, whole) for run in runs[1:] for found, whole in zip(run, runs[0], strict=True))


def _update_gradients(
    model: nn.Module, batch: Batch, objective: Objective, tokens: int, shuffle: bool
) -> list[np.ndarray]:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learner, found = make_learner(model, objective, tokens), []
    for part in batch.optimizer_steps(UPDATES, SEED):
        learner.forward_backward(part.select(np.arange(len(part))[::-1]) if shuffle else part, objective)
        found.append(upward(learner))
        learner.optim_step()
    model.load_state_dict(before)
    return found


def share(batch: Batch, rank: int, ranks: int, uneven: bool) -> np.ndarray:
    """The rows of one rank, which knows the whole step and so every denominator.

    `uneven`: the first rank has everything, the others join without work.
    """
    owner_N = np.zeros(len(batch), int) if uneven else np.arange(len(batch)) % ranks
    return np.flatnonzero(owner_N == rank)


def rank_gradient(model: nn.Module, batch: Batch, objective: Objective, uneven: bool) -> np.ndarray:
    """The gradient summed over the ranks of the running process group (never averaged)."""
    rows = share(batch, dist.get_rank(), dist.get_world_size(), uneven)
    mine = ascent(model, batch, objective, MICRO_BATCHES[1], rows)
    total = torch.from_numpy(mine)
    dist.all_reduce(total, op=dist.ReduceOp.SUM)
    return total.numpy()


RANKS = 2
Job = tuple[Batch, Objective]


def rank_changes(policy: EnumerablePolicy, objectives: Sequence[Objective]) -> list[float]:
    """Largest relative change of every objective's gradient when RANKS processes share the step, evenly or not."""
    jobs: list[Job] = [(sampled(policy, objective)[0], objective) for objective in objectives]
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, args=(folder, policy.seed, jobs), nprocs=RANKS)
        with np.load(Path(folder) / "gradients.npz") as file:
            found = [file[str(number)] for number in range(len(jobs))]
    return [
        max(relative_change(gradient, ascent(policy.model, step, objective)) for gradient in gradients)
        for (step, objective), gradients in zip(jobs, found, strict=True)
    ]


def _rank(rank: int, folder: str, seed: int, jobs: Sequence[Job]) -> None:

    torch.set_num_threads(1)
    if any(name == "lo" for _, name in socket.if_nameindex()):  # a host name that resolves nowhere would stop gloo
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", meeting, timedelta(seconds=120), world_size=RANKS, rank=rank)
    model = tiny_qwen2(seed)
    found = {
        str(number): np.array([rank_gradient(model, step, objective, uneven) for uneven in (False, True)])
        for number, (step, objective) in enumerate(jobs)
    }
    if rank == 0:
        np.savez(Path(folder) / "gradients.npz", **found)  # type: ignore[arg-type]
    dist.destroy_process_group()
