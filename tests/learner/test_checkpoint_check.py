"""A model that trains can be saved: what a checkpoint needs is mended or refused before the first step."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from command import write_recipe
from tiny_models import EOS, tiny_model, tiny_tokenizer
from zerolab.config import RunConfig
from zerolab.errors import UserError
from zerolab.learner.checkpoint import check_description, checkpoint_bytes, latest_checkpoint
from zerolab.models import hf
from zerolab.recipes import run_config
from zerolab.train import train

GENERATION = {
    "temperature without sampling": ({"temperature": 0.6, "top_p": 0.9}, {}),
    "temperature 0": ({"temperature": 0}, {}),
    "temperature as a text": ({"temperature": "hot"}, {}),
    "beams": ({"early_stopping": True, "length_penalty": 2.0}, {}),
    "negative pad": ({"pad_token_id": -1}, {"pad_token_id": 1}),
    "valid fields stay": (
        {"do_sample": True, "temperature": 0.7, "top_k": 20, "length_penalty": 2.0},
        {"do_sample": True, "temperature": 0.7, "top_k": 20},
    ),
}


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    hf.export_model(tiny_model(), tiny_tokenizer(), tmp_path / "model")
    return tmp_path / "model"


def set_generation(folder: Path, fields: dict[str, Any]) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": EOS, **fields}))


@pytest.mark.parametrize("case", GENERATION)
def test_a_generation_config_that_transformers_refuses_is_exported_without_what_it_refuses(
    case: str, model_folder: Path, tmp_path: Path
) -> None:
    from transformers import GenerationConfig

    fields, kept = GENERATION[case]
    set_generation(model_folder, fields)
    model = hf.load_model(model_folder)
    with pytest.warns(UserWarning, match="exported models leave that out"):
        hf.export_model(model, tiny_tokenizer(), tmp_path / "out")
    written = GenerationConfig.from_pretrained(tmp_path / "out").to_dict()
    assert written["eos_token_id"] == EOS
    for name in {**fields, **kept}:
        assert written.get(name) == kept.get(name), name


@pytest.mark.filterwarnings("ignore:generation_config.json")
def test_a_model_with_sampling_fields_is_trained_and_saved(model_folder: Path, tmp_path: Path) -> None:
    set_generation(model_folder, {"temperature": 0.6, "top_p": 0.9})
    recipe = write_recipe(tmp_path / "recipe.toml", model_folder)
    config = run_config(recipe).model_copy(update={"steps": 1, "out": str(tmp_path / "run")})
    saved = latest_checkpoint(train(config) / "checkpoints")
    assert saved is not None
    written = sum(file.stat().st_size for file in saved.rglob("*.safetensors"))
    parameters = sum(p.numel() for p in hf.load_model(saved).parameters())
    assert 0.9 * written < checkpoint_bytes(config, parameters) <= written


def test_a_disk_without_room_for_a_checkpoint_is_refused_before_the_first_step(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_run(model_folder, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    with pytest.raises(UserError, match=r"a checkpoint takes at least .* free some, or set `out`"):
        train(config)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not list(tmp_path.rglob("*.partial"))


def test_a_disk_with_room_for_one_checkpoint_of_several_is_a_warning(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_run(model_folder, tmp_path)
    one = checkpoint_bytes(config, sum(p.numel() for p in tiny_model().parameters()))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=int(1.5 * one)))
    with pytest.warns(UserWarning, match="keep 2 checkpoints at once"):
        train(config)


def small_run(model_folder: Path, tmp_path: Path) -> RunConfig:
    config = run_config(write_recipe(tmp_path / "recipe.toml", model_folder))
    checkpoint = config.checkpoint.model_copy(update={"every": 1, "keep": 1})
    return config.model_copy(update={"steps": 2, "out": str(tmp_path / "run"), "checkpoint": checkpoint})


def test_a_config_that_cannot_be_written_is_one_line() -> None:
    config = tiny_model().config
    config.extra = object()
    with pytest.raises(UserError, match="no checkpoint of this model could be written") as refused:
        check_description(config, tiny_tokenizer())
    assert "\n" not in str(refused.value)
