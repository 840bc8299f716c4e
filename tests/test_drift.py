"""The drift probe: exact where every response can be listed, within its own error where responses are drawn."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from command import refusal, run, write_recipe
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.audit.certificate import drift, mean_gradient
from zerolab.audit.enumerate import BUDGET, POLICIES, EnumerablePolicy, Puzzle
from zerolab.audit.split_invariance import ascent, make_learner
from zerolab.config import RewardConfig, RunConfig, load_run_config
from zerolab.data.questions import side_of, split_key
from zerolab.datatypes import Group
from zerolab.drift import first_step
from zerolab.drift.first_step import as_first_step, choose_questions, freeze, function_loss, objective_losses, trl_loss
from zerolab.drift.probe import Questions, StepSizes, as_batch, probe, response_logprobs
from zerolab.evaluation.intervals import bootstrap_means, bootstrap_weights, fieller
from zerolab.learner.learner import Learner
from zerolab.models.hf import export_model, load_model
from zerolab.rl.batch import make_batch
from zerolab.rl.objective import PRESETS
from zerolab.rl.reward import make_group
from zerolab.toml import parse

TINY = StepSizes(lr=1e-8, norm=1e-6)


@pytest.fixture(scope="module")
def policy() -> EnumerablePolicy:
    return EnumerablePolicy(1)


def rewarded(groups: Sequence[Group], truncation: str) -> list[Group]:
    return [make_group(g.prompt, g.completions, g.grades, POLICIES[truncation], BUDGET) for g in groups]


def everything(policy: EnumerablePolicy) -> list[Group]:
    return policy.groups([(q, range(len(policy.responses))) for q in range(len(policy.puzzles))])


def exact_questions(policy: EnumerablePolicy, seed: int = 0) -> Questions:
    rollout = policy.groups(policy.sample(6, seed))
    return Questions(rollout, everything(policy), rewarded, probability=policy.probability_QO)


def exact_gradients(policy: EnumerablePolicy, truncation: str) -> dict[str, np.ndarray]:
    """grad_D of every metric, by transformers' own forward pass."""
    lengths_QO = np.broadcast_to(policy.length_O, policy.correct_QO.shape)

    def of_quotient(value_QO: np.ndarray, unit_QO: np.ndarray) -> np.ndarray:
        unit = (policy.probability_QO * unit_QO).sum()
        mean = (policy.probability_QO * value_QO).sum() / unit
        return (policy.gradient_QD(value_QO) - mean * policy.gradient_QD(unit_QO)).sum(0) / unit

    right_QO, one_QO = policy.correct_QO.astype(float), np.ones_like(policy.probability_QO)
    table = policy.table(truncation)
    return {
        "accuracy": of_quotient(right_QO, one_QO),
        "right": of_quotient(right_QO * lengths_QO, right_QO),
        "wrong": policy.incorrect_length_gradient(),
        "truncated": of_quotient(one_QO * policy.truncated_O, one_QO),
        "reward": of_quotient(table.reward_QO * table.enters_QO, table.enters_QO.astype(float)),
    }


@pytest.mark.parametrize("truncation", ["zero", "mask", "keep"])
def test_on_the_policy_of_certify_the_probe_is_the_exact_derivative(policy: EnumerablePolicy, truncation: str) -> None:
    losses = objective_losses(["grpo", "dr_grpo", "grpo_std_fix", "dapo"])
    questions = exact_questions(policy)
    learner = make_learner(policy.model)
    before = [p.detach().clone() for p in policy.model.parameters()]
    found = probe(learner, losses, questions, TINY, [truncation])
    for step in found:
        first = next(other for other in found if other.direction == step.direction)
        expected = (
            [] if step is first else [a.change - b.change for a, b in zip(step.changes, first.changes, strict=True)]
        )
        assert [d.difference for d in step.differences] == pytest.approx(expected, abs=1e-15)
    assert all(torch.equal(p, b) for p, b in zip(policy.model.parameters(), before, strict=True))
    gradients = exact_gradients(policy, truncation)
    assert len(found) == 2 * len(losses)
    for step in found:
        batch = make_batch(rewarded(questions.rollout, truncation), PRESETS[step.loss])
        ascent_D = ascent(policy.model, batch, PRESETS[step.loss])
        step_D = 1e-6 * ascent_D / np.linalg.norm(ascent_D) if step.direction == "g" else 1e-8 * np.sign(ascent_D)
        assert step.norm == pytest.approx(np.linalg.norm(step_D), rel=1e-9)
        for change in step.changes:
            assert change.change == pytest.approx(step_D @ gradients[change.metric], rel=1e-4, abs=1e-12)
        assert step.not_linear == ()


