"""Make the objects of an RL run from its config: engine, stream of rollouts, learner, evaluator."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from zerolab.cluster.launch import launch
from zerolab.config import CriticConfig, EvaluationConfig, ModelConfig, RunConfig
from zerolab.data.questions import Pools, QuestionSet, QuestionStream, load_questions, overlap
from zerolab.data.templates import Template, make_encode, make_template
from zerolab.datatypes import Grade, Question
from zerolab.evaluation.evaluate import Evaluator, choose_questions, evaluation_parameters
from zerolab.grading.grader import grade
from zerolab.inputs import Input, model_inputs, question_input
from zerolab.learner.checkpoint import check_checkpoint
from zerolab.learner.learner import Learner, LearnerProtocol
from zerolab.learner.lora import Adapters
from zerolab.learner.precision import COMPUTE
from zerolab.learner.sharded import sharded_learner
from zerolab.models.context import context_length, largest_budget, prompt_limit
from zerolab.models.fetch import local_model
from zerolab.models.hf import load_config, load_model, load_tokenizer, pick_device
from zerolab.recipes import shipped
from zerolab.rl.objective import Objective
from zerolab.rl.reward import make_group
from zerolab.rl.reward_function import close_terms, load_terms
from zerolab.rollout.engine import Engine, Grader, SamplingParameters
from zerolab.rollout.stream import Stream
from zerolab.rollout.torch_engine import TorchEngine
from zerolab.rollout.vllm_engine import VllmEngine
from zerolab.rollout.vllm_start import VllmOptions
from zerolab.rollout.weight_check import Probe
from zerolab.terminal import echo
from zerolab.worlds.base_model import base_model


@dataclass(frozen=True)
class Run:
    """The objects of an RL run."""

    config: RunConfig
    tokenizer: Any
    stream: Stream
    learner: LearnerProtocol
    objective: Objective
    evaluator: Evaluator | None
    probe: Probe | None
    partial: bool  # send only the tensors that training changes (with LoRA: the adapted matrices)
    release: Callable[[], None]  # ends the processes that were started for the run

    @contextmanager
    def learning(self) -> Iterator[None]:
        """A context in which the engine has freed memory for the learner, if the config asks for it.

        With rollout.sleep the engine frees its keys and values; with lora.offload also its weights, which `publish`
        sends again. The engine always wakes at the end.
        """
        offload = offloads(self.config)
        if not (offload or self.config.rollout.sleep):
            with self.learner.loaded():
                yield
            return
        self.stream.engine.sleep(weights=offload)
        try:
            with self.learner.loaded():
                yield
        finally:
            self.stream.engine.wake()

    def publish(self) -> dict[str, float]:
        """Send the learner's weights to the engine and check that it uses them. Returns the metrics of the check.

        Raises UserError if the engine's log-probabilities differ too much from the learner's.
        """
        probe = self.probe
        check = (lambda engine: probe(engine, self.learner.logprobs_of)) if probe else None
        return self.stream.publish(self.learner.version, self.learner.weights(self.partial), check, self.partial)

    def close(self) -> None:
        try:
            self.stream.close()
        finally:
            self.release()


def make_engine(config: RunConfig, model: Any, tokenizer: Any, device: torch.device) -> Engine:
    dtype = COMPUTE[config.model.precision]
    kv_bytes, graphs = int(config.rollout.kv_gb * 2**30), config.rollout.cuda_graphs
    if config.rollout.engine == "vllm":
        return make_vllm_engine(config, model.config, device)
    return TorchEngine(model, tokenizer, device=device, dtype=dtype, kv_bytes=kv_bytes, cuda_graphs=graphs)


def make_vllm_engine(config: RunConfig, model_config: Any, device: torch.device) -> Engine:
    """Make a vLLM engine, which loads the model itself."""
    options = VllmOptions(
        precision=config.model.precision,
        device=str(device),
        kv_bytes=int(config.rollout.kv_gb * 2**30),
        max_tokens=longest_prompt(config, model_config) + largest_budget(config),
        cuda_graphs=config.rollout.cuda_graphs,
        sleep=config.rollout.sleep or offloads(config),
    )
    return VllmEngine(model_path(config.model), options)


EngineFactory = Callable[[RunConfig, Any, Any, torch.device], Engine]


def make_learner(config: RunConfig, model: Any, device: torch.device) -> Learner:
    return Learner(
        model,
        config.learner,
        budget=config.rollout.max_new_tokens,
        total_steps=config.steps * config.learner.updates_per_rollout,
        temperature=config.rollout.temperature,
        precision=config.model.precision,
        reference=config.objective.kl > 0,
        critic=(config.critic or CriticConfig()) if config.objective.needs_critic else None,
        adapters=Adapters(model, config.lora, device) if config.lora else None,
    )


def build(config: RunConfig, new_engine: EngineFactory = make_engine) -> Run:
    """Load model and questions, check that the budgets fit, and make the objects of the run.

    Args:
        new_engine: makes the engine from (config, model, tokenizer, device).
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    questions = load_questions(config.questions)
    with ExitStack() as started:
        terms = load_terms(config.reward, chat=config.template.name == "chat")
        started.callback(close_terms, terms)
        path = model_path(config.model)
        tokenizer = load_tokenizer(path)
        template = make_template(config.template).bound(tokenizer)
        workers = (make_workers if config.cluster is None else start_workers)(config, path, tokenizer, new_engine)
        started.callback(workers.release)
        check_checkpoint(config, workers.model_config, tokenizer)
        rollout = config.rollout.model_copy(update={"max_prompt_tokens": longest_prompt(config, workers.model_config)})
        encode, grader = make_encode(tokenizer, rollout.max_prompt_tokens), make_grader(template)
        source = QuestionStream(questions.train, seed=config.seed, order=config.questions.order)
        reward = partial(make_group, config=config.reward, budget=rollout.max_new_tokens, terms=terms, seed=config.seed)
        parameters = SamplingParameters(
            rollout.samples_per_question,
            rollout.max_new_tokens,
            rollout.temperature,
            template.stop,
            config.seed,
            greedy=config.objective.needs_greedy,
        )
        stream = Stream(workers.engine, encode, source, template, grader, rollout, reward, parameters)
        evaluator = make_evaluator(config, questions, stream)
        probe = make_probe(config, workers.model_config)
        pieces = config, tokenizer, stream, workers.learner, config.objective, evaluator, probe
        return Run(*pieces, partial=takes_partial(config, new_engine), release=started.pop_all().close)


