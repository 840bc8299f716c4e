"""One whole RL step against TRL's GRPOTrainer: sample, reward, learn, and the new weights back to the sampler.

Random Qwen2-shaped models; 32 questions x 8 samples, prompts of 32 to 64 tokens, up to 128 new tokens at temperature 1,
Dr. GRPO, one AdamW step in fp32. Model, prompts, budget, objective, optimizer and rewards are the same on both sides;
rewards are a hash of the response's text, except that a quarter of the questions are always right and a quarter always
wrong (`usual`), or none (`mixed`). TRL runs without its defaults that would slow it here (bf16, gradient checkpointing)
and with the micro-batch that is fastest for it; with one update per rollout it needs no second forward either.
`--updates 2` asks for two optimizer steps on one rollout, where it does.

Steps are timed in turn, so that a busy machine slows both alike: CPU-seconds of one thread, and seconds of two.

    python benchmarks/rl_step.py [--size 1M] [--repeats 5] [--json FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import models
import record
from zerolab.config import LearnerConfig, RewardConfig, RolloutConfig
from zerolab.data.questions import Pool, QuestionStream
from zerolab.data.templates import Template
from zerolab.datatypes import Grade, Question
from zerolab.learner.learner import Learner
from zerolab.learner.prepare import prepare
from zerolab.rl.batch import Batch
from zerolab.rl.objective import PRESETS
from zerolab.rl.reward import make_group
from zerolab.rollout.engine import SamplingParameters
from zerolab.rollout.stream import Stream
from zerolab.rollout.torch_engine import TorchEngine

SIZES = ("1M", "15M")
AIMS = {"1M": 1.5, "15M": 1.3}
REPEATS = {"1M": 3, "15M": 1}
TRL_MICRO_BATCHES = (16, 32, 128)
LEARNING_RATE = 1e-6
ALWAYS = {0: 1.0, 1: 0.0}  # by question number modulo 4, where rewards are `usual`

Clock = Callable[[], float]


@dataclass(frozen=True)
class Case:
    size: str
    rewards: str  # usual or mixed
    updates: int
    repeats: int


def reward(text: str, number: int, kind: str) -> float:
    """A coin that the text decides; the same on both sides."""
    coin = float(zlib.crc32(text.encode()) % 2)
    return ALWAYS.get(number % 4, coin) if kind == "usual" else coin


# --- zerolab ---------------------------------------------------------------------------------------------------------


class Zerolab:
    """The production pieces, put together as build.py does, around a model of ours."""

    def __init__(self, case: Case, **settings: Any):
        self.case = case
        self.model, self.objective = models.make_model(case.size), PRESETS["dr_grpo"]
        tokenizer = models.make_tokenizer(self.model.config.vocab_size)
        texts = [" ".join(f"t{i}" for i in ids) for ids in models.make_prompts(self.model.config.vocab_size)]
        questions = tuple(Question(str(n), text, ("1",)) for n, text in enumerate(texts))
        rollout = RolloutConfig(
            questions_per_step=models.QUESTIONS,
            samples_per_question=models.SAMPLES,
            max_new_tokens=models.NEW_TOKENS,
        )
        self.stream = Stream(
            TorchEngine(self.model, tokenizer),
            lambda text: tokenizer(text)["input_ids"],
            QuestionStream((Pool("q", 1.0, questions),), seed=0, order="sequential"),
            Template("plain", "{question}"),
            self.grade,
            rollout,
            partial(make_group, config=RewardConfig(truncation="keep"), budget=models.NEW_TOKENS),
            SamplingParameters(models.SAMPLES, models.NEW_TOKENS, 1.0, (), seed=0),
        )
        config = LearnerConfig(lr=LEARNING_RATE, updates_per_rollout=case.updates, **settings)
        self.learner = Learner(self.model, config, budget=models.NEW_TOKENS, total_steps=10**6)

    def grade(self, text: str, question: Question) -> Grade:
        right = bool(reward(text, int(question.id), self.case.rewards))
        return Grade(right, True, "correct" if right else "wrong", None, 0.0)

    def step(self, clock: Clock) -> dict[str, float]:
        """Seconds of sampling and of the whole step, and what was sampled."""
        times = [clock()]
        rollout = self.stream.rollout()
        times.append(clock())
        batch = prepare(rollout.groups, self.learner, self.objective).batch
        seen = []
        for part in batch.optimizer_steps(self.case.updates, seed=0):
            seen.append(self.learner.forward_backward(part, self.objective) | self.learner.optim_step())
        self.stream.publish(self.learner.version, self.learner.weights())
        times.append(clock())
        return {
            "sample": times[1] - times[0],
            "learn": times[2] - times[1],
            "step": times[2] - times[0],
            "length": float(batch.response_len_N.mean()),
            "coverage": seen[0]["coverage"],
            "padding": seen[0]["padding"],
            "grad_norm": seen[0]["grad_norm"],
        }


# --- TRL -------------------------------------------------------------------------------------------------------------


def run_trl(case: Case, micro_batch: int, steps: int, clock: Clock, between: Callable[[], None]) -> list[dict]:
    """Seconds of each optimizer step of a GRPOTrainer; `between` runs after each of them, outside the clock."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    import trl
    from datasets import Dataset
    from transformers import TrainerCallback

    model = models.make_model(case.size)
    tokenizer = models.make_tokenizer(model.config.vocab_size)
    tokenizer.padding_side = "left"
    texts = [" ".join(f"t{i}" for i in ids) for ids in models.make_prompts(model.config.vocab_size)]
    sampled = {"seconds": 0.0, "tokens": 0.0}
    generate = model.generate

    def timed_generate(*args: Any, **kwargs: Any) -> Any:
        start = clock()
        out = generate(*args, **kwargs)
        sampled["seconds"] += clock() - start
        return out

    def rewarded(completions: list[str], number: list[int], completion_ids: list, **_: Any) -> list[float]:
        sampled["tokens"] += sum(map(len, completion_ids))
        return [reward(text, n, case.rewards) for text, n in zip(completions, number, strict=True)]

    class Timer(TrainerCallback):
        rows: list[dict]

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.rows, self.start = [], clock()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.updates = getattr(self, "updates", 0) + 1
            if self.updates % case.updates:
                return
            seconds = clock() - self.start
            self.rows.append(
                {
                    "step": seconds,
                    "sample": sampled["seconds"],
                    "learn": seconds - sampled["seconds"],
                    "length": sampled["tokens"] / models.QUESTIONS / models.SAMPLES,
                }
            )
            sampled.update(seconds=0.0, tokens=0.0)
            between()
            self.start = clock()

    model.generate = timed_generate
    timer = Timer()
    responses = models.QUESTIONS * models.SAMPLES
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = trl.GRPOConfig(
            output_dir=folder,
            loss_type="dr_grpo",
            scale_rewards="none",
            beta=0.0,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            adam_beta2=0.95,
            weight_decay=0.0,
            max_grad_norm=1.0,
            num_generations=models.SAMPLES,
            max_completion_length=models.NEW_TOKENS,
            temperature=1.0,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=max(1, responses // micro_batch // case.updates),
            steps_per_generation=max(1, responses // micro_batch),
            max_steps=steps * case.updates,
            shuffle_dataset=False,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = trl.GRPOTrainer(
            model=model,
            reward_funcs=rewarded,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": texts, "number": list(range(len(texts)))}),
            processing_class=tokenizer,
            callbacks=[timer],
        )
        trainer.train()
    return timer.rows


# --- measuring -------------------------------------------------------------------------------------------------------


def shares(case: Case, clock: Clock) -> dict[str, Any]:
    """What each choice of the learner brings: seconds of learning from one rollout with it and without it."""
    ours = Zerolab(case)
    ours.stream.rollout()
    start = clock()
    rollout = ours.stream.rollout()
    sample = clock() - start
    batch = prepare(rollout.groups, ours.learner, ours.objective).batch
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(case.repeats + 1):
        for name, without in VARIANTS.items():
            start = clock()
            learn(ours.learner, batch, without)
            seconds[name].append(clock() - start)
    learning = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    return {
        "sample": sample,
        "learn": learning,
        "step_factor": {name: (sample + time) / (sample + learning["as shipped"]) for name, time in learning.items()},
        "learn_factor": {name: time / learning["as shipped"] for name, time in learning.items()},
    }


CHOICES = frozenset({"no padding", "shared prompts", "skipping", "no second forward"})
VARIANTS = {
    "as shipped": frozenset(),
    **{f"without {c}": frozenset({c}) for c in sorted(CHOICES)},
    "without all": CHOICES,
}


def learn(learner: Learner, batch: Batch, without: frozenset[str]) -> None:
    """One update on a rollout, without some of the choices."""
    learner.policy.share_prompts = "off" if "shared prompts" in without else "on"
    if "skipping" in without:  # too small to count, but not zero
        batch = replace(batch, advantage_N=np.where(batch.advantage_N == 0, 1e-30, batch.advantage_N))
    with ExitStack() as stack:
        if "no padding" in without:
            stack.enter_context(mock.patch("zerolab.rl.batch.cut", in_order))
            stack.enter_context(mock.patch("zerolab.rl.batch.cut", in_order))
        if "no second forward" in without:
            batch = replace(batch, old_logprobs_T=learner.logprobs_of(batch))
        learner.forward_backward(batch, PRESETS["dr_grpo"])
        learner.optim_step()


def in_order(length_N: np.ndarray, rows: np.ndarray, token_budget: int) -> list[np.ndarray]:
    """Rows as they come, each piece padded to its longest: what is done where lengths are not looked at."""
    size = max(1, token_budget // int(length_N.max()))
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def medians(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def compare(case: Case, micro_batch: int, clock: Clock) -> dict[str, Any]:
    """Both sides in turn, the first step of each left out."""
    ours = Zerolab(case)
    mine: list[dict[str, float]] = []
    theirs = run_trl(case, micro_batch, case.repeats + 1, clock, lambda: mine.append(ours.step(clock)))
    mine, theirs = mine[1:], theirs[1:]
    ratios = [b["step"] / a["step"] for a, b in zip(mine, theirs, strict=True)]
    return {
        "zerolab": medians(mine),
        "trl": medians(theirs),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
    }


def fastest_for_trl(case: Case, clock: Clock) -> int:
    """The micro-batch with which TRL learns in least time."""
    seconds = {m: run_trl(case, m, 1, clock, lambda: None)[-1]["learn"] for m in TRL_MICRO_BATCHES}
    return min(seconds, key=seconds.__getitem__)


def child(case: Case, threads: int, what: str) -> dict[str, Any]:
    clock = time.process_time if threads == 1 else time.perf_counter
    torch.set_num_threads(threads)
    if what == "shares":
        return shares(case, clock)
    if what == "micro-batch":
        return {"trl_micro_batch": fastest_for_trl(case, clock)}
    micro_batch = int(what)
    return {"threads": threads, "trl_micro_batch": micro_batch, **compare(case, micro_batch, clock)}


def in_process(case: Case, threads: int, what: str) -> dict[str, Any]:
    """`child` in a process that begins with the right number of threads."""
    words = [case.size, case.rewards, str(case.updates), str(case.repeats), str(threads), what]
    environment = {**os.environ, **record.environment(threads)}
    command = [sys.executable, __file__, "--child", *words]
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def row(result: dict[str, Any]) -> str:
    ours, theirs = result["zerolab"], result["trl"]
    low, high = result["ratio_range"]
    what = "CPU-s, 1 thread" if result["threads"] == 1 else f"s, {result['threads']} threads"
    return (
        f"{result['size']:>4} {result['rewards']:>6} {result['updates']:>7} {what:>16} {ours['step']:>8.2f} "
        f"{theirs['step']:>8.2f} {result['ratio']:>6.2f} ({low:.2f} to {high:.2f})   "
        f"sample {ours['sample']:.2f} / {theirs['sample']:.2f}, learn {ours['learn']:.2f} / {theirs['learn']:.2f}; "
        f"lengths {ours['length']:.0f} / {theirs['length']:.0f}; coverage {ours['coverage']:.0%}, "
        f"padding {ours['padding']:.0%}; micro-batch of TRL {result['trl_micro_batch']}"
    )


def shares_text(found: dict[str, Any]) -> str:
    """What the whole step takes without each choice, relative to the step as shipped."""
    factors = (f"{name} x {factor:.2f}" for name, factor in found["step_factor"].items() if name != "as shipped")
    return f"{found['size']:>4} whole step {', '.join(factors)}"


CASES = (("usual", 1, 1), ("mixed", 1, 1), ("usual", 2, 1), ("usual", 1, 2))  # rewards, updates, threads
QUICK = CASES[:2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, help="one size only; the record keeps what it has of others")
    parser.add_argument("--repeats", type=int, help=f"timed steps of each side (default: {REPEATS})")
    parser.add_argument("--json", type=Path, help="write the figures here, not into benchmarks/results")
    parser.add_argument("--micro-batch", type=int, help="of TRL (default: the fastest for it, which is tried out)")
    parser.add_argument("--quick", action="store_true", help="1 update, 1 thread, and not what each choice brings")
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        size, rewards, updates, repeats, threads, what = args.child
        print(json.dumps(child(Case(size, rewards, int(updates), int(repeats)), int(threads), what)))
        return
    results, brought = others(args.size)
    print(f"{'size':>4} {'reward':>6} {'updates':>7} {'clock':>16} {'zerolab':>8} {'TRL':>8} {'ratio':>6}")
    sizes = [args.size] if args.size else list(SIZES)
    for size in sizes:
        repeats = args.repeats or REPEATS[size]
        micro_batch = str(
            args.micro_batch or in_process(Case(size, "mixed", 1, 1), 1, "micro-batch")["trl_micro_batch"]
        )
        for rewards, updates, threads in QUICK if args.quick else CASES:
            case = Case(size, rewards, updates, repeats)
            found = in_process(case, threads, micro_batch)
            results.append({"size": size, "rewards": rewards, "updates": updates, "aim": AIMS[size], **found})
            print(row(results[-1]), flush=True)
    for size in [] if args.quick else sizes:
        case = Case(size, "usual", 1, args.repeats or REPEATS[size])
        brought.append({"size": size, **in_process(case, 1, "shares")})
        print(shares_text(brought[-1]), flush=True)
    record.write("rl_step", {"steps": results, "shares": brought}, args.json)


def others(size: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the record holds of other sizes, which a run of one size leaves as it is."""
    file = record.RESULTS / "rl_step.json"
    if size is None or not file.is_file():
        return [], []
    found = json.loads(file.read_text(encoding="utf-8"))["results"]
    return tuple([r for r in found[name] if r["size"] != size] for name in ("steps", "shares"))  # type: ignore[return-value]


if __name__ == "__main__":
    main()
