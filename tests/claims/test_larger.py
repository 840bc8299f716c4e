"""Claims beyond the laptop: every command is one of ours, every recipe resolves and fits, and hours are the plan's."""

import shlex
from pathlib import Path

import pytest
import typer

from command import run
from zerolab.analysis.study import Plan, floats, names
from zerolab.claims.command import hours
from zerolab.claims.ledger import CLAIMS
from zerolab.claims.report import need_of
from zerolab.claims.scales import LARGER, Larger, Pretraining, Sampling, Training
from zerolab.cli import app
from zerolab.data.builtin import BUILT_IN
from zerolab.evaluation.benchmarks import benchmark_names
from zerolab.evaluation.command import Options, find_template
from zerolab.plan.command import a100_hours, describe, make_plan
from zerolab.plan.cost import estimate
from zerolab.plan.gpus import choose, colocated, parse_cluster
from zerolab.plan.job import Job
from zerolab.plan.memory import fits
from zerolab.plan.shapes import published
from zerolab.recipes import find_recipe, header, load, shipped

SCALES = [(claim, scale) for claim, larger in LARGER.items() for scale in larger]


def larger(claim: str, scale: str) -> Larger:
    return next(found for name, found in LARGER[claim].items() if name == scale)


def trainings() -> list[tuple[str, Training]]:
    """(GPUs, work) of every training of every claim."""
    return [(found.gpus, work) for claim, scale in SCALES for found in [larger(claim, scale)] for work in found.work
            if isinstance(work, Training)]  # fmt: skip


def test_every_claim_has_both_scales() -> None:
    assert {claim: set(scales) for claim, scales in LARGER.items()} == {claim: {"gpu", "paper"} for claim in CLAIMS}
    assert all(larger(*place).choices for place in SCALES)


@pytest.mark.parametrize(("claim", "scale"), SCALES)
def test_every_command_is_one_of_ours_with_its_options(claim: str, scale: str) -> None:
    commands = larger(claim, scale).commands()
    assert commands
    assert len(set(commands)) == len(commands)
    root = typer.main.get_command(app)
    for line in commands:
        program, *words = shlex.split(line)
        assert program == "zerolab"
        command = root
        while hasattr(command, "commands"):
            command, words = command.commands[words[0]], words[1:]
        options = {option for p in command.params for option in p.opts}
        assert {w for w in words if w.startswith("--")} <= options, line


def test_runs_of_a_claim_resolve_fit_their_gpus_and_stay_apart() -> None:
    for gpus, work in trainings():
        configs, cluster = work.configs(), parse_cluster(gpus)
        assert len({config.folder for config in configs}) == len(configs) == len(work.commands())
        for config in configs:
            shape = published(str(config.model.path))
            assert shape is not None
            layout = choose(config, cluster, None, None, None)
            assert layout.gpus == cluster.count, "all GPUs are used, and no more"
            assert fits(Job(config, shape, cluster), layout), (work.recipe, config.name)
    works = [work for place in SCALES for work in larger(*place).work]
    recipes = {work.recipe for work in works if isinstance(work, Training | Pretraining)}
    of_claims = {name for name, path in shipped().items() if header(path)[0].startswith("Claim")}
    assert {name for name in of_claims if name.startswith("paper/")} <= recipes


def test_recipes_of_a_claim_are_dry_run() -> None:
    """One of each recipe and arm, but for those that go on from a pretraining which is not here."""
    seen = set()
    for _, work in trainings():
        for config in work.configs():
            key = (work.recipe, config.model.path, config.objective.name)
            if key not in seen and not str(config.model.path).startswith("runs/"):
                seen.add(key)
                assert "sum, without activations" in describe(config)


