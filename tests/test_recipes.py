"""Every recipe that ships is parsed, resolved and dry-run, says what it is for, and differs in what it says."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from command import run
from zerolab import recipes
from zerolab.config import DemoConfig
from zerolab.models.fetch import catalogue
from zerolab.plan.command import a100_hours, make_plan, text_memory, text_shape
from zerolab.plan.memory import memory_estimates
from zerolab.plan.shapes import published
from zerolab.recipes import difference, find_recipe, header, kind, load, shipped

RECIPES = shipped()
LARGE = [name for name in RECIPES if name.startswith("paper/")]
WORKS = [name for name in LARGE if header(RECIPES[name])[0].startswith("Similar work: ")]
PAPER = [name for name in LARGE if name not in WORKS]
PLANNED = re.compile(r"`zerolab plan (\S+) --gpus (\S+)` says (\d+) A100 hours")
# length x std: (aggregation, scale) of the laptop arms
ARMS = {
    "laptop/grpo": ("response_mean", "group_std"),
    "laptop/grpo-length-fix": ("constant", "group_std"),
    "laptop/grpo-std-fix": ("response_mean", "none"),
    "laptop/dr-grpo": ("constant", "none"),
}


def test_the_folder_in_the_checkout_is_what_ships() -> None:
    folder = Path(__file__).parent.parent / "recipes"
    assert set(RECIPES.values()) == set(folder.rglob("*.toml"))
    assert PAPER


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_found_by_name_and_path_and_resolves(name: str) -> None:
    path = find_recipe(name)
    assert path == find_recipe(f"recipes/{name}.toml").resolve() == find_recipe(path)
    config = load(path)
    assert type(config).model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_complete_and_says_what_it_is_for(name: str) -> None:
    lines = header(RECIPES[name])
    assert lines
    assert load(RECIPES[name]).name == name.split("/")[1]


@pytest.mark.parametrize("name", [name for name in RECIPES if kind(RECIPES[name]) != "demo"])
def test_a_recipe_is_dry_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Offline, and nothing is written or trained. Paper recipes get their shape from their model's family."""
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    verb = kind(RECIPES[name])
    assert run(verb, name, "--dry-run") == 0
    text = capsys.readouterr().out
    config, end = json.JSONDecoder().raw_decode(text)
    assert config["name"] == load(RECIPES[name]).name
    if verb == "train":
        for word in ("loss = - sum_i", "new tokens in all, at most"):
            assert word in text[end:]
        if config["model"]["path"] in catalogue():  # which is not in this cache
            assert "memory: unknown until the model is at hand" in text
            return
        assert "parameters, by" in text[end:]
        assert "sum, without activations" in text[end:] or "sum while learning, no activations" in text[end:]
    elif "corpora" in config:
        for word in ("optimizer steps", "tokens in all", "parameters, by", "sum, without activations"):
            assert word in text[end:]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PAPER)
def test_a_paper_recipe_says_claim_cost_that_it_never_ran_and_what_is_unknown(name: str) -> None:
    text = " ".join(header(RECIPES[name]))
    assert any(f" {claim}" in text for claim in ("B1", "T1", "L1", "D1", "D2", "D3", "R1")), text
    for part in ("Never run here", "Cost: ", "A100 hours", "Not known: "):
        assert part in text


@pytest.mark.parametrize("name", [name for name in PAPER if kind(RECIPES[name]) == "train"])
def test_a_paper_recipe_fits_its_gpus_and_says_the_hours_that_the_plan_computes(name: str) -> None:
    plan = make_plan(load(RECIPES[name]), "8xA100-80")
    assert plan.problems == []
    assert f"`zerolab plan {name} --gpus 8xA100-80` says {plan.estimate.gpu_hours:.0f} A100 hours" in " ".join(
        header(RECIPES[name])
    )


@pytest.mark.parametrize("name", [name for name in PAPER if kind(RECIPES[name]) == "pretrain"])
def test_a_pretraining_recipe_says_the_hours_and_tokens_that_its_dry_run_prints(name: str) -> None:
    config = load(RECIPES[name])
    shape, text = text_shape(config), " ".join(header(RECIPES[name]))
    assert shape is not None
    assert f"about {a100_hours(config, shape):.0f} A100 hours" in text
    assert f"{config.steps * config.tokens_per_step / 1e9:.2g} billion tokens" in text
    assert dict(text_memory(config, shape))["sum, without activations"] < 60


