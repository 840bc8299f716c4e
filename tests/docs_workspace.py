"""The commands of the documents, and a folder in which the names that they use stand for something small."""

import importlib.util
import json
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from command import RECIPE
from report.run_folders import metric_row, response, write_run
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.cli import app

# What a page may say that a command needs. Commands of minutes run in `make slow`; the others cannot run here.
NEEDS = {
    "minutes": "up to ten minutes of one core",
    "hours": "longer",
    "network": "the hub",
    "GPU": "a CUDA device",
    "server": "a served model",
    "vLLM": "the extra vllm",
    "Ray": "the extra ray, or a cluster",
    "TRL": "the extra audit, or another library",
    "values": "a form: its capitals stand for values of the reader",
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`(zerolab [^`]+)`(?:<!-- needs: ([\w, ]+) -->)?")
NEEDS_COMMENT = re.compile(r"\[needs: ([\w, ]+)\]")


@dataclass(frozen=True)
class Command:
    text: str
    words: tuple[str, ...]
    needs: tuple[str, ...]


def commands_of(page: str) -> Iterator[Command]:
    """Every `zerolab VERB ...` of a page: lines of blocks, and spans of text that say more than a verb."""
    lines = [line for _, block in FENCE.findall(page) for line in block.replace("\\\n", " ").splitlines()]
    rest = FENCE.sub("", page)
    lines += [line for line in rest.splitlines() if line.startswith("    ")]
    for line in lines:
        if line.strip().startswith(("zerolab ", ".venv/bin/zerolab ")):
            found = NEEDS_COMMENT.search(line)
            yield parse(re.split(r"\s{2,}(?!--)", line.strip())[0], found[1] if found else "")
    for text, needs in SPAN.findall(rest):
        command = parse(" ".join(text.split()), needs)
        if len(command.words) > 1:  # a verb alone is spoken of
            yield command


def help_examples(needs: Mapping[str, str]) -> Iterator[Command]:
    """The example in the help of every verb, in the order of the command line; `needs` by verb."""
    for verb, command in leaves(typer.main.get_command(app)):
        text = (command.epilog or "").rpartition("\n")[2].strip()
        yield parse(text, needs.get(verb, ""))


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every verb of the command line with its command."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word, inner in command.commands.items():
        yield from leaves(inner, f"{name} {word}".strip())


def parse(text: str, needs: str) -> Command:
    words = shlex.split(text, comments=True)[1:]
    return Command("zerolab " + shlex.join(words), tuple(words), tuple(re.findall(r"\w+", needs)))


LOSS = '''"""A loss without a bias: the sum over tokens by a constant."""


def loss(logprobs_BL, old_logprobs_BL, advantages_B, mask_BL, budget, step_responses):
    ratio_BL = (logprobs_BL - old_logprobs_BL).exp()
    return -(ratio_BL * advantages_B[:, None] * mask_BL).sum() / (budget * step_responses)
'''
TEXTS = """name = "math-text"
steps = 2
tokens_per_step = 128
context = 64
out = "runs/math-text-seed0"
[model]
path = "MODEL"
[corpora]
path = "pages.jsonl"
[learner]
lr = 1e-4
"""
BENCHMARKS = ("aime24", "amc", "math500", "minerva", "olympiadbench", "gsm8k_test")


def make_workspace(folder: Path) -> None:
    """Fill a folder with what the pages take for granted: models, recipes, questions, responses, runs, a loss."""
    from zerolab.models.hf import export_model

    for name in ("MODEL", "folder/or/hub-id", "base"):
        export_model(tiny_model("qwen2", max_position_embeddings=512), tiny_tokenizer(), folder / name)
    for name in ("mine.toml", "recipe.toml", "RECIPE"):
        text = RECIPE.format(steps=1, model="MODEL")
        (folder / name).write_text(text.replace('name = "test"', f'name = "{Path(name).stem}"'))
    (folder / "mine-text.toml").write_text(TEXTS.replace("math-text", "mine-text"))
    (folder / "math-text.toml").write_text(TEXTS)
    (folder / "pages.jsonl").write_text("".join(json.dumps({"text": f"page {i} " * 40}) + "\n" for i in range(30)))
    for name in ("file", "model"):
        write_small_gguf(folder / f"{name}.gguf")
    write_questions(folder)
    write_responses(folder)
    for name in ("grpo-seed0", "grpo-seed1", "dr-grpo-seed0", "dr-grpo-seed1"):
        arm, seed = name.split("-seed")
        rows = [metric_row(step, 10.0 + step) for step in (1, 2, 3)]
        write_run(folder / "runs/demo" / name, rows, [response(1, "so 2")], f"laptop/{arm}", [f"seed={seed}"])
    write_checkpoint(folder / "runs/demo/grpo-seed0", 3)
    shutil.copytree(Path(__file__).parent.parent / "results", folder / "results")
    (folder / "my_package").mkdir()
    (folder / "my_package/losses.py").write_text(LOSS)
    for name in ("grpo.yaml", "config.yaml"):
        (folder / name).write_text("loss_type: grpo\nmodel_name_or_path: MODEL\nmax_steps: 2\n")


def write_checkpoint(run: Path, step: int) -> None:
    """A whole checkpoint of a tiny model, from which nothing can be resumed."""
    from zerolab.learner.checkpoint_files import STATE_FILE, folder_of, list_files
    from zerolab.models.hf import export_model

    folder = folder_of(run / "checkpoints", step)
    export_model(tiny_model("qwen2"), tiny_tokenizer(), folder)
    (folder / STATE_FILE).write_text("{}")
    list_files(folder)


def write_small_gguf(path: Path) -> None:
    if importlib.util.find_spec("gguf") is not None:
        from gguf_files import write_gguf

        write_gguf(path, tiny_model("qwen2"), tiny_tokenizer(), "qwen2")


def write_questions(folder: Path) -> None:
    lines = [json.dumps({"question": f"What is {i} + {i}? Think about it.", "answer": str(2 * i)}) for i in range(3)]
    names = [f"{data}/{name}.jsonl" for data in ("data", "eval") for name in BENCHMARKS]
    names += ["questions.jsonl", "train.jsonl", "gsm_8k.jsonl", "aime_1983_2023.jsonl", "asdiv_2k.jsonl"]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("\n".join(lines) + "\n")


def write_responses(folder: Path) -> None:
    capital = {"problem": "What is the capital of France?", "answer": "Paris", "response": "It is Paris.", "model": "m"}
    (folder / "capitals.jsonl").write_text(json.dumps(capital) + "\n")
    names = ("responses", "a", "b", "c", "A/responses", "B/responses", "runs/evaluate/base/responses")
    names += ("runs/evaluate/tuned/responses", "gsm8k_gpt3_solutions_dev", "qwen_math_cot_100x8_dev")
    for number, name in enumerate(names):
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {
                "problem": f"What is {i} + {i}?",
                "answer": str(2 * i),
                "response": f"Let me check. \\boxed{{{2 * i + (i + number) % 2}}}",
                "model": f"model{number}",
            }
            for i in range(4)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
