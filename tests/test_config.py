"""Config: what is refused when it loads, how values are set, and what is written out."""

import json
from pathlib import Path
from typing import Any

import pytest

from zerolab.config import RunConfig, load_run_config
from zerolab.errors import UserError
from zerolab.rl.objective import PRESETS, Objective
from zerolab.toml import apply_overrides, parse, read_toml

MINIMAL: dict[str, Any] = {
    "steps": 1,
    "model": {"path": "somewhere"},
    "questions": {"path": "synthetic:modular"},
    "objective": "dr_grpo",
}


def resolve(*overrides: str, base: dict[str, Any] = MINIMAL) -> RunConfig:
    return parse(RunConfig, apply_overrides(base, overrides), "r.toml")


def refused(*overrides: str, base: dict[str, Any] = MINIMAL) -> str:
    with pytest.raises(UserError) as caught:
        resolve(*overrides, base=base)
    text = str(caught.value)
    assert text.startswith("r.toml: ")
    assert "\n" not in text
    return text.removeprefix("r.toml: ")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("stpes", "steps"),
        ("lr", "learner.lr"),
        ("learner.learning_rate", ""),
        ("learner.weight_decy", "learner.weight_decay"),
        ("objective.clip_hihg", "objective.clip_high"),
        ("rollout.max_tokens", "rollout.max_new_tokens"),
        ("max_new_tokens", "rollout.max_new_tokens"),
        ("template.nmae", "template.name"),
        ("questions.pahts", "questions.path"),
        ("questions.hold_out", "questions.holdout"),
        ("evaluation.questions.limt", "evaluation.questions.limit"),
        ("sampels_per_question", "rollout.samples_per_question"),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_is_offered(key: str, meant: str) -> None:
    base = {**MINIMAL, "objective": {"preset": "grpo"}}
    if key.startswith("evaluation.questions"):
        base["evaluation"] = {"questions": {"path": "synthetic:modular"}}
    text = refused(f"{key}=1", base=base)
    assert f"unknown key {key}" in text
    assert f"(did you mean {meant}?)" in text if meant else "unknown key" in text


def test_an_unknown_key_of_one_source_among_several_is_named_with_its_place() -> None:
    sources = [{"path": "synthetic:modular"}, {"path": "synthetic:arithmetic", "wieght": 2}]
    text = refused(base={**MINIMAL, "questions": {"sources": sources}})
    assert "unknown key questions.sources.1.wieght (did you mean questions.sources.1.weight?)" in text


