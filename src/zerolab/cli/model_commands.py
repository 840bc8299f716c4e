"""The commands on models, responses and objectives. They have no logic, and import heavy modules when they run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from zerolab.cli.help import EVALUATE, NO_OVERRIDES, PROVE, START, TRAIN, Overrides, example
from zerolab.terminal import echo

app = typer.Typer()


@app.command(rich_help_panel=START, epilog=example("doctor"))
def doctor() -> None:
    """Show the hardware and versions of this machine, the extras that work, and what would fail."""
    from zerolab.doctor import report

    report()


@app.command(rich_help_panel=START, epilog=example("sample MODEL --template r1"))
def sample(
    model: Annotated[str | None, typer.Argument(help="Folder or hub id of a model; or give --base.")] = None,
    base: Annotated[str | None, typer.Option(help="Pretraining recipe of a laptop base model.")] = None,
    template: Annotated[str, typer.Option(help="Template of the prompt.")] = "none",
    question: Annotated[str | None, typer.Option(help="One question.")] = None,
    answer: Annotated[str | None, typer.Option(help="Its answer, for a verdict.")] = None,
    questions: Annotated[str | None, typer.Option(help="File, name, hub id, synthetic:... with questions.")] = None,
    limit: Annotated[int, typer.Option(help="Most questions that are taken from --questions.")] = 5,
    samples: Annotated[int, typer.Option("--samples", "-n", help="Responses to each question.")] = 1,
    temperature: Annotated[float, typer.Option(help="0: greedy.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="Budget in tokens.")] = 512,
    seed: Annotated[int, typer.Option(help="The same seed gives the same responses.")] = 0,
    overrides: Overrides = NO_OVERRIDES,
) -> None:
    """Show the responses of a model to a question, with tokens coloured by probability.

    Without --question and --questions, type questions.
    """
    from zerolab.config import SampleConfig
    from zerolab.sample import run
    from zerolab.toml import apply_overrides, parse

    raw: dict[str, Any] = {
        "model": {k: v for k, v in (("path", model), ("base", base)) if v is not None},
        "template": {"name": template},
        "questions": {"path": questions} if questions is not None else None,
    }
    raw |= {"question": question, "answer": answer, "limit": limit, "samples": samples, "temperature": temperature}
    raw |= {"max_new_tokens": max_new_tokens, "seed": seed}
    run(parse(SampleConfig, apply_overrides(raw, overrides), "zerolab sample"))


@app.command(rich_help_panel=START, epilog=example("start smollm2-135m-instruct-q4 synthetic:facts"))
def start(
    model: Annotated[str, typer.Argument(help="Folder, hub id, or a laptop base.")],
    questions: Annotated[str, typer.Argument(help="File, name, hub id, synthetic:... with training questions.")],
    out: Annotated[Path | None, typer.Option(help="Recipe to write (default: MODEL-start.toml).")] = None,
    templates: Annotated[str, typer.Option(help="Names, separated by commas (default: all).")] = "",
    count: Annotated[int, typer.Option(help="Questions to try.", min=1)] = 8,
    samples: Annotated[int, typer.Option(help="Responses to each question, under each template.", min=2)] = 8,
    budget: Annotated[int, typer.Option(help="Tokens of a response.", min=1)] = 128,
    data_dir: Annotated[str | None, typer.Option(help="Folder with NAME.jsonl, searched before the hub.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the questions and samples.", min=0)] = 0,
) -> None:
    """Try every template on a few questions and write a recipe with the template from which RL can learn most."""
    from zerolab.start import StartOptions
    from zerolab.start import start as run

    names = tuple(name.strip() for name in templates.split(",") if name.strip())
    if run(StartOptions(model, questions, out, names, count, samples, budget, data_dir, seed)) is None:
        raise typer.Exit(1)


@app.command(rich_help_panel=EVALUATE, epilog=example("grade responses.jsonl"))
def grade(
    file: Annotated[Path, typer.Argument(help="JSON Lines with problem, answer and response or responses.")],
    mode: Annotated[str, typer.Option(help="boxed, answer-tag[-lenient], last-number, any or mention.")] = "boxed",
    rules: Annotated[str, typer.Option(help="standard, or reference for the paper's grader.")] = "standard",
    verifier: Annotated[str, typer.Option(help="math, countdown, reasoning_gym, capital or element.")] = "math",
    out: Annotated[Path | None, typer.Option(help="File of verdicts (default: FILE.graded.jsonl).")] = None,
    compare: Annotated[str | None, typer.Option(help="math-verify: list disagreements with math-verify.")] = None,
) -> None:
    """Grade recorded responses. Verdicts go to a file, a summary with reasons to the screen."""
    from zerolab.grading.command import run

    echo(run(file, mode, rules, verifier, out, compare))


def resolve_model(target: str) -> str:
    """The folder or hub id of a model. A wrapper, because the import loads torch, which not every command needs."""
    from zerolab.build import resolve_model

    return resolve_model(target)


@app.command(rich_help_panel=EVALUATE, epilog=example("evaluate MODEL --benchmarks questions.jsonl --budget 8"))
def evaluate(
    target: Annotated[str, typer.Argument(help="Folder, hub id, run, laptop base, or recorded responses.")],
    benchmarks: Annotated[str, typer.Option(help="Names or question files, separated by commas.")] = "paper",
    data_dir: Annotated[str | None, typer.Option(help="Folder with NAME.jsonl, searched before the hub.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only this many questions of each set, the first ones.")] = None,
    template: Annotated[str, typer.Option(help="Name, or a TOML file with a [template].")] = "none",
    extractor: Annotated[str | None, typer.Option(help="How to find the answer (default: the template's).")] = None,
    samples: Annotated[int, typer.Option(help="Responses to each question.")] = 1,
    temperature: Annotated[float | None, typer.Option(help="0: greedy (default: 1 if --samples > 1).")] = None,
    top_p: Annotated[float, typer.Option(help="Probability mass of the sampled tokens; 1: all.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Sample from this many most likely tokens; 0: all.")] = 0,
    min_tokens: Annotated[int, typer.Option(help="Least tokens of a response.")] = 0,
    budget: Annotated[int, typer.Option(help="Most tokens of a response.")] = 3000,
    seed: Annotated[int, typer.Option(help="Seed of all samples.")] = 0,
    until_width: Annotated[
        float | None, typer.Option(help="Sample until intervals are at most this wide, in points.")
    ] = None,
    max_samples: Annotated[int, typer.Option(help="Budget of --until-width, per question.")] = 64,
    endpoint: Annotated[str | None, typer.Option(help="OpenAI-compatible URL up to /v1.")] = None,
    api: Annotated[str, typer.Option(help="completions (base models) or chat.")] = "completions",
    key_env: Annotated[str, typer.Option(help="Environment variable with the key.")] = "OPENAI_API_KEY",
    concurrency: Annotated[int, typer.Option(help="Requests in flight.")] = 16,
    timeout: Annotated[float, typer.Option(help="Seconds for one response.")] = 600.0,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    kv_gb: Annotated[float, typer.Option(help="GiB for keys and values.")] = 2.0,
    engine: Annotated[str, typer.Option(help="torch or vllm.")] = "torch",
    out: Annotated[Path | None, typer.Option(help="Folder of the results; the same command resumes there.")] = None,
    several: Annotated[
        bool, typer.Option("--several-checkpoints", help="Allow a test benchmark for another checkpoint of a run.")
    ] = False,
) -> None:
    """Evaluate a model on benchmarks, with intervals. Recorded responses are scored without sampling."""
    from zerolab.evaluation.command import Options, Served, run
    from zerolab.evaluation.samplers import Machine

    options = Options(
        target, benchmarks, data_dir, limit, template, extractor, samples, temperature, top_p, budget, seed,
        until_width, max_samples, out, several, top_k, min_tokens,
    )  # fmt: skip
    served = Served(endpoint, api, key_env, concurrency, timeout)
    if not run(options, served, Machine(device, precision, kv_gb, engine), resolve_model):
        raise typer.Exit(1)


@app.command(rich_help_panel=EVALUATE, epilog=example("compare a.jsonl b.jsonl"))
def compare(
    targets: Annotated[list[str], typer.Argument(help="Folders of evaluations or files of responses; the first is A.")],
    margin: Annotated[float, typer.Option(help="Difference of accuracy, in points, that counts as equal.")] = 2.0,
    extractor: Annotated[str | None, typer.Option(help="How to find the answer, for files without it.")] = None,
    published: Annotated[list[str] | None, typer.Option(help="Also show this row of the paper.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for CSV and PNG.")] = None,
    png: Annotated[bool, typer.Option(help="Draw accuracy against token budget.")] = True,
) -> None:
    """Test models on the same questions: better, equal, or fewer tokens. Can also show rows of the paper."""
    from zerolab.evaluation.compare import run

    run(targets, margin, extractor, published or [], out, png)


@app.command(rich_help_panel=EVALUATE, epilog=example("analyze responses.jsonl"))
def analyze(
    targets: Annotated[list[str], typer.Argument(help="Recorded responses (files, folders), or models to sample.")],
    benchmarks: Annotated[str, typer.Option(help="Names or question files, separated by commas.")] = "math500",
    data_dir: Annotated[str | None, typer.Option(help="Folder with NAME.jsonl, searched before the hub.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only this many questions of each set, the first ones.")] = None,
    templates: Annotated[str, typer.Option(help="Names or TOML files, separated by commas.")] = "r1,qwen-math,none",
    temperatures: Annotated[str, typer.Option(help="Numbers, separated by commas; 0: greedy.")] = "1",
    samples: Annotated[int, typer.Option(help="Responses to each question.")] = 8,
    budget: Annotated[int, typer.Option(help="Most tokens of a response.")] = 3000,
    seed: Annotated[int, typer.Option(help="Seed of all samples.")] = 0,
    prefix: Annotated[
        bool, typer.Option("--prefix", help="Also give only the first 40, 60, 80 % of questions.")
    ] = False,
    extractor: Annotated[str | None, typer.Option(help="How to find the answer (default: the template's).")] = None,
    words: Annotated[str, typer.Option(help="Keywords of self-reflection: paper or wide.")] = "paper",
    judge: Annotated[str | None, typer.Option(help="OpenAI-compatible URL of an LLM judge.")] = None,
    judge_model: Annotated[str | None, typer.Option(help="Name of the judge's model at that URL.")] = None,
    judge_cache: Annotated[Path | None, typer.Option(help="File of its verdicts (default: OUT/judge.jsonl).")] = None,
    endpoint: Annotated[str | None, typer.Option(help="URL of the server of the models.")] = None,
    api: Annotated[str, typer.Option(help="completions (base models) or chat.")] = "completions",
    key_env: Annotated[str, typer.Option(help="Environment variable with the key.")] = "OPENAI_API_KEY",
    concurrency: Annotated[int, typer.Option(help="Requests in flight.")] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    kv_gb: Annotated[float, typer.Option(help="GiB for keys and values.")] = 2.0,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; the same command resumes there.")] = None,
) -> None:
    """Study base models: answering, exploration, self-reflection, templates, lengths, contamination."""
    from zerolab.analysis.command import JudgeOptions, Options, run
    from zerolab.analysis.study import Plan, floats, names
    from zerolab.evaluation.command import Options as Shared
    from zerolab.evaluation.command import Served
    from zerolab.evaluation.samplers import Machine

    shared = Shared(targets[0], benchmarks, data_dir, limit, samples=samples, budget=budget, seed=seed)
    plan = Plan(shared, names(templates, "--templates"), floats(temperatures, "--temperatures"), prefix)
    asked = JudgeOptions(judge, judge_model, judge_cache, key_env, concurrency)
    served = Served(endpoint, api, key_env, concurrency)
    options = Options(tuple(targets), extractor, words, asked, out)
    if not run(options, plan, served, Machine(device, precision, kv_gb), resolve_model):
        raise typer.Exit(1)


@app.command(rich_help_panel=EVALUATE, epilog=example("overlap train.jsonl --benchmarks questions.jsonl"))
def overlap(
    training: Annotated[list[str], typer.Argument(help="Training sets: files, built-in names, hub ids.")],
    benchmarks: Annotated[str, typer.Option(help="Names or question files, separated by commas.")] = "paper,gsm8k",
    data_dir: Annotated[str | None, typer.Option(help="Folder with NAME.jsonl, searched before the hub.")] = None,
    ngram: Annotated[int, typer.Option(help="Consecutive words that a match must share.")] = 13,
    out: Annotated[Path | None, typer.Option(help="Folder for the table and every match.")] = None,
) -> None:
    """Find benchmark questions in training sets by shared sequences of words."""
    from zerolab.analysis.command import run_overlap

    run_overlap(training, benchmarks, data_dir, ngram, out)


@app.command(rich_help_panel=PROVE, epilog=example("certify dr_grpo grpo"))
def certify(
    presets: Annotated[list[str] | None, typer.Argument(help="Names of presets (default: all).")] = None,
    overrides: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a coordinate.")
    ] = NO_OVERRIDES,
    json: Annotated[Path | None, typer.Option("--json", help="Write every number to this file.")] = None,
    png: Annotated[Path | None, typer.Option("--png", help="Draw the two weight curves; also writes a CSV.")] = None,
    ranks: Annotated[bool, typer.Option(help="Also split a step over two processes (gloo).")] = True,
) -> None:
    """Prove on an enumerable policy what each objective optimises. Exit with 1 if an invariant is broken."""
    from zerolab.audit.command import run_certify

    if not run_certify(presets or [], overrides, json, png, ranks):
        raise typer.Exit(1)


@app.command(rich_help_panel=PROVE, epilog=example("audit my_package.losses:loss"))
def audit(
    target: Annotated[
        str, typer.Argument(help="trl, verl or openrlhf (:VARIANT), module:function, or a TRL config file.")
    ],
    json: Annotated[Path | None, typer.Option("--json", help="Write every number to this file.")] = None,
    png: Annotated[Path | None, typer.Option("--png", help="Draw the two weight curves.")] = None,
    fail_on: Annotated[str, typer.Option(help="Rows that may not be biased: length,split,...")] = "",
    python: Annotated[str | None, typer.Option(help="Python interpreter in which the library is installed.")] = None,
) -> None:
    """Measure what the loss of another library optimises. Exit with 1 if a row of --fail-on is biased."""
    from zerolab.audit.command import run_audit

    if not run_audit(target, json, png, fail_on, python):
        raise typer.Exit(1)


@app.command(
    rich_help_panel=PROVE,
    epilog=example("drift smollm2-135m-instruct-q4 --questions synthetic:facts --template chat"),
)
def drift(
    model: Annotated[str, typer.Argument(help="Folder, hub id or laptop base; without --questions a training recipe.")],
    questions: Annotated[str | None, typer.Option(help="File, name, hub id, synthetic:... with questions.")] = None,
    objectives: Annotated[str, typer.Option(help="Presets, separated by commas.")] = "grpo,dr_grpo",
    loss: Annotated[str | None, typer.Option(help="Also your own loss: module:function or file.py:function.")] = None,
    trl: Annotated[Path | None, typer.Option(help="Also the loss of a TRL configuration, YAML or JSON.")] = None,
    truncation: Annotated[str, typer.Option(help="zero, mask, keep, separated by commas.")] = "",
    template: Annotated[str | None, typer.Option(help="Template of the prompt.")] = None,
    count: Annotated[int | None, typer.Option(help="Questions of the rollout (default: 16).", min=1)] = None,
    samples: Annotated[int | None, typer.Option(help="Responses to each question (default: 8).", min=2)] = None,
    measured: Annotated[int, typer.Option(help="Other questions, on which a step is measured.", min=2)] = 32,
    measured_samples: Annotated[int, typer.Option(help="Responses to each of the other questions.", min=2)] = 8,
    budget: Annotated[int | None, typer.Option(help="Most tokens of a response (default: 128).", min=1)] = None,
    lr: Annotated[float | None, typer.Option(help="Change of each parameter in a step along sign(g) (1e-5).")] = None,
    norm: Annotated[
        float | None, typer.Option(help="Norm of a step along g (default: 1/4 of that along sign(g)).")
    ] = None,
    layers: Annotated[
        int | None, typer.Option(help="Change only this many last layers, to save memory.", min=1)
    ] = None,
    plain: Annotated[bool, typer.Option(help="Also sample from the changed model, to check the result.")] = True,
    data_dir: Annotated[str | None, typer.Option(help="Folder with NAME.jsonl, searched before the hub.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the questions and samples.", min=0)] = None,
    overrides: Overrides = NO_OVERRIDES,
    out: Annotated[
        Path | None, typer.Option(help="Folder for CSV, JSON and figure (default: runs/drift/NAME).")
    ] = None,
) -> None:
    """Measure the effect of one step under each objective on accuracy, lengths and truncation, before training."""
    from zerolab.drift.command import Target, names, run
    from zerolab.drift.first_step import DriftOptions

    target = Target(
        model, questions, names(objectives), loss, trl, names(truncation), template, count, samples, budget, lr, seed,
        data_dir, overrides,
    )  # fmt: skip
    run(target, DriftOptions((), measured, measured_samples, norm, layers, plain), out)


@app.command("import-trl", rich_help_panel=TRAIN, epilog=example("import-trl config.yaml"))
def import_trl(
    file: Annotated[Path, typer.Argument(help="YAML or JSON of GRPOConfig, or of the trl grpo command line.")],
    out: Annotated[Path | None, typer.Option(help="Recipe to write (default: in the folder of the file).")] = None,
    processes: Annotated[int, typer.Option(help="Processes of the TRL run, on which the rollout size depends.")] = 1,
    rows: Annotated[int | None, typer.Option(help="Rows of the data set, for num_train_epochs.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing recipe.")] = False,
) -> None:
    """Convert a TRL configuration to a recipe, and list what differs, key by key."""
    from zerolab.importing.command import run

    echo(run(file, out, processes, rows, overwrite))