@dataclass(frozen=True)
class Workers:
    """The engine and the learner of a run."""

    engine: Engine
    learner: LearnerProtocol
    model_config: Any
    release: Callable[[], None] = lambda: None


def make_workers(config: RunConfig, path: str, tokenizer: Any, new_engine: EngineFactory) -> Workers:
    """Make engine and learner in this process."""
    model, device = load_policy(config, path)
    longest_prompt(config, model.config)  # raises UserError before anything is built
    engine = new_engine(config, model, tokenizer, device)  # before the learner adds adapters to the model
    return Workers(engine, make_learner(config, model, device), model.config)


def start_workers(config: RunConfig, path: str, tokenizer: Any, new_engine: EngineFactory) -> Workers:
    """Start engine and learner in processes of a Ray cluster."""
    model_config = load_config(path)
    longest_prompt(config, model_config)
    workers_started = launch(
        config, partial(new_worker_engine, config, path, new_engine), partial(new_rank, config, path)
    )
    return Workers(workers_started.engine, workers_started.learner, model_config, workers_started.release)


def load_policy(config: RunConfig, path: str) -> tuple[Any, torch.device]:
    """(model, device on which it is computed). With lora.offload the model itself is in host memory."""
    device = pick_device(config.model.device)
    storage = "cpu" if config.lora and config.lora.offload else device
    return load_model(path, dtype=COMPUTE[config.model.weights], device=storage), device


def new_worker_engine(config: RunConfig, path: str, new_engine: EngineFactory) -> Engine:
    """Make the engine of a worker process."""
    if new_engine is make_engine and config.rollout.engine == "vllm":
        return make_vllm_engine(config, load_config(path), pick_device(config.model.device))
    model, device = load_policy(config, path)
    return new_engine(config, model, load_tokenizer(path), device)


