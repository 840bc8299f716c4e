"""A TRL configuration becomes a recipe that resolves, and no key of it goes unmentioned."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from command import refusal, run
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.config import RunConfig, load_run_config
from zerolab.errors import UserError
from zerolab.importing.command import nested, value
from zerolab.importing.trl_recipe import import_trl
from zerolab.models.hf import export_model
from zerolab.rl.objective import PRESETS
from zerolab.rundir import read_metrics


def imported(_processes: int = 1, _rows: int | None = None, **keys: Any) -> RunConfig:
    return RunConfig.model_validate(nested(import_trl(keys, _processes, _rows).recipe))


def kinds(**keys: Any) -> dict[str, str]:
    return {note.key: note.kind for note in import_trl(keys).notes}


@pytest.mark.parametrize(
    ("keys", "preset", "changes"),
    [
        ({"loss_type": "dr_grpo", "scale_rewards": "none"}, "dr_grpo", {}),
        ({"loss_type": "dr_grpo", "scale_rewards": False}, "dr_grpo", {}),
        ({"loss_type": "grpo"}, "grpo", {"std_epsilon": 1e-4}),
        ({"loss_type": "dapo", "epsilon_high": 0.28}, "dapo", {"std_epsilon": 1e-4}),
        ({"scale_rewards": "batch"}, "lite_ppo", {"std_epsilon": 1e-4}),
        ({"loss_type": "cispo", "epsilon_high": 5.0}, "cispo", {"std_epsilon": 1e-4}),
        (
            {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
            "gspo",
            {"std_epsilon": 1e-4},
        ),
        (
            {"loss_type": "luspo", "importance_sampling_level": "sequence", "epsilon": "3e-4", "epsilon_high": 4e-4},
            "luspo",
            {"std_epsilon": 1e-4},
        ),
        ({"loss_type": "grpo", "beta": 0.04}, "grpo_kl", {"std_epsilon": 1e-4}),
    ],
)
def test_losses_of_trl_are_rows_that_are_certified_here(keys: dict, preset: str, changes: dict) -> None:
    found = imported(max_steps=1, **keys).objective
    assert found.model_dump() == PRESETS[preset].model_dump() | changes | {"name": found.name}
    assert found.name.startswith("trl-")


def test_corrections_for_vllm_are_kept_where_trl_makes_them() -> None:
    assert imported(max_steps=1).objective.correction == "none"
    assert (
        imported(max_steps=1, use_vllm=True, vllm_importance_sampling_correction=False).objective.correction == "none"
    )
    found = imported(max_steps=1, use_vllm=True, vllm_importance_sampling_mode="token_truncate")
    assert (found.objective.correction, found.objective.correction_cap) == ("token_truncate", 3.0)
    assert found.learner.old_logprobs == "learner"


@pytest.mark.parametrize(
    ("keys", "processes", "rollout"),  # questions, updates, steps
    [
        ({"max_steps": 100}, 1, (1, 1, 100)),
        ({"max_steps": 100, "gradient_accumulation_steps": 4}, 2, (8, 1, 100)),
        ({"max_steps": 100, "steps_per_generation": 4}, 1, (4, 4, 25)),
        ({"max_steps": 100, "generation_batch_size": 32, "num_iterations": 2}, 1, (4, 4, 13)),
        ({"max_steps": 100, "num_generations": 2, "per_device_train_batch_size": 6}, 1, (3, 1, 100)),
        ({"num_train_epochs": 2, "gradient_accumulation_steps": 8}, 1, (8, 1, 250)),  # 1000 rows
    ],
)
def test_sizes_of_a_rollout_and_steps(keys: dict, processes: int, rollout: tuple) -> None:
    found = imported(processes, 1000, **keys)
    assert (found.rollout.questions_per_step, found.learner.updates_per_rollout, found.steps) == rollout


def test_rewards_models_and_data() -> None:
    names = ["accuracy_reward", "think_format_reward", "get_soft_overlong_punishment", "my.rewards.brief"]
    found = imported(
        max_steps=1, reward_funcs=names, reward_weights=[1, 0.5, 0.25, 2], mask_truncated_completions=True,
        model_name_or_path="org/some-Instruct", dataset_name="gsm_8k", dataset_train_split="test",
        chat_template_kwargs={"enable_thinking": False}, eval_strategy="steps", eval_steps=20, report_to=["wandb"],
    )  # fmt: skip
    assert (found.reward.correctness, found.reward.truncation) == (1, "mask")
    assert [(f.path, f.weight) for f in found.reward.functions] == [
        ("trl.rewards:think_format_reward", 0.5),
        ("trl.rewards:get_soft_overlong_punishment", 0.25),
        ("my.rewards:brief", 2),
    ]
    assert (found.template.name, found.template.chat_options) == ("chat", {"enable_thinking": False})
    assert (found.questions.sources[0].path, found.questions.sources[0].split) == ("gsm_8k", "test")
    assert (found.evaluation.every, found.track.to) == (20, ("wandb",))
    mixture = [{"path": "a", "name": "b", "fraction": 0.5}, {"path": "c", "split": "d"}]
    sources = imported(max_steps=1, datasets=mixture).questions.sources
    assert [(s.path, s.subset, s.split, s.weight) for s in sources] == [("a", "b", None, 0.5), ("c", None, "d", 1)]


def test_what_has_no_counterpart_is_said_with_a_reason() -> None:
    given = {"top_p": 0.9, "min_p": 0.1, "delta": 4.0, "loss_type": "sapo", "num_iterations": 2, "use_peft": True}
    notes = {note.key: note for note in import_trl({**given, "max_steps": 1}).notes}
    for key in given:
        assert (notes[key].kind, bool(notes[key].why)) == ("none", True), key
    assert kinds(top_p=1.0, min_p=None, delta=None, use_peft=False, logging_steps=3, zebra=1) == {
        **dict.fromkeys(("top_p", "min_p", "delta", "use_peft", "logging_steps"), "idle"), "zebra": "unknown",
    }  # fmt: skip


def test_values_are_written_as_toml() -> None:
    for found in ('a "b" \\boxed{} \n\t é \u2028', 1e-6, 3, True, [1, "x"], {"a b": [{"c": 0.5}]}):
        assert tomllib.loads(f"v = {value(found)}")["v"] == found


def test_an_imported_recipe_trains(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    export_model(tiny_model("qwen2"), tiny_tokenizer(), tmp_path / "model")
    rows = [{"prompt": f"{i} + 1 = ?", "answer": str(i + 1)} for i in range(8)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = {
        "model_name_or_path": str(tmp_path / "model"), "dataset_name": str(tmp_path / "sums.jsonl"), "bf16": False,
        "max_steps": 2, "max_completion_length": 8, "num_generations": 4, "output_dir": str(tmp_path / "run"),
        "learning_rate": 1e-4, "warmup_steps": 1, "vllm_mode": "colocate", "reward_funcs": "accuracy_reward",
    }  # fmt: skip
    file = tmp_path / "grpo.yaml"
    file.write_text(yaml.safe_dump(keys))
    assert run("import-trl", file) == 0
    report = capsys.readouterr().out
    assert all(key in report for key in keys)
    assert "recipe: " in report
    assert load_run_config(file.with_suffix(".toml")).steps == 2
    assert "already there" in refusal(capsys, "import-trl", file)
    assert run("train", file.with_suffix(".toml")) == 0
    assert len(read_metrics(tmp_path / "run")) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", ["not YAML"]),
        ("- 1", ["has to hold keys of GRPOConfig"]),
        ("model: !!python/object/apply:os.system ['true']", ["not YAML"]),
        ("num_generations: none", ["num_generations = 'none'", "whole number"]),
        ("learning_rate: fast", ["learning_rate = 'fast'", "give a number"]),
        ("num_generations: 7", ["8 responses", "num_generations = 7", "--processes"]),
        ("epsilon: 1.5", ["objective.clip_low"]),
    ],
)
def test_a_file_that_cannot_be_meant_is_one_line(
    text: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "grpo.yaml"
    file.write_text(text)
    line = refusal(capsys, "import-trl", file)
    assert all(word in line for word in words), line
    assert not file.with_suffix(".toml").exists()


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "No such file" in refusal(capsys, "import-trl", tmp_path / "none.yaml")
    with pytest.raises(UserError, match="give a whole number"):
        import_trl({"max_completion_length": 0})
