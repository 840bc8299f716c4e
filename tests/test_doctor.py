"""`zerolab doctor`: facts that are true here, and what would fail."""

import importlib
import os
import socket
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from command import run
from zerolab import doctor


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def report(capsys: pytest.CaptureFixture) -> tuple[dict[str, str], list[str]]:
    """(facts by name, lines on what would fail) as printed."""
    capsys.readouterr()
    assert run("doctor") == 0
    above, below = capsys.readouterr().out.replace("nothing would fail", "what would fail").split("what would fail", 1)
    facts = dict(line.split("  ", 1) for line in above.splitlines() if "  " in line)
    return {k.strip(): v.strip() for k, v in facts.items()}, below.splitlines()[1:]


@pytest.mark.usefixtures("no_network")
def test_it_prints_versions_devices_extras_and_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    facts, _ = report(capsys)
    for name in ("zerolab", "torch", "transformers", "datasets"):
        assert facts[name] == metadata.version(name)
    assert facts["cores"] == str(len(os.sched_getaffinity(0)))
    assert {"memory", "bf16 on this CPU"} <= facts.keys()
    assert any(name.startswith("gpu") for name in facts)
    assert facts["laptop base models in"].startswith(str(tmp_path))
    for extra in doctor.EXTRAS:
        assert f"extra [{extra}]" in facts


def test_every_extra_of_pyproject_is_looked_at() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    declared = set(project["optional-dependencies"])
    assert set(doctor.EXTRAS) == declared - {"dev"}


def test_a_missing_extra_is_said_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    real = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name == "math_verify":
            raise ImportError("No module named 'math_verify'")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    monkeypatch.setenv("COLUMNS", "200")
    facts, problems = report(capsys)
    assert facts["extra [math-verify]"].startswith("not usable")
    assert "- extra [math-verify]: pip install 'zerolab[math-verify]'" in problems


def test_a_missing_package_is_said_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(doctor, "CORE", (*doctor.CORE, "no-such-package"))
    facts, problems = report(capsys)
    assert facts["no-such-package"] == "missing"
    assert "- no-such-package is not installed: run `make setup`" in problems


def test_a_cache_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A file stands where the folder should be: that fails for every user, root included."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("COLUMNS", "300")
    _, problems = report(capsys)
    assert any("cannot be written" in line and "ZEROLAB_CACHE" in line for line in problems)


def test_an_offline_machine_is_told_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _, problems = report(capsys)
    assert any(line.startswith("- HF_HUB_OFFLINE=1") for line in problems)


@pytest.mark.parametrize("present", [True, False])
def test_vllm_is_recommended_on_a_gpu_alone(
    present: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "recommended engine" not in report(capsys)[0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    gpu = SimpleNamespace(name="a GPU", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: gpu)
    monkeypatch.setattr(doctor, "installed", lambda package: present)
    advice = report(capsys)[0]["recommended engine"]
    assert "rollout.engine=vllm" in advice
    assert ("pip install 'zerolab[vllm]'" in advice) != present
