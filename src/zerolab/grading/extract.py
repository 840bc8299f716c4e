"""From a response to the answer it claims. None means: the format was not kept.

boxed               content of the last \\boxed{...} or \\fbox{...}; unterminated or empty: None, never an earlier box
answer-tag          the strict R1 rule: the literal "</think> <answer>" and then "</answer>"; an inner box is unwrapped
answer-tag-lenient  the last <answer>...</answer>, whatever stands before it; an inner box is unwrapped
last-number         "#### 42", "A: 42", else the last number of the text; only for corpora written that way
any                 the first of answer-tag-lenient, boxed and last-number that finds something: how much of a low score
                    is format; never a reward
"""

import re
from collections.abc import Callable

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BRACE_OR_ESCAPE = re.compile(r"\\.|[{}]", re.DOTALL)
_DECIMAL = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_GROUP = r"\s?\{[^{}\n]{0,60}\}"
_ARGUMENT = rf"(?:{_GROUP}|\s?[0-9])"
_BUILT = rf"(?:\\[dtc]?frac{_ARGUMENT}{_ARGUMENT}|\\sqrt(?:\[[0-9]+\])?{_ARGUMENT}|\\pi(?![A-Za-z])|[√π])"
_POWER = rf"(?:\s?(?:\^|\*\*)(?:{_GROUP}|\(?[-+]?[0-9]+\)?))?"
_FACTOR = rf"(?:{_DECIMAL}(?:[eE][-+]?[0-9]+(?![0-9A-Za-z]))?|{_BUILT}){_POWER}!?(?:\s?\\?%)?(?:_(?:{_GROUP}|[0-9]+))?"
_OPERATOR = (
    r"\s?(?:/|\*|×|÷|\\times(?![A-Za-z])|\\cdot(?![A-Za-z])|\\div(?![A-Za-z]))\s?|(?<=[0-9)}!%])[-+−:](?=[0-9.\\])"
)
_NUMBER = re.compile(
    rf"[-−+]?\$?{_FACTOR}(?:(?:{_OPERATOR})\$?[-−]?{_FACTOR}|\s?{_BUILT}{_POWER}|\s[0-9]+/[0-9]+(?![0-9/]))*"
    r"(?:\s(?:hundred|thousand|million|billion|trillion|dozen)(?![A-Za-z]))?"
)  # fmt: skip
_PART_OF_A_NAME = re.compile(
    r"[0-9A-Za-z)\].]$|[_^]\s?\{?$|[A-Za-z)}]\s?/$"
)  # what stands before digits that are no number
_MARKED_LINE = re.compile(r"^[ \t]*(?:####|A:)(.*)$", re.MULTILINE)
_NESTED_BOXES = 4


def closing_brace(text: str, start: int) -> int | None:
    """Index of the brace that closes the one at `start`; escaped braces do not count. None: it is never closed."""
    depth = 0
    for match in _BRACE_OR_ESCAPE.finditer(text, start):
        token = match.group()
        if token == "{":
            depth += 1
        elif token == "}":
            depth -= 1
            if depth == 0:
                return match.start()
    return None


def last_box(text: str) -> str | None:
    """Content of the last box, however many boxes are nested in it."""
    last = None
    for match in _BOX.finditer(text):
        last = match
    if last is None or last.end() >= len(text) or text[last.end()] != "{":
        return None
    end = closing_brace(text, last.end())
    if end is None:
        return None
    return text[last.end() + 1 : end].strip() or None


def _unwrap(answer: str) -> str | None:
    answer = answer.strip()
    if _BOX.search(answer):
        return last_box(answer)
    return answer or None


def answer_tag(text: str) -> str | None:
    """The strict R1 rule of the paper's template."""
    if "</think> <answer>" not in text or "</answer>" not in text:
        return None
    answer = text.split("<answer>")[-1].split("</answer>")
    return _unwrap(answer[0]) if len(answer) > 1 else None


def answer_tag_lenient(text: str) -> str | None:
    """The last answer tag that is closed, without regard to the thinking before it."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    return _unwrap(text[start + len("<answer>") : end]) if start >= 0 else None


def _numbers(text: str) -> list[str]:
    """The number expressions of a text: "3/4", "2^{10}" and "1 1/2" are one each, the 2 of x_2 or cm^2 is none."""
    return [
        match.group()
        for match in _NUMBER.finditer(text)
        if not _PART_OF_A_NAME.search(text[max(0, match.start() - 3) : match.start()])
    ]


def last_number(text: str) -> str | None:
    """The number after the last "####" or "A:" line, else the last number expression of the text."""
    marked = _MARKED_LINE.findall(text)
    numbers = _numbers(marked[-1] if marked else text)
    if not numbers:
        return None
    return (numbers[0] if marked else numbers[-1]).replace("$", "")


def anywhere(text: str) -> str | None:
    """The answer in any of the known forms, the most explicit first."""
    return answer_tag_lenient(text) or last_box(text) or last_number(text)


MODES: dict[str, Callable[[str], str | None]] = {
    "boxed": last_box,
    "answer-tag": answer_tag,
    "answer-tag-lenient": answer_tag_lenient,
    "last-number": last_number,
    "any": anywhere,
}


def extract(response: str, mode: str = "boxed") -> str | None:
    """The answer in `response` as written, or None if it is not in the format of `mode`."""
    if mode not in MODES:
        from zerolab.errors import UserError

        raise UserError(f"unknown extraction mode {mode!r}; choose one of {', '.join(MODES)}")
    return MODES[mode](response)
