"""The command line: its frozen surface, its start-up time, its dry run, and one clear line for every bad input."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from command import RECIPE, refusal, run, settings, start, write_recipe
from docs_workspace import leaves
from tiny_models import tiny_model, tiny_tokenizer
from zerolab.cli import OPTIONS, app, name_options
from zerolab.errors import UserError
from zerolab.models.hf import export_model
from zerolab.recipes import run_config
from zerolab.rundir import read_metrics

# Every verb with its arguments and options. A change here is a change of the interface: say so in CHANGELOG.md.
VERBS = {
    "train": ["recipe", "--set", "--dry-run", "--resume", "--overwrite", "--control", "--address"],
    "plan": [
        *("recipe", "--gpus", "--engines", "--learner-ranks", "--staleness", "--assume", "--set", "--json"),
    ],
    "sweep": ["recipe", "--seeds", "--set", "--out", "--jobs", "--overwrite", "--dry-run"],
    "pretrain": ["recipe", "--set", "--dry-run", "--resume", "--overwrite", "--force"],
    "demo": ["--out", "--recipe", "--set", "--resume"],
    "export": ["run", "folder", "--step", "--push"],
    "report": ["runs", "--out", "--responses", "--figures"],
    "watch": ["run", "--once"],
    "doctor": [],
    "grade": ["file", "--mode", "--rules", "--verifier", "--out", "--compare"],
    "evaluate": [
        *("target", "--benchmarks", "--data-dir", "--limit", "--template", "--extractor", "--samples", "--temperature"),
        *("--top-p", "--top-k", "--min-tokens", "--budget", "--seed", "--until-width", "--max-samples", "--endpoint"),
        *("--api", "--key-env", "--concurrency", "--timeout", "--device", "--precision", "--kv-gb", "--engine"),
        *("--out", "--several-checkpoints"),
    ],
    "compare": ["targets", "--margin", "--extractor", "--published", "--out", "--png"],
    "analyze": [
        *("targets", "--benchmarks", "--data-dir", "--limit", "--templates", "--temperatures", "--samples", "--budget"),
        *("--seed", "--prefix", "--extractor", "--words", "--judge", "--judge-model", "--judge-cache", "--endpoint"),
        *("--api", "--key-env", "--concurrency", "--device", "--precision", "--kv-gb", "--out"),
    ],
    "overlap": ["training", "--benchmarks", "--data-dir", "--ngram", "--out"],
    "certify": ["presets", "--set", "--json", "--png", "--ranks"],
    "audit": ["target", "--json", "--png", "--fail-on", "--python"],
    "sample": [
        *("model", "--base", "--template", "--question", "--answer", "--questions", "--limit", "--samples", "-n"),
        *("--temperature", "--max-new-tokens", "--seed", "--set"),
    ],
    "start": [
        *("model", "questions", "--out", "--templates", "--count", "--samples", "--budget", "--data-dir", "--seed"),
    ],
    "drift": [
        *("model", "--questions", "--objectives", "--loss", "--trl", "--truncation", "--template", "--count"),
        *("--samples", "--measured", "--measured-samples", "--budget", "--lr", "--norm", "--layers", "--plain"),
        *("--data-dir", "--seed", "--set", "--out"),
    ],
    "import-trl": ["file", "--out", "--processes", "--rows", "--overwrite"],
    "model list": [],
    "model fetch": ["name"],
    "model import": ["file", "folder"],
    "recipe list": [],
    "recipe show": ["recipe"],
    "recipe diff": ["a", "b"],
    "questions list": [],
    "claims list": ["--results"],
    "claims show": ["claim"],
    "claims run": ["claims", "--all", "--scale", "--seeds", "--quick", "--dry-run", "--results", "--work"],
    "claims report": ["--results", "--out"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    export_model(tiny_model("qwen2"), tiny_tokenizer(), folder)
    return folder


@pytest.fixture
def recipe(model: Path, tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "recipe.toml", model)


def options(command: Any) -> list[str]:
    return [option for parameter in command.params for option in parameter.opts if option != "--help"]


def test_verbs_and_options_are_frozen() -> None:
    assert {verb: options(c) for verb, c in leaves(typer.main.get_command(app))} == VERBS


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture) -> None:
    assert run(*verb.split(), "--help") == 0
    out = capsys.readouterr().out
    for word in VERBS.get(verb, [v.split()[0] for v in VERBS]):
        assert word in out


def test_the_help_lists_every_verb_in_one_group(capsys: pytest.CaptureFixture) -> None:
    assert run("--help") == 0
    listed = re.findall(r"^  ([a-z][a-z-]*)  ", capsys.readouterr().out, re.MULTILINE)
    assert sorted(listed) == sorted({verb.split()[0] for verb in VERBS})


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"zerolab {metadata.version('zerolab')}\n"


def test_the_shell_completes_verbs_and_recipes() -> None:
    def completed(words: str) -> list[str]:
        asked = {"_ZEROLAB_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        code = "import sys; sys.argv = ['zerolab']; from zerolab.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True)
        return done.stdout.split()

    assert completed("zerolab pretr") == ["pretrain"]
    assert "laptop/smoke" in completed("zerolab train laptop/s")


def test_help_is_there_within_a_second() -> None:
    def seconds() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "zerolab", "--help"], check=True, capture_output=True)
        return time.perf_counter() - started

    assert min(seconds() for _ in range(3)) < 1.0


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["recipe", "list"], ["recipe", "show", "grpo"]])
def test_light_verbs_import_nothing_heavy(arguments: list[str]) -> None:
    heavy = ("torch", "transformers", "datasets", "sympy", "matplotlib", "ray", "vllm")
    code = (
        "import sys; from zerolab import cli; sys.argv = ['zerolab', *sys.argv[1:]]\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        f"print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[]"


# --- bad input -------------------------------------------------------------------------------------------------------


# Through `zerolab train` with one override: what is set, what the line must say.
OVERRIDES = {
    "unknown key": ("rollout.max_new_token=3", ["unknown key rollout.max_new_token", "did you mean", "max_new_tokens"]),
    "impossible combination": ("rollout.samples_per_question=1", ["set rollout.samples_per_question to 2 or more"]),
    "no KEY=VALUE": ("steps", ["--set steps", "KEY=VALUE"]),
    "unknown preset": ("objective.preset=grop", ["objective.preset 'grop' is unknown", "did you mean grpo?"]),
    "unknown template": ("template={name='r2d2'}", ["template.name 'r2d2' is unknown", "choose one of r1, qwen-math"]),
    "template without question": ("template.text=hello", ["template.text", "{question}", "once"]),
    "unknown family": ("questions.path=synthetic:modulo", ["synthetic:modulo", "choose one of modular"]),
    "unknown option of a family": ("questions.options={moduls=3}", ["moduls", "did you mean modulus?"]),
    "unknown question set": ("questions.path=math-12k", ["questions.path 'math-12k'", "did you mean math12k?"]),
    "no such data folder": (
        "questions={path='math12k', data_dir='/none', holdout=0.1}",
        ["questions.data_dir /none", "no such folder"],
    ),
    "missing question file": ("questions.path=none.jsonl", ["none.jsonl", "no such file"]),
    "question file of another kind": ("questions.path=/etc/passwd", ["/etc/passwd", ".jsonl"]),
    "missing model folder": ("model.path=./none", ["./none", "give a model folder or a hub id"]),
    "model that is a file": ("model.path=/etc/passwd", ["/etc/passwd", "give a model folder or a hub id"]),
    "hub that is not reached": ("model.path=nobody/none", ["cannot reach the hub for nobody/none", "give a folder"]),
    "budget beyond the context": ("rollout.max_new_tokens=256", ["256", "context", "lower rollout.max_new_tokens"]),
    "evaluation beyond it": ("evaluation.max_new_tokens=999", ["999", "context", "lower", "evaluation.max_new_tokens"]),
    "a word for a device": ("model.device=gpu", ["model.device 'gpu'", "use cpu, cuda or auto"]),
    "a device without memory": ("model.device=meta", ["model.device 'meta'", "use cpu, cuda or auto"]),
    "a core that is not there": ("model.device=cpu:7", ["model.device 'cpu:7'", "use cpu, cuda or auto"]),
    "a device of another machine": ("model.device=xla", ["model.device 'xla'", "use cpu, cuda or auto"]),
    "no room for one response": ("rollout.kv_gb=1e-6", ["key/value memory", "raise rollout.kv_gb"]),
    "more questions held out than there are": ("questions.limit=1", ["questions.holdout", "no question for"]),
    "base that is no base": (
        "model={base='laptop/grpo'}",
        ["laptop/grpo.toml is a recipe of `zerolab train`"],
    ),
    "base that is not there": ("model={base='laptop/bass'}", ["laptop/bass", "laptop/base"]),
}


@pytest.mark.parametrize("case", OVERRIDES)
def test_bad_overrides(case: str, recipe: Path, capsys: pytest.CaptureFixture) -> None:
    override, words = OVERRIDES[case]
    line = refusal(capsys, "train", recipe, *settings(f"out={recipe.parent / 'run'}", override))
    for word in words:
        assert word in line
    assert not (recipe.parent / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_gpu(recipe: Path, capsys: pytest.CaptureFixture) -> None:
    line = refusal(capsys, "train", recipe, *settings(f"out={recipe.parent / 'run'}", "model.device=cuda"))
    assert "no GPU" in line
    assert "use cpu or auto" in line


def test_no_such_gpu(recipe: Path, capsys: pytest.CaptureFixture) -> None:
    assert "cuda:99" in refusal(capsys, "train", recipe, *settings("model.device=cuda:99"))


# Question files: content, what the line must say beside the file's name.
QUESTION_FILES: dict[str, tuple[str, str | bytes, list[str]]] = {
    "empty": ("q.jsonl", "", ["no questions"]),
    "blank lines": ("q.jsonl", "\n\n", ["no questions"]),
    "no JSON": ("q.jsonl", '{"question": "1+1", "answer": "2"}\n{"question": "1', ["q.jsonl:2", "not valid JSON"]),
    "no object": ("q.jsonl", "[1, 2]\n", ["q.jsonl:1", "expected an object"]),
    "no UTF-8": ("q.jsonl", b'{"question": "\xff"}\n', ["q.jsonl:1", "not UTF-8"]),
    "no question": ("q.jsonl", '{"text": "1+1", "answer": "2"}\n', ["q.jsonl:1", "no question", "problem_key"]),
    "empty question": ("q.jsonl", '{"question": " ", "answer": "2"}\n', ["q.jsonl:1", "the question is empty"]),
    "no answer": ("q.jsonl", '{"question": "1+1"}\n', ["q.jsonl:1", "no answer", "questions.answer_key"]),
    "null answer": ("q.jsonl", '{"question": "1+1", "answer": null}\n', ["q.jsonl:1", "no answer"]),
    "empty answer": ("q.jsonl", '{"question": "1+1", "answer": ""}\n', ["q.jsonl:1", "a question without an answer"]),
    "empty list of answers": ("q.jsonl", '{"question": "1+1", "answer": []}\n', ["q.jsonl:1", "without an answer"]),
    "JSON that is no list": ("q.json", '{"question": "1+1"}', ["q.json", "expected a list"]),
    "ragged CSV": ("q.csv", "question,answer\n1+1,2,3\n", ["q.csv:2", "2 columns of the header"]),
    "no Parquet": ("q.parquet", "PAR", ["q.parquet", "not a readable Parquet file"]),
    "empty CSV": ("q.csv", "", ["q.csv", "no questions"]),
}


@pytest.mark.parametrize("case", QUESTION_FILES)
def test_bad_question_files(case: str, recipe: Path, capsys: pytest.CaptureFixture) -> None:
    name, content, words = QUESTION_FILES[case]
    file = recipe.with_name(name)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refusal(capsys, "train", recipe, *settings(f"out={recipe.parent / 'run'}", f"questions.path='{file}'"))
    for word in (str(file), *words):
        assert word in line


def test_prompts_that_leave_no_room_for_the_budget(recipe: Path, capsys: pytest.CaptureFixture) -> None:
    """The budget alone fits the model's 256 tokens of context, and so does every prompt, but no sum of both."""
    file = recipe.with_name("q.jsonl")
    file.write_text('{"question": "' + "7 " * 20 + '", "answer": "1"}\n')
    changes = ["evaluation.every=0", "questions.holdout=0", f"questions.path='{file}'", "rollout.max_new_tokens=240"]
    line = refusal(capsys, "train", recipe, *settings(f"out={recipe.parent / 'run'}", *changes))
    assert not (recipe.parent / "run").exists()
    assert "longer than 16 tokens" in line
    assert "lower rollout.max_new_tokens" in line


