"""Does a base model show what its recipe asks for before RL starts? Measured and reported, never trained around."""

import re
from pathlib import Path
from typing import Any

import torch

from zerolab.config import PretrainConfig
from zerolab.grading.grader import grade
from zerolab.models.hf import load_model, load_tokenizer
from zerolab.pretrain.corpus import Corpus
from zerolab.rollout.engine import Request, generate_all
from zerolab.rollout.sampling import request_seed
from zerolab.rollout.torch_engine import TorchEngine

MARKER = re.compile(r"\b(un)?sure\b")


def measure(config: PretrainConfig, folder: Path, corpus: Corpus) -> dict[str, Any]:
    """Accuracy at temperature 1, marker calibration, lengths, truncation; and which bounds of the gate were missed."""
    gate = config.gate
    tokenizer = load_tokenizer(folder)
    engine = TorchEngine(load_model(folder), tokenizer, dtype=torch.float32)
    questions = corpus.questions
    requests = [
        Request(
            id=number * gate.responses + sample,
            prompt_ids=tuple(tokenizer(question.text)["input_ids"]),
            seed=request_seed(config.seed, "gate", number, sample),
            max_new_tokens=gate.max_new_tokens,
        )
        for number, question in enumerate(questions)
        for sample in range(gate.responses)
    ]
    completions = generate_all(engine, requests)
    asked = [questions[c.request_id // gate.responses] for c in completions]
    verdicts = [
        grade(c.text, question.answers, "boxed", verifier=question.verifier).correct
        for c, question in zip(completions, asked, strict=True)
    ]
    markers = [(MARKER.search(c.text), correct) for c, correct in zip(completions, verdicts, strict=True)]
    agreed = [(match.group(1) is None) == correct for match, correct in markers if match]
    measured = {
        "responses": len(completions),
        "accuracy": sum(verdicts) / len(verdicts),
        "marker_accuracy": sum(agreed) / len(agreed) if agreed else None,
        "mean_length": sum(len(c) for c in completions) / len(completions),
        "truncated": sum(c.truncated for c in completions) / len(completions),
    }
    return {**measured, "missed": missed(config, measured)}


def missed(config: PretrainConfig, measured: dict[str, Any]) -> list[str]:
    """One sentence for each bound of the gate that was not met."""
    sentences = []
    for name in ("accuracy", "marker_accuracy"):
        bounds, value = getattr(config.gate, name), measured[name]
        if bounds and not (value is not None and bounds[0] <= value <= bounds[1]):
            shown = "not measurable" if value is None else f"{value:.3f}"
            sentences.append(f"{name} is {shown}, outside {bounds[0]} .. {bounds[1]}")
    return sentences
