"""The inputs of a run and their hashes, as stored in its manifest. A resumed run must find the same inputs."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerolab.config import RunConfig, TextRunConfig
from zerolab.datatypes import Question
from zerolab.models.fingerprint import WHOLE, describing_files, local_folder, weight_digests
from zerolab.models.gguf_file import ORIGIN_FILE


@dataclass(frozen=True)
class Input:
    """An input of a run, with its hashes by file or source."""

    digests: Mapping[str, str]
    how: str  # description of the hash
    place: str  # path, hub id or name
    needed: bool = True  # a resumed run reads it again, so it must not have changed

    def record(self) -> dict[str, Any]:
        """The entry of the manifest."""
        return {"place": self.place, "how": self.how, "digests": dict(self.digests)}


def model_inputs(path: str, config: RunConfig | TextRunConfig) -> dict[str, Input]:
    """Config, tokenizer and weights of the initial model, by name of the input.

    A resumed run needs the weights only if it has adapters or a KL to the initial model.
    """
    folder = local_folder(path)
    if folder is None:
        return {}
    place = path + describe_origin(folder)
    reads_again = isinstance(config, RunConfig) and (config.objective.kl > 0 or config.lora is not None)
    weights, how = weight_digests(folder)
    return {
        "config and tokenizer of the model": Input(describing_files(folder), WHOLE, place),
        "weights of the model": Input(weights, how, place, needed=reads_again),
    }


def describe_origin(folder: Path) -> str:
    """GGUF file and quantisation from which a model was converted, in parentheses; "" for other models."""
    file = folder / ORIGIN_FILE
    if not file.is_file():
        return ""
    origin = json.loads(file.read_text(encoding="utf-8"))
    return f" (dequantised from {origin['file']}: {origin['quantisation']})"


def question_input(questions: Iterable[Question], place: str) -> Input:
    """Make the input of these questions, with one hash of ids, texts and answers."""
    digest = hashlib.sha256()
    for question in questions:
        digest.update(json.dumps([question.id, question.text, list(question.answers)]).encode())
    return Input({"all": digest.hexdigest()}, "SHA-256 of ids, texts and answers", place)


def changed_inputs(stored: Any, inputs: Mapping[str, Input]) -> tuple[list[str], list[str]]:
    """(changes that forbid a resume, changes that do not matter), each in a few words.

    `stored` is the entry of the manifest. An input without an entry is not compared.
    """
    refused: list[str] = []
    harmless: list[str] = []
    for name, found in inputs.items():
        old = stored.get(name) if isinstance(stored, dict) else None
        digests = old.get("digests") if isinstance(old, dict) else None
        if not isinstance(old, dict) or not isinstance(digests, dict):
            continue
        differing = sorted(k for k in {*digests, *found.digests} if digests.get(k) != found.digests.get(k))
        if not differing and old.get("how") != found.how:
            differing = ["hashed in another way"]
        if differing:
            change = f"{name} ({found.place}: {', '.join(differing[:3])})"
            (refused if found.needed else harmless).append(change)
    return refused, harmless
