"""The probe on the model of a run, and the losses whose first step is probed.

A loss that is not ours gives its coefficient -dLoss/dlogprob for every token of the rollout, as in `zerolab audit`; the
production learner turns coefficients into the gradient of the model. At the first step all ratios are 1.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from zerolab.audit.peers.peer import Case, Peer, measure
from zerolab.audit.targets import find, trl_config
from zerolab.build import load_policy, make_engine, make_grader, make_learner, model_path
from zerolab.config import RunConfig
from zerolab.data.questions import QuestionStream, load_questions, split_key
from zerolab.data.templates import Template, make_encode, make_template
from zerolab.datatypes import Group, Prompt, Question
from zerolab.drift.probe import Loss, Questions, StepDrift, StepSizes, probe
from zerolab.errors import UserError
from zerolab.grading.extract import NAMES_ARE_ANSWERS
from zerolab.importing.trl_file import read_trl_file
from zerolab.importing.trl_recipe import Import
from zerolab.importing.trl_recipe import objective as trl_objective
from zerolab.learner.learner import Learner
from zerolab.learner.prepare import prepare
from zerolab.learner.scorer import decoder_layers
from zerolab.models.context import context_length
from zerolab.models.hf import load_tokenizer
from zerolab.rl.batch import make_batch
from zerolab.rl.objective import PRESETS, Objective
from zerolab.rl.reward import is_mixed, make_group
from zerolab.rl.reward_function import Term, close_terms, load_terms
from zerolab.rollout.engine import Engine, SamplingParameters, sample_graded
from zerolab.toml import parse

# A step along g does more than one of the same length along sign(g), by 1 / cosine of the two.
NORM_SHARE = 0.25
DRAWS = 50  # of a stream for each question that is wanted, before it counts as exhausted


@dataclass(frozen=True)
class DriftOptions:
    truncations: tuple[str, ...] = ("zero",)
    measured: int = 32  # other questions, on which the step is measured
    measured_samples: int = 8  # responses to each
    norm: float | None = None  # of the step along g; None: NORM_SHARE of that of moving every trained parameter by lr
    layers: int | None = None  # only the last so many move; None: all weights
    plain: bool = True  # also sample from the moved policy


def first_step(
    config: RunConfig,
    losses: Sequence[Loss],
    options: DriftOptions,
    say: Callable[[str], None] = lambda _: None,
    keep: Callable[[list[StepDrift]], None] = lambda _: None,
) -> list[StepDrift]:
    """What the first step of each loss would do to the model of a run.

    The rollout has rollout.questions_per_step questions; the step is measured on `options.measured` others, held-out
    ones if questions.holdout is set. Along sign(g) every parameter moves by learner.lr. The config's own objective and
    truncation policy do not matter. `say` and `keep` as in `probe`. Raises UserError for input that cannot be used.
    """
    if min(options.measured, options.measured_samples) < 2:
        raise UserError("a step is measured by comparing questions and responses: give at least two of each")
    if config.lora and options.layers:
        raise UserError("--layers says what moves, and so does lora: leave one of them out")
    asked, others = choose_questions(config, options.measured)
    config = as_first_step(config, [*asked, *others])
    path = model_path(config.model)
    tokenizer = load_tokenizer(path)
    model, device = load_policy(config, path)
    template = make_template(config.template).bound(tokenizer)
    prompts = [make_prompts(questions, template, tokenizer) for questions in (asked, others)]
    check_room(prompts, config, model)
    engine = make_engine(config, model, tokenizer, device)
    freeze(model, options.layers)
    learner = make_learner(config, model, device)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    sizes = StepSizes(config.learner.lr, options.norm or NORM_SHARE * config.learner.lr * trained**0.5)
    terms = load_terms(config.reward, chat=config.template.name == "chat")
    try:
        with ThreadPoolExecutor(1) as pool:
            sampling = _Sampling(config, engine, template, pool, terms)
            say(f"sampling {len(asked)} x {config.rollout.samples_per_question} responses for the gradient")
            rollout = sampling.groups(prompts[0], config.rollout.samples_per_question)
            check_mixed(sampling, rollout, options.truncations)
            say(f"sampling {len(others)} x {options.measured_samples} responses to other questions")
            measured = sampling.groups(prompts[1], options.measured_samples)

            def ask() -> list[Group]:
                engine.update_weights(engine.version + 1, learner.weights())
                return sampling.groups(prompts[1], options.measured_samples)

            questions = Questions(rollout, measured, sampling.rewarded, ask if options.plain else None)
            asked_for = learner, losses, questions, sizes, options.truncations
            return probe(*asked_for, seed=config.seed, say=say, keep=keep)
    finally:
        close_terms(terms)
        engine.close()


def choose_questions(config: RunConfig, measured: int) -> tuple[list[Question], list[Question]]:
    """(questions of the rollout, other questions): no fact, and no text, is on both sides."""
    found = load_questions(config.questions)
    stream = QuestionStream(found.train, config.seed, config.questions.order)
    asked = _draw(stream, config.rollout.questions_per_step, lambda question: question.id, set())
    if found.holdout:
        stream = QuestionStream(found.holdout, config.seed, config.questions.order)
    return asked, _draw(stream, measured, split_key, set(map(split_key, asked)))


def _draw(stream: QuestionStream, count: int, key: Callable[[Question], str], seen: set[str]) -> list[Question]:
    """`count` questions with keys that differ from each other and from those seen."""
    found: dict[str, Question] = {}
    for _ in range(DRAWS * (count + len(seen)) + 1000):
        [drawn] = stream.take(1)
        if key(drawn.question) not in seen:
            found.setdefault(key(drawn.question), drawn.question)
        if len(found) == count:
            return list(found.values())
    raise UserError(
        f"{count} questions are wanted, and there are {len(found)} that differ"
        + (" from those of the gradient: give fewer --measured" if seen else ": give fewer --count")
    )


def as_first_step(config: RunConfig, questions: Sequence[Question]) -> RunConfig:
    """The config under which ratios of the first step are exactly 1, and answers that are names are found by name.

    One process, in fp32: a step is smaller than what bf16 rounds away.
    """
    template = config.template
    if template.extractor is None and all(question.verifier in NAMES_ARE_ANSWERS for question in questions):
        template = template.model_copy(update={"extractor": "mention"})
    learner = config.learner.model_copy(update={"old_logprobs": "learner"})
    model = config.model.model_copy(update={"precision": "fp32", "weights": "fp32"})
    changes = {"model": model, "template": template, "learner": learner, "objective": PRESETS["dr_grpo"]}
    return config.model_copy(update={**changes, "cluster": None})


def make_prompts(questions: Sequence[Question], template: Template, tokenizer: Any) -> list[Prompt]:
    encode = make_encode(tokenizer)
    texts = [template.render(question.text) for question in questions]
    return [Prompt(question, text, tuple(encode(text))) for question, text in zip(questions, texts, strict=True)]


def check_room(prompts: Sequence[Sequence[Prompt]], config: RunConfig, model: Any) -> None:
    """Raises UserError if a prompt and the budget do not fit into the model's context."""
    longest = max(len(prompt.token_ids) for part in prompts for prompt in part)
    budget, context = config.rollout.max_new_tokens, context_length(model.config)
    if longest + budget > context:
        raise UserError(
            f"a prompt of {longest} tokens and {budget} new ones exceed the model's context of {context} tokens: lower "
            "--budget"
        )