def new_rank(config: RunConfig, path: str) -> LearnerProtocol:
    """Make the learner of a worker process: one rank, or the only learner."""
    torch.manual_seed(config.seed)
    if config.cluster and config.cluster.learner_ranks > 1:
        return sharded_learner(path, config)
    return make_learner(config, *load_policy(config, path))


def model_path(config: ModelConfig) -> str:
    """The folder or hub id to load. A laptop base is pretrained now unless it is in the cache."""
    if config.base is None:
        assert config.path is not None
        return local_model(config.path)
    return str(base_model(config.base))


def describe_inputs(run: Run) -> dict[str, Input]:
    """The inputs of the run, for its manifest."""
    config = run.config
    place = ", ".join(source.path for source in config.questions.sources)
    found = model_inputs(model_path(config.model), config)
    fingerprints = run.stream.source.state_dict()["fingerprints"]  # of every source
    digests = {f"source {number}": digest for number, digest in enumerate(fingerprints, 1)}
    found["questions"] = Input(digests, "hash of ids, texts and answers", place)
    if run.evaluator:
        asked = (prompt.question for prompt, _ in run.evaluator.prompts)
        found["held-out questions"] = question_input(asked, "evaluation")
    return found


def resolve_model(target: str) -> str:
    """The folder of a laptop base model, if `target` is its recipe; any other target unchanged."""
    known = target in shipped() or (target.endswith(".toml") and Path(target).is_file())
    return model_path(ModelConfig(path=None, base=target)) if known else target


def offloads(config: RunConfig) -> bool:
    return config.lora is not None and config.lora.offload


def takes_partial(config: RunConfig, new_engine: EngineFactory) -> bool:
    """Whether an update sends only the adapted matrices.

    This needs an engine that keeps the other weights: not vLLM, not an engine of the user, not with lora.offload.
    """
    own = new_engine is not make_engine or config.rollout.engine != "torch"
    return config.lora is not None and not offloads(config) and not own


def make_probe(config: RunConfig, model_config: Any) -> Probe | None:
    """Make the check of sent weights; None if it is off, or with lora.offload, when the learner's weights are away."""
    if not config.rollout.check_weights or offloads(config):
        return None
    vocab_size = int(model_config.get_text_config().vocab_size)
    return Probe(
        vocab_size,
        precision=config.model.precision,
        temperature=config.rollout.temperature,
        merged=config.lora is not None,
        engines=config.cluster.engines if config.cluster else 1,
    )


def longest_prompt(config: RunConfig, model_config: Any) -> int:
    """The longest prompt, in tokens, that leaves room for every budget. Raises UserError if no prompt does."""
    return prompt_limit(config, context_length(model_config))


def make_grader(template: Template) -> Grader:
    def grader(response: str, question: Question) -> Grade:
        return grade(response, question.answers, template.extractor, verifier=question.verifier)

    return grader


def evaluation_questions(config: RunConfig, questions: QuestionSet) -> Pools:
    """The questions of `evaluation.questions`, or of training if it is not set. With a holdout only held-out ones."""
    asked = load_questions(config.evaluation.questions) if config.evaluation.questions else questions
    return asked.holdout or asked.train


def make_evaluator(config: RunConfig, questions: QuestionSet, stream: Stream) -> Evaluator | None:
    """Make an evaluator with the engine, template and grader of the stream; None if the run does not evaluate."""
    evaluation: EvaluationConfig = config.evaluation
    if not evaluation.every:
        return None
    source = QuestionStream(evaluation_questions(config, questions), seed=0, order="shuffle")
    chosen = choose_questions(source, evaluation.max_questions)
    if known := overlap(questions.train, chosen):
        echo(f"zerolab: {known} of {len(chosen)} evaluation questions are also training questions", error=True)
    budget = evaluation.max_new_tokens or config.rollout.max_new_tokens
    return Evaluator(stream, chosen, evaluation_parameters(evaluation, stream.template, config.seed, budget))
