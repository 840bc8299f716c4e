"""TRL's GRPOTrainer, driven through its public arguments: what coefficient does one optimizer step give each token?

Runs in TRL's own interpreter (see worker.py) and imports nothing of zerolab. The policy is a Qwen2 without layers: a
table of bigram logits, log pi(y | x) = log_softmax(T[x])_y with T = 0. Every pair (x, y) of neighbours occurs once in a
step, so the gradient the trainer hands to its optimizer gives each token's coefficient back exactly:
dT[x, y] - dT[x, padding] = coefficient, since padding never follows. V grows with the root of the number of tokens.
Responses come in through `rollout_func`, rewards through `reward_funcs`, and the gradient out through a callback;
advantages, masks, normalisers, accumulation and DDP are TRL's.
"""

import difflib
import itertools
import math
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, TrainerCallback

PAD, EOS = 0, 1


def version(options: dict[str, Any]) -> str:
    """Raises ValueError for keys, those of a config file, that no part of `trl grpo` reads."""
    check(options.get("keys", []))
    return f"trl {trl.__version__}"


def check(keys: list[str]) -> None:
    if not keys:
        return
    from trl.scripts.grpo import GRPOScriptArguments

    kinds = (trl.GRPOConfig, trl.ModelConfig, trl.DatasetMixtureConfig, GRPOScriptArguments)
    known = {field.name for kind in kinds for field in fields(kind)} | {"env"}
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ValueError(f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else ""))


def distinct_pairs(words: int) -> Iterator[int]:
    """words^2 numbers below `words` in which no pair of neighbours comes twice (a de Bruijn sequence of order 2)."""
    for first in range(words):
        yield first
        for second in range(first + 1, words):
            yield from (first, second)


class Script:
    """The responses of a case as token ids in which no pair of neighbours occurs twice.

    Every response has a prompt of one token and a last word (before EOS) of its own; the words between are shared.
    """

    def __init__(self, case: dict[str, Any]):
        self.case = case
        count = len(case["lengths"])
        self.prompts = [[2 + i] for i in range(count)]
        last = [2 + count + i for i in range(count)]
        bodies = [n if cut else n - 1 for n, cut in zip(case["lengths"], case["truncated"], strict=True)]
        words = math.isqrt(sum(bodies)) + 1
        first_word = 2 + 2 * count
        walk = (first_word + word for word in distinct_pairs(words))
        self.responses: list[list[int]] = []
        for i, body in enumerate(bodies):
            inner = [*itertools.islice(walk, max(0, body - 1)), *([last[i]] if body else [])]
            self.responses.append([*inner, *([] if case["truncated"][i] else [EOS])])
        self.vocabulary = first_word + words

    def rollout(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        """The next responses of each question that is asked, `group_size` of them per question."""
        size, seen, picks = self.case["group_size"], dict[str, int](), []
        for prompt in prompts:
            picks.append(int(prompt[1:]) * size + seen.setdefault(prompt, 0))
            seen[prompt] += 1
        assert all(number == size for number in seen.values()), "a rank got a part of a group"
        uniform = -math.log(self.vocabulary)
        mismatch = self.case["mismatch"]
        return {
            "prompt_ids": [self.prompts[i] for i in picks],
            "completion_ids": [self.responses[i] for i in picks],
            "logprobs": [
                [uniform - shift for shift in (mismatch[i] if mismatch else [0.0] * len(self.responses[i]))]
                for i in picks
            ],
            "row": picks,
        }

    def reward(self, row: list[int], **_: Any) -> list[float | None]:
        return [self.case["rewards"][i] for i in row]

    def coefficients(self, gradient_VX: torch.Tensor, gain: float) -> list[list[float]]:
        """-dLoss/dlogprob of every token, from the gradient of the head."""
        found = []
        for prompt, response in zip(self.prompts, self.responses, strict=True):
            inputs = torch.tensor([*prompt, *response[:-1]])
            values = gradient_VX[PAD, inputs] - gradient_VX[torch.tensor(response), inputs]
            found.append((values / gain).tolist())
        return found

    def model(self) -> tuple[Qwen2ForCausalLM, float]:
        size = self.vocabulary
        config = Qwen2Config(
            vocab_size=size,
            hidden_size=size,
            intermediate_size=8,
            num_hidden_layers=0,
            num_attention_heads=1,
            num_key_value_heads=1,
            tie_word_embeddings=False,
            pad_token_id=PAD,
            eos_token_id=EOS,
            max_position_embeddings=max(4096, self.case["budget"] + 2),
        )
        model = Qwen2ForCausalLM(config)
        with torch.no_grad():
            model.model.embed_tokens.weight.copy_(torch.eye(size))
            model.lm_head.weight.zero_()
        model.model.requires_grad_(False)
        return model, float(model.model.norm(torch.eye(size)[:1]).max().detach())

    def tokenizer(self) -> PreTrainedTokenizerFast:
        words = {f"t{i}": i for i in range(self.vocabulary)}
        return PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="t0")), pad_token="t0", eos_token="t1"
        )


class Reader(TrainerCallback):
    gradient: torch.Tensor

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        head = getattr(model, "module", model).lm_head
        self.gradient = head.weight.grad.detach().double().cpu().clone()


def measure(options: dict[str, Any], case: dict[str, Any]) -> list[list[float]]:
    """Coefficients of every token, by response, of one optimizer step under these options of GRPOConfig."""
    script, reader = Script(case), Reader()
    model, gain = script.model()
    count, ranks = len(case["lengths"]), int(os.environ.get("WORLD_SIZE", "1"))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = trl.GRPOConfig(
            **{key: value for key, value in options.items() if key != "keys"},
            output_dir=folder,
            per_device_train_batch_size=count // case["micro_batches"] // ranks,
            gradient_accumulation_steps=case["micro_batches"],
            num_generations=case["group_size"],
            max_completion_length=case["budget"],
            max_steps=1,
            max_grad_norm=0.0,
            seed=1 + case["order"],
            shuffle_dataset=False,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
        )
        trainer = trl.GRPOTrainer(
            model=model,
            reward_funcs=script.reward,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": [f"q{i}" for i in range(count // case["group_size"])]}),
            processing_class=script.tokenizer(),
            rollout_func=script.rollout,
            callbacks=[reader],
        )
        if case["mismatch"]:  # TRL's correction without vLLM, whose copy of the weights counts as up to date
            trainer.use_vllm, trainer._last_loaded_step = True, trainer.state.global_step
        trainer.train()
    return script.coefficients(reader.gradient, gain)