def freeze(model: Any, layers: int | None) -> None:
    """Let only the last `layers` decoder layers be trained. Raises UserError if there are not so many."""
    if layers is None:
        return
    found = decoder_layers(model)
    if not 1 <= layers <= len(found):
        raise UserError(f"--layers {layers}: {type(model).__name__} has {len(found)} decoder layers")
    model.requires_grad_(False)
    for layer in found[-layers:]:
        layer.requires_grad_(True)


@dataclass(frozen=True)
class _Sampling:
    """Draws graded groups by the engine's weights."""

    config: RunConfig
    engine: Engine
    template: Template
    pool: Executor
    terms: Sequence[Term]

    def groups(self, prompts: Sequence[Prompt], samples: int) -> list[Group]:
        """Groups with the rewards of `keep`; the same seeds at every call, so that two policies share their luck."""
        rollout = self.config.rollout
        parameters = SamplingParameters(
            samples, rollout.max_new_tokens, rollout.temperature, self.template.stop, self.config.seed
        )
        wanted = [(prompt, number) for number, prompt in enumerate(prompts)]
        graded = sample_graded(self.engine, make_grader(self.template), self.pool, wanted, parameters)
        return [self._group(prompt, *found, "keep") for prompt, found in zip(prompts, graded, strict=True)]

    def rewarded(self, groups: Sequence[Group], truncation: str) -> list[Group]:
        return [self._group(group.prompt, group.completions, group.grades, truncation) for group in groups]

    def _group(self, prompt: Prompt, completions: Any, grades: Any, truncation: str) -> Group:
        reward = self.config.reward.model_copy(update={"truncation": truncation})
        budget = self.config.rollout.max_new_tokens
        return make_group(prompt, completions, grades, reward, budget, self.terms, self.config.seed)


def check_mixed(sampling: _Sampling, rollout: Sequence[Group], truncations: Sequence[str]) -> None:
    """Raises UserError if no group has different rewards under any of the policies."""
    if not any(is_mixed(group) for name in truncations for group in sampling.rewarded(rollout, name)):
        raise UserError(
            "every question of the rollout has responses of one reward, so there is no gradient to follow: give more "
            "--count or --samples, or let `zerolab start` look for a template and questions"
        )


