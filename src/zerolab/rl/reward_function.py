"""Reward functions of a user, with TRL's signature, so that existing ones work unchanged.

f(prompts, completions, completion_ids, **columns) -> list[float | None], everything by keyword and one entry for each
response; `columns` are those of the question file, and trainer_state, log_extra and log_metric as TRL passes them. It
is called once for each question, with its G responses. It is the user's own code: all functions of a run share one
process beside the training process, which is killed if a call misses its deadline.
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


LOAD_SECONDS = 600.0  # that importing the functions may take: some load a model
SERVE = "from zerolab.rl.reward_function import serve; serve()"


class RewardProcess:
    """The process that has the functions of a run; calls from several threads take turns. Raises UserError with one
    line for functions that cannot be loaded."""

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
        """What function `number` returns for a question, None for no opinion. Raises UserError unless it is a list of
        finite numbers and None, one for each completion."""
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
    """A column's value that JSON does not have: arrays as lists, anything else (a date, bytes) as text."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


@dataclass(frozen=True)
class Term:
    """A reward function of a run, which runs in its process."""

    config: RewardFunction
    number: int
    process: RewardProcess

    def rewards_G(self, prompt: Prompt, completions: Sequence[Completion]) -> np.ndarray:
        """float64, unweighted, NaN if the function returned None. Raises UserError for anything else than that."""
        rewards = self.process.rewards_G(self.number, self.config, prompt, completions)
        return np.array([math.nan if reward is None else reward for reward in rewards], dtype=float)


def load_terms(config: RewardConfig, chat: bool = False) -> tuple[Term, ...]:
    """The functions of a config, loaded in a process of their own. `chat`: the template is a conversation.

    Raises UserError with one line.
    """
    if not config.functions:
        return ()
    process = RewardProcess(config.functions, chat, config.timeout_s)
    return tuple(Term(function, number, process) for number, function in enumerate(config.functions))


def close_terms(terms: Sequence[Term]) -> None:
    """End the process of the functions."""
    for term in terms[:1]:
        term.process.close()


# What follows runs in that process.


@dataclass(frozen=True)
class LoadedFunction:
    """An imported reward function: `rewards` calls it for a question and checks what comes back."""

    config: RewardFunction
    call: Callable[..., Any]
    messages: bool

    def rewards(self, prompt: Prompt, completions: Sequence[Completion]) -> list[float | None]:
        """Unweighted. Raises UserError unless the function returns a finite number or None for each completion."""
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
            raise self._failed(prompt, "it returned NaN, which is no reward; None says that it has no opinion")
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


def load_functions(functions: Sequence[RewardFunction], chat: bool) -> list[LoadedFunction]:
    """The functions of a config, imported here. Raises UserError with one line."""
    return [
        LoadedFunction(f, _load(f), messages=f.completions == "messages" or (f.completions == "auto" and chat))
        for f in functions
    ]


def serve() -> None:
    """Loads the functions that the first line of stdin names, then answers every call, until stdin ends.

    What the functions print goes to stderr: stdout belongs to the replies.
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
                # The parent kills a late process. If the parent is gone, this timer does, even inside a long regular
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
