"""Pages that are written by the code they describe: docs/config.md, the tables of docs/algorithms.md and
docs/scaling.md, the words of self-reflection in docs/analysis.md, the warnings in docs/health.md, the claims in
docs/results.md, docs/claims/*.md and README.md.

python -m tools.reference docs        (make docs)
"""

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tools.command_pages import commands_page, metrics_page
from tools.ledger_tables import claim_pages, clipped, divisions, headlines, ledger, pressures
from tools.markdown import table
from tools.scaling_tables import tables

from zerolab.config import (
    CosineReward,
    DemoConfig,
    PretrainConfig,
    QuestionsConfig,
    RewardFunction,
    RunConfig,
    TextRunConfig,
)
from zerolab.data.builtin import BUILT_IN, HEADS, TEXTS, listing
from zerolab.data.families import FAMILIES
from zerolab.data.templates import TEMPLATES
from zerolab.errors import UserError
from zerolab.grading.gym_process import REFUSED
from zerolab.phrases import PHRASES
from zerolab.report.health import RULES
from zerolab.rl.objective import PRESETS, Objective
from zerolab.toml import on_resume

HEAD = """# Config reference

For whoever looks for a key of a recipe.

```
zerolab train laptop/smoke --dry-run     # every value that a run would use
```

Written by `make docs` from the code; do not edit. A recipe is a TOML file with the tables below. Unknown keys are
refused. `--set learner.lr=1e-4` overrides a key from the command line, `--dry-run` prints every value that will be
used, and a run directory keeps them in `run.json`. `--resume` takes another value of the keys with a mark: *resume* if
no number of the run depends on it; *resume, rounded* if it changes memory, speed or place, and with them the last bits.
"""


def config_page() -> str:
    """docs/config.md."""
    from zerolab.worlds.corpora import CORPORA

    recipes = (
        (RunConfig, "zerolab train", ""),
        (TextRunConfig, "zerolab pretrain", ", on texts"),
        (PretrainConfig, "zerolab pretrain", ", laptop bases"),
        (DemoConfig, "zerolab demo", ""),
    )
    parts = [HEAD]
    for model, verb, note in recipes:
        parts += [f"## Recipes of `{verb}`{note}\n", *_tables(model, "", model)]
    parts += [
        "## Values\n",
        "### Templates\n",
        table(
            ("name", "stop strings", "where the answer stands", "formatted means"),
            [
                (t.name, ", ".join(map(json.dumps, t.stop)) or "none", t.extractor, t.strict_format)
                for t in TEMPLATES.values()
            ],
        ),
        "### Built-in question sets\n",
        "Looked for in `questions.data_dir` first, then on the hub. *Checked against* files: rows and columns agree "
        "with copies of the files; hub page: seen there; unverified: a single source. Texts are for `corpora.path` "
        "of `zerolab pretrain`, looked for in `corpora.data_dir`. `zerolab questions list` prints this.\n",
        table(HEADS, listing()),
        "\n".join(f"* `{name}`: {b.about}" for name, b in {**BUILT_IN, **TEXTS}.items()) + "\n",
        "### reasoning-gym\n",
        '`questions.path = "reasoning_gym:TASK"`, with the task\'s config as `questions.options` and levels of its '
        "curriculum as `questions.levels`: [recipes.md](recipes.md). Refused are "
        + "; ".join(f"{task} ({why})" for task, why in REFUSED.items())
        + ".\n",
        "### Synthetic families\n",
    ]
    for name, (options, _) in FAMILIES.items():
        parts += [f'`questions.path = "synthetic:{name}"`, with `questions.options`:\n', _fields(options, "")]
    parts.append("### Corpora of `zerolab pretrain`\n")
    for name, (options, _) in CORPORA.items():
        how = f'`corpus.name = "{name}"` or `corpora.path = "synthetic:{name}"`, with `options` beside it:\n'
        parts += [how, _fields(options, "")]
    return "\n".join(parts)


def _tables(model: type[BaseModel], prefix: str, recipe: type[BaseModel], many: bool = False) -> Iterator[str]:
    """The keys of a config class of a recipe that are values, then one section for each of its tables."""
    name = prefix.rstrip(".")
    title, note = f"### {f'[[{name}]]' if many else f'[{name}]'}\n" if prefix else "### Top level\n", ""
    if model in (CosineReward, RewardFunction):
        note = f"Only where it is wanted. {' '.join(str(model.__doc__).split())}\n"
    if model is Objective:
        note = (
            f"`objective.preset` is one of {', '.join(PRESETS)} and sets every coordinate; keys beside it change one "
            "([algorithms.md](algorithms.md)). Without it every key is required.\n"
        )
    yield title + (f"\n{note}" if note else "")
    yield _fields(model, prefix, recipe)
    for name, info in model.model_fields.items():
        if (inner := _inner(info.annotation)) is not None and inner is not getattr(model, "shorthand", None):
            if inner is QuestionsConfig and prefix == "evaluation.":
                yield "### [evaluation.questions]\n\nThe keys of [questions].\n"
            else:
                yield from _tables(inner, f"{prefix}{name}.", recipe, get_origin(info.annotation) is tuple)
    if source := getattr(model, "shorthand", None):
        table = prefix.rstrip(".")
        yield f"### [[{prefix}sources]]\n\nWhere there is one source, these keys may stand in [{table}] itself.\n"
        yield _fields(source, f"{prefix}sources.", recipe)


