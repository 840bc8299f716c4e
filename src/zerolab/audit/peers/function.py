"""A loss given as a function: `module:function` or `file.py:function`. What it may ask for stands in docs/audit.md.

Standard library and torch only, so that it also runs in an interpreter without zerolab.
"""

import difflib
import importlib
import importlib.metadata
import importlib.util
import inspect
import math
import os
import random
import sys
from collections.abc import Callable
from typing import Any

import torch

# B responses of one micro-batch, padded to L tokens, the longest among them. A function names the ones it wants, with
# or without the shape at the end.
INPUTS = {
    "logprobs_BL": "log pi of every token; the gradient is taken with respect to it",
    "old_logprobs_BL": "log pi_old: equal to logprobs, without gradient",
    "sampler_logprobs_BL": "log-probabilities recorded by the sampler",
    "mask_BL": "1.0 on tokens of the response, EOS included, 0.0 on padding",
    "advantages_B": "R - mean of the group",
    "rewards_B": "R; whole groups are then kept in a micro-batch",
    "groups_B": "number of the question",
    "truncated_B": "True where the budget cut the response off",
    "values_BL": "instead of logprobs: a critic's predictions; the gradient is taken with respect to them",
    "old_values_BL": "equal to values, without gradient",
    "returns_BL": "what values should be; 1 above or below them, as the response was right or wrong",
    "budget": "the longest response that could be sampled",
    "step_tokens": "tokens of the whole optimizer step",
    "step_responses": "responses of the whole optimizer step",
    "micro_batches": "into how many parts the step is cut",
}
WHOLE_STEP = {"step_tokens", "step_responses", "micro_batches"}
SHAPES = ("_BL", "_B")


def bare(name: str) -> str:
    return next((name.removesuffix(shape) for shape in SHAPES if name.endswith(shape)), name)


KNOWN = {bare(name) for name in INPUTS}


def load(target: str) -> Callable[..., Any]:
    """The function of module:function or file.py:function. Raises ValueError with one line."""
    place, _, name = target.rpartition(":")
    if not place:
        raise ValueError(f"{target}: write module:function or file.py:function")
    if place.endswith(".py"):
        if not os.path.isfile(place):
            raise ValueError(f"{place}: no such file")
        spec = importlib.util.spec_from_file_location("audited_loss", place)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise ValueError(f"{place}: {error}; give a module that can be imported, or a file.py") from None
    found = getattr(module, name, None)
    if not callable(found):
        near = difflib.get_close_matches(name, [n for n, f in vars(module).items() if callable(f)], n=1)
        raise ValueError(f"{place} has no function {name}" + (f"; did you mean {near[0]}?" if near else ""))
    return found


def wanted(function: Callable[..., Any]) -> dict[str, str]:
    """{parameter: input} of a function. Raises ValueError when it asks for something there is not."""
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if bare(name) in KNOWN:
            found[name] = bare(name)
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            near = difflib.get_close_matches(bare(name), KNOWN, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(INPUTS)}"
            raise ValueError(f"parameter {name} is unknown; {hint}")
    asked = set(found.values())
    if len(asked & {"logprobs", "values"}) != 1:
        raise ValueError("a loss takes either logprobs or values: that is what the gradient is taken of")
    return found


def version(options: dict[str, Any]) -> str:
    package = options.get("package", "torch")
    return f"{package} {importlib.metadata.version(package)}"


def measure(options: dict[str, Any], case: dict[str, Any]) -> list[list[float]]:
    """Coefficients by response. A function that knows nothing of the whole step has the mean over its micro-batches
    taken, as a trainer does that divides by its accumulation steps; the results of others are summed."""
    function = load(options["target"])
    names = wanted(function)
    count, parts = len(case["lengths"]), case["micro_batches"]
    rows = list(range(count))
    unit = case["group_size"] if {"rewards", "groups"} & set(names.values()) else 1
    blocks = [rows[i : i + unit] for i in range(0, count, unit)]
    if case["order"]:
        random.Random(case["order"]).shuffle(blocks)
    rows = [i for block in blocks for i in block]
    share = 1.0 if WHOLE_STEP & set(names.values()) else 1 / parts
    found: list[list[float]] = [[] for _ in rows]
    for part in range(parts):
        picks = rows[part * count // parts : (part + 1) * count // parts]
        for i, values in zip(picks, _coefficients(function, names, case, picks), strict=True):
            found[i] = [-share * value for value in values]
    return found


def _coefficients(
    function: Callable[..., Any], names: dict[str, str], case: dict[str, Any], picks: list[int]
) -> list[list[float]]:
    """dLoss/dlogprob of every token of one micro-batch."""
    inputs = _inputs(case, picks)
    leaf = inputs["values" if "values" in names.values() else "logprobs"].requires_grad_()
    try:
        loss = function(**{name: inputs[kind] for name, kind in names.items()})
    except Exception as error:
        raise ValueError(f"the function failed: {type(error).__name__}: {error}") from error
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        raise ValueError("the function has to return one scalar tensor, the loss")
    if not loss.requires_grad:
        raise ValueError("the loss does not depend on logprobs; it may not detach them")
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    if not torch.isfinite(gradient).all():
        raise ValueError("the gradient of the loss is not finite")
    return [gradient[row, : case["lengths"][i]].tolist() for row, i in enumerate(picks)]


def _inputs(case: dict[str, Any], picks: list[int]) -> dict[str, Any]:
    """Everything in INPUTS for one micro-batch, in float64, by bare name."""
    lengths = torch.tensor([case["lengths"][i] for i in picks])
    rewards = torch.tensor([case["rewards"][i] for i in picks], dtype=torch.float64)
    width = int(lengths.max())
    mask = (torch.arange(width) < lengths[:, None]).double()
    logprobs = torch.full((len(picks), width), math.log(0.5), dtype=torch.float64)
    if case.get("logprobs"):
        for row, i in enumerate(picks):
            logprobs[row, : case["lengths"][i]] = torch.tensor(case["logprobs"][i], dtype=torch.float64)
    sampler = logprobs.clone()
    if case["mismatch"]:
        for row, i in enumerate(picks):
            shift = torch.tensor(case["mismatch"][i], dtype=torch.float64)
            sampler[row, : len(shift)] -= shift
    return {
        "logprobs": logprobs.clone(),
        "old_logprobs": logprobs.clone(),
        "sampler_logprobs": sampler,
        "mask": mask,
        "advantages": torch.tensor(_advantages(case), dtype=torch.float64)[picks],
        "rewards": rewards,
        "groups": torch.tensor([i // case["group_size"] for i in picks]),
        "truncated": torch.tensor([case["truncated"][i] for i in picks]),
        "values": torch.zeros_like(logprobs),
        "old_values": torch.zeros_like(logprobs),
        "returns": (2 * rewards - 1)[:, None].expand(-1, width).clone(),
        "budget": case["budget"],
        "step_tokens": sum(case["lengths"]),
        "step_responses": len(case["lengths"]),
        "micro_batches": case["micro_batches"],
    }


def _advantages(case: dict[str, Any]) -> list[float]:
    size, rewards = case["group_size"], case["rewards"]
    means = [sum(rewards[i : i + size]) / size for i in range(0, len(rewards), size)]
    return [reward - means[i // size] for i, reward in enumerate(rewards)]
