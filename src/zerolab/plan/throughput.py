"""How fast runs were on this machine: stored when a run ends, read by the next dry run of the same kind.

A kind of run is the size of the model and what else decides the speed of a token. Its rate is that of the last run.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zerolab.config import RunConfig, TextRunConfig
from zerolab.models.fetch import cache_root
from zerolab.plan.shapes import ModelShape
from zerolab.rundir import read_object, write_atomically

RECENT = 20  # steps that a rate is the mean of


@dataclass(frozen=True)
class Rate:
    """Seconds of sampling and learning for each token, and the mean length of a response, 0 for a run on texts."""

    seconds_per_token: float
    response_tokens: float
    name: str  # of the run
    date: str


def kind_of_run(config: RunConfig | TextRunConfig, shape: ModelShape) -> dict[str, Any]:
    """What decides the speed of a token, as far as a config says it."""
    kind = {
        "parameters": shape.parameters,
        "device": config.model.device,
        "precision": config.model.precision,
        "threads": config.threads,
        "checkpointing": config.learner.checkpointing,
    }
    if isinstance(config, TextRunConfig):
        return {"verb": "pretrain", **kind}
    cluster = config.cluster.model_dump(mode="json") if config.cluster else None
    return {
        "verb": "train",
        **kind,
        "engine": config.rollout.engine,
        "lora": config.lora is not None,
        "updates": config.learner.updates_per_rollout,
        "staleness": config.rollout.max_staleness,
        "cluster": cluster,
    }


def _file(config: RunConfig | TextRunConfig, shape: ModelShape) -> Path:
    kind = json.dumps(kind_of_run(config, shape), sort_keys=True)
    return cache_root() / "rates" / f"{hashlib.blake2b(kind.encode(), digest_size=8).hexdigest()}.json"


def store_rate(config: RunConfig | TextRunConfig, shape: ModelShape | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keeps the rate of the last of these rows of metrics.jsonl; nothing if none was timed.

    A cache that cannot be written is no reason to fail.
    """
    texts = isinstance(config, TextRunConfig)
    waited, counted = ("time/read_s", "tokens/step") if texts else ("time/wait_s", "rollout/tokens")
    learned = [row for row in rows if row.get(waited) is not None]
    timed = (learned[1:] or learned)[-RECENT:]  # the first step warms up
    tokens = sum(row[counted] for row in timed)
    if shape is None or not tokens:
        return
    seconds = sum(row[waited] + row["time/learn_s"] for row in timed)
    length = 0.0 if texts else math.fsum(row["length/mean"] for row in timed) / len(timed)
    date = datetime.now(UTC).date().isoformat()
    file = _file(config, shape)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(asdict(Rate(seconds / tokens, length, config.name, date))))


def stored_rate(config: RunConfig | TextRunConfig, shape: ModelShape | None) -> Rate | None:
    """The rate of the last run of this kind on this machine; None if there was none, or its file is damaged."""
    found = read_object(_file(config, shape)) if shape is not None else None
    try:
        rate = Rate(**found) if found else None
        known = rate is not None and 0 < rate.seconds_per_token < math.inf and 0 <= rate.response_tokens < math.inf
    except TypeError:  # other keys, or no numbers
        return None
    return rate if known else None


def time_estimate(config: RunConfig | TextRunConfig, shape: ModelShape | None) -> str:
    """Hours of all steps at the stored rate, or that they are unknown; evaluations and checkpoints are not in it."""
    rate = stored_rate(config, shape)
    if rate is None:
        return (
            "time: unknown; no run of this kind (size of the model, device, engine) on this machine has stored its rate"
        )
    source = f"at the rate of the last such run here, {rate.name} on {rate.date}: "
    if isinstance(config, TextRunConfig):
        seconds = rate.seconds_per_token * config.tokens_per_step
        source += f"{1 / rate.seconds_per_token:,.0f} tokens/s"
    else:
        rollout = config.rollout
        length = min(rate.response_tokens, rollout.max_new_tokens)
        responses = rollout.questions_per_step * rollout.samples_per_question
        seconds = rate.seconds_per_token * responses * length
        source += f"{1 / rate.seconds_per_token:,.0f} tokens/s, responses of {length:,.0f} tokens"
        source += ", without refills" if rollout.refill_rounds else ""
    total = seconds * config.steps
    shown = (
        f"{total:,.0f} s" if total < 120 else f"{total / 60:,.0f} min" if total < 7200 else f"{total / 3600:,.1f} hours"
    )
    return f"time: about {shown} for {config.steps} steps of {seconds:.3g} s, {source}; evaluations are not in it"
