"""Templates. A template is the text around a question, the stop strings, and the rule that extracts the answer.

The text is part of the method: it alone can change the accuracy of a base model from 33 % to 8 % (2503.20783,
section 2). r1, qwen-math and none are the paper's, byte for byte. prime-zero and open-reasoner-zero are those of the
models that the paper compares with.
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

# When a response counts as formatted, in words; the rules themselves are in grading/extract.py.
STRICT_FORMAT = {
    "boxed": "the last \\boxed{} is closed and not empty",
    "answer-tag": 'the literal "</think> <answer>", then a closing "</answer>"',
    "answer-tag-lenient": "an <answer> tag that is closed, whatever stands before it",
    "last-number": "a number anywhere",
    "mention": "a name anywhere that is an answer of the family",
}


class ChatPrompt(str):
    """A prompt that already has all special tokens, written by the model's chat template."""


CHARS_PER_TOKEN = 32  # more than texts have; an exception is only slower


def make_encode(tokenizer: Any, limit: int | None = None) -> Callable[[str], list[int]]:
    """Make a function from a prompt to its token ids.

    The special tokens that the tokenizer puts before a text (usually BOS) are added, unless the prompt starts with them
    (after white space) or is a ChatPrompt. Those that it puts after a text are not added, because the response
    follows. Special tokens in the prompt itself are kept.

    Args:
        limit: of a prompt with far more tokens, only the first ids are returned, more than `limit` of them, without
            tokenizing the rest. A text of megabytes would take minutes and gigabytes.
    """
    prefix = special_prefix(tokenizer)
    names = tuple(name for name in tokenizer.convert_ids_to_tokens(prefix) if name)

    def encode(text: str) -> list[int]:
        ids = first_ids(tokenizer, text, limit)
        return ids if isinstance(text, ChatPrompt) or text.lstrip().startswith(names) else prefix + ids

    return encode


def first_ids(tokenizer: Any, text: str, limit: int | None) -> list[int]:
    """Token ids of a text without special tokens; if it has far more than `limit` tokens, the first limit + 1.

    Growing beginnings of the text are tokenized. A beginning with more than 2 * limit tokens is enough, because the
    rest of the text can change its last few tokens, but not half of them.
    """
    size = CHARS_PER_TOKEN * max(limit or 0, 1)
    while limit is not None and size < len(text):
        ids = list(tokenizer(text[:size], add_special_tokens=False)["input_ids"])
        if len(ids) > 2 * limit:
            return ids[: limit + 1]
        size *= 4
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def special_prefix(tokenizer: Any) -> list[int]:
    """Ids of the special tokens that the tokenizer puts before every text."""
    for text in ("a", "1", "."):
        special, bare = (list(tokenizer(text, add_special_tokens=add)["input_ids"]) for add in (True, False))
        starts = [i for i in range(len(special)) if bare and special[i : i + len(bare)] == bare]
        if starts:
            return special[: starts[0]]
    return []


@dataclass(frozen=True)
class Template:
    """A template. Stop strings end a response and stay in it; without them, only EOS ends a response."""

    name: str
    text: str  # has {question} once
    stop: tuple[str, ...] = ()
    extractor: str = "boxed"  # a mode of grading.extract
    chat: Chat | None = None  # `text` is then a user's turn, which the model's own chat template renders

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
        """The condition of `Grade.formatted` under this template, in words."""
        return STRICT_FORMAT[self.extractor]

    def render(self, question: str) -> str:
        """The prompt of a question. Braces and "{question}" in the question itself have no meaning."""
        before, after = self.text.split(SLOT)
        text = before + question + after
        return text if self.chat is None else self.chat.render(text)

    def bound(self, tokenizer: Any) -> Template:
        """This template for a model. Raises UserError if it needs a chat template and the tokenizer has none."""
        return self if self.chat is None else replace(self, chat=self.chat.bound(tokenizer))


@dataclass(frozen=True)
class Chat:
    """Renders one user turn with a model's own chat template, up to the beginning of the model's turn."""

    system: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # variables of the chat template, such as enable_thinking
    apply: Callable[..., str] | None = None  # apply_chat_template of a tokenizer; None before `bound`

    def bound(self, tokenizer: Any) -> Chat:
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                f"template.name is chat, but the tokenizer of {tokenizer.name_or_path or 'this model'} has no chat "
                "template: choose another template (a base model often has none), or a model that was trained for chat"
            )
        bound = replace(self, apply=tokenizer.apply_chat_template)
        bound.render("?")  # fails now, before sampling, if the chat template refuses such a conversation
        return bound

    def render(self, text: str) -> str:
        """The conversation, rendered by transformers in Jinja's sandbox. Raises UserError if the template fails."""
        if self.apply is None:
            raise UserError("template.name is chat: the prompt is known only with the model's tokenizer")
        turns = [{"role": "system", "content": self.system}] if self.system is not None else []
        turns.append({"role": "user", "content": text})
        try:
            return ChatPrompt(self.apply(turns, tokenize=False, add_generation_prompt=True, **self.options))
        except Exception as error:  # a Jinja template can raise anything
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
# From the paper's evaluation code, which quotes the model card of PRIME-RL/Eurus-2-7B-PRIME-Zero, with "LaTex".
PRIME_ZERO = Template(
    "prime-zero",
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
    "The assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
    "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, "
    "respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. "
    "User: {question}\n\nPresent the answer in LaTex format: \\boxed{Your answer}. Assistant:",
)
# Text from Open-Reasoner-Zero's playground/zero_setting_base.py, stop strings from its playground/orz_7b_ppo.py.
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

# zerolab's own examples. The paper's 4-shot prompt is not public, so 4-shot scores are not comparable with its scores.
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
    """Make a template with worked examples before the question. A response ends before the model asks a new one."""
    examples = "".join(f"Question: {question}\nAnswer: {answer}\n\n" for question, answer in shots)
    if SLOT in examples:
        raise UserError(f"template.shots must not hold {SLOT}")
    return Template("few-shot", f"{examples}Question: {SLOT}\nAnswer:", stop=("\nQuestion:",))


TEMPLATES: dict[str, Template] = {
    template.name: template for template in (R1, QWEN_MATH, NONE, few_shot(), PRIME_ZERO, OPEN_REASONER_ZERO, CHAT)
}


def make_template(config: TemplateConfig) -> Template:
    """Make the template of a config, built in or from the user's text. Raises UserError for keys that do not fit."""
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
        None, description="Text of your own template; {question} is replaced. With chat: the text of the user's turn."
    )
    system: str | None = Field(None, description="chat: text of a system turn (default: as the chat template has it).")
    chat_options: dict[str, int | float | str | bool] = Field(
        {}, description="chat: variables of the model's chat template, such as enable_thinking."
    )
    stop: tuple[str, ...] | None = Field(None, description="Stop strings (kept in the output).")
    extractor: Literal["boxed", "answer-tag", "answer-tag-lenient", "last-number", "mention"] | None = Field(
        None, description="Rule that finds the answer in the response (default: the template's)."
    )
    shots: tuple[tuple[str, str], ...] = Field((), description="few-shot: pairs of question and worked answer.")

    @model_validator(mode="after")
    def _keys_fit(self) -> TemplateConfig:
        as_value_error(make_template, self)
        return self
