"""Every experiment of the ledger beyond the laptop: its commands on larger machines, and their estimated GPU hours.

The ledger runs none of these commands. Hours come from the cost model of `zerolab plan`. Settings of the paper are
those of its public scripts; the headers of the recipes say which settings are unknown. The paper's runs sampled and
learned on the same eight GPUs; four engines and four learner ranks are our choice.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zerolab.claims.protocol import Scale
from zerolab.data.builtin import BUILT_IN
from zerolab.errors import UserError
from zerolab.evaluation.benchmarks import benchmark_names
from zerolab.plan.command import operations
from zerolab.plan.cost import HALF, Machine, estimate, sampling_seconds
from zerolab.plan.gpus import choose, parse_cluster
from zerolab.plan.job import Assumptions, Job, Lengths, Sampled
from zerolab.plan.shapes import published
from zerolab.recipes import controlled, find_recipe, load


@dataclass(frozen=True)
class Training:
    """Runs of a recipe: arms by name, each with its overrides; with controls beside each, under every seed."""

    recipe: str
    arms: Mapping[str, tuple[str, ...]]
    seeds: int = 1
    common: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()

    def runs(self) -> list[tuple[list[str], str | None]]:
        """(overrides, control) of every run."""
        return [
            ([f"name={name}", f"seed={seed}", *self.common, *changes], control)
            for name, changes in self.arms.items()
            for seed in range(self.seeds)
            for control in (None, *self.controls)
        ]

    def commands(self) -> list[str]:
        found = []
        for overrides, control in self.runs():
            words = ["zerolab", "train", self.recipe, *(w for item in overrides for w in ("--set", item))]
            found.append(shlex.join([*words, *(["--control", control] if control else [])]))
        return found

    def configs(self) -> list[Any]:
        """The resolved config of every run."""
        found = []
        for overrides, control in self.runs():
            config = load(find_recipe(self.recipe), overrides, verb="train")
            found.append(controlled(config, control) if control else config)
        return found

    def gpu_hours(self, gpus: str) -> float:

        cluster = parse_cluster(gpus)
        jobs = [Job(config, _shape(config.model.path), cluster) for config in self.configs()]
        return sum(estimate(job, choose(job.config, cluster, None, None, None)).gpu_hours for job in jobs)


@dataclass(frozen=True)
class Sampling:
    """Responses of models that are not trained: `zerolab analyze`, on one GPU."""

    models: tuple[str, ...]
    benchmarks: str
    templates: str = "r1,qwen-math,none"
    temperatures: str = "1"
    samples: int = 8
    budget: int = 3000
    limit: int | None = None
    judged: bool = False
    kv_gb: int = 40

    def commands(self) -> list[str]:
        words = ["--benchmarks", self.benchmarks, "--templates", self.templates, "--temperatures", self.temperatures]
        words += ["--samples", str(self.samples), "--budget", str(self.budget)]
        words += ["--limit", str(self.limit)] if self.limit else []
        words += ["--device", "cuda", "--precision", "bf16", "--kv-gb", str(self.kv_gb)]
        words += ["--judge", "http://localhost:8001/v1", "--judge-model", "JUDGE"] if self.judged else []
        return [shlex.join(["zerolab", "analyze", model, *words]) for model in self.models]

    def settings(self) -> list[tuple[int, int]]:
        """(responses, responses to a question) of every template and temperature; a greedy one has one a question."""
        sizes = [BUILT_IN[name].rows or 0 for name in benchmark_names(self.benchmarks)]
        questions = sum(min(size, self.limit) if self.limit else size for size in sizes)
        samples = [1 if float(t) == 0 else self.samples for t in self.temperatures.split(",")]
        return [(questions * k, k) for k in samples for _ in self.templates.split(",")]

    def gpu_hours(self, gpus: str) -> float:

        assumed = Assumptions()
        machine = Machine(parse_cluster(gpus).gpu, assumed, HALF)
        lengths = Lengths(assumed.response_share * self.budget, self.budget)
        seconds = 0.0
        for model in self.models:
            layers = _shape(model).layers
            for responses, samples in self.settings():
                share = Sampled(responses, samples, assumed.prompt_tokens, lengths)
                seconds += sampling_seconds(layers, machine, share, self.kv_gb * 2**30)
        return seconds / 3600


@dataclass(frozen=True)
class Pretraining:
    """Pretraining on texts before RL, on one GPU; its model lies in runs/NAME-seed0/model."""

    recipe: str

    def commands(self) -> list[str]:
        return [shlex.join(["zerolab", "pretrain", self.recipe])]

    def gpu_hours(self, gpus: str) -> float:

        config = load(find_recipe(self.recipe), verb="pretrain")
        rate = parse_cluster(gpus).gpu.flops * Assumptions().learn_utilisation
        return operations(config, _shape(config.model.path)) / rate / 3600


Work = Training | Sampling | Pretraining


@dataclass(frozen=True)
class Larger:
    """What a claim takes at one scale. `choices`: what the paper does not state, and what we chose."""

    gpus: str  # as `zerolab plan --gpus` reads it; "" where no GPU is needed
    work: tuple[Work, ...]
    choices: str
    after: tuple[str, ...] = field(default=())  # commands that read the runs

    def commands(self) -> list[str]:
        return [command for work in self.work for command in work.commands()] + list(self.after)

    def gpu_hours(self) -> float:
        return sum(work.gpu_hours(self.gpus) for work in self.work)


def _shape(path: str) -> Any:
    """Of a published family, so that a cost is the same on every machine."""
    shape = published(path)
    if shape is None:
        raise UserError(f"the shape of {path} is not known, and so no cost: add its family to zerolab.plan.shapes")
    return shape


ONE, EIGHT, A100 = "1xH100", "8xA100-80", "1xA100-80"
FOUR_ARMS = {name: (f"objective={name}",) for name in ("grpo", "grpo_length_fix", "grpo_std_fix", "dr_grpo")}
TWO_ARMS = {name: FOUR_ARMS[name] for name in ("grpo", "dr_grpo")}
ON_POLICY = ("learner.updates_per_rollout=1", "learner.old_logprobs=detach")
RANDOM = ("random-reward",)
CLUSTER = ("cluster.engines=4", "cluster.learner_ranks=4")  # of eight GPUs: half sample, half learn, in turn
TEMPLATES = ("r1", "qwen-math", "none")
SETS = ("orz_57k", "math12k", "gsm_8k", "asdiv_2k")
SMALL = ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-Math-1.5B", "meta-llama/Llama-3.2-1B")
BASES = (
    *("Qwen/Qwen2.5-Math-1.5B", "Qwen/Qwen2.5-Math-7B", "Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-7B"),
    *("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.2-3B"),
)
NO_DEEPSEEK = (
    "DeepSeek-V3-Base does not fit eight of these GPUs: `zerolab analyze NAME --endpoint URL` for one that is served, "
    "not in the hours; nor is the judge, whose prompt is ours (the paper's is not public)"
)


def arms(prefix: str, changes: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {f"{prefix}-{name.replace('_', '-')}": more for name, more in changes.items()}


def grid(templates: tuple[str, ...], sets: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {
        f"d1-{template}-{name.replace('_', '-')}": (f"template.name={template}", f"questions.path={name}")
        for template in templates
        for name in sets
    }


def bases(name: str, models: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {f"{name}-{label}": (f"model.path={path}",) for label, path in models.items()}


def looked_at(claim: str) -> tuple[str, ...]:
    return (f"zerolab report runs/{claim}-*",)


def evaluated(base: str) -> tuple[str, ...]:
    """The last checkpoint of every run of R1 and the base, on the five benchmarks."""
    runs = [f"runs/r1-dr-grpo-seed{seed}{arm}" for seed in range(3) for arm in ("", "-random-reward")]
    words = "--device cuda --precision bf16"
    asked = [f"zerolab evaluate {run} --template qwen-math {words}" for run in runs]
    return (*asked, *(f"zerolab evaluate {base} --template {name} {words}" for name in TEMPLATES))


def study(temperatures: str, judged: bool, choices: str) -> Mapping[Scale, Larger]:
    """Base models, three templates, the 500 questions of MATH500."""
    small = Sampling(SMALL, "math500", temperatures=temperatures, judged=judged)
    whole = Sampling(BASES, "math500", temperatures=temperatures, judged=judged)
    return {
        "gpu": Larger(ONE, (small,), f"three small bases; {choices}; the judge is ours, and not in the hours"),
        "paper": Larger(A100, (whole,), f"{choices}; {NO_DEEPSEEK}"),
    }


ANYWHERE = Larger("", (), "no GPU is needed: the audit is the same command on any machine", ("zerolab claims run T2",))
PAPER_15B, SHORT = "paper/qwen2.5-math-1.5b", "gpu1/qwen2.5-math-1.5b"
CURVES, SHORT_CURVES = "paper/qwen2.5-1.5b-r1", "gpu1/qwen2.5-0.5b-r1"
UNKNOWN_CURVES = "model, template and question set of the paper's curves are not known; ours are in the recipe's header"
LLAMA = "paper/llama-3.2-3b-numinaqa"
PLAIN, PUBLISHED = "meta-llama/Llama-3.2-3B", "lkevinzc/Llama-3.2-3B-NuminaQA"
FINEMATH, NUMINA = (f"runs/llama-3.2-3b-{text}-pretrain-seed0/model" for text in ("finemath", "numinaqa"))

LARGER: Mapping[str, Mapping[Scale, Larger]] = {
    "C0": {
        "gpu": Larger(
            ONE,
            (Training(SHORT_CURVES, arms("c0", TWO_ARMS), 3, ON_POLICY, (*RANDOM, "random-reward-truncated")),),
            "a control of ours: nothing of it is in the paper",
            looked_at("c0"),
        ),
        "paper": Larger(
            EIGHT,
            (Training(CURVES, arms("c0", TWO_ARMS), 3, (*CLUSTER, *ON_POLICY), (*RANDOM, "random-reward-truncated")),),
            "a control of ours: nothing of it is in the paper; one optimizer step per rollout instead of eight",
            looked_at("c0"),
        ),
    },
    "B1": study("1", True, "8 responses a question at temperature 1"),
    "B2": study("0.2,0.6,1,1.4", False, "temperatures 0.2 to 1.4, 8 responses a question"),
    "B3": study("0.2,0.6,1,1.4", True, "temperatures 0.2 to 1.4; the responses of B2, judged"),
    "B4": study("1", True, "the responses of B3 at temperature 1"),
    "T1": {
        "gpu": Larger(
            ONE,
            (Sampling((SMALL[1],), "math500,amc", "few-shot,r1,qwen-math,none", "0", 1),),
            "one model, two benchmarks; the four examples are ours",
        ),
        "paper": Larger(
            A100,
            (Sampling(BASES[:2], "paper", "few-shot,r1,qwen-math,none", "0", 1),),
            "the four examples of the few-shot prompt are ours; strict and lenient format are both reported",
        ),
    },
    "T2": {"gpu": ANYWHERE, "paper": ANYWHERE},
    "L1": {
        "gpu": Larger(
            ONE,
            (Training(SHORT_CURVES, arms("l1", FOUR_ARMS), 5, (), RANDOM),),
            "model, question set, budget and number of steps are ours",
            looked_at("l1"),
        ),
        "paper": Larger(
            EIGHT,
            (
                Training(CURVES, arms("l1", TWO_ARMS), 5, CLUSTER, RANDOM),
                Training(CURVES, arms("l1", {k: FOUR_ARMS[k] for k in FOUR_ARMS if k not in TWO_ARMS}), 1, CLUSTER),
            ),
            f"{UNKNOWN_CURVES}; 5 seeds of the two arms, 1 of those between, a random reward beside each",
            looked_at("l1"),
        ),
    },
    "L2": {
        "gpu": Larger(
            ONE,
            (Training(SHORT_CURVES, arms("l2", TWO_ARMS), 3),),
            "the first seeds of L1's runs serve as well: the bias meter logs the weights",
            looked_at("l2"),
        ),
        "paper": Larger(
            EIGHT,
            (Training(CURVES, arms("l2", TWO_ARMS), 3, CLUSTER),),
            f"{UNKNOWN_CURVES}; the first seeds of L1's runs serve as well: the bias meter logs the weights",
            looked_at("l2"),
        ),
    },
    "D1": {
        "gpu": Larger(
            ONE,
            (Training(SHORT, grid(TEMPLATES[:2], ("math12k", "gsm_8k")), 3, (), RANDOM),),
            "two templates on two question sets, 100 steps, 3 seeds",
            looked_at("d1"),
        ),
        "paper": Larger(
            EIGHT,
            (Training(PAPER_15B, grid(TEMPLATES, SETS), 1, CLUSTER, RANDOM),),
            "one seed, as in the paper; questions from the hub in place of the paper's files; steps: about 290",
            looked_at("d1"),
        ),
    },
    "D2": {
        "gpu": Larger(
            ONE,
            (Training(SHORT, bases("d2", {"plain": "Qwen/Qwen2.5-1.5B", "math": BASES[0]}), 3, (), RANDOM),),
            "Qwen2.5-1.5B against Qwen2.5-Math-1.5B, which went on from it on mathematical text: another family",
            looked_at("d2"),
        ),
        "paper": Larger(
            EIGHT,
            (
                Pretraining("paper/llama-3.2-3b-finemath-pretrain"),
                Pretraining("paper/llama-3.2-3b-numinaqa-pretrain"),
                Training(
                    LLAMA,
                    bases("d2", {"plain": PLAIN, "finemath": FINEMATH, "numinaqa": NUMINA, "published": PUBLISHED}),
                    1,
                    CLUSTER,
                    RANDOM,
                ),
            ),
            "tokens, learning rate and mix of both pretrainings are not known: ours are in the recipes; so RL also "
            "goes on from the published NuminaQA model",
            looked_at("d2"),
        ),
    },
    "D3": {
        "gpu": Larger(
            ONE,
            (Training("gpu1/llama-3.2-1b", arms("d3", TWO_ARMS), 5, (), RANDOM),),
            "Llama-3.2-1B without pretraining on NuminaQA, GSM-8K, 1024 tokens",
            looked_at("d3"),
        ),
        "paper": Larger(
            EIGHT,
            (Training(LLAMA, arms("d3", TWO_ARMS), 3, CLUSTER, RANDOM),),
            "3 seeds where the paper has one; the exact number of steps is not known",
            looked_at("d3"),
        ),
    },
    "R1": {
        "gpu": Larger(
            ONE,
            (Training(SHORT, arms("r1", {"dr_grpo": ()}), 3, (), RANDOM),),
            "a smaller model and a third of the steps: the recipe's gain over its random-reward control, not its table",
            evaluated("Qwen/Qwen2.5-Math-1.5B"),
        ),
        "paper": Larger(
            EIGHT,
            (Training("paper/qwen2.5-math-7b", arms("r1", {"dr_grpo": ()}), 3, CLUSTER, RANDOM),),
            "3 seeds where the paper has one; the last checkpoint and none chosen on a benchmark; the grader is ours",
            evaluated("Qwen/Qwen2.5-Math-7B"),
        ),
    },
}