# Each: what is set, what the line must name (the key at fault and the remedy).
COMBINATIONS = {
    "a group objective with one response": (
        ["rollout.samples_per_question=1"],
        ["objective dr_grpo", "set rollout.samples_per_question to 2 or more"],
    ),
    "detached old log-probabilities over several updates": (
        ['learner.old_logprobs="detach"', "learner.updates_per_rollout=2"],
        ["learner.old_logprobs", "set learner.updates_per_rollout to 1"],
    ),
    "a correction of a ratio that is corrected": (
        ["objective={preset='dr_grpo', correction='token_truncate', correction_cap=2}"],
        ["objective.correction", "applied twice", 'set learner.old_logprobs to "learner"'],
    ),
    "a correction without log pi_old": (
        ["objective={preset='dr_grpo', correction='token_mask', correction_cap=2}", "learner.old_logprobs=detach"],
        ["objective.correction", 'set learner.old_logprobs to "learner"'],
    ),
    "a correction without its cap": (
        ["objective={preset='dr_grpo', correction='token_mask'}", "learner.old_logprobs=learner"],
        ["objective.correction_cap", "set both or neither"],
    ),
    "k1 in the loss": (
        ["objective={preset='dr_grpo', kl=0.1, kl_estimator='k1', kl_place='loss'}"],
        ["objective.kl_estimator k1", 'objective.kl_place to "reward"'],
    ),
    "more updates than responses": (
        ["rollout.questions_per_step=1", "learner.updates_per_rollout=9"],
        ["learner.updates_per_rollout = 9 splits 8 responses", "raise rollout.questions_per_step"],
    ),
    "refill of groups of one": (
        ["objective=reinforce", "rollout.samples_per_question=1", "rollout.refill_rounds=1"],
        ["rollout.refill_rounds", "set rollout.samples_per_question to 2 or more"],
    ),
    "mixed groups without dynamic sampling": (
        ["rollout.mixed=correct"],
        ["rollout.mixed", "set rollout.refill_rounds"],
    ),
    "a margin beyond the budget": (
        ["reward.truncation=soft", "reward.soft_margin=9", "rollout.max_new_tokens=8"],
        ["reward.soft_margin is larger than rollout.max_new_tokens", "lower it"],
    ),
    "top-p in training": (
        ["rollout.top_p=0.9"],
        ["rollout.top_p would sample from another distribution", "every ratio", "remove it", "evaluation.top_p"],
    ),
    "min tokens in training": (["rollout.min_tokens=4"], ["rollout.min_tokens would", "remove it"]),
    "top-k of greedy": (["evaluation.top_k=4"], ["evaluation.top_k change nothing", "set evaluation.temperature"]),
    "min tokens beyond the budget": (
        ["evaluation.min_tokens=40", "rollout.max_new_tokens=30"],
        ["evaluation.min_tokens is larger", "raise evaluation.max_new_tokens"],
    ),
    "evaluation of nothing": (["evaluation.every=1"], ["evaluation.every needs questions", "set questions.holdout"]),
    "the same greedy response again": (
        ["evaluation.samples_per_question=2"],
        ["evaluation.samples_per_question", "set evaluation.temperature"],
    ),
    "the same penalty twice": (
        ["reward.truncation=soft", "reward.overlong=1.0", "reward.soft_margin=4"],
        ['reward.truncation = "soft" is reward.overlong = 1', "set one of the two"],
    ),
    "a penalty that spares the truncated": (
        ["reward.overlong=1.0", "reward.soft_margin=4"],
        ["reward.overlong", 'set reward.truncation = "keep"'],
    ),
    "a cosine that spares the truncated": (["reward.cosine={}"], ['set reward.truncation = "keep"']),
    "two functions of one name": (
        ["reward.functions=[{path='a:f'}, {path='b:f'}]"],
        ["second term 'f'", "reward.functions.name"],
    ),
    "a function named as a term": (["reward.functions=[{path='a:format'}]"], ["second term 'format'"]),
    "a function without a module": (["reward.functions=[{path='f'}]"], ["module:function or file.py:function"]),
    "a mean that may vanish": (
        ["objective=maxrl", "reward.functions=[{path='a:f'}]"],
        ['objective.scale = "group_mean"', "change reward.truncation"],
    ),
    "a soft penalty without margin": (["reward.truncation=soft"], ["reward.soft_margin", "set both or neither"]),
    "a margin without soft penalty": (["reward.soft_margin=4"], ["reward.soft_margin", "set both or neither"]),
    "two models": (["model.base=laptop/base", "model.path=m"], ["set exactly one of model.path", "model.base"]),
    "a file and a list of sources": (
        ["questions.sources=[{path='synthetic:modular'}]", "questions.path=q.jsonl"],
        ["questions.sources and questions.path exclude each other"],
    ),
    "levels upside down": (["questions.levels=[5, 3]"], ["questions.levels", "write the lower level first"]),
    "options of a file": (["questions.path=a.jsonl", "questions.options={digits=2}"], ["questions.options", "remove"]),
    "shots of another template": (["template.shots=[['a', 'b']]"], ["template.shots", 'template.name = "few-shot"']),
    "a text for a built-in template": (["template.name=r1", "template.text='{question}'"], ["template.name r1"]),
    "std of rewards that are not centred": (
        ["objective={preset='grpo', baseline='none'}"],
        ['objective.scale = "group_std"', 'set objective.baseline to "group_mean"'],
    ),
    "a critic for an objective without one": (["critic.kind=head"], ["critic", 'set objective to "ppo"']),
    "a critic without lambda": (
        ["objective={preset='dr_grpo', baseline='critic'}"],
        ["objective.gae_lambda and objective.value", "or none"],
    ),
    "lambda without a critic": (["objective={preset='dr_grpo', gae_lambda=0.9}"], ["objective.gae_lambda", "critic"]),
    "a value clip without a critic": (["objective={preset='dr_grpo', value_clip=0.2}"], ["objective.value_clip"]),
    "whitening without tokens": (
        ["objective={preset='grpo', scale='token_whitening'}"],
        ["token_whitening", 'set objective.baseline to "critic"'],
    ),
    "a group's std without its siblings": (
        ["objective={preset='remax', scale='group_std', std_ddof=1, std_epsilon=1e-8}"],
        ['objective.scale = "group_std"', 'set objective.baseline to "group_mean"'],
    ),
    "std without its epsilon": (
        ["objective={preset='dr_grpo', scale='group_std'}"],
        ["objective.std_ddof and objective.std_epsilon", "set all or none"],
    ),
    "a mean of rewards below 0": (
        ["objective=maxrl", "reward.truncation=soft", "reward.soft_margin=4"],
        ['objective.scale = "group_mean"', "change reward.truncation"],
    ),
    "a mask of tokens under a ratio of responses": (
        ["objective={preset='dppo', ratio='sequence'}"],
        ["objective.clip = probability", 'set objective.ratio to "token"'],
    ),
    "bounds without a clip": (["objective={preset='grpo', clip='none'}"], ["objective.clip_low", "set all three"]),
    "a clip without its bounds": (["objective={preset='rloo', clip='ppo'}"], ["objective.clip_low", "set all three"]),
    "a clip without a ratio": (
        ["objective={preset='dr_grpo', ratio='none'}"],
        ["objective.clip needs a ratio", 'set objective.ratio to "token"'],
    ),
}


