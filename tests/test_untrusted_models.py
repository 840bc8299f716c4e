"""A model of somebody else names no pickle, reaches no file outside its folder and loads no code."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny_models import tiny_model, tiny_tokenizer
from zerolab.errors import UserError
from zerolab.models import hf
from zerolab.models.model_safety import check_config, check_hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hf.export_model(tiny_model(), tiny_tokenizer(), tmp_path / "model")
    return tmp_path / "model"


def write_index(folder: Path, file: str) -> None:
    """The weights in two files; the index names `file` for one tensor."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    weight_map = dict.fromkeys(tensors, "model-1.safetensors") | {min(tensors): file}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def pickled(folder: Path) -> None:
    torch.save({"x": Bomb()}, folder / "weights.bin")
    write_index(folder, "weights.bin")


def elsewhere(folder: Path) -> None:
    save_file({"x": torch.zeros(1)}, folder.parent / "other.safetensors")
    write_index(folder, "../other.safetensors")


def set_config(**fields: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "/etc"}')


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "an index that names a pickle": (pickled, "names 'weights.bin', which is no safetensors file"),
    "an index that names a file elsewhere": (elsewhere, "a file outside the folder"),
    "an index with an absolute name": (lambda f: write_index(f, "/etc/x.safetensors"), "a file outside the folder"),
    "an index with a file that is missing": (lambda f: write_index(f, "model-2.safetensors"), "which is not there"),
    "an index that is a list": (lambda f: (f / "model.safetensors.index.json").write_text("[]"), "has no weight_map"),
    "weights of another name": (set_config(transformers_weights="../other.safetensors"), "outside the folder"),
    "pickled weights of another name": (set_config(transformers_weights="w.bin"), "no safetensors file"),
    "a kernel of the hub": (set_config(_attn_implementation="somebody/kernel"), "may load code"),
    "a kernel with a version": (set_config(attn_implementation="somebody/kernel@v1:f"), "may load code"),
    "a kernel in a part": (set_config(attn_implementation={"": "sdpa", "text": "a/b"}), "may load code"),
    "a kernel deeper": (set_config(text_config={"_attn_implementation_internal": "a/b"}), "may load code"),
    "kernels": (set_config(use_kernels=True), "may load code"),
    "an adapter of another model": (adapter, "an adapter of another model"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_model_folder_is_refused_by_name(
    case: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change, message = HOSTILE[case]
    change(folder)
    for load in (hf.load_model, hf.load_config):
        with pytest.raises(UserError, match=message) as refused:
            load(folder)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "exploded").exists()


def test_an_index_over_whole_files_and_plain_attention_are_loaded(folder: Path) -> None:
    expected = tiny_model().state_dict()
    write_index(folder, "model-1.safetensors")
    set_config(attn_implementation="eager")(folder)
    loaded = hf.load_model(folder).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.items())
    for attention in ("sdpa", "eager", None):
        check_config({"_attn_implementation": attention}, "model")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"])
def test_weights_that_are_not_finite_are_called_so(value: float, name: str, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name][-1, 3] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"hold NaN or infinity .in {name}"):
        hf.load_model(folder)


def test_a_model_whose_states_are_not_finite_is_not_called_unsupported() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    with pytest.raises(UserError, match="NaN or infinite: the weights are damaged"):
        hf.probe(model, "model")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub that knows no model; the paths that it was asked for."""
    from huggingface_hub import constants

    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    yield asked
    server.shutdown()


def test_the_hub_is_asked_once_for_a_name_that_it_does_not_know(hub: list[str]) -> None:
    with pytest.raises(UserError, match="there is no folder nobody/typo, and the hub has no model of that name"):
        hf.load_tokenizer("nobody/typo")
    assert [path for path in hub if "typo" in path] == ["/api/models/nobody/typo"]


def test_a_hub_out_of_reach_is_said_without_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    started = time.monotonic()
    with pytest.raises(UserError, match="cannot reach the hub for nobody/typo"):
        check_hub("nobody/typo")
    assert time.monotonic() - started < 5
