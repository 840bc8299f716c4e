"""A template is one value: prompt text, stop strings, and where the answer stands in the response.

The text is part of the method: the same base model can fall from 33 % to 8 % by the text around the question alone
(arXiv 2503.20783, section 2). r1, qwen-math and none are the paper's, byte for byte.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zerolab.errors import UserError

if TYPE_CHECKING:
    from zerolab.config import TemplateConfig

SLOT = "{question}"

# What it takes for a response to count as formatted; the rules themselves are in grading/extract.py.
STRICT_FORMAT = {
    "boxed": "the last \\boxed{} is closed and not empty",
    "answer-tag": 'the literal "</think> <answer>", then a closing "</answer>"',
    "answer-tag-lenient": "an <answer> tag that is closed, whatever stands before it",
    "last-number": "a number anywhere",
}


@dataclass(frozen=True)
class Template:
    """`stop` ends a response and is kept in it; a response under no stop string ends by EOS alone."""

    name: str
    text: str  # holds {question} once
    stop: tuple[str, ...] = ()
    extractor: str = "boxed"  # a mode of grading.extract

    def __post_init__(self) -> None:
        if (count := self.text.count(SLOT)) != 1:
            raise UserError(f"template.text of {self.name} must hold {SLOT} once, it does {count} times")
        if self.extractor not in STRICT_FORMAT:
            known = ", ".join(STRICT_FORMAT)
            raise UserError(f"template.extractor {self.extractor!r} is unknown: choose one of {known}")
        if "" in self.stop:
            raise UserError("template.stop holds an empty string, which would end every response at once: remove it")

    @property
    def strict_format(self) -> str:
        """In words, what `Grade.formatted` means under this template."""
        return STRICT_FORMAT[self.extractor]

    def render(self, question: str) -> str:
        """The prompt. The question goes in as it is: braces or "{question}" in it have no meaning."""
        before, after = self.text.split(SLOT)
        return before + question + after


R1 = Template(
    "r1",
    "A conversation between User and Assistant. The User asks a question, and the Assistant solves it. "
    "The Assistant first thinks about the reasoning process in the mind and then provides the User with the answer. "
    "The reasoning process is enclosed within <think> </think> and answer is enclosed within <answer> </answer> tags, "
    "respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>.\n"
    "User: {question}\nAssistant: <think>",
    stop=("</answer>",),
    extractor="answer-tag",
)
QWEN_MATH = Template(
    "qwen-math",
    "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
    "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
)
NONE = Template("none", SLOT)

# zerolab's own examples: the text of the paper's 4-shot prompt is not public, so its 4-shot scores are not comparable.
SHOTS: tuple[tuple[str, str], ...] = (
    (
        "A shelf holds 4 rows of 12 jars. After 9 jars are sold, how many are left?",
        "The shelf starts with 4 * 12 = 48 jars. After the sale 48 - 9 = 39 are left. The answer is $\\boxed{39}$.",
    ),
    (
        "Solve $3x - 7 = 2x + 5$ for $x$.",
        "Subtracting $2x$ from both sides gives $x - 7 = 5$, so $x = 12$. The answer is $\\boxed{12}$.",
    ),
    (
        "A bag holds 2 red and 3 blue marbles. Two are drawn without replacement. What is the probability that both "
        "are blue?",
        "The first is blue with probability $\\frac{3}{5}$, the second then with $\\frac{2}{4}$. The product is "
        "$\\frac{3}{10}$. The answer is $\\boxed{\\frac{3}{10}}$.",
    ),
    (
        "What is the area of a triangle with vertices $(0,0)$, $(6,0)$ and $(2,5)$?",
        "Its base on the $x$-axis is 6 and its height is 5, so the area is $\\frac{1}{2} \\cdot 6 \\cdot 5 = 15$. "
        "The answer is $\\boxed{15}$.",
    ),
)


def few_shot(shots: Sequence[tuple[str, str]] = SHOTS) -> Template:
    """Worked examples before the question; a response ends where the model would ask the next one."""
    examples = "".join(f"Question: {question}\nAnswer: {answer}\n\n" for question, answer in shots)
    if SLOT in examples:
        raise UserError(f"template.shots must not hold {SLOT}")
    return Template("few-shot", f"{examples}Question: {SLOT}\nAnswer:", stop=("\nQuestion:",))


TEMPLATES: dict[str, Template] = {template.name: template for template in (R1, QWEN_MATH, NONE, few_shot())}


def make_template(config: TemplateConfig) -> Template:
    """The template of a config: built in, or the user's own text. Raises UserError for what cannot be meant."""
    built_in = TEMPLATES.get(config.name)
    if config.shots and config.name != "few-shot":
        raise UserError('template.shots belong to template.name = "few-shot": set it, or write them into template.text')
    if config.text is not None:
        if built_in:
            raise UserError(f"template.name {config.name} is built in: give your own template.text another name")
        template = Template(config.name, config.text)
    elif built_in:
        template = few_shot(config.shots) if config.shots else built_in
    else:
        close = difflib.get_close_matches(config.name, TEMPLATES, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        known = ", ".join(TEMPLATES)
        raise UserError(f"template.name {config.name!r} is unknown{hint}: choose one of {known}, or set template.text")
    return replace(
        template,
        stop=template.stop if config.stop is None else config.stop,
        extractor=config.extractor or template.extractor,
    )
