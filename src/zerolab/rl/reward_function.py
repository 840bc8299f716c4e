"""Reward functions of the user. They have TRL's signature, so functions written for TRL work unchanged.

f(prompts, completions, completion_ids, **columns) -> list[float | None]. All arguments are passed by keyword and have
one entry per response. `columns` are the columns of the question file; trainer_state, log_extra and log_metric are
passed as in TRL. A function is called once per question, with its G responses. All functions of a run share one
process, separate from training. The process is killed if a call misses its deadline.
"""

import asyncio
import difflib
import importlib
import importlib.util
import inspect
import json
import math
import os
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from zerolab.datatypes import Completion, Prompt, Question
from zerolab.errors import UserError
from zerolab.grading.sandbox import JsonWorker, WorkerDied, WorkerTimeout
from zerolab.rl.reward_config import RewardConfig, RewardFunction

GIVEN = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
NOT_COLUMNS = ("prompt", "completion", "completion_ids")  # TRL does not pass these


LOAD_SECONDS = 600.0  # for importing the functions; some load a model
SERVE = "from zerolab.rl.reward_function import serve; serve()"


class RewardProcess:
    """The process that runs the reward functions. Calls from several threads take turns.

    Raises UserError with a one-line message if a function cannot be loaded.
    """

    def __init__(self, functions: Sequence[RewardFunction], chat: bool, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.worker = JsonWorker(["-c", SERVE], {}, quiet=False)
        self.turn = threading.Lock()
        weakref.finalize(self, self.worker.kill)
        paths = ", ".join(function.path for function in functions)
        dumped = [function.model_dump(mode="json") for function in functions]
        self._exchange(
            {"sys_path": sys.path, "functions": dumped, "chat": chat, "timeout_s": timeout_s},
            LOAD_SECONDS,
            died=f"reward function {paths} cannot be loaded: its process ended with code {{code}}",
            late=f"reward function {paths} cannot be loaded: importing it took more than {LOAD_SECONDS:g} s",
        )

    def rewards_G(self, number: int, config: RewardFunction, prompt: Prompt, completions: Sequence[Completion]) -> Any:
        """The list that function `number` returns for a question: a number or None for each completion.

        Raises UserError for any other result, and if the call fails or misses its deadline.
        """
        failed = f"reward function {config.path} failed on question {prompt.question.id}: "
        return self._exchange(
            {"function": number, "prompt": _sent_prompt(prompt), "completions": [_sent(c) for c in completions]},
            self.timeout_s,
            died=failed + "it ended its process with code {code}",
            late=f"{failed}no reward within {self.timeout_s:g} s; make it faster or raise reward.timeout_s",
        )

    def _exchange(self, message: dict[str, Any], seconds: float, died: str, late: str) -> Any:
        with self.turn:
            try:
                self.worker.send(message)
                reply = self.worker.receive(seconds)
            except WorkerTimeout as error:
                raise UserError(late) from error
            except WorkerDied as error:
                raise UserError(died.format(code=self.worker.process.returncode)) from error
            except BaseException:
                self.worker.kill()  # a reply that nobody reads must not answer the next call
                raise
        if "error" in reply:
            raise UserError(reply["error"])
        return reply["rewards"]

    def close(self) -> None:
        self.worker.kill()


def _sent_prompt(prompt: Prompt) -> dict[str, Any]:
    question = prompt.question
    columns = json.loads(json.dumps(dict(question.columns), default=_plain))
    return {
        "id": question.id,
        "question": question.text,
        "answers": question.answers,
        "text": prompt.text,
        "columns": columns,
    }


def _sent(completion: Completion) -> dict[str, Any]:
    return {"text": completion.text, "ids": completion.token_ids_L.tolist(), "version": completion.version}


def _plain(value: Any) -> Any:
    """Convert a value that JSON does not have: an array to a list, anything else (a date, bytes) to text."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


@dataclass(frozen=True)
class Term:
    """A reward function of a run, called in the reward process."""

    config: RewardFunction
    number: int
    process: RewardProcess

    def rewards_G(self, prompt: Prompt, completions: Sequence[Completion]) -> np.ndarray:
        """Unweighted rewards in float64, NaN if the function returned None. Raises UserError for any other result."""
        rewards = self.process.rewards_G(self.number, self.config, prompt, completions)
        return np.array([math.nan if reward is None else reward for reward in rewards], dtype=float)


def load_terms(config: RewardConfig, chat: bool = False) -> tuple[Term, ...]:
    """Load the functions of a config in a new process. Raises UserError if one cannot be loaded.

    Args:
        chat: whether the template is a conversation.
    """
    if not config.functions:
        return ()
    process = RewardProcess(config.functions, chat, config.timeout_s)
    return tuple(Term(function, number, process) for number, function in enumerate(config.functions))


def close_terms(terms: Sequence[Term]) -> None:
    """End the reward process."""
    for term in terms[:1]:
        term.process.close()


# The code below runs in the reward process.


@dataclass(frozen=True)
class LoadedFunction:
    """An imported reward function, with checks of the rewards that it returns."""

    config: RewardFunction
    call: Callable[..., Any]
    messages: bool

    def rewards(self, prompt: Prompt, completions: Sequence[Completion]) -> list[float | None]:
        """Unweighted rewards of one question.

        Raises UserError unless the function returns a finite number or None for each completion.
        """
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
        return [self._number(value, prompt) for value in returned]

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

    def _number(self, value: Any, prompt: Prompt) -> float | None:
        if value is None:
            return None
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise self._failed(prompt, f"it returned {value!r:.60}, which is neither a number nor None") from None
        if math.isinf(number):
            raise self._failed(prompt, "it returned an infinite reward")
        if math.isnan(number):
            raise self._failed(prompt, "it returned NaN, which is no reward; return None to give no score")
        return number

    def _failed(self, prompt: Prompt, why: str) -> UserError:
        return UserError(f"reward function {self.config.path} failed on question {prompt.question.id}: {_line(why)}")

    def _lacks(self, prompt: Prompt, column: str, columns: dict[str, Any]) -> UserError:
        near = difflib.get_close_matches(column, columns, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(columns)}"
        return UserError(
            f"reward function {self.config.path} asks for {column!r}, which question {prompt.question.id} does not "
            f"have ({hint}); set reward.functions.columns to take a column of another name"
        )


_VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def load_functions(functions: Sequence[RewardFunction], chat: bool) -> list[LoadedFunction]:
    """Import the functions of a config in this process. Raises UserError if one cannot be loaded."""
    return [
        LoadedFunction(f, _load(f), messages=f.completions == "messages" or (f.completions == "auto" and chat))
        for f in functions
    ]


def serve() -> None:
    """Load the functions that the first line of stdin names, then answer one call per line until stdin ends.

    Stdout carries only the replies; the output of the functions goes to stderr.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    loaded: list[LoadedFunction] | None = None
    timeout_s = LOAD_SECONDS
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if loaded is None:
                sys.path[:] = request["sys_path"]
                loaded = load_functions([RewardFunction(**f) for f in request["functions"]], request["chat"])
                reply: dict[str, Any] = {"rewards": []}
                timeout_s = request["timeout_s"]
            else:
                # The parent kills a late process. If the parent is gone, this timer kills it, even in a long regular
                # expression.
                signal.setitimer(signal.ITIMER_REAL, timeout_s + 5)
                reply = {"rewards": _answer(loaded[request["function"]], request)}
                signal.setitimer(signal.ITIMER_REAL, 0)
        except UserError as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            reply = {"error": str(error)}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _answer(function: LoadedFunction, request: Mapping[str, Any]) -> list[float | None]:
    asked, empty = request["prompt"], np.empty(0, np.float32)
    question = Question(asked["id"], asked["question"], tuple(asked["answers"]), columns=asked["columns"])
    completions = [
        Completion(number, c["text"], np.array(c["ids"], dtype=np.int64), empty, "stop", c["version"])
        for number, c in enumerate(request["completions"])
    ]
    return function.rewards(Prompt(question, asked["text"], ()), completions)


def _load(config: RewardFunction) -> Callable[..., Any]:
    source, _, name = config.path.rpartition(":")
    try:
        module = _import(source)
        found = getattr(module, name, None)
        if found is not None and config.options:
            found = found(**config.options)
    except (Exception, SystemExit) as error:
        why = _line(f"{type(error).__name__}: {error}{_place(error)}")
        raise UserError(f"reward function {config.path} cannot be loaded: {why}") from error
    if not callable(found):
        near = difflib.get_close_matches(name, [n for n, f in vars(module).items() if callable(f)], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"reward function {config.path}: {source} has no function {name}{hint}")
    return found


def _import(source: str) -> ModuleType:
    """Import a module by name, or a file that ends in .py."""
    if not source.endswith(".py"):
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        return importlib.import_module(source)
    spec = importlib.util.spec_from_file_location(f"zerolab_reward_{Path(source).stem}", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _parameters(call: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(call).parameters)
    except (TypeError, ValueError):  # a callable without a signature gets every argument
        return {"given": inspect.Parameter("given", inspect.Parameter.VAR_KEYWORD)}


async def _awaited(returned: Any) -> Any:
    return await returned


def _ignore(*_: Any, **__: Any) -> None:
    """Accept log_extra and log_metric and keep nothing."""


def _place(error: BaseException) -> str:
    """File and line of the user's code at which an error happened, as " (file:line)"."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if len(frames) > 1 else ""


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
