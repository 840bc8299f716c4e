"""Controls: the arm that a training run has to beat, from the same seeds.

A control changes what is rewarded, or how, and nothing else. What it gains is not learning from the reward, so an
effect counts net of it.
"""

import difflib
from typing import Any

from zerolab.config import RunConfig
from zerolab.errors import UserError
from zerolab.toml import parse

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
    # Independent of everything, truncation included: on-policy it must teach nothing.
    "random-reward": {"reward": {**NO_TERMS, "random": 1.0, "truncation": "keep"}},
    # Truncated responses earn nothing, which is a reward for being short.
    "random-reward-truncated": {"reward": {**NO_TERMS, "random": 1.0, "truncation": "zero"}},
    "format-reward": {"reward": {**NO_TERMS, "format": 1.0}},
    "shuffled-labels": {"questions": {"shuffle_answers": True}},
    "no-clip": {"objective": {"clip": "none", "clip_low": None, "clip_high": None}},
}


def controlled(config: RunConfig, name: str) -> RunConfig:
    """The matched arm of a run: same seeds, model and questions, in a folder of its own beside it.

    Raises UserError for an unknown control, and for one that would change nothing.
    """
    if name not in CONTROLS:
        near = difflib.get_close_matches(name, CONTROLS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(f"--control {name} is unknown{hint}: choose one of {', '.join(CONTROLS)}")
    raw = config.model_dump()
    for table, changes in CONTROLS[name].items():
        raw[table] = {**raw[table], **changes}
    if raw["reward"]["truncation"] == "soft":  # its margin belongs to a term that the control has taken away
        raw["reward"] |= {"truncation": "keep"} if raw["reward"]["soft_margin"] is None else {}
    if parse(RunConfig, raw, f"--control {name}") == config:
        raise UserError(f"--control {name} changes nothing in this recipe: it is its own control")
    raw["name"] = f"{config.name}-{name}"
    raw["out"] = f"{config.folder}-{name}"
    raw["control"] = {"name": name, "run": str(config.folder)}
    return parse(RunConfig, raw, f"--control {name}")
