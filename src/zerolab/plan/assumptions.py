"""What the cost model takes for granted. Every number can be set: --assume NAME=VALUE."""

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from zerolab.errors import UserError


def _assumed(default: float, why: str, most: float = float("inf")) -> Any:
    return field(default=default, metadata={"why": why, "most": most})


@dataclass(frozen=True)
class Assumptions:
    """Shares are of the figures in the data sheets."""

    response_share: float = _assumed(
        0.25, "mean response as a share of the budget; lengths are exponential, cut at the budget", 1
    )
    prompt_tokens: float = _assumed(150, "mean prompt with its template, at most rollout.max_prompt_tokens")
    learned_share: float = _assumed(1.0, "tokens that are forwarded: groups that are all right or all wrong are not", 1)
    mixed_share: float = _assumed(
        0.5, "groups with right and wrong answers: dynamic sampling draws 1 / that as many, at most its rounds", 1
    )
    learn_utilisation: float = _assumed(
        0.4, "of the peak, in forward and backward: Llama 3 reports .38 to .43 (arXiv 2407.21783)", 1
    )
    prefill_utilisation: float = _assumed(0.4, "of the peak, in the products of prompts and of many rows", 1)
    bandwidth_utilisation: float = _assumed(0.6, "of the memory bandwidth, in decoding and in the optimizer", 1)
    host_ms: float = _assumed(5.0, "of scheduling, sampling and launches at every decoding step")
    link_utilisation: float = _assumed(0.7, "of links and network", 1)
    network_gb_per_s: float = _assumed(50.0, "per GPU between machines: one 400 Gb/s card each")
    host_gb_per_s: float = _assumed(25.0, "between host and GPU: PCIe 4.0 x16, in practice")
    other_gb: float = _assumed(2.0, "on every GPU: CUDA, buffers of collectives, fragments")


def assumptions(items: Sequence[str]) -> Assumptions:
    """The defaults with NAME=VALUE changes. Raises UserError for a name that is none and a value out of its range."""
    known = {f.name: f for f in dataclasses.fields(Assumptions)}
    values: dict[str, float] = {}
    for item in items:
        name, equals, text = item.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise UserError(f"--assume {item}: expected NAME=VALUE, for example --assume response_share=0.5")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(f"--assume {name} is unknown{hint}: choose one of {', '.join(known)}")
        values[name] = _number(name, text, known[name].metadata["most"])
    return Assumptions(**values)


def _number(name: str, text: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"--assume {name}={text}: expected a number") from None
    zero_is_fine = name in ("host_ms", "other_gb", "prompt_tokens")
    if not (0 < value <= most or (value == 0 and zero_is_fine)) or value == float("inf"):
        limit = f"above 0 and at most {most:g}" if most < float("inf") else "a finite number above 0"
        raise UserError(f"--assume {name}={text}: must be {limit}")
    return value


def listing(assumed: Assumptions) -> list[tuple[str, float, str]]:
    """(name, value, why) of every assumption."""
    return [(f.name, getattr(assumed, f.name), f.metadata["why"]) for f in dataclasses.fields(assumed)]