def _fields(model: type[BaseModel], prefix: str, recipe: type[BaseModel] | None = None) -> str:
    def meaning(name: str, info: FieldInfo) -> str:
        mark = on_resume(recipe, prefix + name) if recipe else None
        note = {"same": "*resume*", "rounded": "*resume, rounded*", None: ""}[mark]
        return f"{info.description or ''} {note}".strip()

    rows = [
        (f"`{prefix}{name}`", _kind(info), _default(info), meaning(name, info))
        for name, info in model.model_fields.items()
        if _inner(info.annotation) is None
    ]
    return table(("key", "value", "default", "meaning"), rows)


def _inner(annotation: Any) -> type[BaseModel] | None:
    """The config class of a table: X, X | None or a tuple of X."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _kind(info: FieldInfo) -> str:
    """Type and bounds, as in: int >= 1."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [
        f"{s} {getattr(m, k)}" for m in info.metadata for k, s in signs.items() if getattr(m, k, None) is not None
    ]
    return " ".join([_type(info.annotation), " and ".join(bounds)]).strip()


def _type(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(kind) for kind in inner if kind is not type(None))
    if origin is tuple:
        return f"list of {_type(inner[0])}" if inner[-1] is ... else f"[{', '.join(map(_type, inner))}]"
    if origin is Annotated:
        return _type(inner[0])
    if origin is dict:
        return "table"
    names = {"str": "text", "bool": "true or false"}
    return names.get(annotation.__name__, annotation.__name__)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.default
    if value is None:
        return "not set"
    if isinstance(value, str | bool):
        return json.dumps(value)
    if isinstance(value, tuple):
        return json.dumps(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def presets_table() -> str:
    """Every preset as a row of coordinates."""

    def row(o: Objective) -> tuple[str, ...]:
        scale = f"{o.scale} (ddof {o.std_ddof}, + {o.std_epsilon:g})" if o.std_epsilon is not None else o.scale
        clip: str = o.clip
        if o.clip_high is not None:
            low, high = o.clip_low, o.clip_high
            bounds = {"ppo": f"[{1 - (low or 0):g}, {1 + high:g}]", "cispo": f"<= {1 + high:g}"}
            clip += " " + bounds.get(o.clip, f"[-{low}, {high}]")
        kl = f"{o.kl:g} {o.kl_estimator} in the {o.kl_place}" if o.kl else "none"
        return f"`{o.name}`", o.baseline, scale, o.ratio, clip, o.aggregation, kl

    heads = ("preset", "baseline", "scale", "ratio", "clip", "aggregation", "KL")
    return table(heads, [row(objective) for objective in PRESETS.values()])


def formulas() -> str:
    """Every preset's expanded loss, as `zerolab train RECIPE --dry-run` prints it."""
    return "\n".join(f"`{name}`\n\n```\n{objective.formula()}\n```\n" for name, objective in PRESETS.items())


def phrases_table() -> str:
    """Every phrase of self-reflection with its forms."""
    return table(("scope", "forms"), [(p.scope, ", ".join(f"`{form}`" for form in p.forms)) for p in PHRASES])


def warnings_table() -> str:
    """The warnings that a run gives, as docs/health.md has them."""
    rows = [(f"`{rule.name}`", rule.condition, rule.message, rule.remedy) for rule in RULES]
    return table(("name", "given when", "what it says", "remedy"), rows)


def between(text: str, name: str, content: str) -> str:
    """`text` with what stands between <!-- NAME:begin --> and <!-- NAME:end --> replaced by `content`."""
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise UserError(f"the markers {name}:begin and {name}:end must stand once each: put them back")
    head, rest = text.split(begin)
    return head + begin + content + end + rest.split(end)[1]


def pages(folder: Path) -> dict[Path, str]:
    """Path and text of every page that this module writes, from what lies in the folder of documents."""
    algorithms, analysis, health, results, scaling = (
        folder / f"{name}.md" for name in ("algorithms", "analysis", "health", "results", "scaling")
    )
    planned = scaling.read_text(encoding="utf-8")
    for name, content in tables(folder.parent / "benchmarks" / "results").items():
        planned = between(planned, name, content)
    readme, measured, meter = folder.parent / "README.md", folder.parent / "results", folder / "bias_meter.md"
    text = between(algorithms.read_text(encoding="utf-8"), "presets", presets_table())
    page = between(results.read_text(encoding="utf-8"), "ledger", ledger(measured))
    page = between(between(page, "divisions", divisions(measured)), "clipped", clipped(measured))
    return {
        **{folder / "claims" / name: content for name, content in claim_pages(measured).items()},
        folder / "config.md": config_page(),
        folder / "commands.md": commands_page(),
        folder / "metrics.md": metrics_page(),
        meter: between(meter.read_text(encoding="utf-8"), "pressures", pressures(measured)),
        algorithms: between(text, "formulas", formulas()),
        analysis: between(analysis.read_text(encoding="utf-8"), "phrases", phrases_table()),
        health: between(health.read_text(encoding="utf-8"), "warnings", warnings_table()),
        scaling: planned,
        results: page,
        readme: between(readme.read_text(encoding="utf-8"), "claims", headlines(measured)),
    }


if __name__ == "__main__":
    for path, content in pages(Path(sys.argv[1])).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