def test_along_the_expected_gradient_it_is_the_length_drift_of_the_certificate(policy: EnumerablePolicy) -> None:
    """What `zerolab certify` prints for an objective, by weights that were really moved."""
    objective = PRESETS["grpo"]
    gradient_D = mean_gradient(policy, objective, 4, "keep").gradient_QD.sum(0)

    @dataclass(frozen=True)
    class Expected:
        name = about = "the mean over all rollouts"

        def backward(self, learner: Learner, rollout: Sequence[Group]) -> None:
            parts = torch.from_numpy(-gradient_D).split([p.numel() for p in learner.model.parameters()])
            for parameter, part in zip(learner.model.parameters(), parts, strict=True):
                assert parameter.grad is not None
                parameter.grad.copy_(part.view_as(parameter))

    learner = make_learner(policy.model)
    [step] = probe(learner, [Expected()], exact_questions(policy), TINY, ["keep"], directions=("g",))
    wrong = step.change("wrong")
    assert wrong is not None
    assert wrong.change / step.norm == pytest.approx(drift(policy, gradient_D), rel=1e-4)


def many_questions() -> EnumerablePolicy:
    """12 questions that are judged alike and answered differently."""
    prompts = [(1 + i % 2, 1 + i // 2 % 2, 1 + i // 4 % 2, 1 + i // 8 % 2) for i in range(12)]
    return EnumerablePolicy(
        1, [Puzzle(f"q{i}", ids, lambda o: o[0] == 2 and o[-1] != 1) for i, ids in enumerate(prompts)]
    )


@pytest.fixture(scope="module")
def crowd() -> EnumerablePolicy:
    return many_questions()


def drawn_questions(policy: EnumerablePolicy, learner: Learner, seed: int, samples: int = 60) -> Questions:
    """A rollout, and responses drawn before and after a step with the same random numbers."""
    listed = as_batch(everything(policy))

    def ask() -> list[Group]:
        chances_QO = np.exp(response_logprobs(learner, listed)).reshape(policy.probability_QO.shape)
        uniform_QS = np.random.default_rng(seed).random((len(chances_QO), samples))
        edges_QO = chances_QO.cumsum(1) / chances_QO.sum(1, keepdims=True)
        picks = [(q, np.searchsorted(edges_QO[q], uniform_QS[q]).tolist()) for q in range(len(chances_QO))]
        return policy.groups(picks)

    rollout = policy.groups(policy.sample(6, seed)[:8])
    return Questions(rollout, ask(), rewarded, ask)


def test_importance_weights_and_plain_sampling_agree_and_hold_the_truth(crowd: EnumerablePolicy) -> None:
    """Of the intervals of 5 rollouts x 5 metrics nearly all hold what a sum over all responses gives."""
    learner, sizes = make_learner(crowd.model), StepSizes(lr=0.01, norm=0.02)
    losses, inside, total = objective_losses(["dr_grpo"]), 0, 0
    for seed in range(5):
        questions = drawn_questions(crowd, learner, seed)
        exact = dataclasses.replace(questions, measured=everything(crowd), ask=None, probability=crowd.probability_QO)
        [found] = probe(learner, losses, questions, sizes, ["keep"], directions=("g",))
        [truth] = probe(learner, losses, exact, sizes, ["keep"], directions=("g",))
        assert found.not_linear == ()
        assert found.effective > 0.9
        for change in found.changes:
            expected = truth.change(change.metric)
            assert expected is not None
            assert change.plain_interval is not None
            total += 2
            inside += change.interval.low <= expected.change <= change.interval.high
            inside += change.plain_interval.low <= expected.change <= change.plain_interval.high
    assert inside / total > 0.85


def test_a_step_that_is_too_long_is_not_called_linear(crowd: EnumerablePolicy) -> None:
    learner = make_learner(crowd.model)
    questions = drawn_questions(crowd, learner, 0)
    [step] = probe(learner, objective_losses(["dr_grpo"]), questions, StepSizes(0.01, 5.0), ["keep"], directions=("g",))
    assert step.not_linear


def coins(groups: Sequence[Group], truncation: str, flipped: bool = False) -> list[Group]:
    config = RewardConfig(correctness=0.0, random=1.0, truncation=truncation)
    found = [make_group(g.prompt, g.completions, g.grades, config, BUDGET, seed=7) for g in groups]
    return [dataclasses.replace(g, rewards_G=1 - g.rewards_G) for g in found] if flipped else found


def test_a_coin_for_a_reward_moves_nothing_on_average(policy: EnumerablePolicy) -> None:
    """The change by one rollout's step is noise: a coin that falls the other way turns it round exactly, and over many
    rollouts it averages to zero, while that of the true reward does not."""
    learner = make_learner(policy.model)
    found: dict[str, list[float]] = {"coin": [], "reward": []}
    for seed in range(30):
        questions = exact_questions(policy, seed)
        for name, rewards in (("coin", coins), ("reward", rewarded)):
            asked = dataclasses.replace(questions, rewarded=rewards)
            [step] = probe(learner, objective_losses(["grpo"]), asked, TINY, ["keep"], directions=("g",))
            change = step.change("accuracy")
            assert change is not None
            found[name].append(change.change)
    turned = dataclasses.replace(questions, rewarded=lambda g, t: coins(g, t, flipped=True))
    [other] = probe(learner, objective_losses(["grpo"]), turned, TINY, ["keep"], directions=("g",))
    change = other.change("accuracy")
    assert change is not None
    assert change.change == pytest.approx(-found["coin"][-1], rel=1e-3)
    z = {name: np.mean(x) / (np.std(x, ddof=1) / np.sqrt(len(x))) for name, x in found.items()}
    assert abs(z["coin"]) < 3.5
    assert z["reward"] > 5


def test_losses_that_are_not_ours_take_the_same_step(policy: EnumerablePolicy, tmp_path: Path) -> None:
    """A function that is GRPO, and one that is Dr. GRPO, written by the contract of `zerolab audit`."""
    file = tmp_path / "losses.py"
    file.write_text(LOSSES)
    learner, questions = make_learner(policy.model), exact_questions(policy)
    for name in ("grpo", "dr_grpo"):
        losses = [*objective_losses([name]), function_loss(f"{file}:{name}")]
        ours, theirs = probe(learner, losses, questions, TINY, ["keep"], directions=("g",))
        assert theirs.gradient_norm == pytest.approx(ours.gradient_norm, rel=1e-6)
        for a, b in zip(ours.changes, theirs.changes, strict=True):
            assert b.change == pytest.approx(a.change, rel=1e-5)


TRL_CONFIG = "loss_type: {loss}\nscale_rewards: {scale}\nnum_generations: 6\nper_device_train_batch_size: 32\n"


@pytest.mark.audit
def test_the_loss_of_an_installed_trl_takes_the_step_of_its_objective(policy: EnumerablePolicy, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the extra audit is not installed")
    learner, questions = make_learner(policy.model), exact_questions(policy)
    for name, loss, scale in (("grpo", "grpo", "group"), ("dr_grpo", "dr_grpo", "none"), ("dapo", "dapo", "group")):
        file = tmp_path / f"{name}.yaml"
        file.write_text(TRL_CONFIG.format(loss=loss, scale=scale))
        losses = [*objective_losses([name]), trl_loss(file)]
        assert losses[1].about.startswith("TRL's own loss")
        ours, theirs = probe(learner, losses, questions, TINY, ["keep"], directions=("g",))
        found, expected = ([c.change for c in step.changes] for step in (theirs, ours))
        assert found == pytest.approx(expected, abs=2e-3 * max(map(abs, expected)))  # TRL adds 1e-4 to a deviation


def test_without_trl_its_configuration_becomes_an_objective_and_says_so(
    policy: EnumerablePolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_step, "find_spec", lambda name: None)
    file = tmp_path / "grpo.yaml"
    file.write_text(TRL_CONFIG.format(loss="dr_grpo", scale="none"))
    losses = [*objective_losses(["dr_grpo"]), trl_loss(file)]
    assert "TRL is not installed; its loss as an objective" in losses[1].about
    ours, theirs = probe(make_learner(policy.model), losses, exact_questions(policy), TINY, ["keep"])[::2]
    assert [c.change for c in theirs.changes] == pytest.approx([c.change for c in ours.changes])


LOSSES = """
def dr_grpo(logprobs_BL, old_logprobs_BL, advantages_B, mask_BL, budget, step_responses):
    ratio_BL = (logprobs_BL - old_logprobs_BL).exp()
    return -(ratio_BL * advantages_B[:, None] * mask_BL).sum() / (budget * step_responses)


def grpo(logprobs_BL, old_logprobs_BL, rewards_B, groups_B, mask_BL, step_responses):
    loss = 0.0
    for group in groups_B.unique():
        rows = groups_B == group
        rewards_G = rewards_B[rows]
        if rewards_G.std() > 0:
            advantages_G = (rewards_G - rewards_G.mean()) / rewards_G.std()
            ratio_GL = (logprobs_BL[rows] - old_logprobs_BL[rows]).exp()
            per_response_G = (ratio_GL * mask_BL[rows]).sum(1) / mask_BL[rows].sum(1)
            loss = loss - (advantages_G * per_response_G).sum() / step_responses
    return loss
"""


def test_fieller_covers_a_ratio_and_is_silent_about_a_denominator_of_nothing() -> None:
    generator, covers = np.random.default_rng(0), 0
    covariance = np.array([[1.0, 0.3], [0.3, 0.25]])
    for draw in generator.multivariate_normal([15.0, 5.0], covariance, 2000):
        interval = fieller(float(draw[0]), float(draw[1]), covariance, 1e9)
        assert interval is not None
        covers += interval.low <= 3.0 <= interval.high
    assert 0.94 < covers / 2000 < 0.96
    assert fieller(6.0, 0.5, covariance, 1e9) is None


def test_bootstrap_weights_give_the_replicates_of_bootstrap_means() -> None:
    values_Q = np.random.default_rng(1).normal(size=9)
    weights_BQ = bootstrap_weights(9, 500, seed=3)
    assert np.allclose(weights_BQ @ values_Q, bootstrap_means(values_Q, 500, seed=3, over=("questions",)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    export_model(tiny_model("qwen2"), tiny_tokenizer(), folder)
    return folder


SMALL = ("--questions", "synthetic:modular", "--budget", "8", "--count", "4", "--samples", "4", "--measured", "6")
COIN = ("--truncation", "keep", "--set", "reward.random=1")


def test_the_command_writes_table_csv_json_and_figure(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run("drift", model, *SMALL, *COIN, "--lr", "1e-3", "--layers", "1", "--out", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "truncation keep: change by one step" in shown
    assert "the same minus that of grpo" in shown
    with (tmp_path / "out/drift.csv").open() as file:
        table = list(csv.DictReader(file))
    steps = {(row["loss"], row["step"]) for row in table}
    assert steps == {(loss, step) for loss in ("grpo", "dr_grpo") for step in ("g", "sign(g)")}
    record = json.loads((tmp_path / "out/drift.json").read_text())
    assert len(record["steps"]) == 4
    assert record["steps"][0]["changes"][0]["metric"] == "accuracy"
    assert (tmp_path / "out/drift.png").read_bytes().startswith(b"\x89PNG")
    assert "holds a probe already" in refusal(capsys, "drift", model, *SMALL, *COIN, "--out", tmp_path / "out")


def test_a_recipe_says_what_is_asked_and_how(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Its questions, template, group size, budget and rewards; the step is measured on its held-out questions."""
    recipe = write_recipe(tmp_path / "mine.toml", model)
    arguments = ("drift", recipe, "--objectives", "dr_grpo", "--no-plain", "--measured", "4", "--out", tmp_path / "out")
    assert run(*arguments, "--truncation", "keep", "--set", "reward.random=1") == 0
    assert "not sampled" in capsys.readouterr().out
    record = json.loads((tmp_path / "out/drift.json").read_text())
    config = load_run_config(recipe)
    assert record["config"]["template"]["text"] == config.template.text
    assert record["config"]["rollout"]["max_new_tokens"] == config.rollout.max_new_tokens == 12
    half = load_run_config(recipe, ["model.precision=bf16", "model.weights=bf16"])
    assert (as_first_step(half, []).model.precision, as_first_step(half, []).model.weights) == ("fp32", "fp32")
    asked, others = choose_questions(config, 4)
    assert not {split_key(q) for q in others} & {split_key(q) for q in asked}
    assert {side_of(split_key(q), 0.2) for q in others} == {"holdout"}
    assert "is no recipe" in refusal(capsys, "drift", "nothing", "--out", tmp_path / "none")


def test_layers_bound_what_moves_and_the_measured_questions_are_others(model: Path) -> None:
    policy = load_model(model)
    freeze(policy, 1)
    moving = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert moving
    assert all(name.startswith("model.layers.1.") for name in moving)
    options = {"path": "synthetic:facts", "options": {"kinds": "capital", "phrasings": 3}}
    raw = {"steps": 1, "objective": "grpo", "model": {"path": str(model)}, "questions": options}
    config = parse(RunConfig, {**raw, "rollout": {"questions_per_step": 60}}, "test")
    asked, others = choose_questions(config, 80)
    assert len({q.id for q in asked}) == 60
    assert len({q.group for q in others}) == 80
    assert not {q.group for q in asked} & {q.group for q in others}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--objectives", "gppo"), "did you mean"),
        (("--objectives", "ppo"), "critic"),
        (("--objectives", ""), "at least one"),
        (("--truncation", "cut"), "zero, mask, keep"),
        (("--loss", "nowhere"), "module:function"),
        (("--loss", "zerolab.audit.peers.function:load"), "parameter target is unknown"),
        (("--truncation", "keep", "--loss", f"{Path(__file__).parent}/audit_peers/losses.py:value_loss"), "a critic"),
        (("--layers", "9"), "2 decoder layers"),
        (("--layers", "1", "--set", "lora.rank=2"), "leave one of them out"),
        (("--budget", "600"), "lower --budget"),
    ],
)
def test_bad_input_is_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture, words: tuple, said: str
) -> None:
    assert said in refusal(capsys, "drift", model, *SMALL, *words, "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_rollout_of_one_reward_has_no_gradient_and_says_so(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run("drift", model, *SMALL, "--out", tmp_path / "none") == 2
    assert "no gradient to follow" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "none").exists()
