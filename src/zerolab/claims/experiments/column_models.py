"""Bases that work out additions, RL runs on them, and how many questions they answer that no training ever asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from zerolab.claims.protocol import Row, chosen

if TYPE_CHECKING:
    from zerolab.config import PretrainConfig, RunConfig

ASKED, SAMPLES = 200, 2  # held-out questions, responses to each
EVERY, CURVE = 20, 100  # a point of a curve: so many steps apart, so many questions
# Three-digit operands as in training, of the side of the split that neither pretraining nor RL asks, whatever the set.
WIDE = "{path='synthetic:arithmetic', options={digits=3, operations='+', seed=1}, holdout=0.1}"


def base_config(name: str, seed: int, corpus: str, steps: int = 450, **options: Any) -> "PretrainConfig":
    """So many steps of 64 documents of a corpus, otherwise as laptop/columns-base."""
    from zerolab.config import CorpusConfig
    from zerolab.recipes import find_recipe, load

    base = load(find_recipe("laptop/columns-base"), verb="pretrain")
    config = CorpusConfig(name=corpus, options=options)
    return base.model_copy(update={"name": name, "seed": seed, "steps": steps, "corpus": config})


def framed_recipe(base: "PretrainConfig", frame: str, seed: int, *changes: str) -> "RunConfig":
    """laptop/columns on a base, in a frame, with these changes."""
    from zerolab.claims.training import run_config
    from zerolab.worlds.columns import FRAMES

    curve = (f"evaluation.every={EVERY}", f"evaluation.max_questions={CURVE}", f"evaluation.questions={WIDE}")
    return run_config("laptop/columns", base, [f"seed={seed}", *curve, *FRAMES[frame].overrides(frame), *changes])


def rebuilt(
    folder: Path, config: "RunConfig", base: "PretrainConfig", frame: str
) -> tuple[Mapping[str, Sequence[float]], dict[str, float]]:
    """A run in a cell's folder: (metrics of every step, numbers: its steps, held-out accuracy before and after, the
    accuracies in between)."""
    from zerolab.claims.training import place_in, trained
    from zerolab.worlds.base_model import cache_folder

    seed, budget = config.seed, config.rollout.max_new_tokens
    numbers = {f"{key}_start": value for key, value in asked(cache_folder(base), frame, budget, seed).items()}
    series = trained(
        place_in(folder, config),
        lambda policy: numbers.update({f"{k}_end": v for k, v in asked(policy, frame, budget, seed).items()}),
    )
    points = {f"curve_{step}": series["eval/accuracy"][step - 1] for step in range(EVERY, config.steps + 1, EVERY)}
    return series, {"steps": len(series["accuracy"]), **numbers, **points}


def asked(model: Path, frame: str, budget: int, seed: int) -> dict[str, float]:
    """Shares of responses at temperature 1: strict (right, in the format), lenient (right, wherever), formatted."""
    from zerolab.config import QuestionsConfig
    from zerolab.data.questions import QuestionStream, load_questions
    from zerolab.grading.grader import grade
    from zerolab.models.hf import load_model, load_tokenizer
    from zerolab.rollout.engine import Request, generate_all, request_seed
    from zerolab.rollout.torch_engine import TorchEngine
    from zerolab.toml import apply_overrides
    from zerolab.worlds.columns import FRAMES

    source = apply_overrides({}, [f"questions={WIDE}"])["questions"]
    drawn = QuestionStream(load_questions(QuestionsConfig.model_validate(source)).holdout, seed=1).take(ASKED)
    questions = [draw.question for draw in drawn]
    tokenizer, form = load_tokenizer(model), FRAMES[frame]
    requests = [
        Request(
            id=number * SAMPLES + sample,
            prompt_ids=tuple(tokenizer(form.template.format(question=question.text))["input_ids"]),
            seed=request_seed(seed, "asked", number, sample),
            max_new_tokens=budget,
            stop=form.stop,
        )
        for number, question in enumerate(questions)
        for sample in range(SAMPLES)
    ]
    completions = generate_all(TorchEngine(load_model(model), tokenizer), requests)
    answers = [(c.text, questions[c.request_id // SAMPLES].answers) for c in completions]
    strict = [grade(text, gold, form.extractor) for text, gold in answers]
    return {
        "strict": sum(g.correct for g in strict) / len(strict),
        "lenient": sum(grade(text, gold, "any").correct for text, gold in answers) / len(answers),
        "formatted": sum(g.formatted for g in strict) / len(strict),
    }


def draw_curves(
    table: Sequence[Row],
    path: Path,
    lines: str,
    panels: str | None = None,
    titles: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Held-out accuracy over RL steps: a panel for each value of one factor, a line for each of another, thin ones for
    the replicates."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    names = list(dict.fromkeys(str(row[panels]) for row in table)) if panels else [""]
    figure, axes = plt.subplots(
        1, len(names), figsize=(1.5 + 3 * len(names), 3.4), sharey=True, squeeze=False, constrained_layout=True
    )
    for axis, name in zip(axes[0], names, strict=True):
        for k, line in enumerate(dict.fromkeys(str(row[lines]) for row in table)):
            rows = chosen(table, **{lines: line}, **({panels: name} if panels else {}))
            steps = sorted(int(key.removeprefix("curve_")) for key in (rows[0] if rows else {}) if "curve_" in key)
            curves = [[row["strict_start"], *(row[f"curve_{step}"] for step in steps)] for row in rows]
            for curve in curves:
                axis.plot([0, *steps], curve, color=f"C{k}", linewidth=0.5, alpha=0.5)
            if curves:
                axis.plot([0, *steps], np.mean(curves, 0), color=f"C{k}", label=line)
        axis.set_title(titles.get(name, name), fontsize=9)
        axis.set_xlabel("RL steps")
    axes[0][0].set_ylabel("accuracy, held-out questions")
    axes[0][-1].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
