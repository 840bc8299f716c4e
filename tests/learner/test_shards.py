"""What several ranks need, on one process: rows in files, a pass without work, weights written one by one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from small_learner import make_learner, random_batch
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.errors import UserError
from zerolab.learner.checkpoint import load_weights
from zerolab.learner.ranks import Shards, balanced, open_shards, part_of, read_into, write_weights
from zerolab.models.hf import describe_model, load_model, named_weights
from zerolab.rl.batch import no_work
from zerolab.rl.objective import PRESETS


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_rows_come_from_whatever_files_have_them(tmp_path: Path, ranks: int) -> None:
    """Four rows over five ranks leave one without any."""
    whole = torch.arange(12.0).view(4, 3)
    for rank, rows in enumerate([*whole.split(-(-4 // ranks)), *[whole[:0]] * ranks][:ranks]):
        save_file({"x": rows.contiguous(), "step": torch.tensor(7.0)}, part_of(tmp_path / "x.safetensors", rank, ranks))
    stored = open_shards(tmp_path / "x.safetensors")
    assert stored.shape("x") == (4, 3)
    assert stored.shape("step") == ()
    assert float(stored.tensor("step")) == 7
    for start in range(5):
        for stop in range(start, 5):
            assert torch.equal(stored.rows("x", start, stop), whole[start:stop])


def test_missing_parts_and_other_shapes_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    with pytest.raises(UserError, match="no complete checkpoint"):
        open_shards(file)
    for rank in (0, 2):
        save_file({"x": torch.zeros(2, 3)}, part_of(file, rank, 3))
    with pytest.raises(UserError, match="2 of 3 parts"):
        open_shards(file)
    save_file({"x": torch.zeros(2, 3)}, file)
    with pytest.raises(UserError, match=r"x has shape \[2, 3\]"):
        read_into([("x", torch.nn.Parameter(torch.zeros(3, 3)))], open_shards(file))
    with pytest.raises(UserError, match="no y"):
        read_into([("y", torch.nn.Parameter(torch.zeros(3, 3)))], open_shards(file))
    file.write_bytes(b"torn")
    with pytest.raises(UserError, match="damaged"):
        open_shards(file)


def test_a_pass_without_work_has_no_gradient_under_any_objective() -> None:
    learner = make_learner(tiny_model("qwen2"))
    for objective in PRESETS.values():
        if objective.needs_critic or objective.needs_reference_in_loss or objective.correction != "none":
            continue
        sums = learner._backward(no_work(random_batch(4)), np.empty(0), np.empty(0), objective)
        assert (sums["tokens"], sums["padded"], sums["loss"]) == (0, 0, 0)
        assert not any(parameter.grad.any() for parameter in learner.model.parameters())


def test_rows_are_dealt_by_tokens() -> None:
    generator = np.random.default_rng(0)
    length_N, rows = generator.integers(1, 100, 60), np.arange(5, 60)
    for ranks in (1, 2, 7):
        dealt = balanced(length_N, rows, ranks)
        assert sorted(np.concatenate(dealt)) == rows.tolist()
        loads = [int(length_N[mine].sum()) for mine in dealt]
        assert max(loads) - min(loads) <= length_N[rows].max()
    assert [len(mine) for mine in balanced(length_N, rows[:1], 3)] == [1, 0, 0]


@pytest.mark.parametrize("file_bytes", [2**14, 2**30])
def test_weights_written_one_by_one_are_a_model_folder(tmp_path: Path, file_bytes: int) -> None:
    model = tiny_model("llama")
    write_weights(named_weights(model), tmp_path, file_bytes)
    describe_model(model, tiny_tokenizer(), tmp_path, torch.float32)
    files = sorted(tmp_path.glob("model*.safetensors"))
    assert (len(files) > 1) == (file_bytes < 2**20)
    assert not list(tmp_path.glob("*.partial"))
    assert set(Shards(files).names()) == set(model.state_dict())
    other = tiny_model("llama", seed=4)
    load_weights(other, tmp_path)
    for found in (load_model(tmp_path), other):
        assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in named_weights(found))
