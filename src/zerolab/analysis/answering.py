"""Does a response answer the question, or does it go on writing the text that the question began? Offline rules.

The rules are stated in docs/analysis.md; they look at the form of the text alone and are no judge. Where an LLM judge
ran too, the two are compared.
"""

import re
from dataclasses import dataclass
from typing import Literal

Answering = Literal["answers", "continues", "other"]
LABELS: tuple[Answering, ...] = ("answers", "continues", "other")

_NEXT = re.compile(
    r"^[^\S\n]{0,8}[#*]{0,6}[^\S\n]{0,4}(?:(?:question|problem|exercise|example|user|human|student|assistant|input)"
    r"\b[^\n:.)]{0,12}[:.)]|q[^\S\n]?\d{0,3}[:.)])",
    re.IGNORECASE | re.MULTILINE,
)
_CHOICES = re.compile(r"\(?\bA[).:].{1,100}?\(?\bB[).:].{1,100}?\(?\bC[).:]", re.DOTALL)
_FINAL = re.compile(
    r"\\(?:boxed|fbox)\s{0,4}\{|<answer>|^[^\S\n]{0,8}(?:####|A:|Answer:|Final answer)"
    r"|\b(?:answer|result|solution) (?:is|=|:)",
    re.IGNORECASE | re.MULTILINE,
)
# Kinds of sign that somebody is working on a solution; a question has one by chance, hardly two.
_WORK = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"=\s{0,4}\\?\$?\s{0,4}-?\d",
        r"\b(?:so|therefore|thus|hence|because|since|which means|it follows)\b",
        r"\bwe (?:have|get|know|need|can|find|see|obtain|want|must|use|will|start|first)\b",
        r"\b(?:first|next|then|finally|step \d)\b",
        r"\b(?:let['’]s|let us|to find|to solve|to determine|to calculate|in order to|solution|solving|substitut\w+)\b",
    )
)
_TASK = re.compile(
    r"\?|\b(?:find|compute|evaluate|determine|express|simplify|calculate|factor|what|which of|how (?:many|much|far)"
    r"|how long|solve for|prove|show that|give your|round your|write your|enter)\b",
    re.IGNORECASE,
)
_OPENING = 400  # characters in which a text that goes on with the question shows it
_BARE_WORDS = 30


@dataclass(frozen=True, slots=True)
class Ruling:
    label: Answering
    rule: str  # which of the rules below


def rule_answering(response: str) -> Ruling:
    """The label of a response and the rule that gave it, the first one that holds. Linear time."""
    following = _NEXT.search(response)
    own = response[: following.start()] if following else response
    if _FINAL.search(own):
        return Ruling("answers", "final answer")
    if sum(bool(sign.search(own)) for sign in _WORK) >= 2:
        return Ruling("answers", "work")
    if following:
        return Ruling("continues", "next question")
    if _CHOICES.search(own[:1000]):
        return Ruling("continues", "choices")
    if not re.search(r"\w", own):
        return Ruling("other", "empty")
    if _TASK.search(own[:_OPENING]):
        return Ruling("continues", "sets a task")
    if re.search(r"\d", own) and len(own.split()) <= _BARE_WORDS:
        return Ruling("answers", "bare answer")
    return Ruling("other", "nothing")