def damage(folder: Path, pattern: str, content: bytes | None = None) -> None:
    for file in folder.glob(pattern):
        file.unlink() if content is None else file.write_bytes(content)


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


MODEL_FOLDERS: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "no tokenizer": (lambda f: damage(f, "*token*"), ["holds no tokenizer", "copy the tokenizer's files there"]),
    "no weights": (lambda f: damage(f, "*.safetensors"), ["holds no *.safetensors weights"]),
    "pickled weights": (
        pickle_weights,
        ["holds no *.safetensors weights", "pickled", "convert"],
    ),
    "no config": (lambda f: damage(f, "config.json"), ["holds no config.json"]),
    "damaged weights": (lambda f: damage(f, "*.safetensors", b"\x08\0\0\0\0\0\0\0{}"), ["damaged"]),
    "damaged config": (lambda f: damage(f, "config.json", b"{"), ["cannot load"]),
    "damaged tokenizer": (lambda f: damage(f, "tokenizer.json", b"{}"), ["tokenizer"]),
    "unknown family": (lambda f: damage(f, "config.json", b'{"model_type": "mystery"}'), ["model"]),
}


@pytest.mark.parametrize("case", MODEL_FOLDERS)
def test_bad_model_folders(case: str, model: Path, recipe: Path, capsys: pytest.CaptureFixture) -> None:
    break_it, words = MODEL_FOLDERS[case]
    folder = recipe.with_name("broken")
    shutil.copytree(model, folder)
    break_it(folder)
    line = refusal(capsys, "train", recipe, *settings(f"out={recipe.parent / 'run'}", f"model.path='{folder}'"))
    for word in (str(folder), *words):
        assert word in line


