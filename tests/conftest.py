"""What every test may use."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data that lies beside a developer's checkout; it does not ship with the project."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"real data not at hand: {path} does not exist")
    return path


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Qwen2 model and its tokenizer. Tests of a module share it and leave it as it is."""
    from tiny_models import tiny_model, tiny_tokenizer
    from zerolab.models.hf import export_model

    folder = tmp_path_factory.mktemp("model")
    export_model(tiny_model("qwen2"), tiny_tokenizer(), folder)
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)
