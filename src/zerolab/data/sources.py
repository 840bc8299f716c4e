"""Open the source of a config: find the file or data set, its columns and answers, and apply the filters.

`reasoning_gym:TASK` is a task of reasoning-gym. Its questions are made and scored in processes of the grader, which are
killed if they hang. An answer is right if the task's own scorer gives it 1; partial credit counts as wrong.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from zerolab.data.builtin import BUILT_IN, TEXTS
from zerolab.data.families import PREFIX, Family, make_family
from zerolab.data.question_config import QuestionSource
from zerolab.data.readers import READERS, Row, hub_rows, read_rows
from zerolab.datatypes import Question
from zerolab.errors import UserError
from zerolab.grading.golds import GoldNotes, is_marked, read_answers
from zerolab.grading.gym_process import REFUSED
from zerolab.grading.sandbox import WorkerDied, WorkerFailed, WorkerTimeout, pool

GYM_PREFIX = "reasoning_gym:"
MAKE_SECONDS = 60.0


def gym_family(task: str, options: Mapping[str, Any], levels: tuple[int, int] | None) -> Family:
    """The questions of a reasoning-gym task.

    Raises UserError for an unknown task, option or level, and if the extra is not installed.

    Args:
        options: config of the task.
        levels: lowest and highest level of its curriculum; the questions take all levels in turn.
    """
    path = GYM_PREFIX + task
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
    near = difflib.get_close_matches(task, tasks, n=1)
    hint = f"did you mean {GYM_PREFIX}{near[0]}?" if near else f"it has {', '.join(tasks)}"
    return f"questions.path {GYM_PREFIX}{task}: reasoning-gym has no such task; {hint}"


PROBLEM_KEYS = ("problem", "question", "prompt", "query", "input")
ANSWER_KEYS = ("answer", "answers", "final_answer", "expected_answer", "ground_truth", "gold", "target", "solution")
SOLUTION_KEY = "solution"  # a worked solution; only its marked final answer is the gold answer
LEVEL_KEYS = ("level", "difficulty")
MAX_REJECTED_IN_A_ROW = 20_000  # questions of a synthetic family; then the filters are taken to exclude all
_LEVEL = re.compile(r"(?:level\s*)?(\d{1,9})", re.IGNORECASE)


def open_source(source: QuestionSource, data_dir: str | None = None) -> tuple[str, list[Question] | Family]:
    """(name, questions that pass the filters in file order, or an endless family). Ids start with the name.

    Raises UserError for a missing or empty source, a malformed row, or a question without an answer.
    """
    family = _family(source)
    if family is not None:
        if family.size is None and source.limit is None:
            return family.name, family
        numbers = range(family.size) if family.size is not None else count()
        return family.name, _filter(map(family.question, numbers), source, MAX_REJECTED_IN_A_ROW)
    located, name, rows = _locate(source, data_dir)
    notes = GoldNotes()
    found = _filter(_questions(name, rows, located, notes), located)
    notes.tell()
    return name, found


def _family(source: QuestionSource) -> Family | None:
    """The synthetic family or reasoning-gym task of the path; None for other paths."""
    if source.path.startswith(PREFIX):
        return make_family(source.path.removeprefix(PREFIX), source.options)
    if source.path.startswith(GYM_PREFIX):
        return gym_family(source.path.removeprefix(GYM_PREFIX), source.options, source.levels)
    return None


def _locate(source: QuestionSource, data_dir: str | None) -> tuple[QuestionSource, str, Iterator[Row]]:
    """(source, with the columns and levels of a built-in set filled in; prefix of the ids; rows)."""
    path = Path(source.path).expanduser()
    local = _in_folder(source.path, data_dir)
    if local is not None:
        return source, source.path, read_rows(local)
    if path.exists():
        return source, path.stem, read_rows(path)
    if built_in := BUILT_IN.get(source.path):
        known = {key: getattr(source, key) or getattr(built_in, key) for key in ("problem_key", "answer_key", "levels")}
        rows = hub_rows(built_in.hub_id, source.subset or built_in.subset, source.split or built_in.split)
        if built_in.convert is not None:
            rows = ((place, built_in.convert(row)) for place, row in rows)
        if built_in.unique:
            rows = _once(rows, built_in.problem_key or "")
        return source.model_copy(update=known), source.path, rows
    if path.suffix in READERS:
        raise UserError(f"{path}: no such file")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source.path) and not source.path.startswith("."):
        return source, source.path, hub_rows(source.path, source.subset, source.split or "train")
    close = difflib.get_close_matches(source.path, BUILT_IN, n=1)
    if source.path in TEXTS:
        raise UserError(
            f"questions.path {source.path} is a set of texts, not of questions: see `zerolab questions list`"
        )
    raise UserError(
        f"questions.path {source.path!r} is no file, hub id or built-in name"
        + (f" (did you mean {close[0]}?)" if close else f": built in are {', '.join(BUILT_IN)}")
    )


def _once(rows: Iterable[Row], problem_key: str) -> Iterator[Row]:
    """The rows without those whose question has come before."""
    seen: set[str] = set()
    for place, row in rows:
        text = json.dumps(_dig(row, problem_key))
        if text not in seen:
            seen.add(text)
            yield place, row


def _in_folder(name: str, data_dir: str | None) -> Path | None:
    """The file NAME.jsonl (.json, .csv, .parquet) in the local folder; None if it is not there."""
    if data_dir is None:
        return None
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise UserError(f"questions.data_dir {data_dir}: no such folder")
    if "/" in name:
        return None
    return next((file for suffix in READERS if (file := folder / f"{name}{suffix}").is_file()), None)


def _questions(name: str, rows: Iterable[Row], source: QuestionSource, notes: GoldNotes) -> Iterator[Question]:
    for number, (place, row) in enumerate(rows):
        _, text = _column(row, source.problem_key, PROBLEM_KEYS, "question", place)
        key, answer = _column(row, source.answer_key, ANSWER_KEYS, "answer", place)
        if key == SOLUTION_KEY and isinstance(answer, str) and not is_marked(answer):
            raise UserError(f"{place}: no answer: the solution holds neither \\boxed{{}} nor ####")
        columns = row if isinstance(row, Mapping) else {}
        question = _text(text, place)
        answers = tuple(_unicode(gold, place) for gold in read_answers(answer, place, notes))
        notes.see(question, answers, place)
        yield Question(f"{name}:{number}", question, answers, level=_level(row), columns=columns)


def _column(row: Any, key: str | None, known: tuple[str, ...], content: str, place: str) -> tuple[str, Any]:
    """(name, value) of the column `key`, or without key of the first known name with a value.

    A key may be a path, as a.b.0. Raises UserError if there is no value.
    """
    for name in (key,) if key else known:
        value = row.get(name) if isinstance(row, Mapping) else None
        if value is None and "." in name:
            value = _dig(row, name)
        if value is not None:
            return name, value
    if key is None and not isinstance(row, Mapping):
        raise UserError(f"{place}: expected an object with a question and an answer, found {type(row).__name__}")
    wanted = f"under {key!r}" if key else f"under any of {', '.join(known)}"
    has = ", ".join(map(str, row))[:200] if isinstance(row, Mapping) else type(row).__name__
    option = "questions.problem_key" if content == "question" else "questions.answer_key"
    raise UserError(f"{place}: no {content} {wanted} (the row has {has}); {option} names the column")


def _dig(row: Any, path: str) -> Any:
    for part in path.split("."):
        if isinstance(row, Mapping):
            row = row.get(part)
        elif isinstance(row, list) and part.isdecimal() and int(part) < len(row):
            row = row[int(part)]
        else:
            return None
    return row


def _text(value: Any, place: str) -> str:
    """The text of a question: the value itself, or the last user turn if the value is a conversation."""
    if isinstance(value, list):
        turns = [turn.get("content") for turn in value if isinstance(turn, Mapping) and turn.get("role") == "user"]
        value = turns[-1] if turns else None
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: the question is empty or no text")
    return _unicode(value, place)


def _level(row: Any) -> int | None:
    """The level of a row, such as 3, "3" or "Level 3"; None if it has none."""
    for key in LEVEL_KEYS:
        value = row.get(key) if isinstance(row, Mapping) else None
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and (match := _LEVEL.fullmatch(value.strip())):
            return int(match[1])
    return None


def _unicode(text: str, place: str) -> str:
    """The text. Raises UserError for half of a surrogate pair, which would stop a tokenizer during the run."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{place}: holds a lone surrogate, which is no valid Unicode text") from None
    return text


def passes(question: Question, source: QuestionSource) -> bool:
    """Whether the filters of a source keep a question. A filter of levels drops questions without a level."""
    if source.levels is not None:
        low, high = source.levels
        if question.level is None or not low <= question.level <= high:
            return False
    return source.max_chars is None or len(question.text) <= source.max_chars


def _filter(questions: Iterable[Question], source: QuestionSource, give_up_after: int | None = None) -> list[Question]:
    """The questions that pass, at most `limit`. Stops after `give_up_after` rejected questions in a row.

    Raises UserError if no question passes.
    """
    kept: list[Question] = []
    rejected = 0
    for question in questions:
        if passes(question, source):
            kept.append(question)
            rejected = 0
        else:
            rejected += 1
        if len(kept) == source.limit or rejected == give_up_after:
            break
    if not kept:
        filtered = source.levels is not None or source.max_chars is not None
        raise UserError(f"{source.path}: no questions" + (" left by levels and max_chars" if filtered else ""))
    return kept
