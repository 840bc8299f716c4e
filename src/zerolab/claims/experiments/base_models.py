"""Base models whose pretraining decides which form of text they answer, and their recorded responses."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zerolab.claims.protocol import Factors

if TYPE_CHECKING:
    from zerolab.config import PretrainConfig
    from zerolab.evaluation.responses import Response

# What the two kinds stand for: a model raised on question-answer text without any frame, as Qwen2.5-Math is said to be;
# and one that met questions in exercise lists, and answers in conversations.
KINDS: Mapping[str, Mapping[str, float]] = {
    "textbook": {"answered": 0.95, "conversation": 0.0},
    "web": {"answered": 0.03, "conversation": 0.5},
}
TEMPLATES = {
    "none": "{question}",
    "conversation": "User: {question}\nAssistant:",
    "instruction": "Solve it and box the answer.\n{question}",
}
TEMPERATURES = (0.4, 0.7, 1.0, 1.3)
HOME = {"textbook": "none", "web": "conversation"}  # the form in which a kind has seen answers
QUESTIONS, SAMPLES, BUDGET = 150, 8, 32
STEPS = 1500


def pretraining(kind: str, seed: int) -> "PretrainConfig":
    """1500 steps of 64 documents, otherwise as laptop/base."""
    from zerolab.config import CorpusConfig, GateConfig
    from zerolab.recipes import find_recipe, load

    base = load(find_recipe("laptop/base"), verb="pretrain")
    corpus = CorpusConfig(name="styled-arithmetic", options=dict(KINDS[kind]))
    gate = GateConfig(max_new_tokens=BUDGET)
    return base.model_copy(update={"name": kind, "seed": seed, "steps": STEPS, "corpus": corpus, "gate": gate})


def base(factors: Factors) -> "PretrainConfig":
    return pretraining(str(factors["kind"]), int(factors["seed"]))


def sampling(*forms: str | float) -> Callable[[Factors], Mapping[str, object]]:
    """What a cell samples: so many responses to so many questions under these templates and temperatures."""
    return lambda factors: {"questions": QUESTIONS, "samples": SAMPLES, "budget": BUDGET, "forms": list(forms)}


def responses(factors: Factors, templates: Sequence[str], temperatures: Sequence[float] = (1.0,)) -> "list[Response]":
    """Graded responses of one base: SAMPLES to each of QUESTIONS questions, under every template and temperature."""
    from zerolab.models.hf import load_model, load_tokenizer
    from zerolab.rollout.torch_engine import TorchEngine
    from zerolab.worlds.base_model import cache_folder
    from zerolab.worlds.corpora import make_corpus

    config = pretraining(str(factors["kind"]), int(factors["seed"]))
    folder = cache_folder(config)
    tokenizer = load_tokenizer(folder)
    engine = TorchEngine(load_model(folder), tokenizer)
    questions = make_corpus(config.corpus, config.seed).questions[::3][:QUESTIONS]
    return [
        response
        for template in templates
        for temperature in temperatures
        for response in _sampled(engine, tokenizer, questions, template, temperature, factors)
    ]


def _sampled(
    engine: Any, tokenizer: Any, questions: Sequence[Any], template: str, temperature: float, factors: Factors
) -> "list[Response]":
    from zerolab.evaluation.responses import Response
    from zerolab.grading.grader import grade
    from zerolab.rollout.engine import Request, generate_all, request_seed

    requests = [
        Request(
            id=number * SAMPLES + sample,
            prompt_ids=tuple(tokenizer(TEMPLATES[template].format(question=question.text))["input_ids"]),
            seed=request_seed(int(factors["seed"]), template, str(temperature), question.id, sample),
            max_new_tokens=BUDGET,
            temperature=temperature,
        )
        for number, question in enumerate(questions)
        for sample in range(SAMPLES)
    ]
    found = []
    for completion in generate_all(engine, requests):
        question = questions[completion.request_id // SAMPLES]
        found.append(
            Response(
                benchmark="arithmetic",
                question_id=question.id,
                problem=question.text,
                answers=question.answers,
                sample=completion.request_id % SAMPLES,
                response=completion.text,
                tokens=len(completion),
                finish_reason=completion.finish_reason,
                grade=grade(completion.text, question.answers, "boxed"),
                lenient=grade(completion.text, question.answers, "last-number"),
                model=str(factors["kind"]),
                template=template,
                temperature=temperature,
            )
        )
    return found
