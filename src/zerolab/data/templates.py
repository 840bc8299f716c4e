"""A template is one value: prompt text, stop strings, and where the answer stands in the response.

The text is part of the method: the same base model can fall from 33 % to 8 % by the text around the question alone
(arXiv 2503.20783, section 2). r1, qwen-math and none are the paper's, byte for byte; prime-zero and open-reasoner-zero
are those of the models that it compares with.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import Field, model_validator

from zerolab.errors import UserError
from zerolab.toml import Strict, as_value_error

SLOT = "{question}"

# What it takes for a response to count as formatted; the rules themselves are in grading/extract.py.
STRICT_FORMAT = {
    "boxed": "the last \\boxed{} is closed and not empty",
    "answer-tag": 'the literal "</think> <answer>", then a closing "</answer>"',
    "answer-tag-lenient": "an <answer> tag that is closed, whatever stands before it",
    "last-number": "a number anywhere",
    "mention": "a name anywhere that is an answer of the family",
}


class ChatPrompt(str):
    """A prompt in which the model's chat template has written every special token that belongs there."""


CHARS_PER_TOKEN = 32  # more than texts have; a longer text costs a second look, not a wrong answer


def make_encode(tokenizer: Any, limit: int | None = None) -> Callable[[str], list[int]]:
    """A function from a prompt to its token ids. Of a prompt of far more than `limit` tokens it gives the first ids,
    more than `limit` of them, without tokenizing the rest: a text of megabytes would take minutes and gigabytes.

    The prompt gets what the tokenizer puts before a text (usually BOS), unless the prompt begins with it (white space
    aside) or is a ChatPrompt. It never gets what the tokenizer puts after a text, because the response follows. Special
    tokens that the prompt itself holds stay where they are, at both ends.
    """
    prefix = special_prefix(tokenizer)
    names = tuple(name for name in tokenizer.convert_ids_to_tokens(prefix) if name)

    def encode(text: str) -> list[int]:
        ids = first_ids(tokenizer, text, limit)
        return ids if isinstance(text, ChatPrompt) or text.lstrip().startswith(names) else prefix + ids

    return encode


def first_ids(tokenizer: Any, text: str, limit: int | None) -> list[int]:
    """Token ids of a text, without special tokens; of one of far more than `limit` tokens the first limit + 1.

    The text is tried by its beginnings. A beginning decides if it has twice the limit of tokens, because the rest of a
    text can join a few of the last tokens before it, but not half of all.
    """
    size = CHARS_PER_TOKEN * max(limit or 0, 1)
    while limit is not None and size < len(text):
        ids = list(tokenizer(text[:size], add_special_tokens=False)["input_ids"])
        if len(ids) > 2 * limit:
            return ids[: limit + 1]
        size *= 4
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def special_prefix(tokenizer: Any) -> list[int]:
    """Ids that the tokenizer puts before every text."""
    for text in ("a", "1", "."):
        whole, bare = (list(tokenizer(text, add_special_tokens=add)["input_ids"]) for add in (True, False))
        places = [i for i in range(len(whole)) if bare and whole[i : i + len(bare)] == bare]
        if places:
            return whole[: places[0]]
    return []


@dataclass(frozen=True)
class Template:
    """`stop` ends a response and is kept in it; a response under no stop string ends by EOS alone."""

    name: str
    text: str  # holds {question} once
    stop: tuple[str, ...] = ()
    extractor: str = "boxed"  # a mode of grading.extract
    chat: Chat | None = None  # the text is then a user's turn, and the model's own chat template is put around it

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
        text = before + question + after
        return text if self.chat is None else self.chat.render(text)

    def bound(self, tokenizer: Any) -> Template:
        """This template for a model. UserError where it needs a chat template and the tokenizer has none."""
        return self if self.chat is None else replace(self, chat=self.chat.bound(tokenizer))


