"""A recipe with the shape of its model on GPUs, under assumptions: the input of every estimate of the plan.

It holds the rows and tokens of a step. Lengths of responses are assumed to be exponential and cut at the budget,
because the longest responses decide how long a rollout takes. Every assumption can be set with `--assume NAME=VALUE`.
"""

import dataclasses
import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from zerolab.config import RunConfig
from zerolab.errors import UserError
from zerolab.plan.gpus import Cluster
from zerolab.plan.shapes import PUBLISHED, Layers, ModelShape, model_shape


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


@dataclass(frozen=True)
class Job:
    config: RunConfig
    shape: ModelShape
    cluster: Cluster
    assumed: Assumptions = field(default_factory=Assumptions)

    @property
    def layers(self) -> Layers:
        assert self.shape.layers is not None
        return self.shape.layers

    @property
    def computed(self) -> float:
        """Bytes of a number in the engine and in the learner's products."""
        return 4.0 if self.config.model.precision == "fp32" else 2.0

    @property
    def kv_bytes(self) -> float:
        return self.config.rollout.kv_gb * 2**30

    @property
    def trained(self) -> float:
        """Numbers that the optimizer moves."""
        lora = self.config.lora
        return float(lora.rank * self.shape.linear_width if lora else self.shape.parameters)


def make_job(config: RunConfig, cluster: Cluster, assumed: Assumptions | None = None) -> Job:
    """Raises UserError where the shape of the model is not known."""
    shape = model_shape(config.model)
    if shape is None or shape.layers is None:
        raise UserError(
            f"the shape of {config.model.path} is not known: give model.path as a folder with its config.json, or a "
            f"model of a known family ({', '.join(PUBLISHED)})"
        )
    return Job(config, shape, cluster, assumed or Assumptions())


@dataclass(frozen=True)
class Lengths:
    mean: float  # tokens
    budget: int

    @cached_property
    def scale(self) -> float:
        """tau of S(t) = exp(-t / tau), whose integral up to the budget is the mean; infinite where all fill it."""
        if self.mean >= self.budget * (1 - 1e-6):
            return math.inf
        low, high = self.mean, 1e7 * self.budget
        for _ in range(200):
            middle = math.sqrt(low * high)
            if -middle * math.expm1(-self.budget / middle) < self.mean:
                low = middle
            else:
                high = middle
        return high

    @property
    def truncated(self) -> float:
        """Share of responses that the budget cuts."""
        return math.exp(-self.budget / self.scale)

    @property
    def square(self) -> float:
        """E[L^2] = integral of 2 t S(t)."""
        x = self.budget / self.scale
        if x < 1e-3:
            return self.budget**2 * (1 - 2 * x / 3)
        return 2 * self.scale**2 * (1 - math.exp(-x) * (1 + x))

    def alive(self) -> np.ndarray:
        """Share of the responses that are still going on at each position, one number for each of the budget."""
        return np.exp(-np.arange(self.budget) / self.scale)


@dataclass(frozen=True)
class Sampled:
    """Responses to be sampled together, `group` of them to every prompt."""

    responses: int
    group: int
    prompt: float  # tokens
    lengths: Lengths

    @property
    def tokens(self) -> float:
        return self.responses * self.lengths.mean


@dataclass(frozen=True)
class Workload:
    steps: int
    rollout: Sampled
    kept: int  # responses that are learned from: without those whose groups dynamic sampling replaced
    updates: int
    evaluations: int
    evaluation: Sampled

    @property
    def learned(self) -> int:
        """Responses of one optimizer step."""
        return -(-self.kept // self.updates)


def workload(config: RunConfig, assumed: Assumptions) -> Workload:
    """Dynamic sampling draws until the assumed share of mixed groups fills the batch, or its rounds end."""
    rollout, evaluation = config.rollout, config.evaluation
    prompt = min(assumed.prompt_tokens, rollout.max_prompt_tokens)

    def sampled(questions: int, samples: int, budget: int) -> Sampled:
        return Sampled(questions * samples, samples, prompt, Lengths(max(1.0, assumed.response_share * budget), budget))

    draws = min(1 + rollout.refill_rounds, 1 / assumed.mixed_share) if rollout.refill_rounds else 1
    questions = round(rollout.questions_per_step * draws)
    budget = evaluation.max_new_tokens or rollout.max_new_tokens
    return Workload(
        steps=config.steps,
        rollout=sampled(questions, rollout.samples_per_question, rollout.max_new_tokens),
        kept=rollout.questions_per_step * rollout.samples_per_question,
        updates=config.learner.updates_per_rollout,
        evaluations=1 + -(-config.steps // evaluation.every) if evaluation.every else 0,
        evaluation=sampled(evaluation.max_questions, evaluation.samples_per_question, budget),
    )