# Recipe files: verb, content, what the line must say.
RECIPES: dict[str, tuple[str, str | bytes, list[str]]] = {
    "no TOML": ("train", "steps = ", ["recipe.toml", "not valid TOML"]),
    "nothing in it": ("train", "", ["recipe.toml", "steps is missing", "model is missing", "objective is missing"]),
    "no UTF-8": ("train", b"\xff", ["recipe.toml", "not valid TOML"]),
    "no TOML, pretraining": ("pretrain", "steps = ", ["recipe.toml", "not valid TOML"]),
    "unknown corpus": ("pretrain", "steps = 1\n[corpus]\nname = 'shakespeare'", ["'shakespeare'", "marked-arithmetic"]),
    "option of a corpus": (
        "pretrain",
        "steps = 1\n[corpus]\nname = 'marked-arithmetic'\noptions = {modulos = 7}",
        ["modulos", "modulus"],
    ),
    "odd heads": (
        "pretrain",
        "steps = 1\n[corpus]\nname = 'marked-arithmetic'\n[architecture]\nheads = 7",
        ["architecture.hidden_size = 64", "7 heads"],
    ),
    "a training recipe to pretrain": (
        "pretrain",
        RECIPE.format(steps=1, model="x"),
        ["recipe of `zerolab train`", "[corpus]"],
    ),
    "a pretraining recipe to train": (
        "train",
        "steps = 1\n[corpus]\nname = 'x'",
        ["recipe of `zerolab pretrain`", "[model]"],
    ),
    "a training recipe as demo": (
        "demo --recipe",
        RECIPE.format(steps=1, model="x"),
        ["recipe of `zerolab train`", "arms"],
    ),
    "an arm that is not there": ("demo --recipe", "arms = ['laptop/grpo', 'laptop/none']", ["laptop/none", "no such"]),
    "an arm without a base": ("demo --recipe", "arms = ['paper/qwen2.5-math-7b', 'laptop/grpo']", ["model.base"]),
}