def test_similar_works_are_there_each_with_a_laptop_version() -> None:
    assert WORKS == ["paper/countdown-qwen2.5-3b", "paper/dapo-qwen2.5-32b", "paper/open-rs-1.5b"]
    for name, laptop in zip(WORKS, ("laptop/countdown", "laptop/dapo", "laptop/small-llm"), strict=True):
        assert name in " ".join(header(RECIPES[laptop]))
        ours, theirs = load(RECIPES[laptop]), load(RECIPES[name])
        assert ours.objective == theirs.objective
        assert ours.reward.cosine == theirs.reward.cosine
        assert ours.rollout.mixed == theirs.rollout.mixed


@pytest.mark.parametrize("name", WORKS)
def test_a_similar_work_names_its_source_what_is_known_and_the_hours_that_the_plan_computes(name: str) -> None:
    text = " ".join(header(RECIPES[name]))
    for part in ("Never run here", "Cost: ", "Known, ", "Not known: ", "Ours: "):
        assert part in text
    assert re.search(r"arXiv \d{4}\.\d{5}|github\.com/", header(RECIPES[name])[0])
    planned, gpus, hours = PLANNED.findall(text)[0]
    plan = make_plan(load(RECIPES[name]), gpus)
    assert (planned, hours) == (name, f"{plan.estimate.gpu_hours:.0f}")
    assert bool(plan.problems) == ("it does not fit" in text)


def test_dapo_pays_and_fills_up_as_its_source_does() -> None:
    """2503.14476, section 4.1: 16,384 tokens expected, 4,096 more at a falling reward; 16 updates of 512 responses."""
    config = load(RECIPES["paper/dapo-qwen2.5-32b"])
    rollout, learner, objective = config.rollout, config.learner, config.objective
    assert rollout.max_new_tokens - config.reward.soft_margin == 16_384
    assert rollout.questions_per_step * rollout.samples_per_question / learner.updates_per_rollout == 512
    assert (objective.clip_low, objective.clip_high, objective.aggregation) == (0.2, 0.28, "token_mean")
    assert (config.reward.overlong_weight, rollout.mixed, objective.kl) == (1.0, "correct", 0)


def test_the_recipe_for_24_gb_keeps_room_for_activations_in_both_phases() -> None:
    config = load(RECIPES["gpu1/qwen2.5-math-7b-lora"])
    shape = published("Qwen/Qwen2.5-7B")
    assert shape is not None
    plan = dict(memory_estimates(config, shape))
    assert plan["learner weights, bf16"] == pytest.approx(14.19, abs=0.01)
    assert plan["adapters, gradients and moments, fp32"] == pytest.approx(1.2, abs=0.01)
    assert 14 < plan["sum while sampling"] < 21.5
    assert 14 < plan["sum while learning, no activations"] < 18
    assert make_plan(config, "1xRTX4090").problems == []


def test_the_arms_differ_in_the_objective_alone() -> None:
    """The 2x2 of length x std: between any two arms nothing but name and objective differs."""
    for a in ARMS:
        objective = load(RECIPES[a]).objective
        assert (objective.aggregation, objective.scale) == ARMS[a]
        for b in ARMS:
            keys = {key for key, _, _ in difference(RECIPES[a], RECIPES[b])}
            expected = set() if a == b else {"name", "objective.name"}
            if ARMS[a][0] != ARMS[b][0]:
                expected.add("objective.aggregation")
            if ARMS[a][1] != ARMS[b][1]:
                expected |= {"objective.scale", "objective.std_ddof", "objective.std_epsilon"}
            assert keys == expected


def test_the_demo_compares_the_biased_and_the_unbiased_arm_under_two_seeds() -> None:
    demo = load(RECIPES["laptop/demo"])
    assert isinstance(demo, DemoConfig)
    assert set(demo.arms) == {"laptop/grpo", "laptop/dr-grpo"}
    assert len(demo.seeds) >= 2
    bases = {load(find_recipe(arm)).model.base for arm in demo.arms}
    assert len(bases) == 1


def test_every_base_of_a_recipe_ships() -> None:
    for name, path in RECIPES.items():
        if kind(path) == "train" and (base := load(path).model.base):
            assert kind(find_recipe(base)) == "pretrain", name


def test_a_difference_is_the_same_from_both_sides() -> None:
    a, b = RECIPES["laptop/smoke"], RECIPES["laptop/grpo"]
    assert [(k, y, x) for k, x, y in difference(a, b)] == difference(b, a)
    assert difference(a, b)


def test_an_installed_package_looks_where_the_wheel_puts_them() -> None:
    declared = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    included = declared["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {"recipes": f"zerolab/{recipes.INSTALLED.name}"}
    assert not (recipes.PACKAGE / f"{recipes.INSTALLED.name}.py").exists()  # a folder of that name would hide it