@pytest.mark.parametrize("case", COMBINATIONS)
def test_an_impossible_combination_names_the_key_and_the_remedy(case: str) -> None:
    overrides, words = COMBINATIONS[case]
    text = refused(*overrides)
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("objective=drgrpo", ["objective.preset 'drgrpo' is unknown", "did you mean dr_grpo?", "rloo"]),
        ("objective={preset=['grpo']}", ["objective.preset ['grpo'] is unknown"]),
        ("template.name=qwen_math", ["template.name 'qwen_math' is unknown", "did you mean qwen-math?"]),
        ("questions.path=synthetic:modula", ["synthetic:modula", "no such family", "modular"]),
        ("questions.options={modulo=7}", ["modulo", "modulus"]),
        ("steps=0", ["steps", "greater than or equal to 1", "got 0"]),
        ("steps=two", ["steps", "valid integer", "got 'two'"]),
        ("learner.lr=nan", ["learner.lr", "finite"]),
        ("learner.schedule=cosin", ["learner.schedule", "'constant', 'cosine', 'linear' or 'wsd'", "got 'cosin'"]),
        ("model=5", ["model", "table of keys, not 5"]),
        ("seed=99999999999999999999", ["seed", "less than"]),
        ("threads=1000000", ["threads", "less than"]),
        ("rollout.kv_gb=1e300", ["rollout.kv_gb", "less than"]),
        ("rollout.temperature=0", ["rollout.temperature", "greater than"]),
        ("learner.betas=[0.9, 1.0]", ["learner.betas", "less than 1"]),
        ("questions.levels=3", ["questions", "levels", "a list, not 3"]),
        ("name=2026-11-23", ["name", "valid string"]),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(override: str, words: list[str]) -> None:
    text = refused(override)
    for word in words:
        assert word in text