@pytest.mark.parametrize("case", RECIPES)
def test_bad_recipes(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "cache"))
    verb, content, words = RECIPES[case]
    file = tmp_path / "recipe.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    line = refusal(capsys, *verb.split(), file)
    for word in words:
        assert word in line
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("package", "setting"), [("ray", "cluster.engines=1"), ("vllm", "rollout.engine=vllm")])
def test_an_extra_that_is_not_installed(
    package: str, setting: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    if find_spec(package):
        pytest.skip(f"{package} is installed here")
    line = refusal(capsys, "train", recipe, "--set", setting, "--set", f"out={tmp_path / 'run'}")
    assert f"zerolab[{package}]" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "laptop/none"],
        ["train", "none.toml"],
        ["pretrain", "laptop/none"],
        ["demo", "--recipe", "none"],
        ["recipe", "show", "none"],
        ["recipe", "diff", "laptop/grpo", "none"],
    ],
)
def test_a_recipe_that_is_not_there(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    line = refusal(capsys, *arguments)
    assert "no such file" in line
    assert "laptop/smoke" in line


def test_diff_of_what_is_no_recipe(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "a.toml"
    file.write_text("=")
    assert "not valid TOML" in refusal(capsys, "recipe", "diff", file, "laptop/grpo")


def test_recipes_of_two_kinds_are_not_compared(capsys: pytest.CaptureFixture) -> None:
    line = refusal(capsys, "recipe", "diff", "laptop/grpo", "laptop/base")
    assert "train" in line
    assert "pretrain" in line


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (None, [], ["does not exist"]),
        ("", [], ["is empty"]),
        ('{"answer": 1}\n', [], ["r.jsonl:1", "response"]),
        ("{\n", [], ["r.jsonl:1", "not JSON"]),
        ('{"answer": [], "response": "1"}\n', [], ["answer"]),
        ('{"answer": 1, "response": "1"}\n', ["--mode", "box"], ["box", "boxed"]),
        ('{"answer": 1, "response": "1"}\n', ["--rules", "strict"], ["strict", "standard"]),
        ('{"answer": 1, "response": "1"}\n', ["--verifier", "maths"], ["maths", "math"]),
        ('{"answer": 1, "response": "1"}\n', ["--compare", "me"], ["me", "math-verify"]),
        ('{"answer": 1, "response": "1"}\n', ["--out", "/none/there"], ["/none/there"]),
    ],
)
def test_bad_input_to_grade(
    content: str | None, options: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "r.jsonl"
    if content is not None:
        file.write_text(content)
    line = refusal(capsys, "grade", file, *options)
    for word in words:
        assert word in line


def test_a_demo_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("")
    assert "cannot write" in refusal(capsys, "demo", "--out", tmp_path / "file" / "demo")


def test_a_refusal_in_a_process_of_its_own(recipe: Path) -> None:
    """Nothing else reaches stderr there: no warning of a library, no traceback."""
    process = start("train", recipe, *settings("rollout.max_new_tokens=256"), stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, len(err.splitlines())) == (2, "", 1), err
    assert err.startswith("zerolab: a budget of 256 new tokens")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("evaluate", "MODEL", "--data-dir", "/none"), "--data-dir /none: no such folder"),
        (("analyze", "MODEL", "--data-dir", "/none"), "--data-dir /none: no such folder"),
        (("overlap", "x.jsonl", "--data-dir", "/none"), "--data-dir /none: no such folder"),
        (("evaluate", "MODEL", "--benchmarks", "math-12k"), "--benchmarks 'math-12k' is no file"),
        (
            ("evaluate", "MODEL", "--benchmarks", "synthetic:modular", "--limit", "2", "--device", "xpu"),
            "--device 'xpu'",
        ),
        (("sample", "MODEL", "--questions", "math-12k"), "questions.path 'math-12k' is no file"),  # it takes --set
    ],
)
def test_a_message_names_the_options_of_its_verb(
    arguments: tuple[str, ...], said: str, model: Path, capsys: pytest.CaptureFixture
) -> None:
    assert said in refusal(capsys, *(str(model) if word == "MODEL" else word for word in arguments))


