"""Warnings about a run that goes on without learning: what the logged rows show, and what to do about it.

`RULES` is the table of them, and docs/health.md is written from it. A rule reads the rows of metrics.jsonl and the
config, nothing else, so that a recorded run can be judged like a live one. Each warning is given once in a run.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zerolab.config import RunConfig
from zerolab.rundir import FIRST_STEPS

Row = Mapping[str, Any]

NO_FORMAT_STEPS = 5
NO_MIXED_STEPS = 10
TRUNCATED_STEPS, TRUNCATED_SHARE = 10, 0.9
ENTROPY_STEPS, ENTROPY_NATS, ENTROPY_SHARE, SOLVED = 20, 0.02, 0.1, 0.9
CLIPPED_STEPS, CLIPPED_TIMES = 50, 2.0
MISMATCH_STEPS, MISMATCH_TIMES, MISMATCH_NATS = 10, 10.0, 1e-3
Z_95 = 1.96
EVALUATED = "eval/accuracy"


@dataclass(frozen=True)
class Rule:
    """A warning: its name, when it is given, what it says, and the remedy. `holds(rows, config)` decides."""

    name: str
    condition: str
    message: str
    remedy: str
    holds: Callable[[Sequence[Row], RunConfig], bool]


@dataclass(frozen=True)
class HealthWarning:
    """One line of health.jsonl."""

    step: int
    name: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"warning: {self.message}; {self.remedy}"

    def row(self) -> dict[str, Any]:
        return asdict(self)


class Health:
    """The rules over one run. A resumed run passes the rows it has logged and the names it has warned of."""

    def __init__(self, config: RunConfig, rows: Iterable[Row] = (), given: Iterable[str] = ()):
        self.config = config
        self.rows = [_kept(row) for row in rows]
        self.given = set(given)

    def check(self, row: Row) -> list[HealthWarning]:
        """Adds the row of a step and returns the warnings that hold for the first time."""
        self.rows.append(_kept(row))
        new = [rule for rule in RULES if rule.name not in self.given and rule.holds(self.rows, self.config)]
        self.given |= {rule.name for rule in new}
        return [HealthWarning(int(row["step"]), rule.name, rule.message, rule.remedy) for rule in new]


def _kept(row: Row) -> Row:
    """The metrics that a rule reads: the rows of a long run stay in memory."""
    return {name: row[name] for name in ("step", *READ) if name in row}


def _values(rows: Sequence[Row], metric: str) -> list[float]:
    """The finite values of a metric, oldest first; null in the log and NaN in a live run are left out."""
    found = [row.get(metric) for row in rows]
    return [float(value) for value in found if value is not None and math.isfinite(value)]


def _last(rows: Sequence[Row], metric: str, steps: int) -> list[float]:
    """The newest `steps` values of a metric; empty if there are fewer."""
    values = _values(rows[-4 * steps :], metric)
    return values[-steps:] if len(values) >= steps else []


def _first(rows: Sequence[Row], metric: str) -> list[float]:
    """The first FIRST_STEPS values of a metric."""
    found = (row[metric] for row in rows if _values([row], metric))
    return list(itertools.islice(found, FIRST_STEPS))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _no_format(rows: Sequence[Row], config: RunConfig) -> bool:
    recent = _last(rows, "formatted", min(NO_FORMAT_STEPS, config.steps))
    return bool(recent) and not any(recent)


def _no_mixed_group(rows: Sequence[Row], config: RunConfig) -> bool:
    recent, formatted = (_last(rows, name, NO_MIXED_STEPS) for name in ("zero_variance_groups", "formatted"))
    in_format = not formatted or any(formatted)  # without it, _no_format says why no group is mixed
    return config.objective.needs_group and bool(recent) and min(recent) == 1 and in_format


def _truncated(rows: Sequence[Row], config: RunConfig) -> bool:
    recent = _last(rows, "truncated", TRUNCATED_STEPS)
    return bool(recent) and min(recent) > TRUNCATED_SHARE


def _entropy_collapsed(rows: Sequence[Row], config: RunConfig) -> bool:
    recent = _last(rows, "entropy", ENTROPY_STEPS)
    if not recent or len(rows) < FIRST_STEPS + ENTROPY_STEPS:
        return False
    accuracy = _last(rows, "accuracy", ENTROPY_STEPS)
    solved = bool(accuracy) and _mean(accuracy) > SOLVED  # a policy that knows the answers may be sure of them
    now, first = _mean(recent), _mean(_first(rows, "entropy"))
    return now < ENTROPY_NATS and now < ENTROPY_SHARE * first and not solved


def _always_clipped(rows: Sequence[Row], config: RunConfig) -> bool:
    clipped, norms = (_last(rows, name, CLIPPED_STEPS) for name in ("grad_clipped", "grad_norm"))
    far = bool(norms) and _mean(norms) > CLIPPED_TIMES * config.learner.max_grad_norm
    return bool(clipped) and min(clipped) == 1 and far


def _stale_without_bound(rows: Sequence[Row], config: RunConfig) -> bool:
    objective = config.objective
    return config.rollout.max_staleness > 0 and objective.clip == "none" and objective.correction == "none"


def _mismatch_growing(rows: Sequence[Row], config: RunConfig) -> bool:
    recent = _last(rows, "mismatch/k3", MISMATCH_STEPS)
    if not recent or len(rows) < FIRST_STEPS + MISMATCH_STEPS:
        return False
    now, first = _mean(recent), _mean(_first(rows, "mismatch/k3"))
    return now > MISMATCH_NATS and now > MISMATCH_TIMES * first


def _below_best(rows: Sequence[Row], config: RunConfig) -> bool:
    if not _values(rows[-1:], EVALUATED):
        return False
    found = [(row[EVALUATED], row.get("eval/standard_error") or 0.0) for row in rows if _values([row], EVALUATED)]
    (now, error), (best, best_error) = found[-1], max(found)
    return best - now > Z_95 * math.hypot(error, best_error)


READ = (
    "formatted",
    "zero_variance_groups",
    "truncated",
    "entropy",
    "accuracy",
    "grad_clipped",
    "grad_norm",
    "mismatch/k3",
    EVALUATED,
    "eval/standard_error",
)

RULES: tuple[Rule, ...] = (
    Rule(
        "no_response_in_format",
        f"`formatted` was 0 in the last {NO_FORMAT_STEPS} steps (in every step of a shorter run)",
        "no response is in the format that the grader reads, so every answer counts as wrong",
        "look at `extracted` and `response` in transcripts.jsonl, and set template.name and template.extractor to "
        "what the model writes",
        _no_format,
    ),
    Rule(
        "no_mixed_group",
        f"`zero_variance_groups` was 1 in the last {NO_MIXED_STEPS} steps, under an objective that compares the "
        "responses of a group",
        f"all responses of a question earned the same for {NO_MIXED_STEPS} steps, so there is no advantage to learn "
        "from",
        "take easier questions if `accuracy` is near 0 and harder ones if it is near 1, or raise "
        "rollout.samples_per_question",
        _no_mixed_group,
    ),
    Rule(
        "almost_all_truncated",
        f"`truncated` was above {TRUNCATED_SHARE} in each of the last {TRUNCATED_STEPS} steps",
        "almost all responses reach the token budget before they end",
        "raise rollout.max_new_tokens, or check that the template's stop strings and the EOS token are what the model "
        "writes",
        _truncated,
    ),
    Rule(
        "entropy_collapsed",
        f"the mean `entropy` of the last {ENTROPY_STEPS} steps is below {ENTROPY_NATS} nats a token and below "
        f"{ENTROPY_SHARE:g} of that of the first {FIRST_STEPS}, with a mean `accuracy` of at most {SOLVED}",
        "entropy has collapsed: the responses to a question are nearly the same, and most questions are not solved",
        "lower learner.lr, raise objective.clip_high, or add objective.entropy",
        _entropy_collapsed,
    ),
    Rule(
        "gradient_always_clipped",
        f"`grad_clipped` was 1 in each of the last {CLIPPED_STEPS} steps, and the mean `grad_norm` is above "
        f"{CLIPPED_TIMES:g} times learner.max_grad_norm",
        f"the gradient was clipped in every one of the last {CLIPPED_STEPS} steps",
        "raise learner.max_grad_norm above the usual grad_norm, so that clipping meets outliers alone",
        _always_clipped,
    ),
    Rule(
        "stale_without_bound",
        "rollout.max_staleness is above 0, objective.clip and objective.correction are none",
        "responses are learned from that older weights sampled, and nothing bounds their importance weights",
        'set rollout.max_staleness to 0, or objective.clip to "ppo" with its bounds',
        _stale_without_bound,
    ),
    Rule(
        "mismatch_growing",
        f"the mean `mismatch/k3` of the last {MISMATCH_STEPS} steps is above {MISMATCH_NATS:g} nats a token and above "
        f"{MISMATCH_TIMES:g} times that of the first {FIRST_STEPS}",
        "the log-probabilities of the engine and of the learner drift apart",
        'set learner.old_logprobs to "learner" with objective.correction, lower rollout.max_staleness, or raise '
        "model.precision",
        _mismatch_growing,
    ),
    Rule(
        "held_out_below_best",
        f"`eval/accuracy` is below its best by more than {Z_95} standard errors of the difference",
        "accuracy on held-out questions has fallen below its best by more than its interval",
        "go back to an earlier checkpoint (checkpoint.every, checkpoint.keep), lower learner.lr or stop earlier",
        _below_best,
    ),
)
