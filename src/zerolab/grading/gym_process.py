"""reasoning-gym inside a worker process: makes questions, scores answers, and evaluates neither.

Some of its scorers hand the answer to `eval`, others to sympy's parse_expr, which evaluates too. Before anything is
scored both are replaced here: `eval` by a reader of literals and arithmetic, parse_expr by one that lets only formulas
of known names through. Some tasks order sets of texts, so the worker runs with a fixed hash seed.
"""

import ast
import dataclasses
import json
import operator
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

LONGEST = 2000  # characters of a text that is read as a formula
SIZE = 500  # questions of a task that makes all of them at once
ENDLESS = 2**31 - 1

REFUSED = {
    "composite": "it mixes other tasks: list these as questions.sources",
    "game_of_life_halting": "its scorer takes any text for a right answer",
    "list_functions": "its questions are not the same in every process",
    "puzzle24": "its scorer does not ask for the numbers of the question",
    "knight_swap": "its questions are not the same in every process",
}
ALL_AT_ONCE = frozenset({"acre", "gsm_symbolic", "word_ladder"})

_FORMULA = re.compile(r"[0-9A-Za-z+\-*/^()., \t\n]*")
_NAMES = frozenset(
    "sin cos tan cot sec csc asin acos atan sinh cosh tanh exp log ln sqrt pi Abs".split()  # noqa: SIM905
)
_WORD = re.compile(r"[A-Za-z]+[0-9]*")
_HUGE_POWER = re.compile(r"(\*\*|\^)\s*\(?\s*-?\s*([0-9]{4,}|[0-9]+\s*(\*\*|\^))")
_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
    ast.BitXor: operator.xor, ast.LShift: operator.lshift, ast.RShift: operator.rshift,
}  # fmt: skip
_UNARY: dict[type, Callable[[Any], Any]] = {
    ast.UAdd: operator.pos, ast.USub: operator.neg, ast.Invert: operator.invert,
}  # fmt: skip


def read_literal(text: Any, *_: Any) -> Any:
    """What `eval` would give for a literal or for arithmetic on numbers. Raises ValueError for any other text."""
    if not isinstance(text, str) or len(text) > LONGEST:
        raise ValueError("not read as a literal")
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    try:
        return _number(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise ValueError(f"not read as a literal: {type(error).__name__}") from None


def _number(node: ast.AST) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_number(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = _number(node.left), _number(node.right)
        if isinstance(node.op, ast.LShift) and right > 4096:
            raise ValueError("not read as a literal: shift")
        return _BINARY[type(node.op)](left, right)
    raise ValueError(f"not read as a literal: {type(node).__name__}")


def is_formula(text: Any) -> bool:
    """Whether parse_expr may see this text: numbers, letters and known functions, no attribute, index or quotation."""
    if not isinstance(text, str) or len(text) > LONGEST or not _FORMULA.fullmatch(text):
        return False
    if re.search(r"[A-Za-z)]\s*\.|\.\s*[A-Za-z(]|[0-9]\.[0-9]*\.", text) or _HUGE_POWER.search(text):
        return False
    return all(len(word) == 1 or word in _NAMES or re.fullmatch(r"[a-z][0-9]+", word) for word in _WORD.findall(text))


def load() -> str:
    """Imports reasoning_gym with both readers in place; returns its version."""
    import sympy
    from sympy.parsing import sympy_parser

    original = sympy_parser.parse_expr

    def parse_expr(text: Any, *arguments: Any, **options: Any) -> Any:
        if not is_formula(text):
            raise ValueError("not read as a formula")
        return original(text, *arguments, **options)

    import reasoning_gym

    sympy.parse_expr = parse_expr  # sympy itself goes on with its own
    for name, module in list(sys.modules.items()):
        if name.startswith("reasoning_gym."):
            vars(module)["eval"] = read_literal
            if vars(module).get("parse_expr") is original:
                vars(module)["parse_expr"] = parse_expr
    return str(getattr(reasoning_gym, "__version__", "unknown"))


@lru_cache(maxsize=32)
def dataset(task: str, options: str, level: int | None) -> Any:
    """The data set of a task; `options` as JSON. Raises ValueError, TypeError or AssertionError for what it refuses."""
    from reasoning_gym.factory import CURRICULA, DATASETS, create_curriculum, create_dataset

    keys: dict[str, Any] = json.loads(options)
    if level is not None:
        if task not in CURRICULA:
            raise ValueError("it has no levels")
        curriculum = create_curriculum(task)
        for attribute in curriculum.attributes.values():
            curriculum.set_attr_level(attribute.name, min(level, len(attribute.levels) - 1))
        made = curriculum.generate_configuration()
        names = {field.name for field in dataclasses.fields(made)} - {"seed", "size"}
        keys = {name: getattr(made, name) for name in names} | keys
    known = {field.name for field in dataclasses.fields(DATASETS[task][1])}
    if unknown := sorted(set(keys) - known):
        raise ValueError(f"it has no option {unknown[0]}; its options are {', '.join(sorted(known))}")
    return create_dataset(task, **{"seed": 0, "size": SIZE if task in ALL_AT_ONCE else ENDLESS} | keys)


@lru_cache(maxsize=512)
def entry(task: str, options: str, level: int | None, index: int) -> dict[str, Any]:
    return dataset(task, options, level)[index]


def describe(task: str, options: str, levels: list[int] | None) -> dict[str, Any]:
    """{size, tasks}: how many questions there are (None: endless). Raises what `dataset` raises."""
    from reasoning_gym.factory import CURRICULA, DATASETS, create_curriculum

    if task not in DATASETS:
        return {"tasks": sorted(set(DATASETS) - set(REFUSED))}
    for level in range(levels[0], levels[1] + 1) if levels else [None]:
        dataset(task, options, level)
    size = json.loads(options).get("size", SIZE if task in ALL_AT_ONCE else None)
    deepest = 0
    if task in CURRICULA:
        deepest = max((len(a.levels) for a in create_curriculum(task).attributes.values()), default=1) - 1
    if levels and levels[1] > deepest:
        raise ValueError(f"its levels are 0 to {deepest}")
    return {"size": size}


def serve(request: dict[str, Any]) -> Any:
    """The reply to one request of data/sources.py."""
    task, options = request["task"], json.dumps(request["options"], sort_keys=True)
    if request["do"] == "describe":
        return describe(task, options, request["levels"])
    level, index = request["level"], request["index"]
    made = entry(task, options, level, index)
    if request["do"] == "make":
        answer = made["answer"]
        return {"question": str(made["question"]), "answer": None if answer is None else str(answer)}
    return float(dataset(task, options, level).score_answer(request["answer"], made))
