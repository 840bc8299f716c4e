"""Questions of reasoning-gym, by its task names. Path `reasoning_gym:TASK`.

They are made and scored in the killable workers of the grader. An answer is right where the task's own scorer gives it
1; the partial credit that some scorers give for being close counts as wrong.
"""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from zerolab.data.families import Family
from zerolab.datatypes import Question
from zerolab.errors import UserError
from zerolab.grading.gym_process import REFUSED
from zerolab.grading.sandbox import WorkerDied, WorkerFailed, WorkerTimeout, pool

PREFIX = "reasoning_gym:"
MAKE_SECONDS = 60.0


def gym_family(task: str, options: Mapping[str, Any], levels: tuple[int, int] | None) -> Family:
    """The questions of a task: `options` are its config, `levels` (from, to) those of its curriculum, taken in turn.

    Raises UserError for an unknown task, an option or level it does not have, and where the extra is missing.
    """
    path = PREFIX + task
    if task in REFUSED:
        raise UserError(f"questions.path {path} cannot be used: {REFUSED[task]}")
    if find_spec("reasoning_gym") is None:
        raise UserError(f'questions.path {path} needs an extra: run pip install "zerolab[reasoning-gym]"')
    keys = {"task": task, "options": dict(options)}
    found = _ask(path, {"do": "describe", **keys, "levels": levels})
    if "tasks" in found:
        raise UserError(_unknown(task, found["tasks"]))
    low, many = (levels[0], levels[1] - levels[0] + 1) if levels else (None, 1)

    def question(i: int) -> Question:
        level = None if low is None else low + i % many
        place = {**keys, "level": level, "index": i // many % 2**31}
        made = _ask(path, {"do": "make", **place})
        answer = made["answer"] or ""
        shown = {} if not answer or "\\boxed" in answer or "\\fbox" in answer else {"answer": answer}
        gold = json.dumps({**place, **shown}, sort_keys=True)
        columns = {"answer": answer, "task": task}
        return Question(f"{task}:{i}", made["question"], (gold,), "reasoning_gym", level, columns)

    size = found["size"]
    return Family(task, question, None if size is None else size * many)


def _ask(path: str, request: dict[str, Any]) -> Any:
    try:
        return pool().request(request, MAKE_SECONDS)
    except WorkerTimeout:
        raise UserError(f"{path} took longer than {MAKE_SECONDS:g} s for a question: choose easier options") from None
    except (WorkerDied, WorkerFailed) as error:
        raise UserError(f"{path} refuses these options: {' '.join(str(error).split())}") from None


def _unknown(task: str, tasks: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(task, tasks, n=1)
    hint = f"did you mean {PREFIX}{near[0]}?" if near else f"it has {', '.join(tasks)}"
    return f"questions.path {PREFIX}{task}: reasoning-gym has no such task; {hint}"
