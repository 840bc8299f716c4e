"""Metrics of a rollout and of its optimizer steps. A response is solved if it is right and finished in the budget."""

from collections.abc import Sequence

import numpy as np

from zerolab.datatypes import Group
from zerolab.rl.bias_meter import clip_metrics, mean_or_nan
from zerolab.rl.reward import is_mixed

# Every metric of metrics.jsonl: (name, unit, meaning). /* stands for names that come from a config or a question set.
MEANINGS: tuple[tuple[str, str, str], ...] = (
    ("step", "", "number of the training step: one rollout and its optimizer steps"),
    ("version", "", "optimizer steps taken since the start of the run"),
    ("reward/mean", "reward", "mean over questions of the mean reward of their responses"),
    ("reward/*", "reward", "mean of one weighted term of the reward: correctness, format, a function of yours"),
    ("reward/greedy", "reward", "mean reward of the greedy responses, under ReMax"),
    ("accuracy", "share", "responses that are right and finished within the budget"),
    ("correct_but_truncated", "share", "responses with the right answer that did not finish within the budget"),
    ("formatted", "share", "responses in the answer format of the template, right or wrong"),
    ("truncated", "share", "responses that reached the token budget"),
    ("length/mean", "tokens", "length of responses"),
    ("length/correct", "tokens", "length of responses that are right and finished"),
    ("length/incorrect", "tokens", "length of all other responses"),
    ("tokens_per_solved", "tokens", "all sampled tokens divided by the number of right and finished responses"),
    ("entropy", "nats", "mean of -log pi over all sampled tokens: an estimate of the policy's entropy"),
    (
        "zero_variance_groups",
        "share",
        "questions whose responses all have the same reward, so that nothing is learned from them",
    ),
    ("grader/timeout", "share", "responses whose grading took longer than its deadline (they count as wrong)"),
    ("grader/error", "share", "responses whose grading failed (they count as wrong)"),
    ("updates", "", "optimizer steps over the rollout"),
    ("learned_tokens", "tokens", "tokens of responses that were forwarded by the learner"),
    ("coverage", "share", "responses of a step that had an advantage and were forwarded"),
    ("padding", "share", "positions of forward passes that were padding"),
    ("loss", "", "loss of the objective; only its gradient has a meaning"),
    ("grad_norm", "", "norm of the gradient before clipping, mean over optimizer steps"),
    ("grad_clipped", "share", "optimizer steps whose gradient was clipped to learner.max_grad_norm"),
    ("lr", "", "learning rate"),
    ("clip_fraction", "share", "forwarded tokens whose ratio was clipped"),
    ("learned/entropy", "nats", "entropy of the next token, mean over the tokens that were forwarded"),
    ("learned/nll", "nats", "mean of -log pi over the tokens that were forwarded"),
    ("mismatch/abs", "nats", "mean |log pi(learner) - log pi(engine)| at the first optimizer step of the rollout"),
    ("mismatch/k3", "nats", "k3 estimate of KL(engine || learner) at the first optimizer step of the rollout"),
    (
        "mismatch/probe",
        "nats",
        "mismatch/abs on a few tokens after the update, to check that the engine has the new weights",
    ),
    ("mismatch/removed/*", "share", "mass that objective.correction_cap removes, by quarter of the budget"),
    ("kl/response", "nats", "KL to the reference policy, summed over a response, mean over responses"),
    ("critic/*", "", "the critic: value, target, explained_variance, loss, grad_norm, grad_clipped, lr"),
    ("scale/value", "", "loss scale under fp16"),
    ("scale/skipped", "", "optimizer steps skipped because the scaled gradient overflowed"),
    ("rollout/groups", "", "questions sampled for the step, including those that dynamic sampling dropped"),
    ("rollout/rounds", "", "rounds of dynamic sampling"),
    ("rollout/tokens", "tokens", "tokens sampled for the step"),
    ("rollout/dropped_prompts", "", "questions dropped so far because their prompt is too long"),
    ("eval/accuracy", "share", "held-out accuracy: right and finished"),
    ("eval/standard_error", "share", "standard error of the held-out accuracy, over questions"),
    ("eval/questions", "", "held-out questions asked"),
    ("eval/formatted", "share", "held-out responses in the answer format"),
    ("eval/length", "tokens", "length of held-out responses"),
    ("eval/truncated", "share", "held-out responses that reached the budget"),
    ("time/sample_s", "s", "sampling the rollout of this step"),
    ("time/wait_s", "s", "time the learner waited for that rollout; less than time/sample_s if sampling runs ahead"),
    ("time/learn_s", "s", "preparing the batch, optimizer steps, sending the weights to the engine"),
    ("time/sample_tokens_per_s", "tokens/s", "sampled tokens divided by time/sample_s"),
    ("time/learn_tokens_per_s", "tokens/s", "tokens of the batch divided by time/learn_s"),
    ("bias/length/*", "reward x tokens", "pressure on the length of all, correct and incorrect responses"),
    ("bias/length_reward/*", "reward x tokens", "the part of bias/length that comes from the rewards"),
    (
        "bias/length_normaliser/*",
        "reward x tokens",
        "the part of bias/length that comes from unequal weights of tokens",
    ),
    ("bias/length_unbiased/*", "reward x tokens", "the pressure of Dr. GRPO on the same batch"),
    ("bias/length_grpo/*", "reward x tokens", "the pressure of GRPO on the same batch"),
    ("bias/cosine_unbiased", "", "cosine of the coefficients with those of Dr. GRPO"),
    ("bias/cosine_grpo", "", "cosine of the coefficients with those of GRPO"),
    (
        "bias/question_weight/*",
        "",
        "weight of a mixed question per unit of centred reward, by its pass rate in %",
    ),
    ("bias/question_share/*", "share", "share of all advantage, by pass rate of the question in %"),
    ("bias/responses/*", "share", "responses by quarter of the budget that they fill"),
    ("bias/clipped/*", "share", "clipped tokens by quarter of the budget"),
    ("bias/truncated/*", "share", "truncated responses by quarter of the budget"),
    ("bias/masked", "share", 'responses that reward.truncation = "mask" leaves out'),
)


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Metrics of the responses of a rollout; lengths in tokens. A mean of nothing is NaN.

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
    """Metrics of the optimizer steps of one rollout: means over the steps.

    The mismatch of engine and learner is that of the first step, because later steps change the learner on purpose.
    `learned/nll`, `learned/entropy` and `clip_fraction` are means over the tokens that were forwarded. Unless the
    objective has an entropy bonus, a KL in the loss or a critic, these are the tokens of responses with an advantage.
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
    if "scale/value" in updates[0]:  # only under fp16
        row["scale/value"] = updates[-1]["scale/value"]
        row["scale/skipped"] = sum(u["scale/skipped"] for u in updates)
    first = updates[0]
    return {**row, "mismatch/abs": first["mismatch_abs"], "mismatch/k3": first["mismatch_k3"], **clip_metrics(updates)}
