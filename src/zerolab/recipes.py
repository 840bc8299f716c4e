"""The shipped recipes (complete TOML files, found by path or name), and the controls of a run.

A control changes only the reward, the answers or the clip. A gain that the control also has does not come from the
reward, so reports subtract it from the effect of the run.
"""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zerolab.config import DemoConfig, PretrainConfig, RunConfig, TextRunConfig
from zerolab.errors import UserError
from zerolab.rundir import differing_keys
from zerolab.toml import apply_overrides, parse, read_recipe

PACKAGE = Path(__file__).parent
INSTALLED = PACKAGE / "_recipes"  # folder of the recipes in an installed wheel


def recipe_folder() -> Path:
    """The folder of the shipped recipes, in an installed package or at the root of a checkout."""
    return INSTALLED if INSTALLED.is_dir() else PACKAGE.parent.parent / "recipes"


def shipped() -> dict[str, Path]:
    """The files of the shipped recipes, by name such as laptop/smoke."""
    root = recipe_folder()
    return {str(p.relative_to(root).with_suffix("")): p for p in sorted(root.rglob("*.toml"))}


def find_recipe(name: str | Path) -> Path:
    """The file at this path, or the shipped recipe of this name. Raises UserError with all names if there is none."""
    if Path(name).is_file():
        return Path(name)
    wanted = str(name).removeprefix("recipes/").removesuffix(".toml")
    if wanted in shipped():
        return shipped()[wanted]
    raise UserError(f"{name}: no such file, and no shipped recipe of that name: {', '.join(shipped())}")


def header(path: Path) -> list[str]:
    """The comment lines at the top of a recipe, which say what it is for."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return lines


def kind(path: Path) -> str:
    """The command that runs a recipe, found by its tables. Raises UserError if the file is no TOML."""
    raw = read_recipe(path)
    return "pretrain" if "corpus" in raw or "corpora" in raw else "demo" if "arms" in raw else "train"


DECLARES = {"train": "a [model]", "pretrain": "a [corpus] or [corpora]", "demo": "arms"}


def load(path: Path, overrides: list[str] | tuple[str, ...] = (), *, verb: str | None = None) -> Any:
    """Load and resolve a recipe. Raises UserError if it is invalid, or if it is not for the command `verb`."""
    found = kind(path)
    if verb not in (None, found):
        raise UserError(
            f"{path} is a recipe of `zerolab {found}`: give one of `zerolab {verb}`, which has {DECLARES[str(verb)]}"
        )
    raw = apply_overrides(read_recipe(path), overrides)
    pretrain = TextRunConfig if "corpora" in raw else PretrainConfig
    model: Any = {"train": RunConfig, "pretrain": pretrain, "demo": DemoConfig}[found]
    return parse(model, raw, str(path))


def base_recipe(name: str | Path) -> Any:
    """Load the recipe of a laptop base model. Raises UserError for a recipe of a run on texts."""
    path = find_recipe(name)
    config = load(path, verb="pretrain")
    if not isinstance(config, PretrainConfig):
        raise UserError(
            f"{path} is a pretraining run, no laptop base: run `zerolab pretrain` and set model.path to the folder "
            "that it prints"
        )
    return config


def run_config(source: Any) -> Any:
    """The RunConfig of a config, a dict with the keys of a recipe, a path, or the name of a shipped recipe."""
    if isinstance(source, RunConfig):
        return source
    if isinstance(source, Mapping):
        return parse(RunConfig, dict(source), "config")
    return load(find_recipe(source), verb="train")


def text_config(source: Any) -> Any:
    """The TextRunConfig of the same kinds of source as in `run_config`. Raises UserError for a laptop base."""
    if isinstance(source, TextRunConfig):
        return source
    if isinstance(source, Mapping):
        return parse(TextRunConfig, dict(source), "config")
    config = load(find_recipe(source), verb="pretrain")
    if not isinstance(config, TextRunConfig):
        raise UserError(f"{source} is a laptop base, no run on texts: it has a [corpus], and no [corpora]")
    return config


def load_pretraining(recipe: str, overrides: list[str], of_runs: bool, of_bases: bool) -> tuple[Any, bool]:
    """(config, whether it is a run on texts). Raises UserError for options that do not fit the recipe.

    Args:
        of_runs: whether options were given that only runs on texts have.
        of_bases: whether options were given that only laptop bases have.
    """
    config = load(find_recipe(recipe), overrides, verb="pretrain")
    on_texts = isinstance(config, TextRunConfig)
    if on_texts and of_bases:
        raise UserError("--force is for laptop bases, which a cache keeps; a run on texts has --overwrite")
    if of_runs and not on_texts:
        raise UserError(
            "--resume and --overwrite are for runs on texts; a laptop base always resumes, and --force trains it again"
        )
    return config, on_texts


def difference(a: Path, b: Path) -> list[tuple[str, Any, Any]]:
    """(key, value in a, value in b) of every key in which two resolved recipes differ."""
    if kind(a) != kind(b):
        raise UserError(
            f"{a} is a recipe of `zerolab {kind(a)}` and {b} one of `zerolab {kind(b)}`: compare two of one kind"
        )
    old, new = (json.loads(load(path).model_dump_json()) for path in (a, b))
    return [(key, lookup(old, key), lookup(new, key)) for key in differing_keys(old, new)]


def lookup(table: Any, key: str) -> Any:
    for part in key.split("."):
        table = table.get(part) if isinstance(table, dict) else None
    return table


NO_TERMS: dict[str, Any] = {
    "correctness": 0.0,
    "format": 0.0,
    "think": 0.0,
    "overlong": 0.0,
    "cosine": None,
    "functions": [],
    "soft_margin": None,
}

# Name -> tables of the config with the keys that change.
CONTROLS: dict[str, dict[str, dict[str, Any]]] = {
    # The reward is independent of the response, even of its truncation, so on-policy nothing can be learned.
    "random-reward": {"reward": {**NO_TERMS, "random": 1.0, "truncation": "keep"}},
    # Truncated responses get 0, so short responses are rewarded.
    "random-reward-truncated": {"reward": {**NO_TERMS, "random": 1.0, "truncation": "zero"}},
    "format-reward": {"reward": {**NO_TERMS, "format": 1.0}},
    "shuffled-labels": {"questions": {"shuffle_answers": True}},
    "no-clip": {"objective": {"clip": "none", "clip_low": None, "clip_high": None}},
}


def controlled(config: RunConfig, name: str) -> RunConfig:
    """The config of a control of a run: the same seed, model and questions, in another folder.

    Raises UserError for an unknown control, and for a control that changes nothing.
    """
    if name not in CONTROLS:
        near = difflib.get_close_matches(name, CONTROLS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(f"--control {name} is unknown{hint}: choose one of {', '.join(CONTROLS)}")
    raw = config.model_dump()
    for table, changes in CONTROLS[name].items():
        raw[table] = {**raw[table], **changes}
    if raw["reward"]["truncation"] == "soft":  # a control may have removed its margin
        raw["reward"] |= {"truncation": "keep"} if raw["reward"]["soft_margin"] is None else {}
    if parse(RunConfig, raw, f"--control {name}") == config:
        raise UserError(f"--control {name} changes nothing in this recipe: it is its own control")
    raw["name"] = f"{config.name}-{name}"
    raw["out"] = f"{config.folder}-{name}"
    raw["control"] = {"name": name, "run": str(config.folder)}
    return parse(RunConfig, raw, f"--control {name}")
