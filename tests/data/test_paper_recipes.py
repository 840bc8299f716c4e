"""The paper's recipes say what they are, parse, and carry the settings of the public run."""

from pathlib import Path

import pytest

from zerolab.config import load_run_config
from zerolab.data.builtin import BUILT_IN
from zerolab.data.templates import make_template
from zerolab.recipes import header, kind, recipe_folder

FILES = [
    path
    for path in sorted((recipe_folder() / "paper").glob("*.toml"))
    if kind(path) == "train" and header(path)[0].startswith("Claim")
]


def test_the_three_of_the_public_scripts_are_there() -> None:
    assert {path.stem for path in FILES} >= {"qwen2.5-math-1.5b", "qwen2.5-math-7b", "llama-3.2-3b-numinaqa"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_paper_recipe(path: Path) -> None:
    text = " ".join(header(path))
    assert text.startswith("Claim")
    for part in ("Never run here", "Cost:", "Known:", "Not known:"):
        assert part in text
    config = load_run_config(path)
    assert config.name == path.stem
    assert config.rollout.questions_per_step * config.rollout.samples_per_question == 1024
    assert (config.learner.updates_per_rollout, config.learner.lr, config.learner.weight_decay) == (8, 1e-6, 0)
    assert (config.rollout.max_new_tokens, config.reward.truncation, config.objective.name) == (3000, "zero", "dr_grpo")
    assert make_template(config.template).name == ("qwen-math" if "qwen2.5-math" in path.stem else "r1")
    assert config.questions.sources[0].path in BUILT_IN


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_keeps_the_benchmarks_for_the_end(path: Path) -> None:
    config = load_run_config(path)
    assert config.evaluation.questions is None
    assert config.evaluation.every == 16
    assert 0 < config.questions.holdout < 0.05
    assert config.evaluation.max_questions <= config.questions.holdout * 8500 * 1.5
    assert not config.evaluation.allow_test_questions