def test_a_key_becomes_an_option_only_where_the_verb_has_it() -> None:
    message = 'set model.precision = "bf16", lower rollout.kv_gb or learner.lr; questions.path_of stays'
    assert name_options(message, {"--precision", "--kv-gb"}) == (
        "set --precision bf16, lower --kv-gb or learner.lr; questions.path_of stays"
    )
    assert name_options(message, {"--precision"}).endswith("lower rollout.kv_gb or learner.lr; questions.path_of stays")
    assert name_options(message, {"--set", "--precision"}) == message
    with_options = {option for verb in VERBS.values() for option in verb}
    assert set(OPTIONS.values()) <= with_options


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"questions": "q.jsonl"}, "questions is a table of keys, not 'q.jsonl': write {path = \"q.jsonl\"} in TOML"),
        ({"model": "m"}, "{'path': \"m\"} in Python"),
        ({"rollout": 3}, "rollout is a table of keys, not 3"),
        ({"reward": {"functions": ["a.py:f"]}}, "reward.functions.0 is a table of keys, not 'a.py:f': write {path ="),
        (
            {"questions": {"sources": "a.jsonl"}},
            "questions.sources is a list, not 'a.jsonl': put it in square brackets",
        ),
        ({"evaluation": {"questions": "x"}}, "evaluation.questions is a table of keys, not 'x': write {path"),
        ({"lora": True}, "lora is a table of keys, not True"),
    ],
)
def test_a_value_in_the_place_of_a_table_is_one_line_with_what_to_write(changes: dict[str, Any], said: str) -> None:
    raw = {"steps": 1, "objective": "dr_grpo", "model": {"path": "m"}, "questions": {"path": "q"}, **changes}
    with pytest.raises(UserError) as refused:
        run_config(raw)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


