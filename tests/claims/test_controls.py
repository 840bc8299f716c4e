"""Controls: the matched arm differs in what is rewarded, in nothing else, and a coin knows nothing of the text."""

from pathlib import Path

import numpy as np
import pytest

from command import run, write_recipe
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.config import QuestionsConfig, RewardConfig
from zerolab.data.questions import load_questions
from zerolab.datatypes import Completion, Grade, Prompt, Question
from zerolab.errors import UserError
from zerolab.models.hf import export_model
from zerolab.recipes import CONTROLS, controlled, difference, find_recipe, kind, load, shipped
from zerolab.rl.reward import coins, make_group
from zerolab.rundir import read_metrics
from zerolab.toml import parse


@pytest.mark.parametrize("control", CONTROLS)
def test_every_training_recipe_has_its_matched_arm(control: str) -> None:
    for name, path in shipped().items():
        if name.startswith(("laptop/grpo", "laptop/dr-grpo", "paper/")) and kind(path) == "train":
            config = load(find_recipe(name), verb="train")
            arm = controlled(config, control)
            changed = set(_changed(config.model_dump(), arm.model_dump()))
            assert changed <= {"name", "out", "control", *CONTROLS[control]}
            assert arm.control is not None
            assert (arm.control.name, arm.control.run) == (control, str(config.folder))
            assert arm.seed == config.seed
            assert arm.folder != config.folder


def _changed(a: dict, b: dict) -> list[str]:
    return [key for key in a if a[key] != b[key]]


def test_an_unknown_control_and_one_that_changes_nothing_are_refused() -> None:
    config = load(find_recipe("laptop/dr-grpo"), verb="train")
    with pytest.raises(UserError, match="did you mean random-reward"):
        controlled(config, "random-rewards")
    rloo = load(find_recipe("laptop/dr-grpo"), ["objective=rloo"], verb="train")
    with pytest.raises(UserError, match="its own control"):
        controlled(rloo, "no-clip")


def completions(texts: list[str], version: int = 0) -> list[Completion]:
    return [
        Completion(i, text, np.array([1]), np.zeros(1, np.float32), "stop", version) for i, text in enumerate(texts)
    ]


def test_a_coin_is_fair_independent_of_the_text_and_new_for_every_rollout() -> None:
    prompts = [Prompt(Question(str(q), "", ("1",)), "", (1,)) for q in range(200)]
    first = np.array([coins(0, p, completions(["right"] * 8)) for p in prompts])
    other = np.array([coins(0, p, completions(["wrong"] * 8)) for p in prompts])
    later = np.array([coins(0, p, completions(["right"] * 8, version=1)) for p in prompts])
    assert np.array_equal(first, other)
    assert first.mean() == pytest.approx(0.5, abs=0.05)
    assert 0.4 < (first == later).mean() < 0.6
    assert 0.4 < (first == np.array([coins(1, p, completions(["right"] * 8)) for p in prompts])).mean() < 0.6


def test_a_random_reward_leaves_the_verdict_alone() -> None:
    prompt = Prompt(Question("q", "", ("1",)), "", (1,))
    grades = [Grade(True, True, "correct")] * 8
    config = RewardConfig(correctness=0.0, random=1.0, truncation="keep")
    group = make_group(prompt, completions(["1"] * 8), grades, config, 4, seed=3)
    assert set(group.rewards_G) <= {0.0, 1.0}
    assert np.array_equal(group.rewards_G, group.parts_G["random"])
    assert all(grade.correct for grade in group.grades)


def test_shuffled_labels_are_the_labels_of_others_and_held_out_questions_keep_theirs() -> None:
    raw = {"path": "synthetic:modular", "holdout": 0.2}
    plain, shuffled = (
        load_questions(parse(QuestionsConfig, {**raw, "shuffle_answers": s}, "test")) for s in (False, True)
    )
    before, after = plain.train[0].questions, shuffled.train[0].questions
    assert [q.text for q in before] == [q.text for q in after]
    assert sorted(q.answers for q in before) == sorted(q.answers for q in after)
    assert np.mean([a.answers == b.answers for a, b in zip(before, after, strict=True)]) < 0.2  # 1/13 by chance
    assert plain.holdout[0].questions == shuffled.holdout[0].questions
    assert plain.train[0].fingerprint != shuffled.train[0].fingerprint


def test_the_control_of_a_run_trains_in_its_own_folder(tmp_path: Path) -> None:
    export_model(tiny_model("qwen2"), tiny_tokenizer(), tmp_path / "model")
    recipe = write_recipe(tmp_path / "recipe.toml", tmp_path / "model")
    settings = ["--set", f"out={tmp_path / 'run'}", "--set", "steps=2", "--set", "evaluation.every=0"]
    assert run("train", recipe, *settings, "--control", "random-reward") == 0
    rows = read_metrics(tmp_path / "run-random-reward")
    assert len(rows) == 2
    assert all("reward/random" in row for row in rows)
    assert not (tmp_path / "run").exists()
    assert run("train", recipe, *settings, "--control", "nothing") == 2


def test_recipes_stay_comparable_to_their_controls(tmp_path: Path) -> None:
    """`zerolab recipe diff` and the resolved config show the control as what it is."""
    assert difference(find_recipe("laptop/grpo"), find_recipe("laptop/dr-grpo"))
    assert controlled(load(find_recipe("laptop/grpo"), verb="train"), "format-reward").reward.format == 1