@dataclass(frozen=True)
class Chat:
    """One user turn under a model's own chat template, up to where the model's turn begins."""

    system: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # what the chat template may ask for: enable_thinking
    apply: Callable[..., str] | None = None  # apply_chat_template of a tokenizer

    def bound(self, tokenizer: Any) -> Chat:
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                f"template.name is chat, but the tokenizer of {tokenizer.name_or_path or 'this model'} has no chat "
                "template: choose another template (a base model often has none), or a model that was trained for chat"
            )
        bound = replace(self, apply=tokenizer.apply_chat_template)
        bound.render("?")  # a template that refuses this form of conversation does so before anything is sampled
        return bound

    def render(self, text: str) -> str:
        """The conversation, rendered by transformers in Jinja's sandbox. UserError where the template cannot."""
        if self.apply is None:
            raise UserError("template.name is chat: the prompt is known only with the model's tokenizer")
        turns = [{"role": "system", "content": self.system}] if self.system is not None else []
        turns.append({"role": "user", "content": text})
        try:
            return ChatPrompt(self.apply(turns, tokenize=False, add_generation_prompt=True, **self.options))
        except Exception as error:  # whatever a Jinja template of somebody else's raises
            raise UserError(
                f"the model's chat template fails ({' '.join(str(error).split())[:200]}): change template.system or "
                "template.chat_options, or choose another template"
            ) from error


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
# Evaluation code of the paper, which quotes the model card of PRIME-RL/Eurus-2-7B-PRIME-Zero ("LaTex" is its spelling).
PRIME_ZERO = Template(
    "prime-zero",
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
    "The assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
    "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, "
    "respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. "
    "User: {question}\n\nPresent the answer in LaTex format: \\boxed{Your answer}. Assistant:",
)
# Open-Reasoner-Zero, playground/zero_setting_base.py; stop strings of its playground/orz_7b_ppo.py.
OPEN_REASONER_ZERO = Template(
    "open-reasoner-zero",
    "A conversation between User and Assistant. The User asks a question, and the Assistant solves it. "
    "The Assistant first thinks about the reasoning process in the mind and then provides the User with the answer. "
    "The reasoning process is enclosed within <think> </think> and answer is enclosed within <answer> </answer> tags, "
    "respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. "
    "User: You must put your answer inside <answer> </answer> tags, i.e., <answer> answer here </answer>. "
    "And your final answer will be extracted automatically by the \\boxed{} tag.\nThis is the problem:\n"
    "{question}\nAssistant: <think>",
    stop=("User:", "Human:", "Assistant:", "</answer>"),
    extractor="answer-tag-lenient",
)
CHAT = Template("chat", SLOT, chat=Chat())

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


TEMPLATES: dict[str, Template] = {
    template.name: template for template in (R1, QWEN_MATH, NONE, few_shot(), PRIME_ZERO, OPEN_REASONER_ZERO, CHAT)
}


def make_template(config: TemplateConfig) -> Template:
    """The template of a config: built in, or the user's own text. Raises UserError for what cannot be meant."""
    built_in = TEMPLATES.get(config.name)
    if config.shots and config.name != "few-shot":
        raise UserError('template.shots belong to template.name = "few-shot": set it, or write them into template.text')
    if (config.system is not None or config.chat_options) and config.name != "chat":
        raise UserError('template.system and template.chat_options belong to template.name = "chat": set it')
    if config.name == "chat":
        template = Template("chat", config.text or SLOT, chat=Chat(config.system, dict(config.chat_options)))
    elif config.text is not None:
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


class TemplateConfig(Strict):
    name: str = Field(
        "none",
        description="r1, qwen-math, none, few-shot, prime-zero, open-reasoner-zero, chat (the model's own chat "
        "template), or a name of your own together with `text`.",
    )
    text: str | None = Field(
        None, description="Own template; {question} is replaced. With chat: what the user's turn says."
    )
    system: str | None = Field(None, description="chat: a system turn (default: the chat template's own, if any).")
    chat_options: dict[str, int | float | str | bool] = Field(
        {}, description="chat: variables of the model's chat template, such as enable_thinking."
    )
    stop: tuple[str, ...] | None = Field(None, description="Stop strings (kept in the output).")
    extractor: Literal["boxed", "answer-tag", "answer-tag-lenient", "last-number", "mention"] | None = Field(
        None, description="Where the answer stands in the response."
    )
    shots: tuple[tuple[str, str], ...] = Field((), description="few-shot: pairs of question and worked answer.")

    @model_validator(mode="after")
    def _can_be_made(self) -> TemplateConfig:

        as_value_error(make_template, self)
        return self
