"""Pretraining on short documents against transformers' Trainer: reading, forward and backward pass, AdamW step.

Random Qwen2-shaped models, short documents (question, line feed, worked solution, end), context 512, fp32, loss on
every token. Same model, documents, optimizer, size of a step and clipping on both sides. zerolab reads and tokenizes
within the measured time, the Trainer gets token ids that are ready. `rows`: documents of like length side by side,
which `learner.packing = "auto"` does on a CPU; `packed`: several in a row of 512, borders closed. The Trainer pads each
micro-batch to its longest document: in random order, and with its own remedy, `group_by_length`; each with the
micro-batch that is fastest for it among --micro-batches.

The sides take steps in turn. The measure is CPU-seconds of one thread for each real token.

    python benchmarks/pretraining.py TEXTS.jsonl [--size 1M] [--repeats 3] [--json FILE]
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

import models
import record
from zerolab.build import make_encode
from zerolab.config import CorporaConfig, LearnerConfig, TextRunConfig
from zerolab.data.texts import first_texts, open_corpus
from zerolab.document_streams import find_corpora, make_mix, make_tokens
from zerolab.learner.learner import Learner
from zerolab.models.tiny import train_bpe
from zerolab.rl.objective import PRESETS
from zerolab.toml import parse
from zerolab.worlds.base_model import as_batch

CONTEXT, TEXTS, LEARNING_RATE, AIM = 512, 2000, 1e-4, 1.5
DOCUMENTS = {"1M": 64, "15M": 16}  # of a step
SIDES = {"rows": 0, "packed": CONTEXT}
SAMPLINGS = ("random", "group_by_length")


class Step(NamedTuple):
    seconds: float
    tokens: int
    padding: float


@dataclass(frozen=True)
class Case:
    size: str
    texts: str
    repeats: int
    micro_batches: tuple[int, ...]

    @property
    def documents(self) -> int:
        return DOCUMENTS[self.size]


class Zerolab:
    """The production pieces, put together as continual.py does, around a model of ours."""

    def __init__(self, case: Case, tokenizer: Any, tokens_per_step: int, packing: int):
        raw = {"steps": 1, "tokens_per_step": tokens_per_step, "model": {"path": "unused"}}
        corpora = {"path": case.texts, "shuffle_buffer": TEXTS}
        config = parse(TextRunConfig, {**raw, "corpora": corpora}, "benchmark")
        self.mix = make_mix(config, find_corpora(config), tokenizer, make_encode(tokenizer), CONTEXT)
        self.tokens_per_step = tokens_per_step
        settings = LearnerConfig(lr=LEARNING_RATE, old_logprobs="detach", share_prompts="off")
        self.learner = Learner(models.make_model(case.size), settings, budget=CONTEXT, total_steps=10**6)
        self.learner.policy.enable_packing(packing)

    def step(self) -> Step:
        start = time.process_time()
        documents = self.mix.step(self.tokens_per_step)
        stats = self.learner.forward_backward(as_batch(documents), PRESETS["cross_entropy"])
        self.learner.optim_step()
        return Step(time.process_time() - start, sum(len(ids) for ids, _ in documents), stats["padding"])


def run_trainer(
    case: Case, rows: Sequence[list[int]], sampling: str, micro_batch: int, steps: int, between: Callable[[], None]
) -> list[Step]:
    """Each optimizer step of a Trainer; `between` runs after each of them, outside the clock."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    model = models.make_model(case.size)
    forwarded = {"real": 0, "padded": 0}

    def count(_module: Any, _arguments: Any, words: dict[str, Any]) -> None:
        forwarded["real"] += int(words["attention_mask"].sum())
        forwarded["padded"] += words["attention_mask"].numel()

    class Timer(TrainerCallback):
        found: list[Step]

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.found, self.start = [], time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds = time.process_time() - self.start
            padding = 1 - forwarded["real"] / forwarded["padded"]
            self.found.append(Step(seconds, forwarded["real"], padding))
            forwarded.update(real=0, padded=0)
            between()
            self.start = time.process_time()

    model.register_forward_pre_hook(count, with_kwargs=True)
    timer, data = Timer(), [{"input_ids": row, "length": len(row)} for row in rows]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = TrainingArguments(
            output_dir=folder,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            adam_beta2=0.95,
            weight_decay=0.0,
            max_grad_norm=1.0,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=case.documents // micro_batch,
            max_steps=steps,
            train_sampling_strategy=sampling,
            length_column_name="length",
            remove_unused_columns=False,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        Trainer(model=model, args=arguments, train_dataset=data, data_collator=padded, callbacks=[timer]).train()
    return timer.found


def padded(batch: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Right-padded to the longest document, loss on what is no padding, as DataCollatorForLanguageModeling does."""
    ids = torch.zeros((len(batch), max(row["length"] for row in batch)), dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, row in enumerate(batch):
        ids[i, : row["length"]] = labels[i, : row["length"]] = torch.tensor(row["input_ids"])
        mask[i, : row["length"]] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def measure(case: Case) -> dict[str, Any]:
    """Both of ours beside each of theirs, the first step of each left out."""
    vocabulary = models.make_model(case.size).config.vocab_size
    source = parse(CorporaConfig, {"path": case.texts}, case.texts).sources[0]
    texts = list(first_texts(open_corpus(source, None), TEXTS))
    tokenizer = train_bpe((t.prompt + t.rest for t in texts), vocabulary)
    tokens = make_tokens(tokenizer, make_encode(tokenizer), CONTEXT, answer_only=False)
    rows = [ids.tolist() for text in texts for ids, _ in tokens.pieces(text)]
    mean = sum(map(len, rows)) / len(rows)
    ours = {name: Zerolab(case, tokenizer, round(mean * case.documents), width) for name, width in SIDES.items()}
    found: dict[str, Any] = {"size": case.size, "documents": case.documents, "mean_tokens": mean}
    steps: dict[str, list[Step]] = {name: [] for name in SIDES}
    for sampling in SAMPLINGS:
        micro_batch = fastest(case, rows, sampling)

        def between() -> None:
            for name, side in ours.items():
                steps[name].append(side.step())

        theirs = run_trainer(case, rows, sampling, micro_batch, case.repeats + 1, between)
        mine = {name: steps[name][-case.repeats :] for name in SIDES}
        found[sampling] = {
            "micro_batch": micro_batch,
            "us_per_token": per_token(theirs[1:]),
            "padding": statistics.mean(step.padding for step in theirs[1:]),
            "ratio": {name: per_token(theirs[1:]) / per_token(mine[name]) for name in SIDES},
        }
        found |= {
            name: {"us_per_token": per_token(part), "padding": statistics.mean(step.padding for step in part)}
            for name, part in mine.items()
        }
    return found


def fastest(case: Case, rows: Sequence[list[int]], sampling: str) -> int:
    """The micro-batch with which the Trainer needs least time for a token."""
    if len(case.micro_batches) == 1:
        return case.micro_batches[0]
    times = {m: per_token(run_trainer(case, rows, sampling, m, 2, lambda: None)[1:]) for m in case.micro_batches}
    return min(times, key=times.__getitem__)


def per_token(steps: Sequence[Step]) -> float:
    """CPU-microseconds for a real token."""
    return 1e6 * sum(step.seconds for step in steps) / sum(step.tokens for step in steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", help="JSON Lines with problem and solution")
    parser.add_argument("--size", choices=DOCUMENTS, action="append", help="default: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--micro-batches", default="8,16,32", help="that the Trainer may choose from")
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    record.begin_with(1)
    micro_batches = tuple(map(int, words.micro_batches.split(",")))
    results = []
    for size in words.size or DOCUMENTS:
        found = measure(Case(size, words.texts, words.repeats, micro_batches))
        results.append(found)
        for sampling in SAMPLINGS:
            ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in found[sampling]["ratio"].items())
            print(f"{size}, Trainer {sampling} (micro-batch {found[sampling]['micro_batch']}): {ratios}", flush=True)
        short = found["random"]["ratio"]["rows"]
        print(f"{size}: {short:.2f} x the padded Trainer, aim {AIM}: {'met' if short >= AIM else 'missed'}")
    print(record.write("pretraining", results, words.json))


if __name__ == "__main__":
    main()