# --- what the light verbs print ---------------------------------------------------------------------------------------


def test_dry_run_prints_config_formula_and_estimates_and_leaves_nothing(
    recipe: Path, model: Path, capsys: pytest.CaptureFixture
) -> None:
    out = recipe.parent / "run"
    assert run("train", recipe, "--dry-run", *settings(f"out='{out}'", "rollout.kv_gb=0.5")) == 0
    text = capsys.readouterr().out
    config, end = json.JSONDecoder().raw_decode(text)
    assert config["objective"]["std_ddof"] == 1
    assert config["rollout"]["temperature"] == 1.0
    rest = text[end:]
    assert "loss = - sum_i 1/(N L_i) sum_t min(r_it A_i, clip(r_it, 0.8, 1.2) A_i)" in rest
    facts = {line[:36].strip(): line[36:].split() for line in rest.splitlines() if len(line) > 36}
    parameters = sum(p.numel() for p in tiny_model("qwen2").parameters())
    assert facts["responses per step"] == ["16"]
    assert facts["new tokens per step, at most"] == [str(16 * 12)]
    assert facts["new tokens in all, at most"] == [f"{16 * 12 * 8:,}"]
    assert facts["parameters, by its config.json"] == [f"{parameters:,}"]
    assert facts["engine keys and values (budget)"] == ["0.50", "GiB"]
    per_token = 2 * 2 * 24 * 4  # layers x (keys, values) x 2 heads of 12 x fp32
    assert facts["full-length responses in that cache"] == [f"{0.5 * 2**30 / per_token / (1024 + 12):,.0f}"]
    assert not out.exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nobody/Model-1.5B-Base", "parameters, by size in its name"),
        ("nobody/Model", "memory: unknown until the model is at hand (nobody/Model)"),
    ],
)
def test_dry_run_of_a_model_out_of_reach(path: str, said: str, recipe: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("train", recipe, "--dry-run", *settings(f"model.path={path}")) == 0
    out = capsys.readouterr().out
    assert said in out
    assert ("1,500,000,000" in out) == ("1.5B" in path)


def test_dry_run_of_a_folder_that_is_not_there_is_refused(recipe: Path, capsys: pytest.CaptureFixture) -> None:
    assert "./none" in refusal(capsys, "train", recipe, "--dry-run", *settings("model.path=./none"))


def test_dry_run_of_a_laptop_base_measures_it_without_training_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "cache"))
    assert run("train", "laptop/grpo", "--dry-run") == 0
    assert "parameters, by its recipe" in capsys.readouterr().out
    assert not (tmp_path / "cache").exists()