def test_hours_are_those_of_the_plan() -> None:
    work = Training("gpu1/qwen2.5-0.5b-r1", {"a": (), "b": ("steps=100",)}, seeds=2, controls=("random-reward",))
    assert len(work.commands()) == 8
    by_arm = {config.name: make_plan(config, "1xH100").estimate.gpu_hours for config in work.configs()}
    assert by_arm["a"] == pytest.approx(2 * by_arm["b"], rel=0.02)
    assert by_arm["a"] == pytest.approx(by_arm["a-random-reward"])
    assert work.gpu_hours("1xH100") == pytest.approx(4 * by_arm["a"] + 4 * by_arm["b"])
    eight = work.gpu_hours("8xH100")
    cluster = parse_cluster("8xH100")
    jobs = [Job(c, shape, cluster) for c in work.configs() if (shape := published(str(c.model.path)))]
    assert eight == pytest.approx(sum(8 * estimate(job, colocated(cluster)).hours for job in jobs))


def test_pretraining_costs_what_its_dry_run_says_and_ends_where_rl_begins() -> None:
    work = larger("D2", "paper").work
    begun = {config.model.path for part in work if isinstance(part, Training) for config in part.configs()}
    for part in work:
        if isinstance(part, Pretraining):
            config = load(find_recipe(part.recipe), verb="pretrain")
            assert f"runs/{config.name}-seed{config.seed}/model" in begun
            shape = published(str(config.model.path))
            assert shape is not None
            assert part.gpu_hours("8xA100-80") == pytest.approx(a100_hours(config, shape))


def test_sampling_counts_the_responses_that_the_command_asks_for() -> None:
    for claim, scale in SCALES:
        for work in larger(claim, scale).work:
            if not isinstance(work, Sampling):
                continue
            shared = Options("model", work.benchmarks, samples=work.samples, budget=work.budget, limit=work.limit)
            plan = Plan(shared, names(work.templates, ""), floats(work.temperatures, ""))
            rows = [BUILT_IN[name].rows for name in benchmark_names(work.benchmarks)]
            asked = [sum(n for n in rows if n) * options.samples for options in plan.settings()]
            assert sorted(asked) == sorted(n for n, _ in work.settings())
            assert all(find_template(options) for options in plan.settings())
    once, twice = (Sampling(("Qwen/Qwen2.5-7B",), "math500", temperatures=t) for t in ("1", "0.6,1"))
    assert twice.gpu_hours("1xH100") == pytest.approx(2 * once.gpu_hours("1xH100"))
    assert once.gpu_hours("1xA100-80") > once.gpu_hours("1xH100")


@pytest.mark.parametrize("name", sorted({work.recipe for gpus, work in trainings() if gpus == "1xH100"}))
def test_a_recipe_for_one_gpu_says_the_hours_that_the_plan_computes(name: str) -> None:
    plan = make_plan(load(shipped()[name]), "1xH100")
    assert plan.problems == []
    text = " ".join(header(shipped()[name]))
    assert f"`zerolab plan {name} --gpus 1xH100` says {plan.estimate.gpu_hours:.1f} H100 hours" in text
    assert "Never run here" in text


def test_hours_of_a_claim_say_of_how_many_runs() -> None:
    """R1 trains three seeds, each with a control."""
    larger = LARGER["R1"]["paper"]
    trained = [words for words in larger.commands() if words.startswith("zerolab train")]
    assert len(trained) == 6
    assert need_of("R1", "paper") == f"needs hardware: {hours(larger)} GPU h in 6 runs"


def test_the_command_line_says_what_hardware_a_claim_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("claims", "run", "D1", "--scale", "paper", "--dry-run") == 0
    text = capsys.readouterr().out
    assert "needs hardware: about" in text
    assert "GPU hours on 8xA100-80 in 24 runs" in text
    assert "questions.path=asdiv_2k" in text
    assert run("claims", "run", "--all", "--scale", "gpu") == 0
    text = capsys.readouterr().out
    assert all(f"{claim}, gpu scale" in text for claim in CLAIMS)
    assert "T2, gpu scale: no GPU" in text
    assert run("claims", "run", "R1") == 0
    assert "no laptop scale: skipped" in capsys.readouterr().out
    assert run("claims", "run", "--all", "--dry-run") == 0
    assert "R1.minimalist" in capsys.readouterr().out
    assert run("claims", "show", "R1") == 0
    assert "no laptop scale" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
