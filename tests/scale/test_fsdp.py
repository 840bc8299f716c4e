"""The sharded learner on real gloo ranks is the learner on one process, up to the order of sums in fp32."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsdp_jobs as jobs
import numpy as np
import pytest
import torch
from pool import Pool

from tiny_models import tiny_model
from zerolab.audit.enumerate import EnumerablePolicy
from zerolab.audit.split_invariance import ascent, coefficients, relative_change, sampled
from zerolab.rl.objective import PRESETS

pytestmark = pytest.mark.scale


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(3)
    yield pool
    pool.close()


def close(found: jobs.Arrays, expected: jobs.Arrays, tolerance: float) -> bool:
    """Whether every tensor is equal within a share of its largest entry."""
    assert set(found) == set(expected)
    return all(
        np.abs(found[name] - expected[name]).max() <= tolerance * np.abs(expected[name]).max() + 1e-7
        for name in expected
    )


@pytest.mark.parametrize(
    ("preset", "options"),
    [
        ("dr_grpo", {}),
        ("grpo", {"tied": False}),
        ("dapo", {"checkpointing": True, "logits_mb": 1}),
        ("grpo_kl", {"family": "llama", "tied": False}),
    ],
)
def test_gradients_metrics_and_three_steps_are_those_of_one_process(
    pool: Pool, preset: str, options: dict[str, Any]
) -> None:
    gradients, metrics, weights = jobs.steps(False, preset, **options)
    for found, measured, moved in pool.run(2, jobs.steps, True, preset, **options):
        assert close(found[0], gradients[0], 1e-5)
        assert all(close(a, b, 1e-3) for a, b in zip(found, gradients, strict=True))
        assert close(moved, weights, 1e-3)
        for a, b in zip(measured, metrics, strict=True):
            assert set(a) == set(b)
            assert {k: a[k] for k in a if k != "padding"} == pytest.approx(
                {k: b[k] for k in b if k != "padding"}, rel=1e-3, abs=1e-5, nan_ok=True
            )


def test_a_rank_without_work_joins_and_a_step_to_which_nothing_contributes_is_one(pool: Pool) -> None:
    expected = jobs.uneven(False)
    assert not any(gradient.any() for gradient in expected[2].values())
    for found in pool.run(2, jobs.uneven, True):
        assert close(found[0], expected[0], 1e-5)
        assert all(close(a, b, 1e-3) for a, b in zip(found, expected, strict=True))


def test_bf16_follows_fp32_and_sums_gradients_in_fp32(pool: Pool) -> None:
    exact, _, _ = jobs.steps(False, "reinforce")
    found, _, _ = pool.run(2, jobs.steps, True, "reinforce", precision="bf16")[0]
    flat = [torch.cat([torch.from_numpy(g).flatten() for g in gradient.values()]) for gradient in (found[0], exact[0])]
    assert flat[0].dtype == torch.float32
    assert torch.cosine_similarity(*flat, dim=0) > 0.99
    assert flat[0].norm() == pytest.approx(float(flat[1].norm()), rel=0.05)


def test_logprobs_are_whole_on_every_rank_and_those_of_the_new_weights(pool: Pool) -> None:
    batch = jobs.step_of(3)
    expected, weights = jobs.logprobs(False, batch)
    for found, moved in pool.run(2, jobs.logprobs, True, batch):
        assert np.abs(found - expected).max() < 1e-3
        assert np.abs(found[0] - found[2]).max() == 0  # the reference is the policy as it began
        assert np.abs(found[1] - found[0]).max() > 0.1
        assert close(moved, weights, 1e-3)


def test_adapters_are_those_of_one_process(pool: Pool, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    expected = jobs.adapted(False, folders[0])
    for found in pool.run(2, jobs.adapted, True, folders[1]):
        assert all(close(a, b, 1e-3) for a, b in zip(found, expected, strict=True))
        assert all(np.array_equal(found[-1][name], found[-2][name]) for name in found[-1])  # the checkpoint is whole
        weights, changed = found[4], found[5]
        base = tiny_model("qwen2").state_dict()
        moved = {name for name in weights if not np.array_equal(weights[name], base[name].numpy())}
        assert moved == set(changed) == {name for name in base if name.endswith("_proj.weight")}
        assert all(np.array_equal(weights[name], changed[name]) for name in changed)
        exported = AutoModelForCausalLM.from_pretrained(folders[1]).state_dict()
        assert all(np.array_equal(weights[name], exported[name].numpy()) for name in weights)


def test_the_certified_gradient_is_that_of_the_sharded_learner(pool: Pool) -> None:
    """float64: the gradient of one process for every preset, and with it what `zerolab certify` says about that."""
    policy = EnumerablePolicy(1)
    names = [name for name, objective in PRESETS.items() if not objective.needs_critic]
    steps = {name: sampled(policy, PRESETS[name]) for name in names}
    for found in pool.run(2, jobs.certified, names):
        for name, (step, score_ND) in steps.items():
            assert relative_change(found[name], ascent(policy.model, step, PRESETS[name])) < 1e-10, name
            if name in ("dr_grpo", "grpo"):
                exact = coefficients(step, PRESETS[name]) @ score_ND  # by transformers' own forward pass
                assert relative_change(found[name], exact) < 1e-10, name


def test_prepare_finds_the_same_on_ranks(pool: Pool) -> None:
    expected = jobs.prepared(False)
    assert np.abs(expected["old"] - expected["ref"]).max() > 1e-3
    for found in pool.run(2, jobs.prepared, True):
        assert all(np.abs(found[name] - expected[name]).max() < 1e-9 for name in expected)


def test_averaging_over_ranks_would_be_seen(pool: Pool) -> None:
    """The comparison above fails for the gradient that FSDP gives by itself."""
    exact, _, _ = jobs.steps(False, "dr_grpo")
    found, _, _ = pool.run(2, jobs.steps_averaged, "dr_grpo")[0]
    assert close({n: 2 * g for n, g in found[0].items()}, exact[0], 1e-5)
    assert not close(found[0], exact[0], 1e-1)


def test_a_rank_holds_its_share_of_weights_gradients_and_moments(pool: Pool) -> None:
    whole = jobs.bytes_held(False)
    ranks = pool.run(2, jobs.bytes_held, True)
    assert [sum(rank[i] for rank in ranks) for i in range(3)] == list(whole)
    assert max(max(rank) / min(rank) for rank in zip(*ranks, strict=True)) < 1.1


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"precision": "bf16", "weights": "bf16"}], ids=["fp32", "bf16"])
def test_a_checkpoint_goes_on_with_any_number_of_ranks(pool: Pool, tmp_path: Path, options: dict[str, str]) -> None:
    pool.run(2, jobs.save, True, tmp_path, **options)
    (version, expected), other = pool.run(2, jobs.go_on, True, tmp_path, **options)
    assert version == 3
    assert all(np.array_equal(expected[name], other[1][name]) for name in expected)
    for ranks in (1, 3):
        found = pool.run(ranks, jobs.go_on, True, tmp_path, **options)
        assert all(close(rank[1], expected, 1e-4 if not options else 2e-2) for rank in found)
    if not options:
        assert close(jobs.go_on(False, tmp_path)[1], expected, 1e-4)  # a plain learner


def test_a_checkpoint_of_a_plain_learner_goes_on_with_ranks(pool: Pool, tmp_path: Path) -> None:
    jobs.save(False, tmp_path)
    assert close(pool.run(2, jobs.go_on, True, tmp_path)[0][1], jobs.go_on(False, tmp_path)[1], 1e-4)


def test_an_export_is_a_plain_folder_with_the_same_logits(pool: Pool, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    held = pool.run(2, jobs.save, True, tmp_path)[0]
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token_id in (model.generation_config.eos_token_id, 0)
    trained = tiny_model("qwen2")
    trained.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in held.items()})
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, trained(ids).logits)


@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma3", "gpt2"])
def test_a_folder_is_read_row_by_row(pool: Pool, tmp_path: Path, family: str) -> None:
    jobs.export_plain(family, tmp_path)
    expected = {name: tensor.numpy() for name, tensor in tiny_model(family).state_dict().items()}
    ranks = pool.run(3, jobs.from_folder, True, tmp_path)
    total = sum(int(rank.pop("numel")) for rank in ranks)
    assert total == sum(p.numel() for p in tiny_model(family).parameters())
    for rank in ranks:
        assert all(np.array_equal(rank[name], expected[name]) for name in expected)


def test_what_cannot_be_meant_is_refused_in_one_line(pool: Pool, tmp_path: Path) -> None:
    folder, other = tmp_path / "incomplete", tmp_path / "other"
    for path in (folder, other):
        path.mkdir()
    pool.run(2, jobs.save, True, folder)
    (folder / "optimizer-00002-of-00002.safetensors").unlink()
    jobs.export_plain("llama", other)
    for lines in pool.run(2, jobs.refusals, folder, other):
        assert "bf16" in lines[0]
        assert "1 of 2 parts" in lines[1]
        assert "another model" in lines[2] or "belong together" in lines[2]
        assert lines[3] == ""
