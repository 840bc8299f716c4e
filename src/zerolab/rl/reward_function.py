"""Reward functions of a user, with TRL's signature, so that existing ones work unchanged.

f(prompts, completions, completion_ids, **columns) -> list[float | None], everything by keyword and one entry for each
response; `columns` are those of the question file, and trainer_state, log_extra and log_metric as TRL passes them. It
is called once for each question, with its G responses. It is the user's own code and runs in this process.
"""

import asyncio
import difflib
import importlib
import importlib.util
import inspect
import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from zerolab.datatypes import Completion, Prompt
from zerolab.errors import UserError
from zerolab.rl.reward_config import RewardFunction

GIVEN = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
NOT_COLUMNS = ("prompt", "completion", "completion_ids")  # TRL does not pass these


@dataclass(frozen=True)
class Term:
    """A loaded reward function: `rewards_G` calls it for a question and checks what comes back."""

    config: RewardFunction
    call: Callable[..., Any]
    messages: bool

    def rewards_G(self, prompt: Prompt, completions: Sequence[Completion]) -> np.ndarray:
        """float64, unweighted, NaN where the function returned None. Raises UserError for anything else than that."""
        arguments = self._arguments(prompt, completions)
        try:
            returned = self.call(**arguments)
            if inspect.isawaitable(returned):
                returned = asyncio.run(_awaited(returned))
            returned = list(returned)
        except (Exception, SystemExit) as error:
            raise self._failed(prompt, f"{type(error).__name__}: {error}{_place(error)}") from error
        if len(returned) != len(completions):
            raise self._failed(prompt, f"it returned {len(returned)} rewards for {len(completions)} responses")
        return np.array([self._number(value, prompt) for value in returned])

    def _arguments(self, prompt: Prompt, completions: Sequence[Completion]) -> dict[str, Any]:
        size, question = len(completions), prompt.question
        columns = {"answer": question.answers[0], **question.columns}
        for argument, column in self.config.columns.items():
            if column not in columns:
                raise self._lacks(prompt, column, columns)
            columns[argument] = columns[column]
        given: dict[str, Any] = {
            **{name: [value] * size for name, value in columns.items() if name not in NOT_COLUMNS},
            "prompts": [[{"role": "user", "content": question.text}] if self.messages else prompt.text] * size,
            "completions": [
                [{"role": "assistant", "content": c.text}] if self.messages else c.text for c in completions
            ],
            "completion_ids": [c.token_ids_L.tolist() for c in completions],
            "trainer_state": SimpleNamespace(global_step=completions[0].version if size else 0),
            "log_extra": _ignore,
            "log_metric": _ignore,
        }
        parameters = _parameters(self.call)
        if any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
            wanted = given
        else:
            wanted = {name: given[name] for name in parameters if name in given}
        for name, parameter in parameters.items():
            optional = parameter.default is not parameter.empty or parameter.kind in _VARIADIC
            if name not in given and not optional:
                raise self._lacks(prompt, name, columns)
        return wanted

    def _number(self, value: Any, prompt: Prompt) -> float:
        if value is None:
            return math.nan
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise self._failed(prompt, f"it returned {value!r:.60}, which is neither a number nor None") from None
        if math.isinf(number):
            raise self._failed(prompt, "it returned an infinite reward")
        return number

    def _failed(self, prompt: Prompt, why: str) -> UserError:
        return UserError(f"reward function {self.config.path} failed on question {prompt.question.id}: {_line(why)}")

    def _lacks(self, prompt: Prompt, column: str, columns: dict[str, Any]) -> UserError:
        near = difflib.get_close_matches(column, columns, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(columns)}"
        return UserError(
            f"reward function {self.config.path} asks for {column!r}, which question {prompt.question.id} does not "
            f"have ({hint}); reward.functions.columns gives an argument a column of another name"
        )


_VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def load_terms(functions: Sequence[RewardFunction], chat: bool = False) -> tuple[Term, ...]:
    """The functions of a config, imported. `chat`: the template is a conversation. Raises UserError with one line."""
    return tuple(
        Term(f, _load(f), messages=f.completions == "messages" or (f.completions == "auto" and chat)) for f in functions
    )


def _load(config: RewardFunction) -> Callable[..., Any]:
    place, _, name = config.path.rpartition(":")
    try:
        module = _module(place)
        found = getattr(module, name, None)
        if found is not None and config.options:
            found = found(**config.options)
    except (Exception, SystemExit) as error:
        why = _line(f"{type(error).__name__}: {error}{_place(error)}")
        raise UserError(f"reward function {config.path} cannot be loaded: {why}") from error
    if not callable(found):
        near = difflib.get_close_matches(name, [n for n, f in vars(module).items() if callable(f)], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"reward function {config.path}: {place} has no function {name}{hint}")
    return found


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        return importlib.import_module(place)
    spec = importlib.util.spec_from_file_location(f"zerolab_reward_{Path(place).stem}", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _parameters(call: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(call).parameters)
    except (TypeError, ValueError):  # of a callable without a signature everything is asked
        return {"given": inspect.Parameter("given", inspect.Parameter.VAR_KEYWORD)}


async def _awaited(returned: Any) -> Any:
    return await returned


def _ignore(*_: Any, **__: Any) -> None:
    """log_extra and log_metric: accepted, and not kept."""


def _place(error: BaseException) -> str:
    """Where in the user's file it happened."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if len(frames) > 1 else ""


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