@pytest.mark.parametrize("key", ["lora.rank", "steps", "rollout.max_new_tokens", "rollout.kv_gb", "learner.lr"])
def test_a_number_beyond_64_bits_is_one_line(key: str) -> None:
    text = refused(f"{key}={10**30}")
    assert key in text
    assert "less than" in text
    assert "\n" not in text


def test_several_problems_are_one_line() -> None:
    text = refused(base={"objective": "grpo", "model": {"pth": "x"}, "questions": {}})
    for word in ("steps is missing", "unknown key model.pth", "set questions.path"):
        assert word in text


def test_set_reads_toml_values_and_plain_strings() -> None:
    config = resolve(
        *("learner.lr=3e-4", "learner.betas=[0.8, 0.9]", "name=my run", 'out="a=b"', "evaluation.temperature=1"),
        *("template.name=few-shot", "template.shots=[['1+1', '2']]", "questions.holdout = 0.5", "steps=0x10"),
    )
    assert (config.learner.lr, config.learner.betas, config.steps) == (3e-4, (0.8, 0.9), 16)
    assert (config.name, config.out) == ("my run", "a=b")
    assert config.template.shots == (("1+1", "2"),)
    assert (config.questions.holdout, config.evaluation.temperature) == (0.5, 1.0)


def test_set_leaves_the_recipe_and_its_other_keys_alone() -> None:
    raw = {"learner": {"lr": 1.0, "eps": 2.0}}
    assert apply_overrides(raw, ["learner.lr=0.5", "model.path=x"]) == {
        "learner": {"lr": 0.5, "eps": 2.0},
        "model": {"path": "x"},
    }
    assert raw == {"learner": {"lr": 1.0, "eps": 2.0}}


def test_the_last_set_wins_and_a_table_can_be_replaced_whole() -> None:
    assert resolve("seed=1", "seed=2").seed == 2
    config = resolve('model={base="laptop/base"}')
    assert (config.model.path, config.model.base) == (None, "laptop/base")


@pytest.mark.parametrize("item", ["learner.lr", "=1", " = 1", "steps.count=1", "a..b=1", ".=1"])
def test_a_set_that_sets_nothing_is_refused(item: str) -> None:
    with pytest.raises(UserError, match="--set"):
        apply_overrides(MINIMAL, [item])


@pytest.mark.parametrize("content", [b"steps = ", b"steps = 1\nsteps = 2", b"\xff", b"x = " + b"9" * 5000, b"[" * 5000])
def test_what_is_not_toml_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"r\.toml: not valid TOML \(.+\)$") as caught:
        read_toml(path)
    assert "\n" not in str(caught.value)


def test_a_folder_and_a_missing_file_are_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(UserError, match="cannot be read"):
            load_run_config(path)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_resolves_to_every_coordinate_and_json_gives_the_same_config_back(preset: str) -> None:
    config = resolve(f"objective={preset}", "template.name=few-shot", "questions.levels=[1, 2]", "seed=7")
    written = json.loads(config.model_dump_json())
    assert set(written["objective"]) == set(Objective.model_fields)
    assert Objective(**written["objective"]) == PRESETS[preset] == config.objective
    assert parse(RunConfig, written, "config.json") == config


def test_a_changed_coordinate_marks_the_name_and_leaves_the_rest() -> None:
    objective = resolve("objective={preset='grpo', aggregation='constant'}").objective
    assert objective.name == "grpo+"
    assert objective.model_copy(update={"name": "grpo_length_fix"}) == PRESETS["grpo_length_fix"]


def test_an_objective_without_preset_needs_every_coordinate() -> None:
    text = refused("objective={name='mine', baseline='none'}")
    for key in set(Objective.model_fields) - {"name", "baseline"}:
        assert f"objective.{key} is missing" in text


def test_the_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        resolve().learner.lr = 1.0  # type: ignore[misc]


def test_the_run_directory_is_named_by_name_and_seed_unless_it_is_given() -> None:
    assert resolve("name=a", "seed=3").folder == Path("runs/a-seed3")
    assert resolve("out=here").folder == Path("here")
