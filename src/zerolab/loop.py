"""The loop that RL and pretraining share: steps, evaluation, log, checkpoints and stop."""

from collections.abc import Callable
from typing import Any

from zerolab.config import RunConfig, TextRunConfig
from zerolab.errors import Interrupted
from zerolab.processes import GracefulStop

Record = dict[str, Any]  # one line of metrics.jsonl


def run_steps(
    config: RunConfig | TextRunConfig,
    first: int,
    stop: GracefulStop,
    *,
    step: Callable[[int], Record],
    evaluate: Callable[[], dict[str, float]] | None,
    log: Callable[[Record], None],
    save: Callable[[int], None],
    say: Callable[[str], None],
) -> None:
    """Take the steps from `first`, counted from 1, to the last one.

    Args:
        step: takes one step and returns its record.
        evaluate: computes the held-out metrics. Called before the first step, every `evaluation.every` steps and at
            the end.
        log: writes and shows a record.
        save: writes the checkpoint of a step. Called every `checkpoint.every` steps, at a stop and at the end.
        say: shows a line of text.

    Raises:
        Interrupted: after the step during which a stop was requested, unless it was the last one.
    """
    if first == 1 and evaluate:
        log({"step": 0, **evaluate()})
    for number in range(first, config.steps + 1):
        record = step(number)
        last = number == config.steps
        if evaluate and (last or number % config.evaluation.every == 0):
            record |= evaluate()
        log(record)
        if last or stop.requested or (config.checkpoint.every and number % config.checkpoint.every == 0):
            save(number)
        if stop.requested and not last:
            message = f"stopped after step {number} of {config.steps}; continue with --resume"
            say(message)
            raise Interrupted(message)