def test_the_time_of_a_dry_run_is_that_of_the_last_run_of_its_kind_here_or_unknown(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "cache"))

    def line(*changes: str) -> str:
        assert run("train", recipe, "--dry-run", *settings(*changes)) == 0
        return next(x for x in capsys.readouterr().out.splitlines() if x.startswith("time:"))

    assert line().startswith("time: unknown")
    assert run("train", recipe, *settings(f"out={tmp_path / 'run'}", "steps=3", "evaluation.every=0")) == 0
    rows = read_metrics(tmp_path / "run")[1:]
    tokens = sum(row["rollout/tokens"] for row in rows)
    seconds = sum(row["time/wait_s"] + row["time/learn_s"] for row in rows)
    length = sum(row["length/mean"] for row in rows) / 2
    capsys.readouterr()
    expected = seconds / tokens * 16 * length
    assert f"for 8 steps of {expected:.3g} s, at the rate of the last such run here" in line()
    assert f"for 8 steps of {2 * expected:.3g} s" in line("rollout.questions_per_step=8")
    assert line("model.precision=bf16").startswith("time: unknown")
    for damage in ("", "[]", '{"seconds_per_token": "x"}', '{"seconds_per_token": 0.0, "response_tokens": 1.0}'):
        for file in (tmp_path / "cache" / "rates").iterdir():
            file.write_text(damage)
        assert line().startswith("time: unknown")


def test_a_cache_that_cannot_be_written_costs_the_rate_alone(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZEROLAB_CACHE", str(tmp_path / "file" / "cache"))
    assert run("train", recipe, *settings(f"out={tmp_path / 'run'}", "steps=1", "evaluation.every=0")) == 0


def test_dry_run_refuses_what_the_run_would(recipe: Path, capsys: pytest.CaptureFixture) -> None:
    assert "unknown key" in refusal(capsys, "train", recipe, "--dry-run", *settings("step=1"))


def test_recipe_list_names_every_recipe_with_its_purpose(capsys: pytest.CaptureFixture) -> None:
    assert run("recipe", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    names = {line.split()[0] for line in lines}
    assert {"laptop/smoke", "laptop/demo", "paper/qwen2.5-math-7b"} <= names
    assert all(len(line.split()) > 5 for line in lines)


def test_recipe_show_is_the_file(capsys: pytest.CaptureFixture) -> None:
    assert run("recipe", "show", "laptop/smoke") == 0
    text = capsys.readouterr().out
    assert text == (Path(__file__).parent.parent / "recipes" / "laptop" / "smoke.toml").read_text()


def test_recipe_diff_reads_as_one_line_per_coordinate(capsys: pytest.CaptureFixture) -> None:
    assert run("recipe", "diff", "laptop/grpo", "laptop/grpo-std-fix") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "objective.scale: group_std -> none" in lines
    assert {line.split(":")[0].split(".")[0] for line in lines} == {"objective", "name"}
    assert run("recipe", "diff", "laptop/grpo", "laptop/grpo") == 0
    assert capsys.readouterr().out == ""


def test_a_closed_pipe_is_no_traceback() -> None:
    """`zerolab recipe list | head -1`."""
    process = start("recipe", "list", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as stderr:
        assert stderr.read() == ""
    process.wait(timeout=30)


def test_the_module_is_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "zerolab"], capture_output=True, text=True, env={**os.environ})
    assert "train" in done.stdout + done.stderr
