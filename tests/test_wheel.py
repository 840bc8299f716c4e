"""The wheel in an environment of its own, away from the checkout: what a user gets who installs zerolab.

The environment sees what the wheel requires, and nothing else, through links to the packages that lie here already. So
no large download is needed, and a requirement that the wheel does not declare is missing.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from test_demo import ARM
from test_examples import EXAMPLES, RUNS
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.models.hf import export_model
from zerolab.rundir import MANIFEST, read_metrics, read_object

pytestmark = pytest.mark.wheel
ROOT = Path(__file__).parent.parent
DEMO = 'name = "demo"\narms = ["one.toml", "two.toml"]\nseeds = [0]\n'


@pytest.fixture(scope="module")
def wheel() -> Path:
    found = sorted((ROOT / "dist").glob("zerolab-*.whl"))
    assert len(found) == 1, "make wheel builds dist/zerolab-VERSION-py3-none-any.whl"
    return found[0]


class Installation:
    """A virtual environment with the wheel, in a folder that a git repository of the user holds."""

    def __init__(self, wheel: Path, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
        self.bin = folder / "env" / "bin"
        (site,) = (folder / "env" / "lib").glob("python*/site-packages")
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "-q"]
        subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
        (installed,) = metadata.distributions(name="zerolab", path=[str(site)])
        for package in required_packages(installed.requires or []):
            link_package(package, site)
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
        (folder / "notes.txt").write_text("a project of the user")
        for words in (["init", "-q"], ["add", "notes.txt"], ["commit", "-qm", "notes"]):
            subprocess.run([*git, *words], cwd=folder, check=True)

    def run(self, *words: object) -> str:
        """What a command of the environment prints. It inherits nothing that leads to the checkout."""
        own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "ZEROLAB_CACHE")}
        own |= {"ZEROLAB_CACHE": str(self.folder / "cache"), "OMP_NUM_THREADS": "1"}
        command = [str(self.bin / str(words[0])), *map(str, words[1:])]
        found = subprocess.run(command, cwd=self.folder, env=own, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr[-2000:]
        return found.stdout


def required_packages(requirements: list[str]) -> Iterator[metadata.Distribution]:
    """The installed packages that these requirements name, with all that they require in turn."""
    waiting = [Requirement(text) for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        extras = frozenset(wanted.extras)
        marks = [{"extra": extra} for extra in extras] or [{"extra": ""}]
        if (wanted.name, extras) in seen or (wanted.marker and not any(wanted.marker.evaluate(m) for m in marks)):
            continue
        seen.add((wanted.name, extras))
        package = metadata.distribution(wanted.name)
        assert wanted.specifier.contains(package.version, prereleases=True), wanted
        yield package
        for text in package.requires or []:
            inner = Requirement(text)
            if inner.marker is None or any(inner.marker.evaluate(m) for m in marks):
                inner.marker = None
                waiting.append(inner)


def link_package(package: metadata.Distribution, site: Path) -> None:
    for name in {file.parts[0] for file in package.files or [] if file.parts[0] not in ("..", "__pycache__")}:
        if not (site / name).exists():
            (site / name).symlink_to(Path(str(package.locate_file(name))))


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(wheel, tmp_path_factory.mktemp("user"))


def test_the_wheel_holds_every_file_of_the_package_and_the_recipes(wheel: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "src/zerolab", "recipes"], cwd=ROOT, capture_output=True, text=True)
    names = tracked.stdout.split()
    wanted = {re.sub(r"^recipes/", "zerolab/_recipes/", name.removeprefix("src/")) for name in names}
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
        (license_file,) = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
        assert "Apache License" in archive.read(license_file).decode()
    assert found == wanted
    for kind in (".js", ".css", ".toml", ".tsv", "py.typed"):
        assert any(name.endswith(kind) for name in found), kind


def test_the_package_runs_from_the_environment_and_brings_nothing_undeclared(installation: Installation) -> None:
    code = "import importlib.util as u, zerolab; print(zerolab.__file__, u.find_spec('pytest'), u.find_spec('peft'))"
    place, *undeclared = installation.run("python", "-c", code).split()
    assert Path(place).is_relative_to(installation.folder / "env")
    assert undeclared == ["None", "None"]
    assert installation.run("zerolab", "--version").strip().endswith(metadata.version("zerolab"))


def test_recipes_are_listed_and_resolved(installation: Installation) -> None:
    listed = installation.run("zerolab", "recipe", "list")
    for recipe in (ROOT / "recipes").rglob("*.toml"):
        assert str(recipe.relative_to(ROOT / "recipes").with_suffix("")) in listed
    assert '"dr_grpo"' in installation.run("zerolab", "train", "laptop/dr-grpo", "--dry-run")


def test_the_demo_trains_and_its_runs_are_reported(installation: Installation) -> None:
    for name, preset in (("one", "grpo"), ("two", "dr_grpo")):
        text = ARM.format(name=name, preset=preset).replace("steps = 6", "steps = 2")
        (installation.folder / f"{name}.toml").write_text(text)
    (installation.folder / "demo.toml").write_text(DEMO)
    assert "start -> end" in installation.run("zerolab", "demo", "--recipe", "demo.toml", "--out", "demo")
    runs = [installation.folder / "demo" / f"{name}-seed0" for name in ("one", "two")]
    for run in runs:
        assert [row["step"] for row in read_metrics(run)] == [1, 2]
        sessions = (read_object(run / MANIFEST) or {})["sessions"]
        assert sessions[-1]["git_revision"] is None  # the repository around the environment is not zerolab's
    installation.run("zerolab", "report", *runs, "--out", "report.html")
    page = (installation.folder / "report.html").read_text()
    assert page.count("<script") > 2
    assert "<style" in page


def test_examples_run(installation: Installation) -> None:
    export_model(tiny_model("qwen2"), tiny_tokenizer(), installation.folder / "model")
    for path in EXAMPLES:
        shutil.copy(path, installation.folder)
        installation.run("python", path.name, "model")
        assert read_metrics(installation.folder / "runs" / f"{RUNS[path.stem]}-seed0"), path
