"""What `--dry-run` prints: the needs of an RL run or a pretraining run, from its config alone."""

from zerolab.config import PretrainConfig, RunConfig, TextRunConfig
from zerolab.models.context import evaluation_room, piece_limit, prompt_limit
from zerolab.plan.gpus import find_gpu
from zerolab.plan.job import Assumptions
from zerolab.plan.memory import GIB, Rows, memory_estimates, rows_that_fit
from zerolab.plan.shapes import ModelShape, model_shape, tiny_shape
from zerolab.plan.throughput import time_estimate


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
        lines += ["", f"memory: unknown until the model is at hand ({config.model.path})", time_estimate(config, shape)]
        return "\n".join(lines)
    if shape.context is not None:
        lines.append(f"{'tokens of a prompt, at most':36} {prompt_limit(config, shape.context):>16,}")
    lines += ["", f"{'parameters, by ' + shape.source:36} {shape.parameters:>16,}"]
    lines += [f"{name:36} {value:>12.2f} GiB" for name, value in memory_estimates(config, shape)]
    if shape.layers:
        lines.append(f"{'full-length responses in that cache':36} {rows_that_fit(config, shape):>16,.0f}")
    return "\n".join([*lines, "", time_estimate(config, shape)])


UTILISATION = Assumptions().learn_utilisation


def describe_pretraining(config: PretrainConfig | TextRunConfig) -> str:
    """Resolved config; for a run on texts also tokens, steps and memory."""
    resolved = config.model_dump_json(indent=2)
    if isinstance(config, PretrainConfig):
        return resolved
    shape = text_shape(config)
    if shape is not None and shape.context is not None:
        piece_limit(config, shape.context)
        if config.evaluation.every and config.evaluation.questions:
            evaluation_room(config, shape.context)
    lines = [resolved, "", *(f"{name:36} {value:>16,.0f}" for name, value in text_tokens(config))]
    if shape is None:
        unknown = f"memory: unknown until the model is at hand ({config.model.path})"
        return "\n".join([*lines, "", unknown, time_estimate(config, shape)])
    lines += ["", f"{'parameters, by ' + shape.source:36} {shape.parameters:>16,}"]
    lines.append(f"{'floating-point operations':36} {operations(config, shape):>16.3g}")
    lines.append(f"{f'A100 hours at {UTILISATION:.0%} of its peak':36} {a100_hours(config, shape):>16,.1f}")
    lines += [f"{name:36} {value:>12.2f} GiB" for name, value in text_memory(config, shape)]
    return "\n".join([*lines, "", time_estimate(config, shape)])


def text_tokens(config: TextRunConfig) -> list[tuple[str, float]]:
    """Steps and tokens, of each corpus where there are several."""
    total, sources = config.steps * config.tokens_per_step, config.corpora.sources
    rows: list[tuple[str, float]] = [
        ("optimizer steps", config.steps),
        ("tokens per step", config.tokens_per_step),
        ("tokens in all", total),
    ]
    weights = sum(source.weight for source in sources)
    return rows + [(f"  of {s.name or s.path}", total * s.weight / weights) for s in sources if len(sources) > 1]


def text_shape(config: TextRunConfig) -> ModelShape | None:
    """Shape of the model to begin with; None where it is not known yet."""
    if config.architecture is None:
        return model_shape(config.model)
    if (vocabulary := config.model.vocab_size) is None:
        from zerolab.models.hf import load_tokenizer

        vocabulary = len(load_tokenizer(str(config.model.tokenizer)))
    return tiny_shape(config.architecture, vocabulary)


def operations(config: TextRunConfig, shape: ModelShape) -> float:
    """6 N D (2001.08361, section 2.1), and 2 N D more where activations are computed again."""
    each = 8.0 if config.learner.checkpointing else 6.0
    return each * shape.parameters * config.steps * config.tokens_per_step


def a100_hours(config: TextRunConfig, shape: ModelShape) -> float:
    return operations(config, shape) / (UTILISATION * find_gpu("A100-80").flops) / 3600


def text_memory(config: TextRunConfig, shape: ModelShape) -> Rows:
    """GiB of one process on one device, without activations."""
    half = config.model.weights == "bf16"
    rows = [(f"learner weights, {config.model.weights}", (2.0 if half else 4.0) * shape.parameters)]
    if half:
        rows.append(("master copies, fp32", 4.0 * shape.parameters))
    rows += [("gradients, fp32", 4.0 * shape.parameters), ("AdamW moments, fp32", 8.0 * shape.parameters)]
    if config.evaluation.every and config.evaluation.questions:
        rows.append(("engine weights", (4.0 if config.model.precision == "fp32" else 2.0) * shape.parameters))
        rows.append(("engine keys and values (budget)", config.evaluation.kv_gb * GIB))
    rows.append(("logits of one chunk, three copies", 3.0 * config.learner.logits_mb * 2**20))
    rows.append(("sum, without activations", sum(size for _, size in rows)))
    return [(name, size / GIB) for name, size in rows]