@dataclass(frozen=True)
class ObjectiveLoss:
    """An objective of zerolab, by the production batch and learner.

    A KL to the initial policy is left out: at the first step its gradient is 0, and it would keep a second model.
    """

    objective: Objective
    name: str
    about: str = ""

    def backward(self, learner: Learner, rollout: Sequence[Group]) -> None:
        without = self.objective.model_copy(update={"kl": 0.0, "kl_estimator": None, "kl_place": None})
        learner.forward_backward(prepare(rollout, learner, without).batch, without)


@dataclass(frozen=True)
class PeerLoss:
    """A function or the installed TRL: coefficients by its own code, the gradient by the production learner."""

    peer: Peer
    name: str
    about: str = ""

    def backward(self, learner: Learner, rollout: Sequence[Group]) -> None:
        case = as_case(self.peer, rollout, learner.budget)
        [(_, found)] = measure([(self.peer, {"rollout": case})])
        add_token_coefficients(learner, rollout, found["rollout"])


def as_case(peer: Peer, rollout: Sequence[Group], budget: int) -> Case:
    """The rollout as one optimizer step of a peer, responses of a question beside each other."""
    completions = [completion for group in rollout for completion in group.completions]
    size = len(rollout[0].completions)
    per_micro_batch = max(1, STEP // peer.micro_batches)
    parts = max(1, len(completions) // per_micro_batch) if peer.micro_batches > 1 else 1
    if len(completions) % parts:
        raise UserError(
            f"{len(completions)} responses do not divide into micro-batches of {per_micro_batch}: change --count"
        )
    return Case(
        lengths=tuple(len(completion) for completion in completions),
        rewards=tuple(float(reward) for group in rollout for reward in group.rewards_G),
        truncated=tuple(completion.truncated for completion in completions),
        group_size=size,
        budget=budget,
        micro_batches=parts,
        logprobs=tuple(tuple(map(float, completion.logprobs_L)) for completion in completions),
    )


def add_token_coefficients(learner: Learner, rollout: Sequence[Group], coefficients: Sequence[np.ndarray]) -> None:
    """Adds the gradient of -sum of coefficient times log pi over all tokens; responses that are masked have none."""
    everything = [dataclasses.replace(group, loss_mask_G=None) for group in rollout]
    masked = [
        ~mask
        for g in rollout
        for mask in (np.ones(len(g.completions), bool) if g.loss_mask_G is None else g.loss_mask_G)
    ]
    rows = [np.zeros_like(c) if out else c for c, out in zip(coefficients, masked, strict=True)]
    batch = make_batch(everything, SUM)
    weight = 1.0 / (len(batch) * learner.budget)  # what the constant aggregation gives every token
    batch = dataclasses.replace(
        batch,
        advantage_N=np.array([float(np.abs(row).max()) for row in rows]),  # 0: costs no forward pass
        advantage_T=(np.concatenate(rows) / weight).astype(batch.old_logprobs_T.dtype),
    )
    learner.forward_backward(batch, SUM)


SUM = PRESETS["reinforce"].model_copy(update={"name": "sum", "ratio": "none"})  # sum_t A_it log pi(o_it) / (N L_max)
STEP = 32  # responses of the step by which `audit` counts micro-batches


def objective_losses(names: Sequence[str]) -> list[ObjectiveLoss]:
    """Presets by name. Raises UserError for an unknown one, and for one whose step needs more than a rollout."""
    found = []
    for name in names:
        try:
            raw = Objective.resolve(name)
        except ValueError as error:
            raise UserError(str(error)) from None
        found.append(ObjectiveLoss(checked(parse(Objective, raw, "objective")), name))
    return found


def checked(objective: Objective) -> Objective:
    """The objective, if its first step needs the sampled groups alone."""
    if objective.needs_critic:
        raise UserError(
            f"{objective.name} learns with a critic, which has learned nothing at the first step: leave it out"
        )
    if objective.needs_greedy:
        raise UserError(
            f"{objective.name} compares with a greedy response, which the probe does not sample: leave it out"
        )
    return objective


def function_loss(target: str) -> PeerLoss:
    """The loss of `module:function` or `file.py:function`. Raises UserError where there is none."""
    if ":" not in target:
        raise UserError(f"--loss {target}: write module:function or file.py:function")
    [peer] = find(target)
    if peer.module != "function":
        raise UserError(f"--loss {target}: write module:function or file.py:function; for TRL there is --trl CONFIG")
    if peer.about == "value loss":
        raise UserError(f"--loss {target}: it is given values, so it trains a critic and does not move the policy")
    return PeerLoss(peer, target.rpartition("/")[2], "a function")


def trl_loss(path: Path) -> Loss:
    """The loss of a TRL configuration: TRL's own code if it is installed, else the objective that it is mapped to."""
    if find_spec("trl") is not None:
        peer = trl_config(path, sys.executable)
        return PeerLoss(peer, path.name, f"TRL's own loss: {peer.about}")
    raw = trl_objective(Import(read_trl_file(path)))
    objective = checked(parse(Objective, Objective.resolve(raw), str(path)))
    return ObjectiveLoss(
        objective, path.name, f"TRL is not installed; its loss as an objective:\n{objective.formula()}"
    )
