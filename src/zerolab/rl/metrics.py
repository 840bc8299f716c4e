"""What one rollout looked like. A response is solved when its answer is right and it finished within the budget."""

from collections.abc import Sequence

import numpy as np

from zerolab.datatypes import Group
from zerolab.rl.bias_meter import clip_metrics, mean_or_nan
from zerolab.rl.reward import is_mixed


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Means over the responses of a rollout; lengths in tokens. NaN where there is nothing to average.

    `entropy` is the mean of -log pi over all sampled tokens, in nats: an estimate of the policy's entropy at the
    sampling temperature that needs no forward pass and leaves out no response.
    """
    completions = [c for g in groups for c in g.completions]
    grades = [grade for g in groups for grade in g.grades]
    length_N = np.array([len(c) for c in completions], dtype=float)
    truncated_N = np.array([c.truncated for c in completions])
    correct_N = np.array([g.correct for g in grades])
    solved_N = correct_N & ~truncated_N
    parts = {name for g in groups for name in g.parts_G}
    greedy = [g.greedy_reward for g in groups if g.greedy_reward is not None]
    return {
        "reward/mean": float(np.mean([g.rewards_G.mean() for g in groups])),
        **{
            f"reward/{n}": mean_or_nan([x for g in groups for x in g.parts_G.get(n, np.zeros(1))])
            for n in sorted(parts)
        },
        **({"reward/greedy": mean_or_nan(greedy)} if greedy else {}),
        "accuracy": mean_or_nan(solved_N),
        "correct_but_truncated": mean_or_nan(correct_N & truncated_N),
        "formatted": mean_or_nan([g.formatted for g in grades]),
        "length/mean": mean_or_nan(length_N),
        "length/correct": mean_or_nan(length_N[solved_N]),
        "length/incorrect": mean_or_nan(length_N[~solved_N]),
        "truncated": mean_or_nan(truncated_N),
        "entropy": mean_or_nan(-np.concatenate([c.logprobs_L for c in completions] or [np.empty(0)]).astype(float)),
        "tokens_per_solved": float(length_N.sum() / solved_N.sum()) if solved_N.any() else float("nan"),
        "zero_variance_groups": mean_or_nan([not is_mixed(g) for g in groups]),
        "grader/timeout": mean_or_nan([g.reason == "timeout" for g in grades]),
        "grader/error": mean_or_nan([g.reason == "error" for g in grades]),
    }


def update_metrics(updates: Sequence[dict[str, float]]) -> dict[str, float]:
    """The optimizer steps of one rollout as one row: means over them, and the first one's engine/learner mismatch.

    Only at the first step are both policies meant to be equal. `learned/nll`, `learned/entropy` and `clip_fraction` are
    means over the tokens that were forwarded: without a bonus, those of responses with an advantage.
    """
    if not updates:
        return {"updates": 0.0}
    tokens = np.array([u["tokens"] for u in updates])
    row = {"updates": float(len(updates)), "learned_tokens": float(tokens.sum())}
    for name in ("loss", "coverage", "padding", "grad_norm", "grad_clipped", "lr"):
        row[name] = mean_or_nan([u[name] for u in updates if not u.get("scale/skipped")])
    for name, shown in (("nll", "learned/nll"), ("entropy", "learned/entropy"), ("clip_fraction", "clip_fraction")):
        values = np.array([u[name] for u in updates])
        row[shown] = (
            float((values[tokens > 0] * tokens[tokens > 0]).sum() / tokens.sum()) if tokens.any() else float("nan")
        )
    for name in sorted(name for name in updates[0] if name.startswith("critic/")):
        row[name] = mean_or_nan([u[name] for u in updates])
    if "scale/value" in updates[0]:  # of fp16
        row["scale/value"] = updates[-1]["scale/value"]
        row["scale/skipped"] = sum(u["scale/skipped"] for u in updates)
    first = updates[0]
    return {**row, "mismatch/abs": first["mismatch_abs"], "mismatch/k3": first["mismatch_k3"], **clip_metrics(updates)}
