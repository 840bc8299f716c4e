"""What a run will need, from its config alone: printed by --dry-run."""

from zerolab.config import RunConfig
from zerolab.models.context import prompt_limit
from zerolab.plan.fits import rows_that_fit
from zerolab.plan.memory import memory_estimates
from zerolab.plan.shapes import model_shape


def token_estimates(config: RunConfig) -> list[tuple[str, float]]:
    rollout = config.rollout
    responses = rollout.questions_per_step * rollout.samples_per_question
    rounds = 1 + rollout.refill_rounds
    return [
        ("responses per step", responses),
        ("optimizer steps per step", config.learner.updates_per_rollout),
        ("responses per optimizer step", responses / config.learner.updates_per_rollout),
        ("new tokens per step, at most", responses * rollout.max_new_tokens * rounds),
        ("new tokens in all, at most", responses * rollout.max_new_tokens * rounds * config.steps),
    ]


def describe(config: RunConfig) -> str:
    """Resolved config, the objective's formula, token and memory estimates, as text.

    Raises UserError if the budgets leave no room for a prompt in the model's context, as the run would.
    """
    shape = model_shape(config.model)
    lines = [config.model_dump_json(indent=2), "", f"objective {config.objective.name}", config.objective.formula(), ""]
    lines += [f"{name:36} {value:>16,.0f}" for name, value in token_estimates(config)]
    if shape is None:
        lines += ["", f"memory: unknown until the model is at hand ({config.model.path})"]
        return "\n".join(lines)
    if shape.context is not None:
        lines.append(f"{'tokens of a prompt, at most':36} {prompt_limit(config, shape.context):>16,}")
    lines += ["", f"{'parameters, by ' + shape.source:36} {shape.parameters:>16,}"]
    lines += [f"{name:36} {value:>12.2f} GiB" for name, value in memory_estimates(config, shape)]
    if shape.layers:
        lines.append(f"{'full-length responses in that cache':36} {rows_that_fit(config, shape):>16,.0f}")
    return "\n".join(lines)
