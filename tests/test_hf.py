"""Loading and writing models: what is read is what was written, and bad folders get one clear line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_models import EOS, FAMILIES, tiny_model, tiny_tokenizer
from zerolab.errors import UserError
from zerolab.models import hf

IDS = torch.tensor([[5, 9, 23, 42, 7, 88]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hf.export_model(tiny_model(), tiny_tokenizer(), tmp_path / "model")
    return tmp_path / "model"


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("family", FAMILIES)
def test_export_then_plain_transformers_gives_the_same_logits(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = tiny_model(family)
    hf.export_model(model, tiny_tokenizer(), tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    text = "abcd the <eos> 12"
    assert AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == tiny_tokenizer()(text)["input_ids"]
    assert again.generation_config.eos_token_id == EOS
    assert again.generation_config.pad_token_id == 1
    assert not list(tmp_path.glob("*.bin"))


@pytest.mark.parametrize("family", FAMILIES)
def test_loaded_model_is_head_of_hidden_states(family: str, tmp_path: Path) -> None:
    hf.export_model(tiny_model(family), tiny_tokenizer(), tmp_path)
    model = hf.load_model(tmp_path)
    assert not model.training
    torch.testing.assert_close(hf.lm_head(model)(hf.hidden_states(model, IDS)), model(IDS).logits)


@pytest.mark.parametrize("tied", [True, False])
def test_named_weights_list_the_head_under_its_own_name(tied: bool) -> None:
    model = tiny_model("qwen2", tied=tied)
    weights = dict(hf.named_weights(model))
    assert set(weights) >= {name for name, _ in model.named_parameters()} | {"lm_head.weight"}
    assert torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"]) == tied


def test_dtype_by_name(folder: Path) -> None:
    assert next(hf.load_model(folder, dtype="bfloat16").parameters()).dtype == torch.bfloat16
    with pytest.raises(UserError, match="unknown dtype 'bf17'"):
        hf.load_model(folder, dtype="bf17")


def test_eos_ids_are_gathered_from_every_source() -> None:
    model = tiny_model()
    model.generation_config.eos_token_id = [7, 3]
    assert hf.eos_token_ids(model, tiny_tokenizer()) == (0, 3, 7)


def drop(pattern: str) -> Any:
    def change(folder: Path) -> None:
        for path in folder.glob(pattern):
            path.unlink()

    return change


def pickled(folder: Path) -> None:
    drop("*.safetensors")(folder)
    torch.save({}, folder / "pytorch_model.bin")


def truncated(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)


BROKEN_MODELS = {
    "no weights": (drop("*.safetensors"), "holds no \\*.safetensors weights; was the download complete"),
    "pickled weights": (pickled, "only pickled ones, which are not read"),
    "no config": (drop("config.json"), "holds no config.json"),
    "damaged weights": (truncated, "are damaged"),
    "unknown family": (lambda f: change_config(f, model_type="blorp"), "not a causal LM that this transformers knows"),
    "not causal": (lambda f: change_config(f, model_type="t5"), "not a causal LM that this transformers knows"),
    "own code": (
        lambda f: change_config(f, model_type="x", auto_map={"AutoConfig": "x.X", "AutoModelForCausalLM": "y.Y"}),
        "never runs",
    ),
    "more layers than weights": (
        lambda f: change_config(f, num_hidden_layers=3, layer_types=["full_attention"] * 3),
        "lack 12 tensors",
    ),
    "other shapes": (lambda f: change_config(f, hidden_size=32), "other shapes than its config.json"),
}


@pytest.mark.parametrize("case", BROKEN_MODELS)
def test_broken_model_folder_gets_one_line(case: str, folder: Path) -> None:
    change, message = BROKEN_MODELS[case]
    change(folder)
    with pytest.raises(UserError, match=message) as caught:
        hf.load_model(folder)
    assert "\n" not in str(caught.value)


def test_folder_without_tokenizer_is_refused(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UserError, match="holds no tokenizer"):
        hf.load_tokenizer(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="cannot load the tokenizer"):
        hf.load_tokenizer(folder)


def test_tokenizer_is_the_one_of_the_file_even_where_autotokenizer_swaps_it(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["pre_tokenizer"] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    content["model"]["merges"].append(["1", "2"])
    content["model"]["vocab"]["12"] = content["model"]["vocab"].pop("Ġw0")
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="read as its tokenizer.json says"):
        tokenizer = hf.load_tokenizer(folder)
    assert tokenizer("12")["input_ids"] == [content["model"]["vocab"]["12"]]


def test_missing_folder_and_unreachable_hub(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        hf.load_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match="cannot reach the hub"):
        hf.load_model("nobody/never-cached")
    with pytest.raises(UserError, match="cannot reach the hub"):
        hf.load_tokenizer("nobody/never-cached")


def test_a_family_that_scales_or_caps_its_logits_is_refused(tmp_path: Path) -> None:
    from transformers import (
        BertConfig,
        BertLMHeadModel,
        CohereConfig,
        CohereForCausalLM,
        Gemma2Config,
        Gemma2ForCausalLM,
    )

    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    for model in (CohereForCausalLM(CohereConfig(**shape)), Gemma2ForCausalLM(Gemma2Config(**shape, head_dim=16))):
        with pytest.raises(UserError, match="more than lm_head"):
            hf.probe(model.eval(), "model")
    shape.pop("num_key_value_heads")
    with pytest.raises(UserError):
        hf.probe(BertLMHeadModel(BertConfig(**shape)).eval(), "model")


def test_unwritable_folder(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="cannot write the model"):
        hf.export_model(tiny_model(), tiny_tokenizer(), blocked / "model")
