"""The ledger: every claim of 2503.20783, and the experiments that re-test it."""

import difflib
import importlib
from functools import cache

from zerolab.claims.protocol import Protocol
from zerolab.errors import UserError

# Claim -> its sentence, in the order of the paper's argument; C0 is ours.
CLAIMS = {
    "C0": "A random reward, strictly on-policy, teaches nothing: the control of all training claims.",
    "B1": "Templates decide whether a base model answers or merely continues the text.",
    "B2": "Base models already explore: pass@8 is above 0 before any RL.",
    "B3": "Self-reflection is there before RL, and grows with temperature.",
    "B4": "Self-reflection does not mean accuracy.",
    "T1": "Qwen2.5-Math answers best with no template at all.",
    "T2": "Open-source PPO and GRPO losses had a length bias.",
    "L1": "GRPO's 1/|o| makes incorrect answers grow longer; Dr. GRPO stops it.",
    "L2": "Dividing by the standard deviation weighs questions by their difficulty.",
    "D1": "Template and question set play together.",
    "D2": "Pretraining on domain text raises the ceiling of RL.",
    "D3": "On Llama, length and reward growing together is GRPO's bias.",
    "R1": "The minimalist recipe: Dr. GRPO, MATH levels 3 to 5, the Qwen-Math template.",
}
# Modules with a PROTOCOL.
MODULES = (
    *("length_policy", "length_transformer", "length_natural", "question_weight", "other_losses", "random_reward"),
    *("length_smollm2", "length_map"),
    *("base_answering", "base_exploration", "base_reflection", "base_accuracy", "base_templates"),
    "minimalist",
    *("template_questions", "domain_pretraining", "domain_lengths"),
)


@cache
def protocols() -> tuple[Protocol, ...]:
    found = [importlib.import_module(f"zerolab.claims.experiments.{name}").PROTOCOL for name in MODULES]
    return tuple(sorted(found, key=lambda p: list(CLAIMS).index(p.claim) if p.claim in CLAIMS else len(CLAIMS)))


def claim_of(name: str) -> str:
    """The id of a claim, with or without experiments, or that of an experiment's. Raises UserError for another name."""
    return name.upper() if name.upper() in CLAIMS else find(name)[0].claim


def find(name: str) -> list[Protocol]:
    """The experiments of a claim ("L1") or the one of that id ("L1.policy"). Raises UserError for another name."""
    known = protocols()
    found = [p for p in known if name.lower() in (p.id.lower(), p.claim.lower())]
    if found:
        return found
    if name.upper() in CLAIMS:
        raise UserError(f"{name.upper()} has no experiment yet: `zerolab claims list` shows those that have")
    names = [*CLAIMS, *(p.id for p in known)]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    raise UserError(f"no claim {name!r}" + (f" (did you mean {near[0]}?)" if near else "") + ": `zerolab claims list`")
